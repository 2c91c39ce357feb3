"""
The fits behind the tables: which there are, how each is made, and one after the other.

A job is one fitted model of one mouse. What is finished is kept, as is every fitted model, so that
a run goes on where it stopped.
"""

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import v1tlearn as v1
from papers.minimodel2025 import data, tables
from papers.v1t2023.tables import slug, write_beside
from v1tlearn.training import NonFiniteLossError

KINDS = {"full model": v1.FullModelRegressor, "minimodel": v1.MinimodelRegressor}
LINEAR = {"activation": "none", "pooling": "mean"}

# --quick: small models that still go through every step.
_QUICK = {"period_epochs": (4, 2), "max_epochs": 6, "batch_size": 32, "precision": "float32"}
_QUICK |= {"lr": 0.01, "space_init": 0.1, "channel_init": 0.2}
_QUICK_KERNELS = {"full model": {"kernels": (7, 5, 3)}, "minimodel": {"hidden_kernel": 5}}


@dataclass(frozen=True)
class Job:
    """One fit: the table that it is for, what stands on its axis, and how the model is made."""

    table: str
    mouse: str
    label: str
    x: float | None = None
    kind: str = "full model"
    params: Mapping[str, Any] = field(default_factory=dict)
    n_train: int | None = None  # training trials, the first of a random order; all
    n_neurons: int | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        x = "" if self.x is None else f" {self.x:g}"
        return f"{self.table} {self.mouse} {self.label}{x}"


def sweeps(quick: bool) -> dict[str, Any]:
    """Return what is varied; of Du et al. 2025, or a few small values of each."""
    if quick:
        return {
            "channels": (3, 6),
            "hidden": 4,
            "hoyer": (0.0, 0.03, 0.5),
            "depth": {1: (3,), 2: (3, 6), 3: (3, 6, 6)},
            "widths": (2, 6),
            "n_train": (40, 120),
            "n_neurons": (2, 6),
        }
    return {
        "channels": (16, 320),
        "hidden": 64,
        "hoyer": (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.5),
        "depth": {n: (192,) * n for n in (1, 2, 3, 4)},
        "widths": (8, 16, 32, 64, 128, 192, 256, 320, 384, 448),
        "n_train": tuple(np.geomspace(500, 30_000, 10).round().astype(int).tolist()),
        "n_neurons": tuple(np.geomspace(1, 1000, 10).round().astype(int).tolist()),
    }


def jobs(mice: list[str], asked: list[str], quick: bool) -> Iterator[Job]:
    """Yield the fits of the tables asked for; minimodels follow the full model that they share."""
    s = sweeps(quick)
    first, second = s["channels"]
    for mouse in mice:
        if {"models", "hoyer"} & set(asked):
            yield Job("models", mouse, "full model", params={"channels": s["channels"]})
        if "models" in asked:
            params = {"channels": s["channels"], **LINEAR}
            yield Job("models", mouse, "linear full model", params=params)
            yield Job("models", mouse, "minimodels", kind="minimodel")
        if "hoyer" in asked:
            for strength in s["hoyer"]:
                params = {"channel_hoyer": strength}
                yield Job("hoyer", mouse, "minimodels", strength, "minimodel", params)
        if "depth" in asked:
            for n, channels in s["depth"].items():
                yield Job("depth", mouse, "full model", n, params={"channels": channels})
        if "widths" in asked:
            for width in s["widths"]:
                params = {"channels": (width, second)}
                yield Job("widths", mouse, "first layer", width, params=params)
            for width in s["widths"]:
                params = {"channels": (first, width)}
                yield Job("widths", mouse, "second layer", width, params=params)
        for table in ("n_train", "n_neurons"):
            if table in asked:
                params = {"channels": s["channels"]}
                for n in s[table]:
                    yield Job(table, mouse, "full model", n, params=params, **{table: n})


