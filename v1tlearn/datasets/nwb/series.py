"""Time series of an NWB file: when their samples were taken, and sums over windows of time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn.datasets.nwb.opening import numbers, refuse

_BLOCK_BYTES = 32 * 2**20
_ROUNDING = 1e-3  # of a step between samples, by which a sample may miss the edge of a window
_GAP = 1.5  # steps, from which on a sample counts as missing


@dataclass(frozen=True)
class Windows:
    """Stretches of time, one per trial, each from its start, included, to its stop.

    Attributes
    ----------
    starts, stops : ndarray of float (n_trials,)
        In seconds of the session.
    """

    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def after(cls, onsets: np.ndarray, window: tuple[float, float]) -> Windows:
        """Those that begin and end so many seconds after onsets."""
        return cls(onsets + window[0], onsets + window[1])

    @property
    def seconds(self) -> float:
        """How long each is."""
        return float(self.stops[0] - self.starts[0])


@dataclass(frozen=True)
class Sums:
    """Sums of a series over windows.

    Attributes
    ----------
    values : ndarray of float (n_trials, n_columns)
        NaN where a sample is.
    counts : ndarray of int (n_trials,)
        Samples in each window.
    whole : ndarray of bool (n_trials,)
        Whether samples were taken all through the window.
    """

    values: np.ndarray
    counts: np.ndarray
    whole: np.ndarray

    def means(self) -> np.ndarray:
        """Means over the windows."""
        return self.values / np.maximum(self.counts, 1)[:, None]


def times_of(path: Path, name: str, series: Any, n_samples: int | None = None) -> np.ndarray:
    """When the samples of a series were taken.

    Parameters
    ----------
    path : Path
    name : str
        Of the series, for errors.
    series : TimeSeries
    n_samples : int, optional
        How many it has, where its data are elsewhere.

    Returns
    -------
    ndarray of float (n_samples,)
        Seconds of the session, finite and rising.
    """
    n_samples = shape_of(series)[0] if n_samples is None else n_samples
    if series.rate is not None:
        rate, start = float(series.rate), float(series.starting_time or 0)
        if not (0 < rate < math.inf) or not math.isfinite(start):
            refuse(path, f"{name} has rate {rate} and starts at {start}", "Hz above 0, and seconds")
        return start + np.arange(n_samples) / rate
    if series.timestamps is None:
        refuse(path, f"{name} has neither timestamps nor a rate", "either")
    times = numbers(path, f"timestamps of {name}", series.timestamps).astype(np.float64)
    if times.shape != (n_samples,):
        refuse(path, f"{name} has {n_samples} samples and {times.shape} timestamps", "one of each")
    check_times(path, f"timestamps of {name}", times)
    return times


def check_times(path: Path, called: str, times: np.ndarray) -> None:
    """Refuse times that are not finite, or do not rise."""
    if not np.isfinite(times).all():
        at = int(np.argmin(np.isfinite(times)))
        refuse(path, f"{called} hold {times[at]} at place {at}", "seconds")
    if (np.diff(times) <= 0).any():
        at = int(np.argmax(np.diff(times) <= 0))
        refuse(
            path,
            f"{called} do not rise: {times[at]:g} s is followed by {times[at + 1]:g} s at place "
            f"{at + 1}",
            "each later than the one before: sort samples, or repair the clock",
        )


def shape_of(series: Any) -> tuple[int, ...]:
    """Shape of the data of a series."""
    shape = getattr(series.data, "shape", None)
    return np.shape(series.data) if shape is None else tuple(shape)


def sums(path: Path, name: str, series: Any, windows: Windows) -> Sums:
    """Sum a series up over windows, (time,) or (time, columns), in its unit.

    Parameters
    ----------
    path : Path
    name : str
        Of the series, for errors.
    series : TimeSeries
        Whose conversion and offset are applied. It is read in blocks along its chunks.
    windows : Windows

    Returns
    -------
    Sums
        In which a sample that lies at an edge of a window, but for rounding, lies behind it.
    """
    shape = shape_of(series)
    if len(shape) not in (1, 2) or shape[0] < 2 or 0 in shape:
        refuse(
            path, f"{name} has the shape {shape}", "(time,) or (time, columns), two times or more"
        )
    times = times_of(path, name, series)
    step = float(np.median(np.diff(times)))
    if windows.seconds < step * (1 - _ROUNDING):
        refuse(
            path,
            f"{name} has a sample every {step:g} s, the window is {windows.seconds:g} s long",
            "a window that holds a sample: pass a longer one",
        )
    near = _ROUNDING * step
    first = np.searchsorted(times, windows.starts - near)
    stop = np.searchsorted(times, windows.stops - near)
    whole = (windows.starts >= times[0] - near) & (windows.stops <= times[-1] + step + near)
    gaps = np.flatnonzero(np.diff(times) > _GAP * step)
    begun = np.searchsorted(times[gaps] + step + near, windows.stops)
    over = np.searchsorted(times[gaps + 1] - near, windows.starts, side="right")
    counts = stop - first
    whole &= (begun <= over) & (counts > 0)
    found = _summed(series.data, shape, first, stop)
    conversion, offset = float(series.conversion), float(series.offset)
    return Sums(found * conversion + offset * counts[:, None], counts, whole)


def _summed(data: Any, shape: tuple[int, ...], first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    n_columns = 1 if len(shape) == 1 else shape[1]
    out = np.zeros((len(first), n_columns))
    for rows, columns in _blocks(data, shape):
        touched = np.flatnonzero((first < rows.stop) & (stop > rows.start) & (first < stop))
        if not len(touched):
            continue
        block = np.asarray(data[rows] if len(shape) == 1 else data[rows, columns])
        block = block.reshape(len(block), -1)
        block = np.concatenate([block, np.zeros_like(block[:1])])  # behind the last edge
        edges = np.stack([first[touched], stop[touched]], axis=1).clip(rows.start, rows.stop)
        # every second sum is of what lies between two windows
        part = np.add.reduceat(block, (edges - rows.start).ravel(), axis=0, dtype=np.float64)[::2]
        out[touched, columns] += part
    return out


def _blocks(data: Any, shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Blocks of whole chunks, so that each is inflated once, as few as memory allows."""
    n_rows, n_columns = shape[0], 1 if len(shape) == 1 else shape[1]
    chunks = getattr(data, "chunks", None) or (1, n_columns)
    high, wide = min(chunks[0], n_rows), min(chunks[-1] if len(shape) == 2 else 1, n_columns)
    room = _BLOCK_BYTES // max(1, np.dtype(data.dtype).itemsize)
    high = min(n_rows, high * max(1, room // (high * wide)))
    wide = min(n_columns, wide * max(1, room // (high * wide)))
    for left in range(0, n_columns, wide):
        for top in range(0, n_rows, high):
            yield slice(top, min(top + high, n_rows)), slice(left, min(left + wide, n_columns))
