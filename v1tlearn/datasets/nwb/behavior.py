"""Behaviour of a trial: what series say in a window of time."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._values import plain
from v1tlearn.datasets.nwb.finding import choose, name_of
from v1tlearn.datasets.nwb.opening import refuse
from v1tlearn.datasets.nwb.series import Windows, reduced, shape_of, times_of, unit_of

Behaviors = Mapping[str, str | tuple[str, int]]
Wanted = dict[str, tuple[str, int | None]]  # name of a series, and of several columns the number


def as_behaviors(behaviors: Behaviors | None) -> Wanted:
    """Put the behaviour that the caller asks for into one form.

    Parameters
    ----------
    behaviors : mapping of str to (str or (str, int)), or None

    Returns
    -------
    dict of str to (str, int or None)

    Raises
    ------
    TypeError
        If it is something else.
    """
    if behaviors is None:
        return {}
    if not isinstance(behaviors, Mapping) or not all(isinstance(one, str) for one in behaviors):
        raise TypeError(
            f"behaviors={behaviors!r}: expected series by the names of behaviour, "
            "{'speed': 'behavior/speed'}."
        )
    return {behavior: _as_series(behavior, told) for behavior, told in behaviors.items()}


def _as_series(behavior: str, told: Any) -> tuple[str, int | None]:
    if isinstance(told, str):
        return told, None
    parts = plain(told, "behaviors")
    if isinstance(parts, list | tuple) and len(parts) == 2:
        name, column = parts
        is_whole = isinstance(column, Integral) and not isinstance(column, bool)
        if isinstance(name, str) and (is_whole or column is None):
            return name, column
    raise TypeError(
        f"behaviors[{behavior!r}]={told!r}: expected the name of a series, or "
        "(name, number of its column from 0)."
    )


def behaviors_of(
    path: Path, nwb: Any, wanted: Wanted, windows: Windows, reduction: str, gaps: float
) -> tuple[np.ndarray, dict[str, str]]:
    """Reduce series to one value per window of time.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    wanted : dict of str to (str, int or None)
        The series of each column of behaviour, and which of its own columns.
    windows : Windows
    reduction : {"mean", "frame"}
        As `reduced` knows them.
    gaps : float
        Seconds between two samples that are numbers, up to which NaN between them is replaced by
        what lies on a line.

    Returns
    -------
    ndarray of float32 (n_windows, n_columns)
        NaN where the series does not reach, or holds NaN.
    dict of str to str
        Units of the columns.
    """
    from pynwb import TimeSeries
    from pynwb.misc import IntervalSeries

    shown = {id(one) for one in (*nwb.stimulus.values(), *nwb.stimulus_template.values())}
    candidates = {
        name_of(one): one
        for one in nwb.objects.values()
        if isinstance(one, TimeSeries) and id(one) not in shown
    }
    columns, units = [], {}
    for behavior, (wanted_name, column) in wanted.items():
        what = f"series for the behaviour {behavior!r}"
        name, series = choose(path, what, candidates, wanted_name, "behaviors")
        if isinstance(series, IntervalSeries):
            refuse(path, f"{name} holds where intervals begin and end", "a series of samples")
        shape = shape_of(series)
        n_columns = shape[1] if len(shape) == 2 else 1
        if (column is None and n_columns > 1) or not 0 <= (column or 0) < n_columns:
            refuse(
                path,
                f"{name} has {n_columns} columns, the behaviour {behavior!r} takes {column}",
                f"behaviors={{{behavior!r}: ({name!r}, column)}}, counted from 0",
            )
        data = series.data[:] if len(shape) == 1 else series.data[:, column or 0]
        data = np.asarray(data, np.float64)
        each = getattr(series, "channel_conversion", None)  # of electrodes
        data = data if each is None else data * float(each[column or 0])
        if gaps:
            data = _bridged(data, times_of(path, name, series), gaps)
        columns.append(reduced(path, name, series, windows, reduction, data).values[:, 0])
        units[behavior] = unit_of(series)
    return np.stack(columns, axis=1).astype(np.float32), units


def _bridged(values: np.ndarray, times: np.ndarray, gaps: float) -> np.ndarray:
    """Replace NaN between two numbers that are no further apart than so many seconds."""
    told = np.flatnonzero(~np.isnan(values))
    if len(told) < 2:
        return values
    lost = np.isnan(values)
    behind = np.searchsorted(told, np.arange(len(values))).clip(1, len(told) - 1)
    apart = times[told[behind]] - times[told[behind - 1]]
    inside = lost & (times > times[told[0]]) & (times < times[told[-1]]) & (apart <= gaps)
    return np.where(inside, np.interp(times, times[told], values[told]), values)
