"""Behaviour of a trial: means of series over a window of time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn.datasets.nwb.finding import choose, name_of
from v1tlearn.datasets.nwb.opening import refuse
from v1tlearn.datasets.nwb.series import Windows, shape_of, sums

Behaviors = Mapping[str, str | tuple[str, int]]


def behaviors_of(
    path: Path, nwb: Any, wanted: Behaviors, windows: Windows
) -> tuple[np.ndarray, dict[str, str]]:
    """Average series over windows of time.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    wanted : mapping of str to (str or (str, int))
        The series of each column of behaviour, and which of its own columns.
    windows : Windows

    Returns
    -------
    ndarray of float32 (n_trials, n_columns)
        NaN where the series does not reach, or holds NaN.
    dict of str to str
        Units of the columns.
    """
    from pynwb import TimeSeries

    shown = {id(one) for one in (*nwb.stimulus.values(), *nwb.stimulus_template.values())}
    candidates = {
        name_of(one): one
        for one in nwb.objects.values()
        if isinstance(one, TimeSeries) and id(one) not in shown
    }
    columns, units = [], {}
    for behavior, told in wanted.items():
        wanted_name, column = (told, None) if isinstance(told, str) else told
        what = f"series for the behaviour {behavior!r}"
        name, series = choose(path, what, candidates, wanted_name, "behaviors")
        shape = shape_of(series)
        n_columns = shape[1] if len(shape) == 2 else 1
        if (column is None and n_columns > 1) or not 0 <= (column or 0) < n_columns:
            refuse(
                path,
                f"{name} has {n_columns} columns, the behaviour {behavior!r} takes {column}",
                f"behaviors={{{behavior!r}: ({name!r}, column)}}, counted from 0",
            )
        summed = sums(path, name, series, windows)
        values = summed.means()[:, column or 0]
        columns.append(np.where(summed.whole, values, np.nan))
        units[behavior] = str(series.unit)
    return np.stack(columns, axis=1).astype(np.float32), units
