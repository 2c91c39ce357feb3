"""What training in bfloat16 does to the score: correlations on simulated recordings.

V1T and CNN, smaller than published, are trained on recordings simulated with several seeds, from
initial weights of the same seeds, in float32 and in bfloat16 (on CUDA devices in TF32, too).
Predictions are always made in float32. The bar is on the mean difference over the seeds, of which a
few do not tell: that of a single one may be twice the bar.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import torch
from _measure import Row, parser, report
from joblib import Parallel, delayed

import v1tlearn as v1
from v1tlearn.metrics import single_trial_correlation

BAR = 0.005
SEEDS = 10
RECORDINGS = {"n_mice": 2, "n_neurons": 300, "n_trials": 2000, "n_test_images": 60, "n_repeats": 10}
QUICK = {"n_mice": 2, "n_neurons": 5, "n_trials": 40, "n_test_images": 4, "n_repeats": 3}
COMMON = {
    "image_size": (18, 32),
    "batch_size": 32,
    "readout_bias": "mean",
    "penalty_scale": "absolute",
    "readout_l1": 0.003,
    "warm_start": True,
}
MODELS = {
    "CNN": (
        v1.CNNRegressor,
        {"hidden_channels": 16, "n_layers": 3, "input_kernel": 7, "hidden_kernel": 5, "lr": 0.008},
    ),
    "V1T": (
        v1.V1TRegressor,
        {
            "patch_size": 6,
            "patch_stride": 4,
            "n_blocks": 2,
            "n_heads": 2,
            "embed_dim": 48,
            "mlp_dim": 96,
            "core_l1": 0.01,
            "patch_dropout": 0.0,
            "attention_dropout": 0.1,
            "mlp_dropout": 0.1,
            "lr": 0.003,
        },
    ),
}
EPOCHS = {"CNN": (8, 3), "V1T": (8, 3)}  # then at a quarter of the learning rate


def fit_and_score(
    model: str, precision: str, seed: int, device: str, quick: bool
) -> dict[str, float | str]:
    """Train one model and score it on images that were held out."""
    size = QUICK if quick else RECORDINGS
    shape = (16, 24) if quick else (36, 64)
    trials = v1.Trials(v1.make_v1_recordings(**size, image_shape=shape, random_state=seed))
    train, validation = trials.sel(tier="train"), trials.sel(tier="validation")
    test = trials.sel(tier="test")
    kind, parameters = MODELS[model]
    first, last = (1, 1) if quick else EPOCHS[model]
    start = time.perf_counter()
    est = kind(
        **COMMON, **parameters, random_state=seed, precision=precision, device=device
    ).set_params(max_epochs=first)
    est.fit(train, validation=validation)
    est.set_params(max_epochs=last, lr=est.lr / 4).fit(train, validation=validation)
    took = time.perf_counter() - start
    est.set_params(precision="float32")
    return {
        "model": model,
        "precision": precision,
        "seed": seed,
        "correlation": float(single_trial_correlation(test.responses, est.predict(test))),
        "oracle": float(single_trial_correlation(test.responses, test.expected_responses)),
        "seconds": took,
    }


def rows(runs: list[dict]) -> list[Row]:
    """Per model and precision: each seed, then the mean difference with its standard error."""
    out = []
    score = {(r["model"], r["precision"], r["seed"]): r for r in runs}
    models = dict.fromkeys(r["model"] for r in runs)
    seeds = sorted({r["seed"] for r in runs})
    others = [p for p in dict.fromkeys(r["precision"] for r in runs) if p != "float32"]
    for model in models:
        for precision in others:
            differences = []
            for seed in seeds:
                full, low = score[model, "float32", seed], score[model, precision, seed]
                differences.append(low["correlation"] - full["correlation"])
                out.append(
                    Row(
                        f"{model}, {precision}, seed {seed}",
                        full["correlation"],
                        low["correlation"],
                        "correlation",
                        note=(
                            f"difference {differences[-1]:+.4f}; oracle {full['oracle']:.3f}; "
                            f"fits took {full['seconds']:.0f} and {low['seconds']:.0f} s"
                        ),
                    )
                )
            mean = float(np.mean(differences))
            error = float(np.std(differences, ddof=1) / len(seeds) ** 0.5) if seeds[1:] else np.nan
            out.append(
                Row(
                    f"{model}, {precision} against float32, |mean difference|",
                    None,
                    abs(mean),
                    "correlation",
                    bar=BAR,
                    note=f"{mean:+.4f}, standard error {error:.4f} over {len(seeds)} seeds",
                    at_most=True,
                )
            )
    return out


def main() -> None:
    made = parser(__doc__)
    made.add_argument(
        "--jobs", type=int, help="fits at a time; by default one per core, one on GPU"
    )
    made.add_argument("--seeds", type=int, default=SEEDS, help="how many, from 0 on")
    made.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    args: argparse.Namespace = made.parse_args()
    cuda = args.device.startswith("cuda") or (args.device == "auto" and torch.cuda.is_available())
    jobs = args.jobs or (1 if cuda or args.quick else os.cpu_count())
    precisions = ("float32", "tf32", "bfloat16") if cuda else ("float32", "bfloat16")
    device = "cuda" if args.device == "auto" and cuda else args.device
    seeds = range(2 if args.quick else args.seeds)
    fits = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(fit_and_score)(model, precision, seed, device, args.quick)
        for model in args.models
        for seed in seeds
        for precision in precisions
    )
    runs = []
    for run in fits:
        runs.append(run)
        print("{model}, {precision}, seed {seed}: {correlation:.4f}".format(**run), flush=True)
    report("precision", rows(runs), args, runs=runs)


if __name__ == "__main__":
    main()
