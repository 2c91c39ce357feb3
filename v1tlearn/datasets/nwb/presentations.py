"""Which image was shown when: a series of images, a series of indices, or a table of intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._values import as_text
from v1tlearn.datasets.nwb.finding import choose, name_of
from v1tlearn.datasets.nwb.images import GivenImages, Images, StoredImages
from v1tlearn.datasets.nwb.opening import numbers, refuse
from v1tlearn.datasets.nwb.series import check_times, times_of

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
class Asked:
    """What the caller says of the presentations.

    Attributes
    ----------
    stimulus : str or None
        Name of a series or table.
    templates : str, ndarray or None
        Name of the images, or the images.
    image_column : str or None
        Of a table.
    first_index : int
        What the first image is counted as.
    blanks : tuple
        Values in place of an image that say that none was shown.
    where : mapping of str to label
        Rows of a table: what columns hold.
    turned : bool
        Whether images are stored with columns before rows.
    """

    stimulus: str | None
    templates: str | np.ndarray | None
    image_column: str | None
    first_index: int
    blanks: tuple[Any, ...]
    where: Mapping[str, Any]
    turned: bool


@dataclass(frozen=True)
class Templates:
    """Images that presentations point to.

    Attributes
    ----------
    name : str
        In the file; in errors.
    images : Images
    names : ndarray of str (n_images,) or None
        Of the images.
    are_ordered : bool
        Whether they can be counted.
    """

    name: str
    images: Images
    names: np.ndarray | None = None
    are_ordered: bool = True


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
    images : Images
    are_indexed : bool
        Whether the file says which presentations are of one image.
    names : ndarray of str (n_images,) or None
        Of the images.
    rows : ndarray of int (n,)
        Places in the series or table.
    table : table of intervals, or None
    """

    name: str
    onsets: np.ndarray
    shown: np.ndarray
    images: Images
    are_indexed: bool
    names: np.ndarray | None
    rows: np.ndarray
    table: Any = None

    def keep(self, kept: np.ndarray) -> Presentations:
        """Some of them."""
        return replace(self, onsets=self.onsets[kept], shown=self.shown[kept], rows=self.rows[kept])


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

    shown = {
        name: one
        for name, one in nwb.stimulus.items()
        if isinstance(one, ImageSeries | IndexSeries | TimeIntervals)
    }
    tables = [*nwb.intervals.values(), nwb.trials, nwb.epochs]
    shown |= {one.name: one for one in tables if one is not None}
    if asked.stimulus is None:
        columns = {*IMAGE_COLUMNS, asked.image_column}
        shown = {
            name: one
            for name, one in shown.items()
            if not isinstance(one, TimeIntervals) or columns & set(one.colnames)
        }
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
        templates = _templates(path, nwb, asked, target)
        values = numbers(path, f"data of {name}", found.data)
        if values.ndim != 1:
            refuse(path, f"{name} has the shape {values.shape}", "one index per time")
        return _pointing(path, name, values, onsets, np.arange(len(onsets)), templates, asked)
    if asked.first_index or asked.blanks or isinstance(asked.templates, str):
        refuse(
            path,
            f"first_index, blanks or templates came for {name}, which holds what was shown",
            "them for indices alone",
        )
    if asked.templates is None:
        images: Images = StoredImages.of_series(path, name, found, turned=asked.turned)
    else:
        images = GivenImages.of(asked.templates)
    onsets = times_of(path, name, found, n_samples=images.shape[0])
    rows = np.arange(len(onsets))
    return Presentations(name, onsets, rows, images, False, None, rows)


