"""
Factorised or Gaussian readout? The same cores with either, on simulated mice.

``python -m papers.minimodel2025.readouts`` simulates recordings with several seeds, half simple and
half complex cells whose receptive fields follow their cortical position, and prints mean and spread
over seeds of the score of a CNN and of a full model with

* a Gaussian readout that knows the cortical positions, and one that learns a place per neuron;
* a factorised readout, which knows none, with initial weights of 0.1;

and of the differences to the first. Scores are mean single-trial correlations on held-out images,
each shown ten times.
"""

import argparse

import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone

import v1tlearn as v1

# Small models for small images, trained alike.
COMMON = {"batch_size": 32, "lr": 0.005, "lr_patience": 3, "max_epochs": 20}
COMMON |= {"schedule": "plateau", "selection": "correlation"}
MODELS = {
    "CNN": v1.CNNRegressor(
        **COMMON, n_layers=2, hidden_channels=16, input_kernel=7, hidden_kernel=5
    ),
    "full model": v1.FullModelRegressor(**COMMON, channels=(8, 32), kernels=(7, 5)),
}
READOUTS = {
    "Gaussian": {"readout": "gaussian"},
    "Gaussian, no positions": {"readout": "gaussian", "position_network": False},
    "factorised": {"readout": "factorized", "space_init": 0.1, "channel_init": 0.1},
}


def one_seed(seed: int, quick: bool) -> pd.DataFrame:
    """Fit all models with all readouts to the recordings of one seed."""
    size = {"n_neurons": 6, "n_trials": 60} if quick else {"n_neurons": 60, "n_trials": 800}
    trials = v1.Trials(
        v1.make_v1_recordings(
            n_mice=1, n_test_images=40, n_repeats=10, image_shape=(18, 28), behavior=False,
            explainable_variance=0.4, random_state=seed, **size,
        )
    )  # fmt: skip
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    rows = []
    for name, model in MODELS.items():
        for readout, params in READOUTS.items():
            est = clone(model).set_params(**params, random_state=seed)
            if quick:
                est.set_params(max_epochs=2)
            score = est.fit(train, validation=validation).score(test)
            rows.append({"model": name, "readout": readout, "seed": seed, "score": score})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over seeds of scores, and of their difference to the Gaussian readout."""
    wide = table.pivot_table("score", ["model", "readout"], "seed", sort=False)
    gain = wide - wide.xs("Gaussian", level="readout").reindex(wide.index, level="model")
    parts = {"score": wide, "difference": gain}
    return pd.concat({n: part.T.agg(["mean", "std"]).T for n, part in parts.items()}, axis=1)


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    parser.add_argument("--quick", action="store_true", help="tiny recordings; shows nothing")
    args = parser.parse_args()
    every = Parallel(n_jobs=args.jobs)(delayed(one_seed)(seed, args.quick) for seed in args.seeds)
    print(f"Seeds {args.seeds}: mean and standard deviation")
    print(summary(pd.concat(every)).to_string(float_format="{:.3f}".format, na_rep="-"))


if __name__ == "__main__":
    main()
