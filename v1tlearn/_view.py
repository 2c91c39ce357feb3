"""What `Trials` and `Responses` share: one axis over mice, labels, and reading on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.datasets.schema import (
    NEURON_LABELS,
    TRIAL_LABELS,
    check_mouse_name,
    check_structure,
)

_LABELS = (*TRIAL_LABELS, *NEURON_LABELS, "position")  # coordinates, however they came

DATA = ("stimuli", "behaviors", "responses", "expected_responses")

BLOCK = 256  # trials that are read at once where a whole recording is passed through


class View:
    """What `Trials` and `Responses` share: one axis, labels, and indexing that copies an index."""

    ndim = 1
    _recordings: dict[str, xr.Dataset]
    _index: np.ndarray
    _hashes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int]:
        """Number of trials, as a one-element tuple."""
        return (len(self._index),)

    def _key(self, key: Any) -> Any:
        """Check an index of the trial axis; scikit-learn writes ``x[indices, ...]``."""
        if isinstance(key, tuple):
            key = tuple(k for k in key if k is not Ellipsis)
            if len(key) != 1:
                raise IndexError(
                    f"{type(self).__name__} has one axis (trials), but {len(key)} indices came."
                )
            key = key[0]
        if isinstance(key, slice):
            return key
        key = np.asarray(key)
        if key.dtype == bool and key.shape != self.shape:
            raise IndexError(
                f"a mask of shape {key.shape} came for {len(self)} trials: expected one truth "
                "value per trial."
            )
        if key.size == 0:
            key = key.astype(np.int64)
        if key.dtype.kind not in "biu" or key.ndim > 1:
            raise IndexError(
                f"trials are selected by a slice, a mask or integers, not by {key.dtype} of shape "
                f"{key.shape}; by label: sel(tier=..., mouse_id=...)."
            )
        if key.dtype.kind != "b" and key.size:
            low, high = int(key.min()), int(key.max())
            if low < -len(self) or high >= len(self):
                raise IndexError(f"trial {high if high >= len(self) else low} of {len(self)}.")
        return np.atleast_1d(key)

    @property
    def mouse_ids(self) -> np.ndarray:
        """Mouse of every trial, shape (n_trials,), as text."""
        return np.asarray(list(self._recordings))[self._index[:, 0]]

    @property
    def mice(self) -> list[str]:
        """The mice with at least one trial here, in the order of the recordings."""
        names = list(self._recordings)
        return [names[k] for k in np.unique(self._index[:, 0])]

    def rows(self, mouse_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Where the trials of one mouse stand.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        positions : ndarray of int
            Places of this mouse's trials on the flat axis.
        rows : ndarray of int
            The same trials' places in the recording.
        """
        positions = np.flatnonzero(self._index[:, 0] == self._number(mouse_id))
        return positions, self._index[positions, 1]

    def _number(self, mouse_id: Hashable) -> int:
        names = list(self._recordings)
        if str(mouse_id) not in names:
            raise ValueError(f"unknown mouse {str(mouse_id)!r}: the recordings are of {names}.")
        return names.index(str(mouse_id))

    def neuron_labels(self, mouse_id: str) -> dict[str, np.ndarray]:
        """Unit ids and metadata of a mouse's neurons, as far as the recording tells them.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        dict of str to ndarray of shape (n_neurons,)
            "neuron", the unit ids, "area", "layer", "animal_id", "session" and "scan"; any of them.
        """
        self._number(mouse_id)
        recording = self._recordings[str(mouse_id)]
        names = [n for n in ("neuron", *NEURON_LABELS) if n in recording.coords]
        return {n: np.asarray(recording[n].values) for n in names}

    @property
    def image_ids(self) -> np.ndarray:
        """Image of every trial, shape (n_trials,); a hash of its content where none was given."""
        return self._labels(lambda mouse, rows: self._mouse_image_ids(mouse)[rows])

    def _mouse_image_ids(self, mouse: str) -> np.ndarray:
        recording = self._recordings[mouse]
        if "image_id" in recording.coords:
            return recording["image_id"].values
        if mouse not in self._hashes:
            self._hashes[mouse] = _content_hashes(recording)
        return self._hashes[mouse]

    @property
    def tiers(self) -> np.ndarray:
        """Tier of every trial, shape (n_trials,); empty text where the recording has none."""
        return self._labels(
            lambda mouse, rows: (
                self._recordings[mouse]["tier"].values[rows]
                if "tier" in self._recordings[mouse].coords
                else np.full(len(rows), "")
            )
        )

    def _labels(self, of_rows: Callable[[str, np.ndarray], np.ndarray]) -> np.ndarray:
        parts, positions = [], []
        for mouse in self.mice:
            where, rows = self.rows(mouse)
            parts.append(np.asarray(of_rows(mouse, rows)))
            positions.append(where)
        if not parts:
            return np.empty(0, dtype=str)
        kinds = {p.dtype.kind for p in parts}
        if len(kinds) > 1 and np.result_type(*parts).kind not in "iu":
            parts = [p.astype(str) for p in parts]  # numbers and text are compared as text
        joined = np.concatenate(parts)
        out = np.empty_like(joined)
        out[np.concatenate(positions)] = joined
        return out

    def _summary(self, what: str) -> str:
        mice = ", ".join(f"{m} ({len(self.rows(m)[0])} trials)" for m in self.mice)
        return f"<{what}: {len(self)} trials of {len(self.mice)} mice: {mice}>"


def as_datasets(recordings: Any) -> dict[str, xr.Dataset]:
    if isinstance(recordings, xr.Dataset):
        recordings = {str(recordings.attrs.get("mouse_id", "mouse")): recordings}
    elif isinstance(recordings, xr.DataTree):
        if not recordings.children:
            raise ValueError(
                "this DataTree has no child: expected one child per mouse. One recording alone is "
                "given as its Dataset."
            )
        recordings = {name: node.to_dataset() for name, node in recordings.children.items()}
    if not isinstance(recordings, Mapping):
        raise TypeError(
            f"Trials takes a DataTree, a dict of Datasets per mouse or one Dataset, not a "
            f"{type(recordings).__name__}. Plain arrays go through Trials.from_arrays."
        )
    if not recordings:
        raise ValueError("there is no recording: expected at least one mouse.")
    out: dict[str, xr.Dataset] = {}
    for name, recording in recordings.items():
        mouse = str(name)
        if mouse in out:
            raise ValueError(f"duplicate mouse ids: {mouse!r} names two recordings.")
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


def compact(rows: np.ndarray) -> np.ndarray | slice:
    """A slice where rows follow each other: files read those much faster."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def read(source: Any, rows: np.ndarray) -> np.ndarray:
    """Read rows in any order, each row once and in file order."""
    if isinstance(source, np.ndarray):
        return source[rows]
    key = compact(rows)
    if isinstance(key, slice):
        return np.asarray(source[key])
    unique, inverse = np.unique(rows, return_inverse=True)
    values = np.asarray(source[compact(unique)])
    return values if np.array_equal(unique, rows) else values[inverse]


def _content_hashes(recording: xr.Dataset) -> np.ndarray:
    stimuli = recording.variables["stimuli"]
    n = recording.sizes["trial"]
    hashes = []
    for start in range(0, n, BLOCK):
        # in one dtype: an image is the same whether a mouse's file holds integers or floats
        for image in np.asarray(stimuli[start : start + BLOCK]).astype(np.float32):
            hashes.append(hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest())
    return np.asarray(hashes, dtype=str)
