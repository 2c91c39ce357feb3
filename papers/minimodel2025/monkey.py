"""
Full model and minimodels of macaque V1, by the strength of the Hoyer penalty (Du et al. 2025).

``python -m papers.minimodel2025.monkey --data FILE`` opens recordings of Cadena et al. (2019) as
`read_cadena2019` describes them, and prints FEVE on the test images, mean over all neurons, and the
channels that a minimodel uses. Models are those of the mice, of the central 80 x 80 pixels, with
the monkey's loss: the mean over the recorded trials of each neuron, without early stopping.
``--quick`` shows the same on a small simulated file of this layout.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import v1tlearn as v1

HOYER = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.01, 0.02, 0.05)
DEFAULT = 0.004
CROP = 30  # of 140 pixels, on every side
COMMON = {"loss_scale": "per_recorded", "lr_patience": 190}  # as many as there are epochs
_QUICK = {"period_epochs": (3, 1), "max_epochs": 4, "batch_size": 32, "precision": "float32"}
_QUICK |= {"space_init": 0.1, "channel_init": 0.2}


def simulate(path: Path, n_neurons: int = 6, n_trials: int = 80) -> Path:
    """Write a small simulated file; a tenth of its responses counts as not recorded."""
    recordings = v1.make_v1_recordings(
        n_mice=1, n_neurons=n_neurons, n_trials=n_trials, n_test_images=20, n_repeats=4,
        image_shape=(20, 20), behavior=False, explainable_variance=0.8, random_state=0,
    )  # fmt: skip
    dataset = recordings["A"].to_dataset()
    tiers, ids = dataset["tier"].values, dataset["image_id"].values
    images, responses = dataset["stimuli"].values, dataset["responses"].values
    single = tiers != "test"
    tested = np.unique(ids[~single])
    trials = np.stack([np.flatnonzero(ids == i) for i in tested])  # (images, repeats)
    recorded = np.random.default_rng(0).uniform(size=responses[single].shape) > 0.1
    np.savez(
        path,
        images=images[single],
        responses=responses[single],
        real_responses=recorded,
        train_idx=np.flatnonzero(tiers[single] == "train"),
        val_idx=np.flatnonzero(tiers[single] == "validation"),
        test_images=images[trials[:, 0]],
        test_responses=responses[trials].transpose(1, 0, 2),
        repetitions=np.array([4, 3] * (n_neurons // 2)),
    )
    return path


def scores(trials: v1.Trials, seed: int, device: str, quick: bool) -> pd.DataFrame:
    """Fit the full model, and minimodels on it for each strength of the penalty."""
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    common: dict[str, Any] = {**COMMON, "random_state": seed, "device": device}
    full_params: dict[str, Any] = {}
    mini_params: dict[str, Any] = {}
    if quick:
        common |= _QUICK
        full_params = {"channels": (3, 6), "kernels": (7, 5)}
        mini_params = {"hidden_channels": 4, "hidden_kernel": 5}

    def feve(model: v1.FullModelRegressor | v1.MinimodelRegressor) -> float:
        recorded = test.responses.load()
        return v1.metrics.feve(
            recorded, model.predict(test), threshold=-np.inf, shown_once="counted"
        )

    full = v1.FullModelRegressor.from_preset("minimodel2025", **full_params, **common)
    full.fit(train, validation=validation)
    rows = [{"model": "full model", "FEVE": feve(full)}]
    for strength in (0.0, DEFAULT) if quick else HOYER:
        model = v1.MinimodelRegressor.from_preset(
            "minimodel2025", full_model=full, channel_hoyer=strength, **mini_params, **common
        ).fit(train, validation=validation)
        used = float(np.mean(model.n_channels_used_[trials.mice[0]]))
        rows.append({"model": f"minimodels, {strength:g}", "FEVE": feve(model), "channels": used})
    return pd.DataFrame(rows).assign(seed=seed)


def main() -> None:
    """Fit all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="file with the recordings (.npz)")
    source.add_argument("--quick", action="store_true", help="small models, simulated recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = simulate(Path(folder) / "simulated.npz") if args.quick else args.data
        trials = v1.Trials(v1.read_cadena2019(path, crop=0 if args.quick else CROP))
        every = [scores(trials, seed, args.device, args.quick) for seed in args.seeds]
    by_model = pd.concat(every).groupby("model", sort=False)[["FEVE", "channels"]]
    print("Simulated recordings: values mean nothing\n" * args.quick, end="")
    print(f"Seeds {args.seeds}: mean and standard deviation")
    print(by_model.agg(["mean", "std"]).to_string(float_format="{:.3f}".format, na_rep="-"))


if __name__ == "__main__":
    main()
