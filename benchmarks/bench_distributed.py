"""Training by several processes: what of the time is communication, and how far weights come apart.

The same fit is made by one process and by two and four that `torchrun` starts on this machine, with
one thread each and Gloo. The share is that of the time of all epochs but the first in which process
0 is within sums and agreements, waiting for the others included: where there are fewer cores than
processes, that is most of it. The distance is the norm of the difference of all weights over the
norm of what training changed, with dropout off, where it is rounding alone. Speeds are printed,
too; they mean something where every process has a core of its own. GPUs, which talk by NCCL, are
not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from _measure import Row, parser, report

import v1tlearn as v1
from v1tlearn.training import join

MODELS = ("CNN", "V1T", "movies")
PROCESSES = {"full": (2, 4), "quick": (2,)}
DISTANCE_BAR = 1e-2  # of what training changed: rounding grows from step to step
_COMMON = {"random_state": 0, "device": "cpu", "precision": "float32", "validation_fraction": 0.2}


def make(kind: str, *, quick: bool) -> tuple[v1.Trials, v1.EncodingRegressor]:
    """Trials, and the model that is fitted to them."""
    if kind == "movies":
        sizes = (2, 4, 8, 2, 3) if quick else (2, 100, 24, 2, 3)
        trials = v1.Trials(v1.make_movie_recordings(*sizes, random_state=0))
        size = {"n_layers": 2, "hidden_channels": 4 if quick else 16, "window_frames": 20}
        model = v1.MovieCNNRegressor(**size, batch_size=4, max_epochs=2 if quick else 4, **_COMMON)
        return trials.sel(tier="train"), model
    shape = (12, 16) if quick else (18, 32)
    recordings = v1.make_v1_recordings(
        n_mice=2,
        n_neurons=5 if quick else 300,
        n_trials=30 if quick else 400,
        n_test_images=2,
        n_repeats=2,
        image_shape=shape,
        random_state=0,
    )
    trials = v1.Trials(recordings).sel(tier="train")
    options = {"batch_size": 8 if quick else 32, "max_epochs": 2 if quick else 4, **_COMMON}
    if kind == "CNN":  # biases ahead of batch normalisation have no gradient but rounding
        width = 4 if quick else 32
        return trials, v1.CNNRegressor(n_layers=2, hidden_channels=width, bias=False, **options)
    dropout = dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), 0.0)
    size = {"patch_size": 4, "n_blocks": 2, "n_heads": 2, "embed_dim": 8 if quick else 32}
    at_once = {"micro_batch_size": options["batch_size"]}
    return trials, v1.V1TRegressor(**size, mlp_dim=32, **dropout, **at_once, **options)


def fit(kind: str, folder: Path, *, quick: bool) -> None:
    """Fit in this process, and tell what came of it and how long it took."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    trials, model = make(kind, quick=quick)
    begun = model.set_params(max_epochs=0).fit(trials).module_.state_dict()
    model.set_params(max_epochs=make(kind, quick=quick)[1].max_epochs)
    ranks, talked = join(), []
    model.fit(trials, on_epoch=lambda record: talked.append(ranks.seconds))
    if not ranks.is_first:
        return
    told = {
        "communication": talked[-1] - talked[0],  # without the beginning, when all are awaited
        "seconds": sum(record["seconds"] for record in model.history_[1:]),
    }
    names = [name for name, _ in model.module_.named_parameters()]
    weights = model.module_.state_dict()
    for name, state in (("begun", begun), ("weights", weights)):
        np.save(folder / f"{name}.npy", torch.cat([state[n].flatten() for n in names]).numpy())
    (folder / "told.json").write_text(json.dumps(told))


def run(kind: str, n: int, folder: Path, *, quick: bool) -> tuple[dict, np.ndarray, np.ndarray]:
    """Fit in `n` processes; times, first and last weights."""
    script = [__file__, "--fit", kind, "--folder", str(folder), *["--quick"] * quick]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    command = [sys.executable, *(launcher if n > 1 else []), *script]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads((folder / "told.json").read_text())
    return told, np.load(folder / "begun.npy"), np.load(folder / "weights.npy")


def rows(args: argparse.Namespace) -> list[Row]:
    """Shares, distances and times of all models and numbers of processes."""
    found = []
    for kind in ("CNN",) if args.quick else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            alone, begun, weights = run(kind, 1, Path(folder), quick=args.quick)
        for n in PROCESSES["quick" if args.quick else "full"]:
            with tempfile.TemporaryDirectory() as folder:
                told, _, other = run(kind, n, Path(folder), quick=args.quick)
            share = 100 * told["communication"] / told["seconds"]
            distance = float(np.linalg.norm(other - weights) / np.linalg.norm(weights - begun))
            what, note = f"{kind}, {n} processes", f"{os.cpu_count()} cores"
            found += [
                Row(f"{what}: communication", None, share, "%", note=note),
                Row(f"{what}: distance", None, distance, "1", None, DISTANCE_BAR, at_most=True),
                Row(
                    f"{what}: epochs",
                    alone["seconds"],
                    told["seconds"],
                    "s",
                    alone["seconds"] / told["seconds"],
                    note=note,
                ),
            ]
    return found


def main() -> None:
    """Run at sizes of minutes, or tiny."""
    options = parser(__doc__)
    options.add_argument("--fit", choices=MODELS, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.fit:
        fit(args.fit, args.folder, quick=args.quick)
    else:
        report("distributed", rows(args), args)


if __name__ == "__main__":
    main()
