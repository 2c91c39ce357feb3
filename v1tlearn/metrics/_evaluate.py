"""Runs a statistic of one block of neurons over neurons, mice and missing responses, and averages.

The statistics themselves are in `correlation.py` and `variance.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from sklearn.exceptions import UndefinedMetricWarning

from v1tlearn._rounding import ROUNDING_FLOAT64, rounding_of
from v1tlearn._warn import warn
from v1tlearn.metrics._arrays import MouseArrays, arrays_by_mouse, there
from v1tlearn.trials._units import label_units

logger = logging.getLogger(__name__)

_BLOCK_VALUES = 2**19  # values treated at once: 4 MiB in float64, which stay in the cache

# "all" in their order; else by image: all, where images are known; all of two images and more; all
# where some are repeated; or the repeated alone.
Selection = Literal["all", "stimuli", "by_image", "with_repeats", "repeated"]
Multioutput = Literal["uniform_average", "mice", "raw_values"]
_MULTIOUTPUTS = ("uniform_average", "mice", "raw_values")


class Repeats(NamedTuple):
    """Trials sorted by image: image i owns `counts[i]` trials from `starts[i]` on."""

    starts: np.ndarray  # (images,)
    counts: np.ndarray  # (images,)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of (trials, neurons) over the repeats of each image -> (images, neurons)."""
        return np.add.reduceat(values, self.starts, axis=0)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of (trials, neurons) over the repeats of each image -> (images, neurons)."""
        return self.sum(values) / self.counts[:, None]

    def averages(self, values: np.ndarray) -> np.ndarray:
        """Means less that of the first image; 0 where they differ by the rounding of sums only."""
        means = self.mean(values)
        means -= means[:1]
        rounding = ROUNDING_FLOAT64 * np.abs(values).max(axis=0)
        return np.where(means.std(axis=0) > rounding, means, 0.0)

    def spread(self, means: np.ndarray) -> np.ndarray:
        """(images, neurons) -> (trials, neurons), the same value for all repeats."""
        return np.repeat(means, self.counts, axis=0)


class Block(NamedTuple):
    """Neurons that were recorded in all of these trials. float64, the first trial subtracted.

    Neurons that are constant up to rounding are exactly 0, but for `error`.
    """

    true: np.ndarray  # (n, neurons)
    pred: np.ndarray | None  # (n, neurons)
    error: np.ndarray | None  # (n, neurons) true - pred, in the unit of `true`
    repeats: Repeats | None
    weights: np.ndarray | None  # (n, 1)
    categories: np.ndarray | None  # (n,)


def evaluate(
    name: str,
    statistic: Callable[[Block], np.ndarray],
    y_true: Any,
    *y_pred: Any,
    image_ids: Any,
    mouse_ids: Any,
    multioutput: Multioutput,
    categories: Any = None,
    sample_weight: Any = None,
    needs: Sequence[Literal["image_ids", "categories"]] = (),
    prepare: Callable[[MouseArrays], MouseArrays] = lambda arrays: arrays,
    trials: Selection = "all",
    average: Callable[[np.ndarray], float] | None = None,
    n_rows: int = 1,
) -> float | xr.DataArray:
    """Mean over neurons, then over mice, of a statistic; or its value for each mouse or neuron."""
    check_multioutput(multioutput)
    if y_pred and y_pred[0] is None:
        raise ValueError(
            f"y_pred is missing: {name} compares y_true with predictions, but None came. Give "
            "what model.predict(trials) answers."
        )
    per_mouse, neurons, once = {}, {}, []
    for arrays in arrays_by_mouse(
        y_true,
        *y_pred,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        categories=categories,
        sample_weight=sample_weight,
        needs_images=trials not in ("all", "stimuli") or "image_ids" in needs,
        needs_categories="categories" in needs,
    ):
        arrays = prepare(arrays)
        rows, repeats = _arrange(arrays, np.arange(len(arrays.true)), trials)
        problem = _too_few(rows, repeats, trials, name)
        if problem:
            left = len(arrays.true) - len(rows) if arrays.weights is not None else 0
            weights = f" {left} more have a sample_weight of 0 and do not count." if left else ""
            raise ValueError(f"mouse {arrays.mouse!r}: {problem}{weights}")
        if trials == "by_image" and there(repeats).counts.max() == 1:
            once.append(arrays.mouse)
        per_mouse[arrays.mouse] = _neuron_values(statistic, arrays, trials, n_rows)
        neurons[arrays.mouse] = arrays.neurons
    if once:
        warn(
            f"no image is repeated for the mice {once}: there is nothing to average, and {name} is "
            "the correlation over single trials. Give trials with repeats, such as the test tier."
        )
    if multioutput == "raw_values":
        with np.errstate(divide="ignore", invalid="ignore"):
            of_neurons = [v[0] if n_rows == 1 else _ratio(*v) for v in per_mouse.values()]
        return label_units(np.concatenate(of_neurons), neurons, name=name)
    scores = {mouse: (average or _mean)(v) for mouse, v in per_mouse.items()}
    _warn_of_undefined(scores, "left out of the mean over mice" if multioutput != "mice" else "NaN")
    values = np.array(list(scores.values()))
    if multioutput == "mice":
        return xr.DataArray(values, dims="mouse", coords={"mouse": list(scores)}, name=name)
    return _mean(values)


def check_multioutput(multioutput: Any) -> None:
    """Check what is to be averaged.

    Parameters
    ----------
    multioutput : str

    Raises
    ------
    ValueError
        If it is unknown.
    """
    if not isinstance(multioutput, str) or multioutput not in _MULTIOUTPUTS:
        raise ValueError(f"multioutput is {multioutput!r}, expected one of {_MULTIOUTPUTS}.")


def _neuron_values(
    statistic: Callable[[Block], np.ndarray], arrays: MouseArrays, trials: Selection, n_rows: int
) -> np.ndarray:
    values = np.full((n_rows, arrays.true.shape[1]), np.nan)
    for block, neurons, _ in blocks_of(arrays, trials):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # far-off predictions
            values[:, neurons] = statistic(block)
    undefined = int(np.isnan(values).any(axis=0).sum())
    if undefined:
        n = values.shape[1]
        logger.info("mouse %s: %d of %d neurons undefined", arrays.mouse, undefined, n)
    return values


def blocks_of(
    arrays: MouseArrays, trials: Selection, n_most: int | None = None
) -> Iterator[tuple[Block, np.ndarray, np.ndarray]]:
    """Yield neurons that were recorded in the same trials, enough of them: these, who, and where.

    Parameters
    ----------
    arrays : MouseArrays
    trials : {"all", "stimuli", "by_image", "with_repeats", "repeated"}
    n_most : int, optional
        Neurons of a block; by default as many as the cache holds.

    Yields
    ------
    block : Block
    neurons, rows : ndarray of int
        Their places among all neurons, and those of the trials of the block among all trials.

    Raises
    ------
    ValueError
        If responses or predictions are not finite.
    """
    true, pred = arrays.true, arrays.pred
    if np.isinf(true).any():
        raise ValueError(
            f"mouse {arrays.mouse!r}: y_true holds Inf; a response that was not recorded is NaN."
        )
    for recorded, neurons in _blocks_of_neurons(true, n_most):
        rows, repeats = _arrange(arrays, recorded, trials)
        if _too_few(rows, repeats, trials):
            continue
        cells = np.ix_(rows, neurons)
        true_block, exponents = _from_first(true[cells])
        pred_block = error = None
        if pred is not None:
            pred_block = pred[cells]
            if not np.isfinite(pred_block).all():
                raise ValueError(
                    f"mouse {arrays.mouse!r}: y_pred holds NaN or Inf where a response was "
                    "recorded. Did the training diverge?"
                )
            error = _error(true[cells], pred_block, exponents)
            pred_block, _ = _from_first(pred_block)
        weights = None if arrays.weights is None else arrays.weights[rows, None]
        if weights is not None:
            weights = np.ldexp(weights, -_exponents(weights))
        classes = None if arrays.categories is None else arrays.categories[rows]
        yield Block(true_block, pred_block, error, repeats, weights, classes), neurons, rows


def _blocks_of_neurons(
    true: np.ndarray, n_most: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (trials, neurons) such that these neurons were recorded in exactly these trials.

    Statistics of a block need no mask: a response that was not recorded is a dropped trial.
    """
    missing = np.isnan(true)
    partial = missing.any(axis=0)
    groups = [np.flatnonzero(~partial)]
    if partial.any():
        columns = np.flatnonzero(partial)
        patterns = np.ascontiguousarray(np.packbits(missing[:, columns], axis=0).T)
        codes = np.unique(patterns, axis=0, return_inverse=True)[1].ravel()
        order = np.argsort(codes, kind="stable")
        groups += np.split(columns[order], np.flatnonzero(np.diff(codes[order])) + 1)
    size = n_most or max(1, _BLOCK_VALUES // max(1, len(true)))
    for group in groups:
        for start in range(0, len(group), size):
            neurons = group[start : start + size]
            yield np.flatnonzero(~missing[:, neurons[0]]), neurons


def _from_first(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, neurons) less those of the first trial; 0 where constant up to rounding.

    In units of a power of two of each neuron, which is exact, so that no sum of squares overflows
    or vanishes; and the exponents of these, (1, neurons).
    """
    exponents: Any  # no array where there is nothing to scale
    if values.dtype.kind in "iu":
        shifted, tolerance, exponents = _whole_from_first(values), 0.0, 0
    else:
        scaled = _wide(values)
        exponents = _exponents(scaled) + 1  # so that no difference overflows
        scaled = np.ldexp(scaled, -exponents)
        shifted = scaled - scaled[:1]
        tolerance = rounding_of(values.dtype) * np.abs(scaled).max(axis=0)
    own = _exponents(shifted)
    shifted = np.ldexp(shifted, -own)
    with np.errstate(over="ignore"):  # of a neuron that is constant up to rounding
        shifted[:, shifted.std(axis=0) <= np.ldexp(tolerance, -own[0])] = 0.0
    return shifted.astype(np.float64), own + exponents


def _whole_from_first(values: np.ndarray) -> np.ndarray:
    """Integers less those of the first trial, exact also where float64 cannot hold themselves."""
    floats = values.astype(np.float64)
    floats = floats - floats[:1]
    if values.dtype.itemsize < 8:
        return floats
    near = np.abs(floats).max(axis=0) < 2.0**62  # others would wrap around
    return np.where(near, (values - values[:1]).view(np.int64), floats)


def _error(true: np.ndarray, pred: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Responses less predictions, in units of two to the power of these exponents."""
    true, pred = _wide(true), _wide(pred)
    common = np.maximum(_exponents(true), _exponents(pred)) + 1
    error = np.ldexp(true, -common) - np.ldexp(pred, -common)
    with np.errstate(over="ignore"):  # of predictions that are as wrong as can be
        return np.ldexp(error, common - exponents).astype(np.float64)


def _wide(values: np.ndarray) -> np.ndarray:
    """Floating point that holds the values, as far as there is such."""
    large = values.dtype.itemsize > 8 or (values.dtype.kind in "iu" and values.dtype.itemsize == 8)
    return values.astype(np.longdouble if large else np.float64, copy=False)


def _exponents(values: np.ndarray) -> np.ndarray:
    """Power of two just above the largest absolute value of each neuron, (1, neurons)."""
    return np.frexp(np.abs(values).max(axis=0, keepdims=True))[1]


def _arrange(
    arrays: MouseArrays, recorded: np.ndarray, trials: str
) -> tuple[np.ndarray, Repeats | None]:
    """Rows in the order and selection the statistic needs."""
    if arrays.weights is not None:
        recorded = recorded[arrays.weights[recorded] > 0]
    if trials == "all" or (trials == "stimuli" and arrays.image_ids is None):
        return recorded, None
    _, codes, counts = np.unique(
        there(arrays.image_ids)[recorded], return_inverse=True, return_counts=True
    )
    rows = np.argsort(codes, kind="stable")
    if trials == "repeated":
        rows = rows[counts[codes[rows]] > 1]
        counts = counts[counts > 1]
    return recorded[rows], Repeats(np.cumsum(counts) - counts, counts)


def _too_few(
    rows: np.ndarray, repeats: Repeats | None, trials: str, name: str = "it"
) -> str | None:
    """Why the statistic cannot be computed from these trials."""
    if trials in ("all", "stimuli") and len(rows) < 2:
        return f"{name} needs at least 2 trials, got {len(rows)}."
    if trials == "by_image" and len(there(repeats).counts) < 2:
        return (
            f"a correlation over images needs at least 2 images, got {len(there(repeats).counts)}."
        )
    if trials in ("repeated", "with_repeats") and not (there(repeats).counts > 1).any():
        return (
            "no image is repeated, so the variability between repeats is unknown. Pass trials "
            "with repeated images, such as the test tier, and their image_ids."
        )
    return None


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator != 0, numerator / denominator, np.nan)


def _warn_of_undefined(scores: dict[str, float], what: str) -> None:
    undefined = [mouse for mouse, score in scores.items() if np.isnan(score)]
    if undefined:
        warn(
            f"no neuron of mice {undefined} has a value (not recorded, silent, or below the "
            f"threshold); they are {what}.",
            UndefinedMetricWarning,
        )
