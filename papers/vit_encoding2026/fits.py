"""
The fits behind the tables: a frozen core, fine-tuned ones that go on from it, and the full model.

Every fit is kept in a small file, so that a run that was stopped goes on.
"""

import copy
import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV

import v1tlearn as v1
from papers.minimodel2025.data import THRESHOLD
from papers.v1t2023.tables import slug, write_beside
from papers.vit_encoding2026 import data

PAGE, OVERLAP, TWICE = "grid of the page", "stride of half a patch", "twice the pixels"
RESOLUTIONS: dict[str, dict[str, Any]] = {
    PAGE: {},
    OVERLAP: {"patch_stride": 8},  # of 16 pixels
    TWICE: {"upsample": 2},
}
FULL_MODEL = "full model"

# --quick: for few trials of few neurons.
_QUICK: dict[str, Any] = {"lr": 0.01, "core_lr": 3e-4, "space_init": 0.3, "normalize": "layer"}
_QUICK |= {"selection": "correlation", "space_l2": 0.0, "channel_l2": 1e-3}
_QUICK |= {"space_weight_decay": None, "channel_weight_decay": None}
_QUICK_FULL: dict[str, Any] = {"channels": (4, 16), "kernels": (13, 5), "lr": 0.01}
_QUICK_FULL |= {"period_epochs": (8, 2), "max_epochs": 10, "batch_size": 32}
_QUICK_FULL |= {"space_init": 0.1, "channel_init": 0.2, "precision": "float32"}

Row = dict[str, Any]


class FrozenThenTuned(BaseEstimator):
    """A frozen core, and for each number of stages one that goes on from there and trains them.

    Parameters
    ----------
    options : Namespace
        As `sweep.parse` returns.
    backbone : str
    seed : int
    block : int
        From 0.
    resolution : str
        A name of `RESOLUTIONS`.
    """

    def __init__(
        self, options: Namespace, backbone: str, seed: int, block: int = 4, resolution: str = PAGE
    ) -> None:
        self.options, self.backbone, self.seed = options, backbone, seed
        self.block, self.resolution = block, resolution

    def fit(self, trials: v1.Trials, y: None = None, *, validation: v1.Trials) -> Any:
        """Fit; `models_` is by stages, 0 for the frozen core."""
        first = v1.PretrainedViTRegressor(**self._parameters("frozen"))
        self.models_ = {0: first.fit(trials, validation=validation)}
        for stages in self.options.fine_tune:
            if stages <= self.block + 1:  # there are no more but the embeddings
                tuned = copy.deepcopy(first)
                tuned.set_params(**self._parameters("fine_tuned", fine_tune=stages))
                self.models_[stages] = tuned.fit(trials, validation=validation)
        return self

    def _parameters(self, preset: str, **more: Any) -> dict[str, Any]:
        options = self.options
        own = {"backbone": self.backbone, "block": self.block, "random_state": self.seed}
        own |= {"crop_columns": data.columns(options.mouse), "device": options.device}
        own |= {"feature_cache": str(options.out / "features")}
        own |= _QUICK if options.quick else {}
        if options.epochs is not None:
            own["max_epochs"] = options.epochs
        own |= RESOLUTIONS[self.resolution] | more
        made = v1.PretrainedViTRegressor.from_preset(f"vit_encoding2026_{preset}", **own)
        return made.get_params()


def scores(est: Any, test: v1.Trials) -> dict[str, float]:
    """Best validation score, and FEVE on the test images of neurons above the threshold."""
    record = est.history_[est.best_epoch_ - 1]
    found = v1.metrics.feve(test.responses, est.predict(test), threshold=THRESHOLD, strict=True)
    return {"validation": record[f"validation_{est.selection}"], "test": float(found)}


def sweep(options: Namespace, trials: v1.Trials, backbone: str, seed: int) -> Iterator[Row]:
    """Search over the blocks asked for, then over resolutions for the best by validation."""
    blocks = options.blocks_of[backbone]
    rows = _search(options, trials, backbone, seed, {"block": blocks, "resolution": [PAGE]})
    yield from rows
    best = max(rows, key=lambda row: row["scores"]["0"]["validation"])["block"] - 1
    others = [name for name in RESOLUTIONS if name != PAGE]
    yield from _search(options, trials, backbone, seed, {"block": [best], "resolution": others})


def _search(
    options: Namespace, trials: v1.Trials, backbone: str, seed: int, grid: dict[str, list[Any]]
) -> list[Row]:
    """Fit what is not there yet of a grid, and read all of it."""

    def path(block: int, resolution: str) -> Path:
        name = f"{Path(backbone).name} block {block + 1} {resolution}"
        return options.out / "jobs" / f"{slug(name, seed)}.json"

    def keep(est: FrozenThenTuned, held_out: v1.Trials, y: None = None) -> float:
        found = {str(stages): scores(model, test) for stages, model in est.models_.items()}
        row = {"backbone": backbone, "seed": seed, "block": est.block + 1}
        row |= {"resolution": est.resolution, "scores": found}
        write_beside(path(est.block, est.resolution), json.dumps(row))
        told = {stages: round(score["test"], 3) for stages, score in found.items()}
        print(f"{path(est.block, est.resolution).stem}: FEVE by stages {told}", flush=True)
        return found["0"]["validation"]

    test, fitted = trials.sel(tier="test"), trials.sel(tier=["train", "validation"])
    every = [(block, name) for block in grid["block"] for name in grid["resolution"]]
    missing = [
        {"block": [block], "resolution": [name]}
        for block, name in every
        if not path(block, name).exists()
    ]
    if missing:
        est = FrozenThenTuned(options, backbone, seed)
        folds = [tuple(np.flatnonzero(fitted.tiers == tier) for tier in ("train", "validation"))]
        search = GridSearchCV(
            est, missing, scoring=keep, cv=folds, refit=False, error_score="raise"
        )
        search.fit(fitted, validation=fitted.sel(tier="validation"))
    return [json.loads(path(*one).read_text(encoding="utf-8")) for one in every]


def full_model(options: Namespace, seed: int, open_window: Callable[[], v1.Trials]) -> Row:
    """Fit the full model of Du et al. (2025) to the columns that the mouse looks at."""
    path = options.out / "jobs" / f"{slug(FULL_MODEL, seed)}.json"
    if not path.exists():
        trials = open_window()
        train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
        params = {"random_state": seed, "device": options.device}
        params |= _QUICK_FULL if options.quick else {}
        est = v1.FullModelRegressor.from_preset("minimodel2025", **params)
        found = scores(est.fit(train, validation=validation), test)
        write_beside(path, json.dumps({"seed": seed, "scores": found}))
        print(f"{path.stem}: FEVE {found['test']:.3f}", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))
