"""
The fits behind the table: which there are, how each is made, and one after the other.

A job is one model of all mice. What is finished is kept, as is every fitted model, so that a run
goes on where it stopped.
"""

import json
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import v1tlearn as v1
from papers.sensorium2023 import data, tables
from papers.v1t2023.tables import slug, write_beside
from v1tlearn.metrics import average_correlation, single_trial_correlation
from v1tlearn.training import NonFiniteLossError

N_LAGS = 15  # frames, half a second
# Patches that overlap by half: of each frame 120 tokens, a hundredth of the work of stride 1.
_V1T = {"patch_stride": 4}
# Frames of 36 x 64 pixels do not divide into 16 x 16 patches. There are no receptive fields.
_VIST = {"image_size": (32, 64), "condition": "none", "loss": "poisson"}

MODELS: dict[str, Callable[..., Any]] = {
    "LN": v1.MovieLNRegressor,
    "CNN, factorised benchmark": partial(v1.MovieCNNRegressor.from_preset, "sensorium2023"),
    "CNN": v1.MovieCNNRegressor,
    "CNN without behaviour": partial(v1.MovieCNNRegressor, behavior_mode="none", shift="none"),
    "recurrent CNN": partial(v1.MovieCNNRegressor, recurrent=True),
    "V1T, frame by frame": partial(v1.V1TRegressor, **_V1T),
    f"V1T, {N_LAGS} lags": partial(v1.V1TRegressor, readout_lags=N_LAGS, **_V1T),
    "Vi-ST": partial(v1.ViSTRegressor, **_VIST),
}
# The width of Vi-ST is the number of neurons, and its weights grow with the square.
MOST_OF_VIST = 200

# --quick: small models that still go through every step.
_QUICK_CNN: dict[str, Any] = {"hidden_channels": 6, "n_layers": 2, "input_kernel": 7}
_QUICK_V1T: dict[str, Any] = {"patch_size": 6, "patch_stride": 6, "n_blocks": 1, "n_heads": 2}
_QUICK_V1T |= {"embed_dim": 12, "mlp_dim": 16}
_QUICK: dict[str, dict[str, Any]] = {
    "LN": {},
    "CNN, factorised benchmark": {"hidden_channels": (4, 6, 8), "input_kernel": 7}
    | {"window_frames": 32},
    "CNN": _QUICK_CNN,
    "CNN without behaviour": _QUICK_CNN,
    "recurrent CNN": _QUICK_CNN,
    "V1T, frame by frame": {**_QUICK_V1T, "batch_size": 64},  # frames
    "V1T": _QUICK_V1T,
    "Vi-ST": {"image_size": (16, 32), "grid": 8, "n_layers": 3, "channels": 8}
    | {"kernels": ((1, 9), (1, 5)), "window_frames": 40, "steps_per_epoch": 16},
}


def _of(label: str, table: Mapping[str, Any], default: Any = None) -> Any:
    """What a table has for a model, or for its kind."""
    return table.get(label, table.get(label.split(",")[0], default))


def make(label: str, options: Namespace, seed: int) -> Any:
    """Make the unfitted model of a row."""
    params: dict[str, Any] = {"device": options.device, "random_state": seed}
    if options.quick:
        params |= {"max_epochs": 10, "batch_size": 4, **_of(label, _QUICK)}
    if options.epochs is not None:
        params["max_epochs"] = options.epochs
    if label == "Vi-ST" and "max_epochs" in params:
        params |= {"warmup_epochs": min(5, params["max_epochs"] - 1)}
        params |= {"average_from": None} if params["max_epochs"] < 20 else {}
    return MODELS[label](**params)


def labels(options: Namespace, trials: v1.Trials) -> list[str]:
    """The rows asked for that these recordings have: some need behaviour, one few neurons."""
    found = []
    for label in options.models:
        if label == "Vi-ST" and max(trials.n_neurons.values()) > MOST_OF_VIST:
            continue
        if label == "CNN without behaviour" and not _has_behaviour(trials):
            continue
        found.append(label)
    return found


def _has_behaviour(trials: v1.Trials) -> bool:
    return all("behaviors" in trials.recordings[mouse] for mouse in trials.mice)


def fit(label: str, options: Namespace, trials: v1.Trials, seed: int) -> Any:
    """Load a model that was fitted before, or fit and keep it.

    Epochs are chosen by a share of the training movies, or as published by the validation tier.
    """
    model, path = make(label, options, seed), options.out / "models" / slug(label, seed)
    if (path / "model.json").is_file():
        return type(model).load(path, device=options.device)
    chosen = trials.sel(tier="validation") if options.select_on == "validation" else None
    model.fit(trials.sel(tier="train"), validation=chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def scores(model: Any, parts: Mapping[str, v1.Trials], skip: int) -> list[dict[str, Any]]:
    """Correlations of single trials and of means over repeats, per split and mouse.

    The first `skip` frames of each movie do not count, as in the competition.
    """
    found = []
    for split, trials in parts.items():
        predicted = model.predict(trials)
        for mouse in trials.mice:
            own = trials.sel(mouse_id=mouse)
            recorded = np.array(own.responses.get(mouse))
            recorded[:, :skip] = np.nan
            given = recorded, predicted.get(mouse)
            row: dict[str, Any] = {"split": split, "mouse": mouse, "trials": len(own)}
            row["neurons"] = trials.n_neurons[mouse]
            row["single-trial"] = float(single_trial_correlation(*given))
            ids = own.image_ids
            repeated = len(set(ids.tolist())) < len(ids)
            row["average"] = float(average_correlation(*given, image_ids=ids)) if repeated else None
            found.append(row)
    return found


def run(options: Namespace, opened: Mapping[int, v1.Trials]) -> list[str]:
    """Run the jobs that are not finished, and write the tables after each; return failures."""
    folder = options.out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [(label, seed) for seed, own in opened.items() for label in labels(options, own)]
    failures: list[str] = []
    for number, (label, seed) in enumerate(todo, 1):
        path, trials = folder / f"{slug(label, seed)}.json", opened[seed]
        head = f"[{number}/{len(todo)}] {label}, seed {seed}"
        if path.exists() and "failed" not in json.loads(path.read_text(encoding="utf-8")):
            print(f"{head}: finished before", flush=True)
            continue
        start = time.perf_counter()
        record: dict[str, Any] = {"model": label, "seed": seed}
        try:
            model = fit(label, options, trials, seed)
            rows = scores(model, data.splits(trials), options.skip)
            record |= {"epochs": model.n_iter_, "scores": rows}
            record["seconds"] = sum(epoch["seconds"] for epoch in model.history_)
            said = f"single-trial {np.mean([row['single-trial'] for row in rows]):.3f}"
        except (NonFiniteLossError, ValueError) as error:
            record["failed"] = said = f"{type(error).__name__}: {error}"
            failures.append(f"{label}, seed {seed}: {said}")
        write_beside(path, json.dumps(record, indent=1))
        tables.write(options)
        print(f"{head}: {said}; {time.perf_counter() - start:.0f} s", flush=True)
    return failures
