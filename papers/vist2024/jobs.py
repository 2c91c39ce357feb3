"""
The fits behind the tables: which there are, how each is made, and one after the other.

A job is one model of one recording. What is finished is kept, as is every model and what it
predicts, so that a run goes on where it stopped.
"""

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import v1tlearn as v1
from papers.v1t2023.tables import slug, write_beside
from papers.vist2024 import data, tables
from papers.vist2024.published import COMPLEMENTARY, DIRECTIONS, MOVIES
from v1tlearn.metrics import correlation_over_time, sd_kl
from v1tlearn.nn.movies.vist import PUBLISHED_KERNELS
from v1tlearn.training import NonFiniteLossError

VIST, PER_CELL = "Vi-ST", "a receptive field per cell (ours)"
BASELINES = {
    "LN": (v1.MovieLNRegressor, {}),
    "CNN": (v1.MovieCNNRegressor, {}),
    "recurrent CNN": (v1.MovieCNNRegressor, {"recurrent": True}),
}
_HELD_OUT = (
    0.2  # share of the training movie, its end, that chooses the epoch in the clean protocol
)
_GAP = 0.5  # seconds between them that belong to neither

# --quick: small models that still go through every step.
_QUICK_KERNELS = ((1, 9), (1, 5))
_QUICK: dict[str, Any] = {"kernels": _QUICK_KERNELS, "n_layers": 3, "channels": 8, "batch_size": 4}
_QUICK |= {"window_frames": 40, "steps_per_epoch": 8, "max_epochs": 6, "warmup_epochs": 1}
_QUICK |= {"average_from": None, "lr": 4e-3, "precision": "float32"}
_QUICK_BASELINE: dict[str, Any] = {"max_epochs": 6, "batch_size": 4}
_QUICK_CNN: dict[str, Any] = {"hidden_channels": 6, "n_layers": 2}


@dataclass(frozen=True)
class Job:
    """One fit: the table that it is for, on what it is trained, and what the model is."""

    table: str
    label: str
    train: str  # names of movies, of which the first half is trained on where both are the same
    test: str
    protocol: str
    params: Mapping[str, Any] = field(default_factory=dict)
    n_cells: int | None = None  # drawn at random; all
    draw: int = 0

    @property
    def name(self) -> str:
        """What its files are called."""
        cells = "" if self.n_cells is None else f" {self.n_cells} cells draw {self.draw}"
        return f"{self.table} {self.label} {self.train} to {self.test}{cells} {self.protocol}"


def ablations(kernels: tuple[tuple[int, ...], ...]) -> dict[str, dict[str, Any]]:
    """What each row of the ablation changes; what replaces what was removed, is ours to say."""
    return {
        "multi-scale blocks look ahead": {"causal": (True, False)},
        "no receptive fields": {"condition": "none"},
        "dilated layers look ahead": {"causal": (False, True)},
        "video as condition": {"condition": "video"},
        "one scale per block": {"kernels": tuple((max(block),) for block in kernels)},
        "squared error alone": {"loss": "rmse"},
        "no video extractor": {"extractor": "none"},
        "no prior": {"prior": "patches", "backbone": None},
        "no spikes alignment": {"kernels": (), "condition": "none"},
        PER_CELL: {"condition": "per_cell"},
    }


def jobs(options: Namespace, n_cells: int) -> Iterator[Job]:
    """Yield the fits of the tables asked for."""
    kernels = _QUICK_KERNELS if options.quick else PUBLISHED_KERNELS
    for protocol in options.protocols:
        for direction, (train, test) in DIRECTIONS.items():
            needed = "cross" in options.tables or "ablation" in options.tables
            if "cross" in options.tables or (needed and direction == "1 to 2"):
                yield Job("cross", VIST, train, test, protocol)
            if "cross" in options.tables:
                for label in BASELINES:
                    yield Job("cross", label, train, test, protocol)
        if "ablation" in options.tables:
            train, test = DIRECTIONS["1 to 2"]
            for label, params in ablations(kernels).items():
                yield Job("ablation", label, train, test, protocol, params)
        if "complementary" in options.tables:
            for movie in MOVIES:
                for count in counts(options, n_cells):
                    for draw in range(1 if count == n_cells else options.draws):
                        named = {"n_cells": count, "draw": draw}
                        yield Job("complementary", VIST, movie, movie, protocol, **named)


def counts(options: Namespace, n_cells: int) -> list[int]:
    """Numbers of cells that are encoded together: the published ones, and all."""
    chosen = (1, 4) if options.quick else COMPLEMENTARY["movie 1"]
    return sorted({*(count for count in chosen if count < n_cells), n_cells})


