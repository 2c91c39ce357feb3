"""Times of spikes, counted in bins whose edges are stated."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

import numpy as np

from v1tlearn._options import as_word
from v1tlearn._values import as_array

_OUTSIDE = ("raise", "drop")


def bin_spikes(
    spike_times: Any, edges: Any, *, outside: Literal["raise", "drop"] = "raise"
) -> np.ndarray:
    """Count spikes in bins.

    Parameters
    ----------
    spike_times : array of shape (n_spikes,), or nested sequences or object array of these
        Times of one spike train in any order; or of several, such as a cell array (neurons,
        trials) of MATLAB's. MATLAB's row and column vectors are trains.
    edges : array of shape (n_bins + 1,)
        Rising, in the unit of the times. Bin i holds the spikes from ``edges[i]``, included, to
        ``edges[i + 1]``, which belongs to the next bin; so does that of the last bin.
    outside : {"raise", "drop"}, default="raise"
        What becomes of spikes ahead of the first edge, at the last edge or behind it.

    Returns
    -------
    ndarray of int64, of shape (n_bins,) or (..., n_bins)
        Counts, ahead of the bins the shape of the nesting.

    Raises
    ------
    TypeError
        If times are no numbers.
    ValueError
        If edges do not rise, times are not finite or in a matrix, trains are nested unevenly, or
        spikes lie outside of all bins and are not to be dropped.

    Examples
    --------
    >>> from v1tlearn import bin_spikes
    >>> bin_spikes([0.0, 9.9, 10.0, 25.0], [0, 10, 20, 30])
    array([2, 1, 1])
    >>> bin_spikes([[[1.0], []], [[12.0, 13.0], [3.0]]], [0, 10, 20]).shape  # 2 neurons, 2 trials
    (2, 2, 2)
    """
    bins = as_array(edges, "edges", of="edge")
    if bins.ndim != 1 or len(bins) < 2 or bins.dtype.kind not in "iuf":
        raise ValueError(
            f"edges have shape {bins.shape} and dtype {bins.dtype}: expected numbers (n_bins + 1,)"
        )
    bins = bins.astype(np.float64)
    if not np.isfinite(bins).all() or (np.diff(bins) <= 0).any():
        raise ValueError("edges do not rise, or are not finite: expected each above the one before")
    as_word(outside, _OUTSIDE, "outside")
    return _counted(spike_times, bins, outside == "drop", ())


def _counted(times: Any, edges: np.ndarray, drop: bool, place: tuple[int, ...]) -> np.ndarray:
    if _is_one_value(times):
        raise TypeError(
            f"spike_times{list(place) or ''} is {times!r}, a {type(times).__name__}: expected times"
            " of spikes, or sequences of these"
        )
    if _is_train(times):
        return _count(np.asarray(times), edges, drop, place)
    parts = [_counted(times[n], edges, drop, (*place, n)) for n in range(len(times))]
    shapes = [part.shape for part in parts]
    if len(set(shapes)) > 1:
        at = next(n for n, shape in enumerate(shapes) if shape != shapes[0])
        raise ValueError(
            f"spike_times{[*place, at]} holds {shapes[at][:-1]} trains, "
            f"{[*place, 0]} {shapes[0][:-1]}: expected as many of all, an empty train where "
            "a cell was silent"
        )
    return np.stack(parts)


def _is_one_value(times: Any) -> bool:
    """Whether it is no sequence, by its place, of anything."""
    no_sequence = isinstance(times, str | bytes | Mapping | type)
    return no_sequence or not hasattr(times, "__len__") or getattr(times, "ndim", 1) == 0


def _is_train(times: Any) -> bool:
    if isinstance(times, np.ndarray):
        return times.dtype != object
    return all(isinstance(time, Real) for time in times)


def _count(times: np.ndarray, edges: np.ndarray, drop: bool, place: tuple[int, ...]) -> np.ndarray:
    where = f"spike_times{list(place) or ''}"
    if times.size and times.dtype.kind not in "iuf":
        raise TypeError(f"{where} has dtype {times.dtype}: expected times as numbers")
    if times.size and times.size != max(times.shape):
        raise ValueError(
            f"{where} has shape {times.shape}: expected the times of one train; several trains are "
            "given as a list, or as an object array, of vectors"
        )
    flat = times.reshape(-1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise ValueError(f"{where} holds NaN or infinite times: expected one time per spike")
    bins = np.searchsorted(edges, flat, side="right") - 1
    inside = (bins >= 0) & (bins < len(edges) - 1)
    if not drop and not inside.all():
        late = flat[~inside]
        raise ValueError(
            f"{where}: {len(late)} spikes, the first at {late[0]:g}, lie outside of the bins, which"
            f' go from {edges[0]:g} to {edges[-1]:g}: extend the edges, or pass outside="drop"'
        )
    return np.bincount(bins[inside], minlength=len(edges) - 1).astype(np.int64)
