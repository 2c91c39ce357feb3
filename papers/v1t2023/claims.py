"""
Do ensembles, transfer and behaviour help? Three claims of the V1T paper on simulated mice.

``python -m papers.v1t2023.claims`` simulates recordings with several seeds, and prints for each
claim the scores with and without, and the mean and spread of their difference over seeds:

* behaviour: the same model with and without it (Table 1);
* ensembles: the mean of the best members against the best of them, chosen by validation score
  (Table A.5);
* transfer: a readout on the core of three other animals against training on the new animal alone,
  for growing numbers of its trials (Table A.8).

All scores are mean single-trial correlations on held-out images, each shown ten times.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone

import v1tlearn as v1

# Small models for small images: 18 x 32 pixels, a hundred neurons per mouse.
COMMON = {"batch_size": 32, "readout_bias": "mean", "readout_l1": 0.003, "lr_patience": 3}
COMMON |= {"penalty_scale": "absolute"}
MODELS = {
    "CNN": v1.CNNRegressor(
        **COMMON, n_layers=3, hidden_channels=16, input_kernel=7, hidden_kernel=5, laplace=1.0
    ),
    "V1T": v1.V1TRegressor(
        **{**COMMON, "patch_size": 6, "patch_stride": 3, "n_blocks": 2, "n_heads": 2}
        | {"embed_dim": 32, "mlp_dim": 64, "core_l1": 0.01, "lr": 0.003}
        | {"patch_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0}
    ),
}
CLAIMS = ["behaviour", "ensemble", "transfer"]
N_TRIALS = (50, 150, 450)  # of the new animal, beside all


def tiers(trials: v1.Trials) -> tuple[v1.Trials, v1.Trials, v1.Trials]:
    """Trials to train on, to choose the epoch with, and to score on."""
    return tuple(trials.sel(tier=tier) for tier in ("train", "validation", "test"))


def behaviour(name: str, trials: v1.Trials, seed: int, n_models: int) -> list[dict]:
    """Score a model with behaviour and shifter, and without either: means over model seeds."""
    train, validation, test = tiers(trials)
    model_seeds = np.random.default_rng(seed).integers(2**31, size=n_models).tolist()
    rows = []
    for label, params in (
        ("without", {"behavior_mode": "none", "shift": "none"}),
        ("with", {}),
    ):
        scores = [
            clone(MODELS[name])
            .set_params(random_state=model_seed, **params)
            .fit(train, validation=validation)
            .score(test)
            for model_seed in model_seeds
        ]
        case = f"{name}, mean of {n_models} seeds"
        value = float(np.mean(scores))
        rows.append({"claim": "behaviour", "case": case, "arm": label, "correlation": value})
    return rows


def ensemble(name: str, trials: v1.Trials, seed: int, n_candidates: int) -> list[dict]:
    """Score an ensemble, and the member with the best validation score."""
    train, validation, test = tiers(trials)
    n_members = (n_candidates + 1) // 2
    model = v1.EnsembleRegressor(
        MODELS[name], n_candidates=n_candidates, n_members=n_members, random_state=seed
    ).fit(train, validation=validation)
    scores = [member.score(test) for member in model.estimators_]
    case = f"{name}, {n_members} of {n_candidates}"
    found = {"without": scores[0], "best on test": max(scores), "with": model.score(test)}
    return [
        {"claim": "ensemble", "case": case, "arm": arm, "correlation": value}
        for arm, value in found.items()
    ]


def transfer(name: str, trials: v1.Trials, seed: int, n_trials: tuple[int, ...]) -> list[dict]:
    """Score training on one animal alone, and its readout on the core of the others."""
    *others, new = trials.mice
    train, validation, test = tiers(trials)
    model = clone(MODELS[name]).set_params(random_state=seed)
    model.fit(train.sel(mouse_id=others), validation=validation.sel(mouse_id=others))
    mine, test = train.sel(mouse_id=new), test.sel(mouse_id=new)
    rows = []
    for n in (*n_trials, len(mine)):
        some = mine[np.random.default_rng(seed).permutation(len(mine))[:n]]
        alone = clone(model).fit(some)
        for arm, fitted in (("without", alone), ("with", model.transfer(some))):
            rows.append(
                {"claim": "transfer", "case": f"{name}, {n} trials", "arm": arm}
                | {"correlation": fitted.score(test)}
            )
    return rows


def one_seed(
    seed: int, claims: list[str], models: list[str], max_epochs: int, quick: bool
) -> pd.DataFrame:
    """Claims on the recordings of one seed."""
    size = {"n_neurons": 10, "n_trials": 120} if quick else {"n_neurons": 100, "n_trials": 1500}
    recordings = v1.make_v1_recordings(
        n_mice=4, n_test_images=30, n_repeats=10, image_shape=(18, 32), random_state=seed, **size
    )
    trials = v1.Trials(recordings)
    rows = []
    for name in models:
        MODELS[name].set_params(max_epochs=max_epochs)
        if "behaviour" in claims:
            rows += behaviour(name, trials, seed, n_models=2 if quick else 3)
        if "ensemble" in claims:
            rows += ensemble(name, trials, seed, n_candidates=3 if quick else 5)
        if "transfer" in claims:
            rows += transfer(name, trials, seed, N_TRIALS[:1] if quick else N_TRIALS)
    return pd.DataFrame(rows).assign(seed=seed)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of either arm, and mean and standard deviation of their difference."""
    wide = table.pivot_table(
        index=["claim", "case", "seed"], columns="arm", values="correlation", sort=False
    )
    wide["gain"] = wide["with"] - wide["without"]
    by_case = wide.groupby(["claim", "case"], sort=False)
    return pd.DataFrame(
        {
            "without": by_case["without"].mean(),
            "with": by_case["with"].mean(),
            "gain": by_case["gain"].mean(),
            "spread": by_case["gain"].std(),
            "seeds won": by_case["gain"].agg(lambda gain: f"{(gain > 1e-6).sum()} of {len(gain)}"),
        }
    )


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--claims", nargs="+", choices=CLAIMS, default=CLAIMS)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--max-epochs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    parser.add_argument("--output", type=Path, help="write all scores to this csv file")
    parser.add_argument("--quick", action="store_true", help="tiny recordings; shows nothing")
    args = parser.parse_args()
    tables = Parallel(n_jobs=args.jobs)(
        delayed(one_seed)(seed, args.claims, args.models, args.max_epochs, args.quick)
        for seed in args.seeds
    )
    table = pd.concat(tables, ignore_index=True)
    if args.output is not None:
        table.to_csv(args.output, index=False)
    print(f"Seeds {args.seeds}")
    print("Mean single-trial correlation; 'without' an ensemble is its best member by validation\n")
    print(summary(table).to_string(float_format="{:.3f}".format))
    if "ensemble" in args.claims:
        _print_best(table)


def _print_best(table: pd.DataFrame) -> None:
    """Compare ensembles with the member that turned out best on the test set."""
    best = table[table["claim"] == "ensemble"].pivot_table(
        index=["case", "seed"], columns="arm", values="correlation"
    )
    above = (best["with"] - best["best on test"] > 1e-6).groupby("case").agg(["sum", "count"])
    for case, (won, n) in above.iterrows():
        print(f"\nEnsemble of {case}: above even the member best on the test set for {won} of {n}")


if __name__ == "__main__":
    main()