class Paper:
    """The recordings, and the models of the paper on them.

    Parameters
    ----------
    options : Namespace
        As `mice.parse` returns.
    """

    def __init__(self, options: Namespace) -> None:
        self.options, self.out = options, options.output
        found = data.find_mice(options.data)
        chosen = options.mice or list(found)
        if absent := [mouse for mouse in chosen if mouse not in found]:
            raise ValueError(f"{options.data} has no file of {', '.join(absent)}")
        self.paths = {mouse: found[mouse] for mouse in chosen}
        self.trials = lru_cache(maxsize=1)(self._open)  # responses of one mouse fill a gigabyte

    def _open(self, mouse: str) -> v1.Trials:
        options = self.options
        trials = data.open_mouse(self.paths[mouse], mouse, options.flips, options.quick)
        neurons = data.explainable(trials, options.neurons)
        mask = np.zeros(trials.n_neurons[mouse], bool)
        mask[neurons] = True
        return trials.sel(neuron={mouse: mask})

    def describe(self) -> dict[str, dict[str, int]]:
        """Return what results are made of."""
        return {mouse: data.describe(self.trials(mouse)) for mouse in self.paths}

    def make(self, job: Job, seed: int) -> Any:
        """Make the unfitted model of a job, as published but for its parameters."""
        params = {"device": self.options.device, "random_state": seed, **job.params}
        if job.kind == "minimodel":
            params |= {"full_model": self._model(_full_of(job.mouse), seed)}
            params = {"hidden_channels": sweeps(self.options.quick)["hidden"], **params}
        if self.options.quick:
            params = {**_QUICK, **_QUICK_KERNELS[job.kind], **params}
        return KINDS[job.kind].from_preset("minimodel2025", **params)

    def _model(self, job: Job, seed: int) -> Any:
        """Load the model of a job that is finished."""
        return KINDS[job.kind].load(self._path(job, seed), device=self.options.device)

    def _path(self, job: Job, seed: int) -> Path:
        return self.out / "models" / slug(job.name, seed)

    def selected(self, job: Job) -> v1.Trials:
        """Trials of a job's mouse, of as many neurons and training trials as it takes."""
        trials, rng = self.trials(job.mouse), np.random.default_rng(0)
        if job.n_neurons is not None:
            n = trials.n_neurons[job.mouse]
            mask = np.zeros(n, bool)
            mask[rng.permutation(n)[: job.n_neurons]] = True
            trials = trials.sel(neuron={job.mouse: mask})
        if job.n_train is not None:
            train = np.flatnonzero(trials.tiers == "train")
            others = np.flatnonzero(trials.tiers != "train")
            some = rng.permutation(train)[: job.n_train]
            trials = trials[np.sort(np.concatenate([some, others]))]
        return trials

    def run(self, job: Job, seed: int) -> dict[str, Any]:
        """Fit a model on the train tier, the validation tier beside it, and score the test tier."""
        trials, path = self.selected(job), self._path(job, seed)
        train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
        if (path / "model.json").is_file():
            model = self._model(job, seed)
        else:
            model = self.make(job, seed).fit(train, validation=validation)
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
        recorded, predicted = test.responses.load(), model.predict(test)
        options = {"strict": True, "shown_once": "counted"}
        score = {
            "feve": v1.metrics.feve(recorded, predicted, **options),
            "correlation": v1.metrics.single_trial_correlation(recorded, predicted),
            "neurons": trials.n_neurons[job.mouse],
            "trials": len(train),
            "epochs": model.n_iter_,
            "seconds": sum(epoch["seconds"] for epoch in model.history_),
        }
        if job.kind == "minimodel":
            score["channels used"] = float(np.mean(model.n_channels_used_[job.mouse]))
        return score


def _full_of(mouse: str) -> Job:
    return Job("models", mouse, "full model")


def run(paper: Paper) -> list[str]:
    """Run the jobs that are not finished, and write the tables after each; return failures."""
    options, folder = paper.options, paper.out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    every = list(jobs(list(paper.paths), options.tables, options.quick))
    todo = [(job, seed) for seed in range(options.seeds) for job in every]
    failures: list[str] = []
    for number, (job, seed) in enumerate(todo, 1):
        path = folder / f"{slug(job.name, seed)}.json"
        head = f"[{number}/{len(todo)}] {job.name}, seed {seed}"
        if path.exists() and "failed" not in json.loads(path.read_text(encoding="utf-8")):
            print(f"{head}: finished before", flush=True)
            continue
        print(f"{head} ...", flush=True)
        start = time.perf_counter()
        record = {"table": job.table, "mouse": job.mouse, "model": job.label, "x": job.x}
        record["seed"] = seed
        try:
            record |= paper.run(job, seed)
            said = f"FEVE {record['feve']:.3f} of {record['neurons']} neurons"
        except (FileNotFoundError, NonFiniteLossError, ValueError) as error:
            record["failed"] = said = f"{type(error).__name__}: {error}"
            failures.append(f"{job.name}, seed {seed}: {said}")
        write_beside(path, json.dumps(record, indent=1))
        tables.write(paper.out, options)
        print(f"    {said}; {time.perf_counter() - start:.0f} s", flush=True)
    return failures
