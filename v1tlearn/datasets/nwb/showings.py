"""Which movie was shown when: found among series and tables, cut, and labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn.datasets.movie_frames import JoinedFrames
from v1tlearn.datasets.nwb.cutting import (
    Showing,
    at_breaks,
    frame_seconds,
    in_intervals,
    on_raster,
)
from v1tlearn.datasets.nwb.finding import choose, column_of, rows_where
from v1tlearn.datasets.nwb.images import StoredImages
from v1tlearn.datasets.nwb.opening import refuse
from v1tlearn.datasets.nwb.presentations import (
    Presentations,
    are_blank,
    find,
    intervals_of,
    tables_of,
)
from v1tlearn.datasets.nwb.templates import Asked

_CUTS = ("restarts", "gaps")


@dataclass(frozen=True)
class Shown:
    """Movies in the order in which they were shown.

    Attributes
    ----------
    presentations : Presentations
        One per movie; its images are the frames.
    showings : list of Showing
        One per movie.
    labels : dict of str to ndarray (n_movies,)
        Coordinates of trials.
    frame_rate : float
        Of the raster.
    """

    presentations: Presentations
    showings: list[Showing]
    labels: dict[str, np.ndarray]
    frame_rate: float


def find_showings(
    path: Path,
    nwb: Any,
    asked: Asked,
    trials: str,
    frame_rate: float | None,
    tiers: str | None,
) -> Shown:
    """Find the movies.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    asked : Asked
    trials : str
        "restarts", "gaps", or the name of a table of intervals.
    frame_rate : float or None
        Of the raster; None for that of the file.
    tiers : str or None
        Column of the table of trials, or of that of frames.

    Returns
    -------
    Shown
    """
    tables = tables_of(nwb)
    table = None if asked.stimulus is None else tables.get(asked.stimulus)
    column = asked.image_column
    if trials in _CUTS and column and _names_movies(path, nwb, table, column):
        frames, cuts, seconds = _by_name(path, nwb, table, column, asked, frame_rate)
        intervals = None
    else:
        intervals = None if trials in _CUTS else _chosen(path, tables, trials)
        frames = _in_time(find(path, nwb, _of_frames(asked, intervals, tables)))
        each = frame_seconds(path, frames)
        if intervals is None:
            cuts = at_breaks(path, frames, each, trials == "restarts")
        else:
            is_table = asked.stimulus in tables
            rows = rows_where(path, trials, intervals, {} if is_table else asked.where)
            ends = intervals_of(path, trials, intervals, rows)
            order = np.argsort(ends[0], kind="stable")
            rows, ends = rows[order], (ends[0][order], ends[1][order])
            cuts = in_intervals(path, frames, each, (trials, rows, *ends))
        seconds = [each] * len(cuts)
    showings = [
        on_raster(frames, cut, each, frame_rate) for cut, each in zip(cuts, seconds, strict=True)
    ]
    first = np.array([one.first for one in showings])
    movies = frames.keep(first)
    labels = {"trial_id": np.arange(len(cuts)), "presentation": movies.rows}
    table, name, own = frames.table, frames.name, movies.rows
    if intervals is not None:
        table, name, own = intervals, trials, rows
        labels["presentation"] = rows
    if intervals is not None and asked.image_column is not None:
        told = column_of(path, name, table, asked.image_column)[own].astype(str)
        labels["image_name"] = told
        labels["image_id"] = np.unique(told, return_inverse=True)[1]
    elif frames.are_indexed:
        labels["image_id"] = _numbered([one.sequence for one in showings])
        if frames.names is not None and asked.image_column is not None and intervals is None:
            labels["image_name"] = frames.names[movies.shown]
    if tiers is not None:
        if table is None or tiers not in table.colnames:
            told = "no columns" if table is None else f"{list(table.colnames)}"
            refuse(path, f"tiers is {tiers!r}, {name} has {told}", "a column of the table")
        labels["tier"] = column_of(path, name, table, tiers)[own].astype(str)
    rate = 1 / seconds[0] if frame_rate is None else float(frame_rate)
    return Shown(replace(movies, rows=labels["presentation"]), showings, labels, rate)


def _chosen(path: Path, tables: dict[str, Any], trials: str) -> Any:
    return choose(path, "tables of intervals", tables, trials, "trials")[1]


def _of_frames(asked: Asked, intervals: Any, tables: dict[str, Any]) -> Asked:
    """What is asked of the frames, where a table of trials takes the rest."""
    if intervals is None or asked.stimulus in tables:
        return asked
    return replace(asked, where={}, image_column=None)


def _in_time(frames: Presentations) -> Presentations:
    return frames.keep(np.argsort(frames.onsets, kind="stable"))


def _numbered(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers of sequences, the same for those that are."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(one.tobytes(), len(numbers)) for one in sequences])


def _names_movies(path: Path, nwb: Any, table: Any, column: str) -> bool:
    """Whether a column of a table names series of images among the templates."""
    from pynwb.image import ImageSeries

    if table is None or column not in table.colnames:
        return False
    values = column_of(path, table.name, table, column)
    named = {n for n, one in nwb.stimulus_template.items() if isinstance(one, ImageSeries)}
    return values.dtype.kind not in "iufb" and bool(named & {str(v) for v in values})


def _by_name(
    path: Path, nwb: Any, table: Any, column: str, asked: Asked, frame_rate: float | None
) -> tuple[Presentations, list[slice], list[float]]:
    """Frames of movies that a table names, each shown from its start at the rate of its series."""
    if asked.templates is not None or asked.first_index:
        argument = "first_index" if asked.templates is None else "templates"
        refuse(
            path,
            f"{argument} came for {table.name}, whose {column} names movies of the file",
            "it for numbers of frames alone",
        )
    rows = rows_where(path, table.name, table, asked.where)
    told = column_of(path, table.name, table, column)
    rows = rows[~are_blank(path, f"{column} of {table.name}", told, asked.blanks)[rows]]
    starts, stops = intervals_of(path, table.name, table, rows)
    order = np.argsort(starts, kind="stable")
    rows, starts, stops = rows[order], starts[order], stops[order]
    called = told[rows].astype(str)
    names = sorted(set(called.tolist()))
    absent = [name for name in names if name not in nwb.stimulus_template]
    if absent:
        refuse(
            path,
            f"{column} of {table.name} names {absent[:5]}, which are no templates",
            "series of images: pass blanks=[...] for rows that show none",
        )
    series = [nwb.stimulus_template[name] for name in names]
    stored = [
        StoredImages.of_series(path, name, one, turned=asked.turned)
        for name, one in zip(names, series, strict=True)
    ]
    shapes = {one.shape[1:] for one in stored}
    if len(shapes) > 1:
        refuse(path, f"frames of {names[:5]} differ in shape: {sorted(shapes)}", "one shape")
    steps = [_step(path, name, one, frame_rate) for name, one in zip(names, series, strict=True)]
    if frame_rate is None and len({f"{step:.6g}" for step in steps}) > 1:
        refuse(
            path,
            f"movies have {sorted({1 / step for step in steps})} frames per second",
            "one rate: pass frame_rate=",
        )
    joined = JoinedFrames(tuple(stored))
    onsets, shown, cuts, seconds = [], [], [], []
    places: list[int] = []
    for row, start, stop, name in zip(rows, starts, stops, called, strict=True):
        number = names.index(name)
        step, there = steps[number], stored[number].shape[0]
        count = round((stop - start) / step)
        if not 1 <= count <= there + 1:
            refuse(
                path,
                f"row {row} of {table.name} lasts {stop - start:g} s, {name} {there * step:g} s",
                "rows that end with the movie, or before",
            )
        count = min(count, there)
        cuts.append(slice(len(places), len(places) + count))
        onsets.append(start + step * np.arange(count))
        shown.append(joined.starts[number] + np.arange(count))
        places += [row] * count
        seconds.append(step)
    frames = Presentations(
        table.name,
        np.concatenate(onsets),
        np.concatenate(shown),
        joined,
        True,
        np.repeat(names, [one.shape[0] for one in stored]),
        np.array(places),
        table,
    )
    return frames, cuts, seconds


def _step(path: Path, name: str, series: Any, frame_rate: float | None) -> float:
    """Seconds from frame to frame of a movie among the templates."""
    rate = series.rate if series.rate is not None and math.isfinite(series.rate) else frame_rate
    if rate is None or not rate > 0:
        refuse(path, f"{name} has rate {series.rate}", "frames per second: pass frame_rate=")
    return 1 / float(rate)
