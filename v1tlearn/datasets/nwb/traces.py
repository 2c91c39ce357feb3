"""Responses of a trial: means or sums of traces, or numbers of spikes, in a window of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._options import as_words
from v1tlearn._warn import warn
from v1tlearn.datasets.nwb.finding import choose, column_of, name_of, rows_where
from v1tlearn.datasets.nwb.opening import numbers, refuse
from v1tlearn.datasets.nwb.series import Windows, reduced, shape_of, unit_of

_INTERVAL = ("start_time", "stop_time")
_SILENCE = 14.0  # mean times between spikes; a Poisson process is silent for so long with 1e-6
_VALIDITY = ("valid_roi", "Accepted")  # columns of regions that say which are cells
_KINDS = "responses (series of regions of interest, and units)"


@dataclass(frozen=True)
class Population:
    """Neurons of one series, or all units.

    Attributes
    ----------
    name : str
        Of the series or table.
    table : table of regions or units
    rows : ndarray of int (n_neurons,)
        Places of the neurons in the table.
    values : ndarray of float32 (n_trials, n_neurons)
        NaN where not recorded.
    whole : ndarray of bool (n_trials,)
        Whether the window was recorded.
    units : str
        Of the values.
    reduction : {"mean", "sum", "rate", "line"}
        How they were made.
    """

    name: str
    table: Any
    rows: np.ndarray
    values: np.ndarray
    whole: np.ndarray
    units: str
    reduction: str

    @property
    def ids(self) -> np.ndarray:
        """Of the neurons in their table."""
        return np.asarray(self.table.id[:])[self.rows]


def as_series_names(responses: str | Sequence[str] | None) -> list[str] | None:
    """Put the names of responses that the caller asks for into a list.

    Parameters
    ----------
    responses : str, sequence of str or None

    Returns
    -------
    list of str, or None

    Raises
    ------
    TypeError, ValueError
        If they are something else, or none.
    """
    if responses is None:
        return None
    names = as_words(responses, "responses", of="DfOverF/plane_1")
    if not names:
        raise ValueError(f"responses={responses!r}: expected a name, or None for the only ones.")
    return names


def populations(
    path: Path,
    nwb: Any,
    wanted: list[str] | None,
    windows: Windows,
    reduction: tuple[str, str],
    neurons: Mapping[str, list[Any]],
) -> list[Population]:
    """Read the responses of all neurons in windows of time.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    wanted : list of str or None
        Names of series, of containers, for all in them, or "units"; None for the only one.
    windows : Windows
        One per trial.
    reduction : tuple of str
        Of series, as `reduced` knows them, and of units, "sum" or "rate".
    neurons : mapping of str to list of labels
        What columns of the table of regions or units hold of those that are read.

    Returns
    -------
    list of Population
        In which windows that touch `invalid_times` of the file were not recorded.
    """
    from pynwb.ophys import RoiResponseSeries

    series = [one for one in nwb.objects.values() if isinstance(one, RoiResponseSeries)]
    found = {name_of(one): one for one in sorted(series, key=name_of)}
    candidates: dict[str, Any] = dict(found)
    if nwb.units is not None:
        candidates["units"] = nwb.units
    several = {name.rpartition("/")[0] for name in found} - {""}
    names = [None] if wanted is None else wanted
    chosen: dict[str, Any] = {}
    for one in names:
        inside = [n for n in several if one is not None and (n == one or n.endswith(f"/{one}"))]
        if one not in candidates and len(inside) == 1:
            chosen |= {n: s for n, s in found.items() if n.rpartition("/")[0] == inside[0]}
        else:
            name, only = choose(path, _KINDS, candidates, one, "responses")
            chosen[name] = only
    if len(chosen) > 1 and "units" in chosen:
        refuse(path, f"responses names {list(chosen)}", "units alone, or series alone")
    if "units" in chosen:
        read = [_of_units(path, chosen["units"], windows, reduction[1])]
    else:
        how = reduction[0]
        read = [_of_series(path, name, one, windows, how) for name, one in chosen.items()]
    valid = ~_are_invalid(path, nwb, windows)
    return [_selected(path, one, neurons, valid) for one in read]


def _selected(
    path: Path, one: Population, neurons: Mapping[str, Any], valid: np.ndarray
) -> Population:
    """Neurons that are asked for, in windows that are valid."""
    for column in set(_VALIDITY) & set(one.table.colnames) - set(neurons):
        marked = column_of(path, one.name, one.table, column)[one.rows].astype(bool)
        if not marked.all():
            warn(
                f"{path}: {(~marked).sum()} of {len(marked)} regions of {one.name} are marked "
                f"invalid by {column}, and are read as the others are: leave them out by "
                f"neurons={{{column!r}: True}}."
            )
    kept = np.arange(len(one.rows))
    if neurons:
        kept = np.flatnonzero(
            np.isin(one.rows, rows_where(path, name_of(one.table), one.table, neurons, "neurons"))
        )
        if not len(kept):
            refuse(path, f"neurons leave none of {one.name}", "some")
    values = np.where(valid[:, None], one.values[:, kept], np.float32(np.nan))
    return replace(one, rows=one.rows[kept], values=values, whole=one.whole & valid)


def _are_invalid(path: Path, nwb: Any, windows: Windows) -> np.ndarray:
    """Which windows touch a time that the file calls invalid."""
    found = np.zeros(len(windows.starts), bool)
    if nwb.invalid_times is not None:
        table = nwb.invalid_times
        ends = [numbers(path, f"{c} of invalid_times", table[c].data) for c in _INTERVAL]
        for start, stop in zip(*ends, strict=True):
            found |= (windows.stops > start) & (windows.starts < stop)
    return found


def _of_series(path: Path, name: str, series: Any, windows: Windows, reduction: str) -> Population:
    rows = np.asarray(series.rois.data[:])
    shape = shape_of(series)
    if (shape[1] if len(shape) == 2 else 1) != len(rows):
        turned = len(shape) == 2 and shape[0] == len(rows)
        refuse(
            path,
            f"{name} has the shape {shape} for {len(rows)} regions of interest",
            "(time, regions)" + (": it is transposed, write it anew" if turned else ""),
        )
    found = reduced(path, name, series, windows, reduction)
    units = (unit_of(series) or "1") + ("/s" if reduction == "rate" else "")
    values, how = found.values.astype(np.float32), found.reduction
    return Population(name, series.rois.table, rows, values, found.whole, units, how)


def _of_units(path: Path, units: Any, windows: Windows, reduction: str) -> Population:
    if reduction not in ("sum", "rate"):
        refuse(
            path,
            f"reduction is {reduction!r} of units",
            "'rate', spikes per second, or 'sum', counts",
        )
    if "spike_times" not in units.colnames or not len(units):
        refuse(path, f"units have the columns {list(units.colnames)}", "spike_times of some units")
    counts = np.empty((len(windows.starts), len(units)), np.float32)
    first, last, n_spikes = np.inf, -np.inf, 0
    for number in range(len(units)):
        called = f"spike_times of unit {units.id[number]}"
        times = np.sort(numbers(path, called, np.asarray(units["spike_times"][number])))
        if not np.isfinite(times).all():
            refuse(path, f"{called} hold NaN or infinite times", "a time per spike")
        if len(times):
            first, last = min(first, times[0]), max(last, times[-1])
            n_spikes += len(times)
        ends = np.searchsorted(times, windows.stops)
        counts[:, number] = ends - np.searchsorted(times, windows.starts)
        if "obs_intervals" in units.colnames:
            observed = numbers(path, f"obs_intervals of {called}", units["obs_intervals"][number])
            counts[~_within(path, called, observed, windows), number] = np.nan
    if not np.isfinite(first):
        refuse(path, "units have no spikes at all", "some")
    if "obs_intervals" in units.colnames:
        whole = np.asarray(~np.isnan(counts).all(axis=1))
    else:  # nobody tells when recording began and ended, but it was on from first to last spike
        silence = _SILENCE * (last - first) / n_spikes
        whole = (windows.starts >= first - silence) & (windows.stops <= last + silence)
        counts[~whole] = np.nan
    if reduction != "sum":
        counts /= windows.seconds[:, None].astype(np.float32)
    unit = "spikes" if reduction == "sum" else "spikes/s"
    return Population("units", units, np.arange(len(units)), counts, whole, unit, reduction)


def _within(path: Path, called: str, observed: np.ndarray, windows: Windows) -> np.ndarray:
    """Whether windows lie in the time in which a unit was observed, told in intervals."""
    if (
        observed.ndim != 2
        or observed.shape[1:] != (2,)
        or not (observed[:, 0] <= observed[:, 1]).all()
    ):
        refuse(path, f"obs_intervals of {called} are {observed.tolist()[:3]}", "(start, stop)")
    inside = np.zeros(len(windows.starts), bool)
    for start, stop in _joined(observed):
        inside |= (windows.starts >= start) & (windows.stops <= stop)
    return inside


def _joined(intervals: np.ndarray) -> list[list[float]]:
    """Intervals of which no two meet: where one begins before another ends, they are one."""
    out: list[list[float]] = []
    for start, stop in intervals[np.argsort(intervals[:, 0])].tolist():
        if out and start <= out[-1][1]:
            out[-1][1] = max(out[-1][1], stop)
        else:
            out.append([start, stop])
    return out
