"""Responses of a trial: means or sums of traces, or numbers of spikes, in a window of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn.datasets.nwb.finding import choose, name_of
from v1tlearn.datasets.nwb.opening import numbers, refuse
from v1tlearn.datasets.nwb.series import Windows, shape_of, sums

REDUCTIONS = ("auto", "mean", "sum", "rate")
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
    """

    name: str
    table: Any
    rows: np.ndarray
    values: np.ndarray
    whole: np.ndarray
    units: str

    @property
    def ids(self) -> np.ndarray:
        """Of the neurons in their table."""
        return np.asarray(self.table.id[:])[self.rows]


def populations(
    path: Path, nwb: Any, wanted: str | Sequence[str] | None, windows: Windows, reduction: str
) -> list[Population]:
    """Read the responses of all neurons in windows of time.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    wanted : str, sequence of str or None
        Names of series, of containers, for all in them, or "units"; None for the only one.
    windows : Windows
        One per trial.
    reduction : {"auto", "mean", "sum", "rate"}

    Returns
    -------
    list of Population
    """
    from pynwb.ophys import RoiResponseSeries

    series = [one for one in nwb.objects.values() if isinstance(one, RoiResponseSeries)]
    found = {name_of(one): one for one in sorted(series, key=name_of)}
    candidates: dict[str, Any] = dict(found)
    if nwb.units is not None:
        candidates["units"] = nwb.units
    several = {name.rpartition("/")[0] for name in found} - {""}
    names = [wanted] if wanted is None or isinstance(wanted, str) else list(wanted)
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
        return [_of_units(path, chosen["units"], windows, reduction)]
    return [_of_series(path, name, one, windows, reduction) for name, one in chosen.items()]


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
    summed = sums(path, name, series, windows)
    units = str(series.unit) or "1"
    if reduction == "sum":
        values = summed.values
    elif reduction == "rate":
        values, units = summed.values / windows.seconds, f"{units}/s"
    else:
        values = summed.means()
    values = np.where(summed.whole[:, None], values, np.nan).astype(np.float32)
    return Population(name, series.rois.table, rows, values, summed.whole, units)


def _of_units(path: Path, units: Any, windows: Windows, reduction: str) -> Population:
    if reduction == "mean":
        refuse(path, "reduction is 'mean' of units", "'rate', spikes per second, or 'sum', counts")
    if "spike_times" not in units.colnames or not len(units):
        refuse(path, f"units have the columns {list(units.colnames)}", "spike_times of some units")
    counts = np.empty((len(windows.starts), len(units)), np.float32)
    first, last = np.inf, -np.inf
    for number in range(len(units)):
        called = f"spike_times of unit {units.id[number]}"
        times = np.sort(numbers(path, called, np.asarray(units["spike_times"][number])))
        if not np.isfinite(times).all():
            refuse(path, f"{called} hold NaN or infinite times", "a time per spike")
        if len(times):
            first, last = min(first, times[0]), max(last, times[-1])
        ends = np.searchsorted(times, windows.stops)
        counts[:, number] = ends - np.searchsorted(times, windows.starts)
        if "obs_intervals" in units.colnames:
            observed = numbers(path, f"obs_intervals of {called}", units["obs_intervals"][number])
            counts[~_within(path, called, observed, windows), number] = np.nan
    if not np.isfinite(first):
        refuse(path, "units have no spikes at all", "some")
    if "obs_intervals" in units.colnames:
        whole = np.asarray(~np.isnan(counts).all(axis=1))
    else:  # nobody tells when recording began, but it had by the first spike of all
        whole = (windows.stops > first) & (windows.starts <= last)
        counts[~whole] = np.nan
    if reduction != "sum":
        counts /= np.float32(windows.seconds)
    unit = "spikes" if reduction == "sum" else "spikes/s"
    return Population("units", units, np.arange(len(units)), counts, whole, unit)


def _within(path: Path, called: str, observed: np.ndarray, windows: Windows) -> np.ndarray:
    """Whether windows lie in one of the intervals in which a unit was observed."""
    if (
        observed.ndim != 2
        or observed.shape[1:] != (2,)
        or not (observed[:, 0] <= observed[:, 1]).all()
    ):
        refuse(path, f"obs_intervals of {called} are {observed.tolist()[:3]}", "(start, stop)")
    inside = np.zeros(len(windows.starts), bool)
    for start, stop in observed:
        inside |= (windows.starts >= start) & (windows.stops <= stop)
    return inside