def _templates(path: Path, nwb: Any, asked: Asked, target: Any = None) -> Templates:
    """Images that the caller has, by name, those of a target, or the only ones."""
    from pynwb.base import Images as ImagesOfFile
    from pynwb.image import ImageSeries

    if asked.templates is not None and not isinstance(asked.templates, str):
        return Templates("templates", GivenImages.of(asked.templates))
    if target is None or asked.templates is not None:
        kinds = ImagesOfFile | ImageSeries
        found = {n: one for n, one in nwb.stimulus_template.items() if isinstance(one, kinds)}
        name, target = choose(path, "templates of images", found, asked.templates, "templates")
    else:
        name = name_of(target)
    if isinstance(target, ImageSeries):
        return Templates(name, StoredImages.of_series(path, name, target, turned=asked.turned))
    order = target.order_of_images
    images = [*target.images.values()] if order is None else [*order.data[:]]
    stored = StoredImages.of_images(path, name, images, turned=asked.turned)
    names = np.array([image.name for image in images])
    return Templates(name, stored, names, order is not None or len(images) == 1)


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
    rows = _rows(path, name, table, asked.where)
    onsets = numbers(path, f"start_time of {name}", table["start_time"].data)[rows]
    stops = numbers(path, f"stop_time of {name}", table["stop_time"].data)[rows]
    values = column_of(path, name, table, found[0])[rows]
    order = np.argsort(onsets, kind="stable")
    check_times(path, f"start_time of {name}, in order,", onsets[order])
    if not (stops >= onsets).all():
        at = int(np.argmin(stops >= onsets))
        refuse(path, f"row {rows[at]} of {name} stops at {stops[at]} s", "a stop behind its start")
    early = np.flatnonzero(onsets[order][1:] < stops[order][:-1] - _ROUNDING_SECONDS)
    if len(early):
        at = order[early[0] + 1]
        refuse(
            path,
            f"row {rows[at]} of {name} starts at {onsets[at]:g} s, before the one before has ended",
            "one image at a time: select rows by where=",
        )
    return _pointing(path, name, values, onsets, rows, _templates(path, nwb, asked), asked, table)


def _rows(path: Path, name: str, table: Any, where: Mapping[str, Any]) -> np.ndarray:
    kept = np.ones(len(table), bool)
    for column, wanted in where.items():
        if column not in table.colnames:
            refuse(path, f"where names {column!r}", f"columns of {name}, {table.colnames}")
        kept &= column_of(path, name, table, column) == wanted
    if not kept.any():
        refuse(path, f"no row of {name} is left" if where else f"{name} is empty", "presentations")
    return np.flatnonzero(kept)


def column_of(path: Path, name: str, table: Any, column: str) -> np.ndarray:
    """Read a column of a table that has one label per row.

    Parameters
    ----------
    path : Path
    name : str
        Of the table, for errors.
    table : TimeIntervals
    column : str

    Returns
    -------
    ndarray
        Numbers or text.
    """
    values = np.asarray(table[column].data[:])
    if values.shape != (len(table),):
        refuse(path, f"{column} of {name} has the shape {values.shape}", "one value per row")
    return as_text(values, f"{path}: {column} of {name}")


def _pointing(
    path: Path,
    name: str,
    values: np.ndarray,
    onsets: np.ndarray,
    rows: np.ndarray,
    templates: Templates,
    asked: Asked,
    table: Any = None,
) -> Presentations:
    """Presentations whose values, numbers or names, say which image was shown."""
    shown = ~_are_blank(values, asked.blanks)
    values, onsets, rows = values[shown], onsets[shown], rows[shown]
    if values.dtype.kind in "iuf":
        places = _counted(path, name, values, rows, templates, asked.first_index)
    else:
        places = _named(path, name, values, rows, templates)
    if not len(places):
        refuse(path, f"{name} has no presentation of an image", "some")
    return Presentations(name, onsets, places, templates.images, True, templates.names, rows, table)


def _are_blank(values: np.ndarray, blanks: tuple[Any, ...]) -> np.ndarray:
    found = np.zeros(len(values), bool)
    for blank in blanks:
        if isinstance(blank, float) and math.isnan(blank):
            found |= np.isnan(values) if values.dtype.kind == "f" else False
        else:
            found |= np.array([value == blank for value in values.tolist()], bool)
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
