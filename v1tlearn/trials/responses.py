"""`Responses`: one labelled response vector per trial, recorded or predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.trials._view import DATA, View, read


class Responses(View):
    """One response vector per trial, as long as that trial's mouse has neurons.

    The target that belongs to `Trials`, and what predictions come back as. ``r["A"]`` gives the
    labelled matrix of one mouse, ``numpy.asarray(r)`` a 1-D object array of vectors.

    Parameters
    ----------
    trials : Trials
        The trials, which bring the labels.
    sources : dict of str to array
        Matrix (trials of the recording, neurons) per mouse, in the units of the responses.
    rows : ndarray of shape (n_trials,)
        For every trial its row in the matrix of its mouse.
    """

    dtype = np.dtype(object)  # of numpy.asarray(r)

    def __init__(self, trials: View, sources: Mapping[str, Any], rows: np.ndarray) -> None:
        self._recordings, self._hashes = trials._recordings, trials._hashes
        self._index = trials._index
        self._sources, self._rows = dict(sources), np.asarray(rows)
        self._attrs = {
            mouse: recording["responses"].attrs
            for mouse, recording in self._recordings.items()
            if "responses" in recording
        }

    @classmethod
    def from_arrays(cls, values: Mapping[str, np.ndarray], like: View) -> Responses:
        """Label matrices that hold the trials of a view in its order.

        Parameters
        ----------
        values : dict of str to ndarray of shape (n_trials, n_neurons)
            Per mouse of `like`.
        like : Trials

        Returns
        -------
        Responses
        """
        rows = np.empty(len(like), dtype=np.int64)
        for mouse in like.mice:
            positions, _ = like.rows(mouse)
            if len(values[mouse]) != len(positions):
                raise ValueError(
                    f"mouse {mouse!r}: {len(values[mouse])} response vectors came for "
                    f"{len(positions)} trials."
                )
            rows[positions] = np.arange(len(positions))
        return cls(like, values, rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._array(key)
        key = self._key(key)
        view = object.__new__(type(self))
        view._recordings, view._hashes = self._recordings, self._hashes
        view._sources, view._attrs = self._sources, self._attrs
        view._index, view._rows = self._index[key], self._rows[key]
        return view

    def get(self, mouse_id: str) -> np.ndarray:
        """Read the responses of one mouse.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        ndarray of shape (n_trials, n_neurons)
            In the order of this view, in the units of the responses; NaN where not recorded.
        """
        positions, _ = self.rows(mouse_id)
        if str(mouse_id) not in self._sources:
            raise ValueError(
                f"there are no responses of mouse {str(mouse_id)!r} here, only of "
                f"{list(self._sources)}."
            )
        return read(self._sources[str(mouse_id)], self._rows[positions])

    def load(self) -> Responses:
        """Read these responses once, for those who need them several times.

        Returns
        -------
        Responses
            The same, in memory.
        """
        values = {mouse: self.get(mouse) for mouse in self.mice}
        rows = np.empty(len(self), dtype=np.int64)
        for mouse in self.mice:
            positions, _ = self.rows(mouse)
            rows[positions] = np.arange(len(positions))
        view = self[:]
        view._sources, view._rows = values, rows
        return view

    def _array(self, mouse_id: str) -> xr.DataArray:
        rows = self.rows(mouse_id)[1]
        labels = {
            name: label.isel(trial=rows) if "trial" in label.dims else label
            for name, label in self._recordings[mouse_id].coords.items()
            if set(label.dims) <= {"trial", "neuron"}
        }
        return xr.DataArray(
            self.get(mouse_id),
            dims=("trial", "neuron"),
            coords=labels,
            name="responses",
            attrs=self._attrs.get(str(mouse_id), {}),
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("responses of several mice cannot become an array without a copy.")
        if dtype is not None and np.dtype(dtype) != self.dtype:
            raise ValueError(
                f"responses are vectors, one per trial, and no array of {np.dtype(dtype)}: use "
                'responses["A"] for the matrix of one mouse, and v1tlearn.metrics.scorers in place '
                "of scikit-learn's metrics."
            )
        out = np.empty(len(self), dtype=object)
        for mouse in self.mice:
            positions, _ = self.rows(mouse)
            for position, vector in zip(positions, self.get(mouse), strict=True):
                out[position] = vector
        return out

    def __getstate__(self) -> dict[str, Any]:
        """Pickle labels and responses, not the stimuli they belong to."""
        for mouse in self.mice:
            self._mouse_image_ids(mouse)
        state = self.__dict__.copy()
        state["_recordings"] = {
            m: ds.drop_vars([v for v in DATA if v in ds]) for m, ds in self._recordings.items()
        }
        state["_sources"] = {m: s for m, s in self._sources.items() if m in self.mice}
        return state

    def __repr__(self) -> str:
        return self._summary("Responses")
