"""From what callers call recordings to one `Dataset` per mouse, and from those to numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._paths import what_lies_at
from v1tlearn.datasets.schema import (
    NEURON_LABELS,
    TRIAL_LABELS,
    check_mouse_name,
    check_structure,
    leaf_name,
)

_LABELS = (*TRIAL_LABELS, *NEURON_LABELS, "position")  # coordinates, however they came

DATA = ("stimuli", "behaviors", "responses", "expected_responses")

BLOCK = 256  # trials that are read at once where a whole recording is passed through

_UNNAMED = "mouse"


def as_datasets(recordings: Any) -> dict[str, xr.Dataset]:
    """Bring recordings to one checked `Dataset` per mouse; nothing is read."""
    if isinstance(recordings, xr.Dataset):
        recordings = {recordings.attrs.get("mouse_id", _UNNAMED): recordings}
    elif isinstance(recordings, xr.DataTree):
        if not recordings.children and not recordings.data_vars:
            raise ValueError(
                "this DataTree has no child: expected one child per mouse. One recording alone is "
                "given as its Dataset."
            )
        if recordings.children:
            recordings = dict(recordings.children)
        else:
            recordings = {leaf_name(recordings) or _UNNAMED: recordings}
    if not isinstance(recordings, Mapping):
        raise TypeError(_no_recordings(recordings))
    if not recordings:
        raise ValueError("there is no recording: expected at least one mouse.")
    out: dict[str, xr.Dataset] = {}
    for name, recording in recordings.items():
        mouse = str(name)
        if mouse in out:
            raise ValueError(f"duplicate mouse ids: {mouse!r} names two recordings.")
        if isinstance(recording, xr.DataTree):
            if recording.children:
                raise ValueError(
                    f"mouse {mouse!r}: has groups below it ({', '.join(recording.children)}); "
                    "expected one child per mouse and nothing deeper. One group of mice alone is "
                    f'given as such: tree["{mouse}"].'
                )
            recording = recording.to_dataset()
        if not isinstance(recording, xr.Dataset):
            raise TypeError(
                f"mouse {mouse!r} is a {type(recording).__name__}: expected an xarray Dataset. "
                "Plain arrays go through Trials.from_arrays."
            )
        check_mouse_name(mouse)
        recording = recording.set_coords([n for n in _LABELS if n in recording.data_vars])
        check_structure(mouse, recording)
        out[mouse] = recording
    return out


def _no_recordings(came: Any) -> str:
    expected = "Trials takes a DataTree, a dict of Datasets per mouse or one Dataset"
    if isinstance(came, str | os.PathLike):
        found = what_lies_at(came)
        instead = f"write {found.as_trials()}" if found.is_recordings else found.said()
        return f"{expected}, not the path {str(came)!r}: {instead}."
    if hasattr(came, "mouse_ids"):
        return (
            f"{expected}, not {type(came).__name__}, which are views of recordings already: use "
            "them as they are; their recordings are trials.recordings, several are joined by "
            "v1tlearn.concat([...])."
        )
    objects = (xr.Dataset, xr.DataTree)
    if isinstance(came, list | tuple) and any(isinstance(part, objects) for part in came):
        return (
            f"{expected}, not a {type(came).__name__} of them: name the mice, "
            '{"A": dataset, "B": dataset}, or join recordings with v1tlearn.concat([...]).'
        )
    return f"{expected}, not a {type(came).__name__}. Plain arrays go through Trials.from_arrays."


def with_neurons(recording: xr.Dataset, neurons: np.ndarray | None) -> xr.Dataset:
    """Select neurons by number; where they bear no ids, their numbers become these."""
    if neurons is None:
        return recording
    labelled = "neuron" in recording.coords
    if "neuron" in recording.dims:
        recording = recording.isel(neuron=compact(neurons))
    return recording if labelled else recording.assign_coords(neuron=neurons)


def pixel_coords(images: xr.DataArray) -> dict[str, Any]:
    """Rows counted from the top, as those of receptive fields, and columns from the left.

    Parameters
    ----------
    images : DataArray with the dimensions height and width

    Returns
    -------
    dict
        Coordinates; none that the images have already.
    """
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


def read(source: Any, rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """Read rows in any order, each row once and in file order; of these the columns."""
    if columns is not None:
        return _read_columns(source, rows, columns)
    if isinstance(source, np.ndarray):
        return source[rows]
    key = compact(rows)
    if isinstance(key, slice):
        return np.asarray(source[key])
    unique, inverse = np.unique(rows, return_inverse=True)
    values = np.asarray(source[compact(unique)])
    return values if np.array_equal(unique, rows) else values[inverse]


def _read_columns(source: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Block by block: files give whole trials, of which only the columns are kept."""
    unique, inverse = np.unique(rows, return_inverse=True)
    values = np.empty((len(unique), len(columns)), dtype=source.dtype)
    taken = compact(columns)
    for start in range(0, len(unique), BLOCK):
        block = unique[start : start + BLOCK]
        values[start : start + BLOCK] = np.asarray(source[compact(block)])[:, taken]
    return values if np.array_equal(unique, rows) else values[inverse]
