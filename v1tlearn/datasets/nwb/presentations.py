"""Which image was shown when: a series of images, a series of indices, or a table of intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._warn import warn
from v1tlearn.datasets.movie_frames import Frames
from v1tlearn.datasets.nwb.finding import choose, column_of, rows_where
from v1tlearn.datasets.nwb.images import StoredImages
from v1tlearn.datasets.nwb.opening import numbers, refuse
from v1tlearn.datasets.nwb.series import check_times, times_of
from v1tlearn.datasets.nwb.templates import Asked, Templates, templates_of

# Columns of tables of intervals that say which image was shown.
IMAGE_COLUMNS = (
    "image_index",
    "template_index",
    "stimulus_index",
    "frame",
    "image_id",
    "image_name",
)
_ROUNDING_SECONDS = 1e-6  # by which an interval may reach into the next
_KINDS = "series of images or of indices, and tables of intervals with a column of images"


@dataclass(frozen=True)
class Presentations:
    """Presentations in the order of the file.

    Attributes
    ----------
    name : str
        Of the series or table.
    onsets : ndarray of float (n,)
        Seconds of the session.
    shown : ndarray of int (n,)
        Places of the images.
    images : Frames
    are_indexed : bool
        Whether the file says which presentations are of one image.
    names : ndarray of str (n_images,) or None
        Of the images.
    rows : ndarray of int (n,)
        Places in the series or table.
    table : table of intervals, or None
    stops : ndarray of float (n,) or None
        Where the file tells when images went.
    """

    name: str
    onsets: np.ndarray
    shown: np.ndarray
    images: Frames
    are_indexed: bool
    names: np.ndarray | None
    rows: np.ndarray
    table: Any = None
    stops: np.ndarray | None = None

    def keep(self, kept: np.ndarray) -> Presentations:
        """Some of them, or all in another order."""
        told = {"onsets": self.onsets, "shown": self.shown, "rows": self.rows}
        told |= {} if self.stops is None else {"stops": self.stops}
        return replace(self, **{name: values[kept] for name, values in told.items()})


def find(path: Path, nwb: Any, asked: Asked) -> Presentations:
    """Find the presentations of images.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    asked : Asked

    Returns
    -------
    Presentations
    """
    from pynwb.epoch import TimeIntervals
    from pynwb.image import ImageSeries, IndexSeries
    from pynwb.ophys import OnePhotonSeries, TwoPhotonSeries

    shown = {
        name: one
        for name, one in nwb.stimulus.items()
        if isinstance(one, ImageSeries | IndexSeries | TimeIntervals)
    }
    shown |= tables_of(nwb)
    if asked.stimulus is None:
        columns = {*IMAGE_COLUMNS, asked.image_column}
        shown = {
            name: one
            for name, one in shown.items()
            if not isinstance(one, TimeIntervals) or columns & set(one.colnames)
        }
    else:  # some keep what was shown among what was acquired
        shown = {
            name: one
            for name, one in nwb.acquisition.items()
            if isinstance(one, ImageSeries)
            and not isinstance(one, OnePhotonSeries | TwoPhotonSeries)
        } | shown
    name, found = choose(path, _KINDS, shown, asked.stimulus, "stimulus")
    if isinstance(found, TimeIntervals):
        return _of_table(path, nwb, name, found, asked)
    for argument in ("image_column", "where"):
        if getattr(asked, argument):
            refuse(path, f"{argument} came for {name}, a series", "it for a table alone")
    if isinstance(found, IndexSeries):
        onsets = times_of(path, name, found)
        if found.conversion != 1 or found.offset != 0:
            refuse(path, f"{name} has a conversion or an offset", "indices as they are")
        target = found.indexed_images
        target = found.indexed_timeseries if target is None else target  # deprecated, and in use
        if target is None and asked.templates is None:
            refuse(path, f"{name} does not say which images it counts", "templates=")
        templates = templates_of(path, nwb, asked, target)
        values = numbers(path, f"data of {name}", found.data)
        if values.ndim != 1:
            refuse(path, f"{name} has the shape {values.shape}", "one index per time")
        rows = np.flatnonzero(~are_blank(path, f"data of {name}", values, asked.blanks))
        return _pointing(path, name, values[rows], onsets[rows], rows, templates, asked)
    if asked.first_index or asked.blanks or isinstance(asked.templates, str):
        refuse(
            path,
            f"first_index, blanks or templates came for {name}, which holds what was shown",
            "them for indices alone",
        )
    if asked.templates is None:
        images: Frames = StoredImages.of_series(path, name, found, turned=asked.turned)
    else:
        images = asked.templates
    onsets = times_of(path, name, found, n_samples=images.shape[0])
    rows = np.arange(len(onsets))
    return Presentations(name, onsets, rows, images, False, None, rows)


def _of_table(path: Path, nwb: Any, name: str, table: Any, asked: Asked) -> Presentations:
    column = asked.image_column
    found = [one for one in IMAGE_COLUMNS if one in table.colnames] if column is None else [column]
    if len(found) != 1 or found[0] not in table.colnames:
        refuse(
            path,
            f"of the columns of {name}, {', '.join(table.colnames)}, "
            f"{', '.join(found) if column is None and found else column or 'none'} may say which "
            "image was shown",
            "one of them: pass image_column=",
        )
    values = column_of(path, name, table, found[0])
    rows = rows_where(path, name, table, asked.where)
    rows = rows[~are_blank(path, f"{found[0]} of {name}", values, asked.blanks)[rows]]
    onsets, stops = intervals_of(path, name, table, rows)
    templates = templates_of(path, nwb, asked)
    return _pointing(path, name, values[rows], onsets, rows, templates, asked, table, stops)


def tables_of(nwb: Any) -> dict[str, Any]:
    """Tables of intervals of a file, by name."""
    tables = [*nwb.intervals.values(), nwb.trials, nwb.epochs]
    return {one.name: one for one in tables if one is not None}


def intervals_of(
    path: Path, name: str, table: Any, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """When rows of a table of intervals start and stop, none before the one before has ended.

    Parameters
    ----------
    path : Path
    name : str
        Of the table, for errors.
    table : TimeIntervals
    rows : ndarray of int (n,)

    Returns
    -------
    onsets, stops : ndarray of float (n,)
        In seconds of the session.
    """
    onsets = numbers(path, f"start_time of {name}", table["start_time"].data)[rows]
    stops = numbers(path, f"stop_time of {name}", table["stop_time"].data)[rows]
    order = np.argsort(onsets, kind="stable")
    check_times(path, f"start_time of {name}, in order,", onsets[order])
    if not (stops >= onsets).all():
        at = int(np.argmin(stops >= onsets))
        refuse(
            path,
            f"row {rows[at]} of {name} stops at {stops[at]} s",
            "a stop behind its start, or blanks=[...] that leaves out what was not shown",
        )
    early = np.flatnonzero(onsets[order][1:] < stops[order][:-1] - _ROUNDING_SECONDS)
    if len(early):
        at = order[early[0] + 1]
        refuse(
            path,
            f"row {rows[at]} of {name} starts at {onsets[at]:g} s, before the one before has ended",
            "one image at a time: select rows by where=",
        )
    return onsets, stops


def _pointing(
    path: Path,
    name: str,
    values: np.ndarray,
    onsets: np.ndarray,
    rows: np.ndarray,
    templates: Templates,
    asked: Asked,
    table: Any = None,
    stops: np.ndarray | None = None,
) -> Presentations:
    """Presentations whose values, numbers or names, say which image was shown."""
    if not len(rows):
        refuse(path, f"{name} has no presentation of an image", "some")
    if values.dtype.kind in "iuf":
        places = _counted(path, name, values, rows, templates, asked.first_index)
    else:
        places = _named(path, name, values, rows, templates)
    told = (templates.images, True, templates.names, rows, table, stops)
    return Presentations(name, onsets, places, *told)


def are_blank(path: Path, called: str, values: np.ndarray, blanks: tuple[Any, ...]) -> np.ndarray:
    """Tell where no image was shown; warn of a value that nothing holds, as in some sessions.

    Parameters
    ----------
    path : Path
    called : str
        The values, in errors.
    values : ndarray (n,)
        Numbers or names of images.
    blanks : tuple
        Values in place of an image.

    Returns
    -------
    ndarray of bool (n,)
    """
    found = np.zeros(len(values), bool)
    for blank in blanks:
        if isinstance(blank, float) and math.isnan(blank):
            here = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        elif values.dtype.kind == "u" and isinstance(blank, int) and blank < 0:
            here = values == 2 ** (8 * values.dtype.itemsize) + blank  # as -1 is cast
        else:
            here = np.array([value == blank for value in values.tolist()], bool)
        if not here.any():
            some = list(dict.fromkeys(values.tolist()))[:5]
            warn(
                f"{path}: blanks names {blank!r}, which no row of {called} holds, but values such "
                f"as {some}."
            )
        found |= here
    return found


def _counted(
    path: Path, name: str, values: np.ndarray, rows: np.ndarray, templates: Templates, first: int
) -> np.ndarray:
    n_images = templates.images.shape[0]
    if not templates.are_ordered:
        refuse(
            path,
            f"{name} counts the images of {templates.name}, whose order is not told",
            "order_of_images, or names in place of numbers",
        )
    with np.errstate(invalid="ignore"):
        outside = ~((values >= first) & (values < first + n_images) & (values % 1 == 0))
    if outside.any():
        at = int(np.argmax(outside))
        from_one = first == 0 and values.min() == 1 and values.max() == n_images
        refuse(
            path,
            f"{name} shows image {values[at]} in row {rows[at]}, one of {outside.sum()} that "
            f"{templates.name} does not have",
            f"whole numbers from {first} to {first + n_images - 1}: pass "
            + ("first_index=1" if from_one else "blanks=[...] if no image was shown there"),
        )
    return values.astype(np.int64) - first


def _named(
    path: Path, name: str, values: np.ndarray, rows: np.ndarray, templates: Templates
) -> np.ndarray:
    if templates.names is None:
        refuse(
            path,
            f"{name} names images, such as {values[0]!r}, but {templates.name} has no names",
            "numbers in image_column, or templates with names",
        )
    places = {str(one): place for place, one in enumerate(templates.names)}
    absent = [row for row, value in zip(rows, values, strict=True) if str(value) not in places]
    if absent:
        unknown = sorted({str(value) for value in values} - set(places))
        refuse(
            path,
            f"{name} shows {unknown[:5]} in {len(absent)} rows, the first {absent[0]}, which "
            f"{templates.name} does not have",
            "names of images: pass blanks=[...] for those that show none",
        )
    return np.array([places[str(value)] for value in values], np.int64)
