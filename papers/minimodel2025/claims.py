"""
Is a minimodel as good as the full model? Two claims of the minimodel paper on simulated mice.

``python -m papers.minimodel2025.claims`` simulates recordings with several seeds, and prints means
and spread over seeds of

* FEVE of a full model and of minimodels on its first convolution, on the same neurons;
* channels that a minimodel uses, and FEVE, for growing strengths of the Hoyer penalty.

Scores are of held-out images, each shown ten times; of neurons whose FEV is above 0.15.
"""

import argparse
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed

import v1tlearn as v1

HOYER = (0.0, 0.03, 0.1, 0.3)
DEFAULT = 0.03
# Small models for small images; simulated cells are few beside those of a recording.
COMMON = {"lr": 0.004, "batch_size": 40, "period_epochs": (12, 4, 4), "max_epochs": 20}
FULL = {"channels": (8, 32), "kernels": (11, 5), "space_init": 0.1, "channel_init": 0.1}
MINI = {"hidden_channels": 12, "hidden_kernel": 5, "space_init": 0.1}


def one_seed(seed: int, quick: bool) -> pd.DataFrame:
    """Fit the models to the recordings of one seed."""
    size = {"n_neurons": 6, "n_trials": 120} if quick else {"n_neurons": 20, "n_trials": 800}
    trials = v1.Trials(
        v1.make_v1_recordings(
            n_mice=1, n_test_images=40, n_repeats=10, image_shape=(18, 28), behavior=False,
            explainable_variance=0.5, random_state=seed, **size,
        )
    )  # fmt: skip
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    common = {**COMMON, "random_state": seed}
    if quick:
        common |= {"period_epochs": (2, 1), "max_epochs": 3}

    def feve(model: v1.FullModelRegressor | v1.MinimodelRegressor) -> float:
        return v1.metrics.feve(test.responses, model.predict(test), strict=True)

    full = v1.FullModelRegressor(**FULL, **common).fit(train, validation=validation)
    rows = [{"model": "full model", "FEVE": feve(full)}]
    for strength in HOYER[1:2] if quick else HOYER:
        model = v1.MinimodelRegressor(
            full_model=full, **MINI, channel_hoyer=strength, **common
        ).fit(train, validation=validation)
        used = float(model.n_channels_used_[trials.mice[0]].mean())
        rows.append({"model": f"minimodels, {strength:g}", "FEVE": feve(model), "channels": used})
    return pd.DataFrame(rows).assign(seed=seed)


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    parser.add_argument("--output", type=Path, help="write all scores to this csv file")
    parser.add_argument("--quick", action="store_true", help="tiny recordings; shows nothing")
    args = parser.parse_args()
    every = Parallel(n_jobs=args.jobs)(delayed(one_seed)(seed, args.quick) for seed in args.seeds)
    table = pd.concat(every, ignore_index=True)
    if args.output is not None:
        table.to_csv(args.output, index=False)
    print(f"Seeds {args.seeds}: mean and standard deviation")
    by_model = table.groupby("model", sort=False)[["FEVE", "channels"]]
    print(by_model.agg(["mean", "std"]).to_string(float_format="{:.3f}".format, na_rep="-"))
    wide = table.pivot_table("FEVE", "seed", "model")
    gain = wide[f"minimodels, {DEFAULT:g}"] - wide["full model"]
    spread = f", standard deviation {gain.std():.3f}" if len(gain) > 1 else ""
    print(f"\nMinimodels less full model: {gain.mean():+.3f}{spread}, seed by seed", end=" ")
    print(", ".join(f"{value:+.3f}" for value in gain))


if __name__ == "__main__":
    main()
