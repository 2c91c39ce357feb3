"""From what callers call recordings to one `Dataset` per mouse, and from those to numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._values import as_text
from v1tlearn.datasets.given_recordings import recordings_to_dict
from v1tlearn.datasets.netcdf import fill_rows
from v1tlearn.datasets.schema import DIMS, NEURON_LABELS, TRIAL_LABELS, check_ids, check_structure
from v1tlearn.datasets.spontaneous import SPONTANEOUS
from v1tlearn.datasets.time_axis import frames_of, is_movie, with_time

_LABELS = (*TRIAL_LABELS, *NEURON_LABELS, "position")  # coordinates, however they came

DATA = ("stimuli", "behaviors", "responses", "expected_responses")
LARGE = (*DATA, SPONTANEOUS)  # read when they are used; all else that a recording holds is small

_SMALL_GAP = 2  # trials between others that are read in vain rather than left out
_MOST_IN_VAIN = 0.25  # of what is wanted
_LEAST_IN_A_ROW = 4  # trials of a span, on average

BLOCK = 256  # trials that are read at once where a whole recording is passed through


def checked_recordings(recordings: Any, unnamed: str | None = None) -> dict[str, xr.Dataset]:
    """One checked `Dataset` per mouse, its labels made coordinates; nothing is read."""
    out = {}
    for mouse, recording in recordings_to_dict(recordings, unnamed=unnamed).items():
        recording = recording.set_coords([n for n in _LABELS if n in recording.data_vars])
        out[mouse] = _in_order(_decoded(mouse, recording))
        check_structure(mouse, out[mouse])
        check_ids(mouse, out[mouse])
        if is_movie(out[mouse]):  # so that views need not ask
            out[mouse] = out[mouse].assign_coords(n_frames=("trial", frames_of(out[mouse])))
    check_one_kind(out)
    return out


def check_one_kind(recordings: Mapping[str, xr.Dataset]) -> None:
    """Refuse images of some mice beside movies of others."""
    movies = [mouse for mouse, recording in recordings.items() if is_movie(recording)]
    if movies and len(movies) < len(recordings):
        images = [mouse for mouse in recordings if mouse not in movies]
        raise ValueError(
            f"the mice {movies} saw movies, the mice {images} images: expected one kind. Keep them "
            "apart, or give images as movies of one frame, recording.expand_dims('time', 1)."
        )


def _decoded(mouse: str, recording: xr.Dataset) -> xr.Dataset:
    """Labels that files hold as bytes, as text."""
    text = {}
    for name, label in recording.coords.items():
        if label.dtype.kind in "SO":
            found = label.values
            read = as_text(found, f"mouse {mouse!r}, {name}")
            if read is not found:
                text[name] = (label.dims, read, label.attrs)
    return recording.assign_coords(text) if text else recording


def _in_order(recording: xr.Dataset) -> xr.Dataset:
    """Variables with their dimensions, which bear their names, in the order of the schema."""
    known = DIMS | {"position": ("neuron", "axis")}
    if is_movie(recording):
        known |= {name: with_time(dims) for name, dims in DIMS.items()}
    turned = {
        name: recording[name].transpose(*dims)
        for name, dims in known.items()
        if name in recording
        and recording[name].dims != dims
        and set(recording[name].dims) == set(dims)
    }
    return recording.assign(turned) if turned else recording


def with_neurons(recording: xr.Dataset, neurons: np.ndarray | None) -> xr.Dataset:
    """Select neurons by number; where they bear no ids, their numbers become these."""
    if neurons is None:
        return recording
    labelled = "neuron" in recording.coords
    if "neuron" in recording.dims:
        recording = recording.isel(neuron=compact(neurons))
    return recording if labelled else recording.assign_coords(neuron=neurons)


def without_padding(movies: np.ndarray, n_frames: np.ndarray | None) -> np.ndarray:
    """Cut each entry of an object array to the frames that the trial has."""
    for place, count in enumerate(() if n_frames is None else n_frames):
        movies[place] = movies[place][:count]
    return movies


def pixel_coords(images: xr.DataArray) -> dict[str, Any]:
    """Rows counted from the top, as those of receptive fields, and columns from the left."""
    rows = np.arange(images.sizes["height"])
    columns = np.arange(images.sizes["width"])
    coords = {
        "height": ("height", rows, {"long_name": "row of the image", "units": "pixel"}),
        "width": ("width", columns, {"long_name": "column of the image", "units": "pixel"}),
    }
    return {name: coord for name, coord in coords.items() if name not in images.coords}


def compact(rows: np.ndarray) -> np.ndarray | slice:
    """A slice where rows follow each other: files read those much faster."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def read(
    source: Any,
    rows: np.ndarray,
    columns: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Read rows in any order, each row once and in file order; of these the columns.

    What comes back is `out` where that is a place for the values as they are.
    """
    if columns is not None:
        return _read_columns(source, rows, columns)
    key = compact(rows)
    if out is None or out.dtype != source.dtype or out.shape != (len(rows), *source.shape[1:]):
        if isinstance(key, slice):
            return np.asarray(source[key])
        out = np.empty((len(rows), *source.shape[1:]), source.dtype)
    if getattr(source, "_in_memory", isinstance(source, np.ndarray)):
        np.take(np.asarray(source), rows, axis=0, out=out, mode="clip")  # "raise" would copy
    elif len(rows) and not fill_rows(source, rows, out):
        _read_spans(source, rows, out)
    return out


def _read_spans(source: Any, rows: np.ndarray, out: np.ndarray) -> None:
    """Read rows: where most of them lie in rows, span by span, and small gaps as well.

    Files read what lies in a row many times faster than as many single trials.
    """
    unique = np.unique(rows)
    gaps = np.diff(unique) - 1
    small = gaps <= _SMALL_GAP
    if gaps[small].sum() > len(unique) * _MOST_IN_VAIN:
        small = gaps == 0
    spans = np.split(unique, np.flatnonzero(~small) + 1)
    if len(unique) < _LEAST_IN_A_ROW * len(spans):
        out[...] = np.asarray(source[compact(unique)])[np.searchsorted(unique, rows)]
        return
    order = np.argsort(rows, kind="stable")
    for span in spans:
        first, stop = int(span[0]), int(span[-1]) + 1
        own = order[slice(*np.searchsorted(rows, [first, stop], sorter=order))]
        out[own] = np.asarray(source[first:stop])[rows[own] - first]


def _read_columns(source: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Block by block: files give whole trials, of which only the columns are kept."""
    unique, inverse = np.unique(rows, return_inverse=True)
    values = np.empty((len(unique), *source.shape[1:-1], len(columns)), dtype=source.dtype)
    taken = compact(columns)
    step = BLOCK if source.ndim == 2 else 1  # a movie is long
    for start in range(0, len(unique), step):
        block = unique[start : start + step]
        values[start : start + step] = np.asarray(source[compact(block)])[..., taken]
    return values if np.array_equal(unique, rows) else values[inverse]