class Paper:
    """A recording, and the models of the paper on it.

    Parameters
    ----------
    options : Namespace
        As `retina.parse` returns.
    trials : Trials
        As `data.open_recording` does.
    seed : int
    """

    def __init__(self, options: Namespace, trials: v1.Trials, seed: int) -> None:
        self.options, self.frames, self.seed = options, trials, seed
        (self.name,) = trials.mice
        self.features: v1.Trials | None = None
        if options.features is not None:
            self.features = data.with_features(trials, data.read_features(options.features))
        elif options.quick:
            self.features = data.with_features(trials, data.random_features(trials))

    def trials(self, job: Job) -> v1.Trials:
        """What the model of a job sees: features, where they are given and it asks for a prior."""
        patches = job.params.get("prior") == "patches" or job.label in BASELINES
        trials = self.frames if patches or self.features is None else self.features
        n = trials.n_neurons[self.name]
        if job.n_cells is None or job.n_cells == n:
            return trials
        mask = np.zeros(n, bool)
        mask[np.random.default_rng([self.seed, job.draw]).permutation(n)[: job.n_cells]] = True
        return trials.sel(neuron={self.name: mask})

    def make(self, job: Job) -> v1.ViSTRegressor | v1.MovieLNRegressor | v1.MovieCNNRegressor:
        """Make the unfitted model of a job."""
        options = self.options
        common: dict[str, Any] = {"device": options.device, "random_state": self.seed}
        common |= {} if options.epochs is None else {"max_epochs": options.epochs}
        if job.label in BASELINES:
            kind, params = BASELINES[job.label]
            if options.quick:
                cnn = _QUICK_CNN if kind is v1.MovieCNNRegressor else {}
                return kind(**{**_QUICK_BASELINE, **cnn, **params, **common})
            return kind(**{"image_size": (90, 90), **params, **common})  # as the same lab's models
        published = job.protocol == "published"
        params = {"selection": "absolute_correlation" if published else "correlation"}
        if self.features is not None:
            params |= {"prior": "features", "backbone": None, "image_size": "auto"}
        else:
            params |= {"backbone": options.backbone, "feature_cache": options.out / "features"}
        if job.params.get("prior") == "patches":
            small = {"grid": data.QUICK_GRID}
            params |= {"feature_cache": "auto"}
            params |= small if options.quick else {"image_size": (224, 224)}
        quick = _QUICK if options.quick else {}
        every = quick | params | common | dict(job.params)
        if options.epochs is not None:
            every["warmup_epochs"] = min(every.get("warmup_epochs", 5), options.epochs - 1)
        return v1.ViSTRegressor.from_preset("vist2024", **every)

    def parts(self, job: Job) -> tuple[v1.Trials, v1.Trials, v1.Trials]:
        """Trials that are trained on, those that choose the epoch, and those that are scored."""
        trials = self.trials(job)
        train, test = (trials.sel(image_id=movie) for movie in (job.train, job.test))
        if job.train == job.test:
            train, test = v1.model_selection.split_in_time(train, 0.5)
        elif job.protocol == "published":
            train, test = data.halves(train), data.halves(test)
        if job.protocol == "published":
            return train, test, test
        gap = round(_GAP * train.frame_rate(self.name))
        train, end = v1.model_selection.split_in_time(train, _HELD_OUT, gap=gap)
        return train, end, test

    def run(self, job: Job) -> dict[str, Any]:
        """Fit a model and score the test movie; the model and its predictions are kept."""
        train, validation, test = self.parts(job)
        model = self.make(job)
        path = self.options.out / "models" / slug(job.name, self.seed)
        if (path / "model.json").is_file():
            model = type(model).load(path, device=self.options.device)
        else:
            model.fit(train, validation=validation)
            model.save(path)
        recorded = _movies(test, test.responses.get(self.name))
        predicted = _movies(test, model.predict(test).get(self.name))
        np.savez(
            self.options.out / "predictions" / f"{slug(job.name, self.seed)}.npz",
            recorded=np.concatenate(recorded),
            predicted=np.concatenate(predicted),
            neuron=test.neuron_ids(self.name),
        )
        return scores(recorded, predicted) | {
            "cells": test.neuron_ids(self.name).tolist(),
            "best epoch": model.best_epoch_,
            "epochs": model.n_iter_,
            "seconds": sum(epoch["seconds"] for epoch in model.history_),
        }


def _movies(trials: v1.Trials, values: np.ndarray) -> list[np.ndarray]:
    return [own[:n] for own, n in zip(values, trials.n_frames, strict=True)]


def scores(recorded: list[np.ndarray], predicted: list[np.ndarray]) -> dict[str, Any]:
    """All that is told of predictions: of each of the paper's two measures every variant."""
    per_cell = correlation_over_time(recorded, predicted, multioutput="raw_values")
    found: dict[str, Any] = {
        summary: correlation_over_time(recorded, predicted, summary=summary)
        for summary in ("signed", "absolute", "positive")
    }
    found["sd_kl"] = sd_kl(recorded, predicted)
    found["sd_kl published"] = sd_kl(recorded, predicted, variant="published")
    found = {name: None if np.isnan(value) else value for name, value in found.items()}
    return found | {"r": [None if np.isnan(r) else round(float(r), 4) for r in per_cell]}


def run(papers: list[Paper]) -> list[str]:
    """Run the jobs that are not finished, and write the tables after each; return failures."""
    options = papers[0].options
    folder = options.out / "jobs"
    todo = [
        (paper, job)
        for paper in papers
        for job in jobs(options, paper.frames.n_neurons[paper.name])
    ]
    failures: list[str] = []
    for number, (paper, job) in enumerate(todo, 1):
        path = folder / f"{slug(job.name, paper.seed)}.json"
        head = f"[{number}/{len(todo)}] {job.name}, seed {paper.seed}"
        if path.exists() and "failed" not in json.loads(path.read_text(encoding="utf-8")):
            print(f"{head}: finished before", flush=True)
            continue
        start = time.perf_counter()
        record = {
            name: getattr(job, name)
            for name in ("table", "label", "train", "test", "protocol", "n_cells", "draw")
        } | {"seed": paper.seed}
        try:
            record |= paper.run(job)
            said = f"r {record['signed']:.3f}, |r| {record['absolute']:.3f}"
        except (FileNotFoundError, NonFiniteLossError, ValueError) as error:
            record["failed"] = said = f"{type(error).__name__}: {error}"
            failures.append(f"{job.name}, seed {paper.seed}: {said}")
        write_beside(path, json.dumps(record, indent=1))
        tables.write(options)
        print(f"{head}: {said}; {time.perf_counter() - start:.0f} s", flush=True)
    return failures
