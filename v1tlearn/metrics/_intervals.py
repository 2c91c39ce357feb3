"""Ends of intervals, and ceilings, for the rows of a table of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.metrics._arrays import MouseArrays, arrays_by_mouse, there
from v1tlearn.metrics._draws import Draws, bounds_of, drawn_values, found_of, mean_over_mice
from v1tlearn.metrics._evaluate import Multioutput
from v1tlearn.metrics._time import has_time
from v1tlearn.metrics._weighted import METRICS, Statistic
from v1tlearn.metrics.ceilings import noise_ceiling
from v1tlearn.trials import Responses

_CEILING_OF = {
    "single_trial_correlation": "single_trial_ceiling",
    "average_correlation": "average_ceiling",
}
_AT_MOST_1 = ("feve", "feve_strict", "normalized_correlation", "share_of_oracle")


def ends_of(
    name: str,
    target: Any,
    predicted: Any,
    draws: Draws,
    multioutput: Multioutput,
    image_ids: Any = None,
    mouse_ids: Any = None,
) -> np.ndarray:
    """Ends of the intervals of a metric.

    Parameters
    ----------
    name : str
        One of `METRICS`.
    target : Responses
        Or responses in any form that metrics take, and so the predictions.
    predicted : predictions
    draws : Draws
    multioutput : {"raw_values", "mice", "uniform_average"}
    image_ids, mouse_ids : array (n_trials,), optional
        Where responses do not bring them.

    Returns
    -------
    ndarray of shape (2, n_rows)
        Of every neuron, mouse, or one; NaN for mice without the repeats that the metric needs.
    """
    statistic, bounds, of_mice = METRICS[name], [], []
    labels = {"image_ids": image_ids, "mouse_ids": mouse_ids}
    for arrays in arrays_by_mouse(target, predicted, **labels, needs_images=True):
        if _has_enough(statistic, arrays):
            drawn = draws.of(there(arrays.image_ids), arrays.mouse, movies=has_time(target))
            found = found_of(statistic, arrays, drawn, draws.level)
            bounds.append(found.bounds)
            of_mice.append(found.of_mouse)
        else:
            bounds.append(np.full((3, arrays.true.shape[1]), np.nan))
            of_mice.append(np.full(1 + draws.n, np.nan))
    return _ends(bounds, of_mice, draws, multioutput, statistic.limits)


def ends_of_share(
    target: Responses, predicted: Any, rates: Responses, draws: Draws, multioutput: Multioutput
) -> np.ndarray:
    """Ends of the intervals of the single-trial correlation over that of the true rates.

    Parameters
    ----------
    target : Responses
    predicted : predictions
    rates : Responses
        The true ones.
    draws : Draws
    multioutput : {"raw_values", "mice", "uniform_average"}

    Returns
    -------
    ndarray of shape (2, n_rows)
    """
    statistic, bounds, of_mice = METRICS["single_trial_correlation"], [], []
    pairs = [arrays_by_mouse(target, y, needs_images=True) for y in (predicted, rates)]
    for one, best in zip(*pairs, strict=True):
        drawn = draws.of(there(one.image_ids), one.mouse, movies=has_time(target))
        of_neurons = np.full((3, one.true.shape[1]), np.nan)
        sums = np.zeros((2, 1 + draws.n))
        both = (drawn_values(statistic, arrays, drawn) for arrays in (one, best))
        for (neurons, values, _), (_, highest, _) in zip(*both, strict=True):
            share = np.divide(
                values, highest, out=np.full(values.shape, np.nan), where=highest != 0
            )
            of_neurons[:, neurons] = bounds_of(share, draws.level)
            for total, term in zip(sums, (values, highest), strict=True):
                total += np.nansum(term, axis=1)
        bounds.append(of_neurons)
        of_mice.append(sums / one.true.shape[1])
    if multioutput == "uniform_average":
        above, below = np.mean(of_mice, axis=0)
        return bounds_of(above / below, draws.level)[1:, None]
    return _ends(bounds, [above / below for above, below in of_mice], draws, multioutput)


def ceilings_of(name: str, target: Responses, multioutput: Multioutput) -> np.ndarray | float:
    """Ceilings of a metric.

    Parameters
    ----------
    name : str
        Of any metric.
    target : Responses
    multioutput : {"raw_values", "mice", "uniform_average"}

    Returns
    -------
    ndarray of shape (n_rows,) or float
        Of every neuron, mouse, or one; NaN for mice without repeats, and for metrics that have no
        known ceiling.
    """
    if name not in _CEILING_OF:
        return 1.0 if name in _AT_MOST_1 else np.nan
    arrays = {one.mouse: one for one in arrays_by_mouse(target, needs_images=True)}
    repeated = [mouse for mouse, one in arrays.items() if _any_twice(one)]
    if not repeated:
        return np.nan
    at = np.flatnonzero(np.isin(target.mouse_ids, repeated))
    found = noise_ceiling(target[at], n_bootstrap=0, multioutput=multioutput)
    values: xr.DataArray = found[_CEILING_OF[name]].sel(estimate="value")
    if multioutput == "uniform_average":
        return float(values)
    sizes = {m: 1 if multioutput == "mice" else one.true.shape[1] for m, one in arrays.items()}
    of_mouse = np.repeat(list(sizes), list(sizes.values()))
    out = np.full(len(of_mouse), np.nan)
    out[np.isin(of_mouse, repeated)] = values.values
    return out


def _ends(
    bounds: list[np.ndarray],
    of_mice: list[np.ndarray],
    draws: Draws,
    multioutput: Multioutput,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> np.ndarray:
    if multioutput == "raw_values":
        return np.concatenate(bounds, axis=1)[1:]
    if multioutput == "mice":
        return np.stack([bounds_of(values, draws.level, limits)[1:] for values in of_mice], axis=1)
    return bounds_of(mean_over_mice(of_mice), draws.level, limits)[1:, None]


def _has_enough(statistic: Statistic, arrays: MouseArrays) -> bool:
    return statistic.trials != "repeated" or _any_twice(arrays)


def _any_twice(arrays: MouseArrays) -> bool:
    images = there(arrays.image_ids)
    return len(np.unique(images)) < len(images)
