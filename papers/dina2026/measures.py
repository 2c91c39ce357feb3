"""
What is fitted, and what is measured of it; each measure gives a plain record.

All models of a recording see the same trials, and all is measured on the test tier.
"""

import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

import v1tlearn as v1
from papers.dina2026.cnn_decoder import decoded_images, make_decoder
from papers.dina2026.published import CNN, DINA
from v1tlearn.inspection import (
    cutoff_of,
    manipulation_curve,
    neurons_for_performance,
    neurons_per_dimension,
)

RIDGE, PROBE = "ridge regression", "DINA, linear probe"
# Sizes and training of the description, where it tells them; of the code a preset.
DESCRIPTION: dict[str, Any] = {"map_size": (32, 32), "map_channels": 64}
_QUICK: dict[str, Any] = {"map_size": (8, 12), "map_channels": 8, "hidden_channels": 16}
_QUICK |= {"image_lr": 3e-3, "neural_lr": 1e-3}
_QUICK_CODE: dict[str, Any] = {"stage_dims": (8, 16), "stage_depths": (1, 1), "embed_dim": 16}
_QUICK_CODE |= {"stage_reductions": (2, 1), "hidden_units": (64,)}
_QUICK_CODE |= {"map_size": (4, 6), "grid": (2, 3), "patience": 5}

Record = dict[str, Any]


def make(name: str, options: Namespace, trials: v1.Trials, seed: int) -> v1.DINAAligner:
    """Make an unfitted model, `DINA` or `CNN`, as the options say."""
    parameters: dict[str, Any] = {"random_state": seed, "device": options.device}
    parameters |= {"keep": options.keep, "range_over": options.range}
    if options.epochs is not None:
        parameters["max_epochs"] = options.epochs
    if name == CNN:
        sizes = trials.recordings[trials.mice[0]]["stimuli"].sizes
        return make_decoder((sizes["height"], sizes["width"]), **parameters)
    parameters["selection"] = "loss" if options.select_on == "test" else "top1"
    if options.recipe == "code":
        quick = _QUICK_CODE if options.quick else {}
        return v1.DINAAligner.from_preset("dina2026", **quick | parameters)
    return v1.DINAAligner(**(_QUICK if options.quick else DESCRIPTION) | parameters)


def training(options: Namespace, trials: v1.Trials) -> v1.Trials:
    """Trials that are trained on: as published also validation, where the test tier selects."""
    tiers = ["train", "validation"] if options.select_on == "test" else ["train"]
    return trials.sel(tier=tiers)


def fit(name: str, options: Namespace, trials: v1.Trials, seed: int) -> v1.DINAAligner:
    """Fit a model, the epoch being chosen by the tier that the options name."""
    model = make(name, options, trials, seed)
    with _validation_is_trained_on():
        return model.fit(training(options, trials), validation=trials.sel(tier=options.select_on))


@contextmanager
def _validation_is_trained_on() -> Iterator[None]:
    """Nothing is wrong with that where it was asked for, and the test tier selects."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"fit was given trials of the tiers \['validation'\]")
        yield


def decoding(fitted: Mapping[str, Any], options: Namespace, trials: v1.Trials) -> Record:
    """Images found and reconstructed, of all decoders, with intervals and shuffled pairs."""
    train, test = training(options, trials), trials.sel(tier="test")
    with _validation_is_trained_on():
        ridge = v1.RidgeDecoder().fit(train)
        probe = v1.LinearProbe("pixels", aligner=fitted[DINA]).fit(train)
    decoders = {DINA: fitted[DINA], PROBE: probe}
    decoders |= {CNN: decoded_images(fitted[CNN], test), RIDGE: ridge}
    draws = 200 if options.quick else 1000
    table = v1.decoding_table(decoders, test, n_bootstrap=draws, n_permutations=draws)
    n_images = len(np.unique(test.image_ids))
    top = (table.metric == "top_1") & (table.gallery_size == n_images)
    kept = table[(top | (table.metric == "pixel_correlation")) & _from_responses(table)]
    names = ["model", "metric", "value", "low", "high", "chance", "null", "p_value", "ceiling"]
    rows = kept[names].astype(object).where(kept[names].notna(), None).to_dict("records")
    return {"images": n_images, "rows": rows}


def _from_responses(table: Any) -> Any:
    return table.direction == "response_to_image"


def neurons(fitted: Mapping[str, Any], options: Namespace, trials: v1.Trials) -> Record:
    """Share of the neurons, by rank, for 90 % of the performance, over divisions of the images."""
    record: Record = {}
    for name, model in fitted.items():
        (found,) = neurons_for_performance(
            model, trials.sel(tier="test"), 0.9, n_seeds=3 if options.quick else 10
        ).values()
        record[name] = {
            "counts": found["count"].values.tolist(),
            "curves": _by(found["top1"].mean("seed"), "ranking"),
            "chance": float(found["chance"].mean()),
            "needed": _numbers(found["needed_share"].sel(ranking="importance").values),
            "needed_at_random": _numbers(found["needed_share"].sel(ranking="random").values),
        }
    return record


def blur(fitted: Mapping[str, Any], options: Namespace, trials: v1.Trials) -> Record:
    """Top-1 among blurred images and among what blur takes, and the cut-off for 90 %."""
    test, record = trials.sel(tier="test"), {}
    draws = {"n_bootstrap": 100, "n_permutations": 50} if options.quick else {}
    for name, model in fitted.items():
        curves, own = {}, {}
        for manipulation in ("low_pass", "high_pass"):
            curve = manipulation_curve(model, test, manipulation, **draws)
            curves[manipulation] = curve
            of = curve.sel(measure="top1", mouse="mean")
            own[manipulation] = {
                "values": of["value"].values.tolist(),
                "top1": of["estimate"].values.tolist(),
                "shuffled": of["control_high"].values.tolist(),
            }
        own["unchanged"] = float(of["unchanged"])
        own["cutoff"] = _cutoff(curves["low_pass"])
        record[name] = own
    return record


def _cutoff(curve: xr.Dataset) -> list[float | None]:
    """Cut-off, low and high end of its interval; None of a curve that does not cross."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "mouse .* (does not cross|not found above chance)")
        found = cutoff_of(curve).sel(mouse="mean")
    return _numbers(np.array([found[name] for name in ("cutoff", "low", "high")]))


def dimensions(fitted: Mapping[str, Any], options: Namespace, trials: v1.Trials) -> Record:
    """Neurons that reconstruct 90 % of the leading dimensions of the maps."""
    record: Record = {}
    for name, model in fitted.items():
        (found,) = neurons_per_dimension(
            model, trials.sel(tier="test"), 0.9, n_seeds=3 if options.quick else 5
        ).values()
        record[name] = {
            "variance": found["variance"].values.tolist(),
            "explained": found["explained"].mean("seed").values.tolist(),
            "explained_shuffled": found["explained_shuffled"].mean("seed").values.tolist(),
            "needed": _numbers(found["needed"].values),
        }
    return record


MEASURED: dict[str, Callable[[Mapping[str, Any], Namespace, v1.Trials], Record]] = {
    "decoding": decoding,
    "neurons": neurons,
    "blur": blur,
    "dimensions": dimensions,
}


def _by(values: xr.DataArray, dim: str) -> dict[str, list[Any]]:
    return {str(name): _numbers(values.sel({dim: name}).values) for name in values[dim].values}


def _numbers(values: np.ndarray) -> list[Any]:
    """Nested lists, None where a number is missing."""
    return np.where(np.isnan(values), None, values).tolist()
