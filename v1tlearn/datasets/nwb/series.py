"""Time series of an NWB file: when samples were taken, and what becomes of them in windows."""

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
    def seconds(self) -> np.ndarray:
        """How long each is."""
        return self.stops - self.starts

    @property
    def middles(self) -> np.ndarray:
        """The time between start and stop."""
        return (self.starts + self.stops) / 2


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


def unit_of(series: Any) -> str:
    """Unit of the data of a series, as the file tells it."""
    return "unknown" if series.unit is None else str(series.unit)


def scaling_of(path: Path, name: str, series: Any) -> tuple[float, float]:
    """Conversion and offset of a series: what its stored numbers are multiplied with, and added.

    Parameters
    ----------
    path : Path
    name : str
        Of the series, for errors.
    series : TimeSeries

    Returns
    -------
    conversion, offset : float
    """
    conversion, offset = float(series.conversion), float(series.offset)
    if conversion == 0 or not math.isfinite(conversion) or not math.isfinite(offset):
        refuse(
            path,
            f"{name} has the conversion {conversion:g} and the offset {offset:g}",
            "finite ones, the conversion not 0",
        )
    return conversion, offset


@dataclass(frozen=True)
class Reduced:
    """A series, one value per window.

    Attributes
    ----------
    values : ndarray of float (n_windows, n_columns)
        NaN where a sample is, or none was taken.
    whole : ndarray of bool (n_windows,)
        Whether samples were taken all through the window, or around its middle.
    reduction : {"mean", "sum", "rate", "line"}
        How values were made.
    """

    values: np.ndarray
    whole: np.ndarray
    reduction: str


def reduced(
    path: Path,
    name: str,
    series: Any,
    windows: Windows,
    reduction: str,
    data: np.ndarray | None = None,
) -> Reduced:
    """Reduce a series, (time,) or (time, columns), to one value per window, in its unit.

    Parameters
    ----------
    path : Path
    name : str
        Of the series, for errors.
    series : TimeSeries
        Whose conversion and offset are applied. It is read in blocks along its chunks.
    windows : Windows
    reduction : {"mean", "sum", "rate", "line", "frame"}
        The mean, sum or sum per second of the samples in the window, where one that lies at an
        edge, but for rounding, lies behind it; or the value in its middle, on a line between the
        samples before and behind. "frame" is the mean, or the line where a window has no sample,
        or in all of them if the series is slower than windows.
    data : ndarray, optional
        In place of the data of the series.

    Returns
    -------
    Reduced
    """
    data = series.data if data is None else data
    shape = tuple(getattr(data, "shape", np.shape(data)))
    if len(shape) not in (1, 2) or shape[0] < 2 or 0 in shape:
        refuse(
            path, f"{name} has the shape {shape}", "(time,) or (time, columns), two times or more"
        )
    if np.dtype(series.data.dtype).kind not in "iuf":
        refuse(path, f"{name} has dtype {series.data.dtype}", "numbers")
    times = times_of(path, name, series)
    step = float(np.median(np.diff(times)))
    near = _ROUNDING * step
    first = np.searchsorted(times, windows.starts - near)
    stop = np.searchsorted(times, windows.stops - near)
    counts = stop - first
    whole = (windows.starts >= times[0] - near) & (windows.stops <= times[-1] + step + near)
    gaps = np.flatnonzero(np.diff(times) > _GAP * step)
    begun = np.searchsorted(times[gaps] + step + near, windows.stops)
    over = np.searchsorted(times[gaps + 1] - near, windows.starts, side="right")
    whole &= begun <= over
    conversion, offset = scaling_of(path, name, series)
    slow = step > 1.01 * np.median(windows.seconds)
    if reduction == "line" or (reduction == "frame" and slow):
        found, whole = _on_lines(data, shape, times, windows.middles)
        found = np.where(whole[:, None], found * conversion + offset, np.nan)
        return Reduced(found, whole, "line")
    if windows.seconds.max() < step * (1 - _ROUNDING) and reduction != "frame":
        refuse(
            path,
            f"{name} has a sample every {step:g} s, the window is {windows.seconds[0]:g} s long",
            "a window that holds a sample: pass a longer one",
        )
    found = _summed(data, shape, first, stop) * conversion + offset * counts[:, None]
    if reduction == "rate":
        found = found / windows.seconds[:, None]
    elif reduction != "sum":
        found = found / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(whole & (counts == 0))
    if reduction == "frame" and len(empty):
        lines, whole[empty] = _on_lines(data, shape, times, windows.middles[empty])
        found[empty] = lines * conversion + offset
    else:
        whole[empty] = False
    found = np.where(whole[:, None], found, np.nan)
    return Reduced(found, whole, "mean" if reduction == "frame" else reduction)


def _on_lines(
    data: Any, shape: tuple[int, ...], times: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values on lines between samples, and whether there are samples on both sides, near."""
    before = np.searchsorted(times, at, side="right") - 1
    exact = (before >= 0) & (times[before.clip(0)] == at)
    behind = np.where(exact, before, before + 1)
    there = (before >= 0) & (behind < len(times))
    before, behind = before.clip(0), behind.clip(0, len(times) - 1)
    apart = times[behind] - times[before]
    there &= apart <= _GAP * np.median(np.diff(times))
    weight = np.where(apart > 0, (at - times[before]) / np.where(apart > 0, apart, 1), 0.0)
    out = np.zeros((len(at), 1 if len(shape) == 1 else shape[1]))
    for rows, columns in _blocks(data, shape):
        block = np.asarray(data[rows] if len(shape) == 1 else data[rows, columns], np.float64)
        block = block.reshape(len(block), -1)
        for places, weights in ((before, 1 - weight), (behind, weight)):
            inside = there & (places >= rows.start) & (places < rows.stop) & (weights > 0)
            out[inside, columns] += weights[inside, None] * block[places[inside] - rows.start]
    return out, there


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
