"""`Responses`: one labelled response vector per trial, recorded or predicted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.core import indexing

from v1tlearn._opening import reading
from v1tlearn._values import as_array
from v1tlearn.datasets.lazy_rows import Key, LazyRows, take
from v1tlearn.datasets.netcdf import announce_rows_of
from v1tlearn.datasets.schema import AXES
from v1tlearn.datasets.store import RESPONSES_FILE, load_groups, save_groups
from v1tlearn.trials._arithmetic import Arithmetic, check_unit_ids
from v1tlearn.trials._averages import (
    over_neurons,
    over_repeats,
    over_time,
    over_trials,
    to_dataframe,
)
from v1tlearn.trials._matrices import as_matrix, check_frames_of, matrix_like
from v1tlearn.trials._reading import LARGE, compact, read, without_padding
from v1tlearn.trials._summary import Column
from v1tlearn.trials._view import View, selected

_PLACE = "place"  # in a file: where a trial stands on the axis over mice
_VALUES = "values"


class RowsOfMouse(LazyRows):
    """Responses of one mouse, read when they are indexed."""

    def __init__(self, responses: Responses, mouse: str) -> None:
        self._responses, self._mouse = responses, mouse
        one = responses[:1].get(mouse)
        self.shape, self.dtype = (len(responses), *one.shape[1:]), one.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        return take(self._responses[rows].get(self._mouse), others)


class Responses(Arithmetic):
    """One response vector per trial, as long as that trial's mouse has neurons.

    The target that belongs to `Trials`, and what predictions come back as. ``r["A"]`` gives the
    labelled matrix of one mouse, ``numpy.asarray(r)`` a 1-D object array of vectors. Of movies the
    first is (trial, time, neuron), NaN behind the last frame of each trial, and the second holds
    arrays (frames, neurons) of the frames that there are. Responses of
    the same trials and neurons are added, subtracted, multiplied and divided, numbers with them,
    too, and numpy's elementwise functions apply; NaN, where nothing was recorded, stays NaN.
    Integers, such as counts of spikes, are computed with in float64.

    Parameters
    ----------
    trials : Trials
        The trials, which bring the labels.
    sources : dict of str to array
        Matrix (trials of the recording, [time,] neurons) per mouse, in the units of the responses.
    rows : ndarray of shape (n_trials,)
        For every trial its row in the matrix of its mouse.
    name : str or None
        What they are: "responses", "expected_responses", "predictions".
    columns : dict of str to ndarray of int, optional
        Columns of the matrices that are the neurons of `trials`; all where a mouse is not named.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(n_mice=2, n_neurons=5, n_trials=20,
    ...                    random_state=0, n_test_images=2, n_repeats=3, image_shape=(12, 16)))
    >>> responses = trials.sel(tier="test").responses
    >>> responses["A"].dims, responses.mean("image_id").shape
    (('trial', 'neuron'), (4,))
    >>> noise = responses - trials.sel(tier="test").expected_responses
    >>> noise.mean("trial").sizes["unit"]
    10
    """

    dtype = np.dtype(object)  # of numpy.asarray(r)
    _called = "responses"

    def __init__(
        self,
        trials: View,
        sources: Mapping[str, Any],
        rows: np.ndarray,
        *,
        name: str | None = "responses",
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._recordings, self._hashes = trials._recordings, trials._hashes
        self._index, self._neurons = trials._index, trials._neurons
        self._sources = {
            mouse: as_matrix(mouse, source, self._dims(mouse)) for mouse, source in sources.items()
        }
        self._rows = as_array(rows, "rows")
        self._columns = dict(columns or {})
        self._attrs = {
            mouse: recording["responses"].attrs
            for mouse, recording in self._recordings.items()
            if "responses" in recording
        }
        self.name = name

    @property
    def name(self) -> str | None:
        """What these responses are: "responses", "predictions"; None where nothing tells."""
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        """Say what they are."""
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name is {name!r}: expected text or None.")
        self._name = name

    @classmethod
    def from_arrays(
        cls, values: Mapping[str, np.ndarray], like: View, *, name: str | None = "responses"
    ) -> Responses:
        """Label matrices that hold the trials of a view in its order.

        Parameters
        ----------
        values : dict of str to ndarray of shape (n_trials, [n_frames,] n_neurons)
            Per mouse of `like`. Of movies, NaN behind the last frame of each trial.
        like : Trials or Responses
        name : str or None, default="responses"
            What they are, such as "predictions".

        Returns
        -------
        Responses

        Raises
        ------
        ValueError
            If a mouse is missing, or has another number of trials, frames or neurons; or there are
            values behind the last frame of a movie.
        """
        rows = np.empty(len(like), dtype=np.int64)
        matrices = {}
        for mouse, n_neurons in like.n_neurons.items():
            positions, _ = like.rows(mouse)
            if mouse not in values:
                raise ValueError(
                    f"values of mouse {mouse!r} are missing: there are {list(values)}."
                )
            matrix = matrix_like(mouse, values[mouse], like[positions])
            if len(matrix) != len(positions):
                raise ValueError(
                    f"mouse {mouse!r}: {len(matrix)} response vectors came for "
                    f"{len(positions)} trials."
                )
            dims = like._dims(mouse)
            if matrix.ndim != len(dims):
                raise ValueError(
                    f"mouse {mouse!r}: values have the shape {matrix.shape}, expected "
                    f"({', '.join(dim + 's' * (dim != 'time') for dim in dims)})."
                )
            if n_neurons not in (0, matrix.shape[-1]):
                raise ValueError(
                    f"mouse {mouse!r}: vectors of {matrix.shape[-1]} responses came for {n_neurons}"
                    " neurons: give one value per neuron, trial by trial of the same mice."
                )
            if "time" in dims:
                check_frames_of(mouse, matrix, like[positions])
            matrices[mouse] = matrix
            rows[positions] = np.arange(len(positions))
        return cls(like, matrices, rows, name=name)

    @classmethod
    def open(cls, path: str | Path) -> Responses:
        """Read responses that `to_netcdf` wrote.

        Parameters
        ----------
        path : str or Path
            The netCDF4 file.

        Returns
        -------
        Responses
            In memory, with their labels, without stimuli.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
            If there is no such file, or a folder; the error says what opens that.
        TypeError, ValueError
            If `path` is no path, or the file holds something else.
        """
        tree = load_groups(path, (_VALUES,), partial(_refuse_others, path))
        view = object.__new__(cls)
        view._recordings, view._sources, view._attrs = {}, {}, {}
        index, places = [], []
        with reading(path, "holds no whole responses", "write them again"):
            for number, (mouse, node) in enumerate(tree.children.items()):
                dataset = node.to_dataset(inherit=False)
                values = dataset[_VALUES]
                view._sources[mouse], view._attrs[mouse] = values.values, values.attrs
                view._recordings[mouse] = dataset.drop_vars([_VALUES, _PLACE])
                places.append(dataset[_PLACE].values)
                own = [np.full(len(values), number), np.arange(len(values))]
                index.append(np.column_stack(own))
            view._index = np.concatenate(index)[np.argsort(np.concatenate(places))]
        view._rows = view._index[:, 1]
        view._neurons, view._columns, view._hashes = {}, {}, {}
        view.name = tree.attrs.get("name")
        return view

    def to_netcdf(self, path: str | Path) -> None:
        """Write these responses with the labels of their trials and neurons, without stimuli.

        Parameters
        ----------
        path : str or Path
            A netCDF4 file with one group per mouse; replaced only when fully written.

        Raises
        ------
        FileExistsError
            If recordings lie at `path`: their stimuli would be lost.
        ValueError
            If there are no trials, or the labels hold what netCDF cannot.
        """
        if not len(self):
            raise ValueError("there are no trials: expected at least one to write.")
        datasets = {}
        for mouse in self.mice:
            places, rows = self.rows(mouse)
            own, dims = self[places], self._dims(mouse)
            values = indexing.LazilyIndexedArray(RowsOfMouse(own, mouse))
            sizes = dict(zip(dims, values.shape, strict=True))
            axes = {"axis": self._described(mouse).sizes.get("axis", 0)}
            coords = self._coords(mouse, rows, sizes | axes)
            coords["image_id"] = ("trial", self._mouse_image_ids(mouse)[rows])
            coords.setdefault("neuron", self.neuron_ids(mouse))
            variables = {
                _VALUES: (dims, values, self._attrs.get(mouse, {})),
                _PLACE: ("trial", places),
            }
            datasets[mouse] = xr.Dataset(variables, coords)
        attrs = {"kind": RESPONSES_FILE} | ({} if self.name is None else {"name": self.name})
        save_groups(datasets, path, attrs, (_VALUES,))

    def __getitem__(self, key: Any) -> Any:
        """Select trials by number; or give the matrix of one mouse as a `DataArray`.

        ``r["A"]`` is (trial, [time,] neuron), with the labels of trials and neurons and the
        positions of the neurons in `position_x`, `position_y` and `position_z`, in micrometres.
        """
        if isinstance(key, str):
            return self._array(key)
        key = self._key(key)
        return self._copy(_index=self._index[key], _rows=self._rows[key])

    def _with_neurons(self, picked: Mapping[str, np.ndarray]) -> Responses:
        return self._copy(
            _neurons=selected(self._neurons, picked), _columns=selected(self._columns, picked)
        )

    def _count(self, mouse: str) -> int:
        if mouse in self._columns:
            return len(self._columns[mouse])
        return self._source(mouse).shape[-1]

    def _source(self, mouse: str) -> Any:
        if mouse not in self._sources:
            raise ValueError(
                f"there are no responses of mouse {mouse!r} here, only of {list(self._sources)}."
            )
        return self._sources[mouse]

    def get(self, mouse_id: str) -> np.ndarray:
        """Read the responses of one mouse.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        ndarray of shape (n_trials, n_neurons), or (n_trials, n_frames, n_neurons) of movies
            In the order of this view, in the units of the responses; NaN where not recorded.
        """
        return self._get(mouse_id)

    def _get(self, mouse_id: str, out: np.ndarray | None = None) -> np.ndarray:
        """Read responses; what comes back is `out` where that is a place for them."""
        positions, _ = self.rows(mouse_id)
        mouse = str(mouse_id)
        return read(self._source(mouse), self._rows[positions], self._columns.get(mouse), out)

    def _announce(self, mouse: str) -> None:
        """Tell the disk that responses are read soon."""
        announce_rows_of(self._source(mouse), self._rows[self.rows(mouse)[0]])

    def _labelled_like(self, trials: View) -> Responses:
        """The same responses with the labels of other trials: a target permuted within mice."""
        for mouse in self.mice:
            check_unit_ids(mouse, self, trials)
        return Responses(trials, self._sources, self._rows, name=self.name, columns=self._columns)

    def load(self) -> Responses:
        """Read these responses once, for those who need them several times.

        Returns
        -------
        Responses
            The same, in memory.
        """
        return self._computed({m: self.get(m) for m in self.mice}, self.name, self._attrs)

    def _computed(
        self, values: dict[str, np.ndarray], name: str | None, attrs: Mapping[str, Any]
    ) -> Responses:
        """Other values of the same trials and neurons."""
        rows = np.empty(len(self), dtype=np.int64)
        for mouse in self.mice:
            positions, _ = self.rows(mouse)
            rows[positions] = np.arange(len(positions))
        return self._copy(_sources=values, _rows=rows, _columns={}, _attrs=dict(attrs), _name=name)

    def _array(self, mouse: str) -> xr.DataArray:
        values, rows = self.get(mouse), self.rows(mouse)[1]
        dims = self._dims(mouse)
        coords = self._coords(mouse, rows, dict(zip(dims, values.shape, strict=True)))
        return xr.DataArray(
            values,
            dims=dims,
            coords=coords | self._neuron_coords(mouse),
            name=self.name,
            attrs=self._attrs.get(mouse, {}),
        )

    def _neuron_coords(self, mouse: str) -> dict[str, Any]:
        """Labels of the neurons; their positions by axis, so that they fit an array of neurons."""
        sizes = {"neuron": self._count(mouse)}
        coords = self._coords(mouse, np.arange(0), sizes)
        position = self.positions(mouse)
        if position is not None and len(position) == sizes["neuron"]:
            described = self._described(mouse)
            axes = described["axis"].values.tolist() if "axis" in described.coords else AXES
            attrs = described["position"].attrs
            for axis, values in zip(axes, position.T, strict=False):
                coords.setdefault(f"position_{axis}", ("neuron", values, attrs))
        return coords

    def mean(self, dim: str | None = None) -> xr.DataArray | Responses:
        """Average; responses that were not recorded (NaN) are left out.

        Parameters
        ----------
        dim : {"trial", "neuron", "image_id", "time"}
            Over the trials of each mouse, and their frames; over the neurons of each trial; over
            the repeats of each image or movie, mouse by mouse, frame by frame; or over the frames
            of each movie.

        Returns
        -------
        DataArray or Responses
            "trial": (unit,), the neurons of all mice, whose coordinate `unit` has the levels
            `mouse` and `neuron`: ``.sel(mouse="A")`` gives those of one mouse. "neuron": (trial,),
            in the order of this view, with `mouse`, `image_id` and `tier`. "image_id": `Responses`
            with one vector per mouse and image, images in the order of their first trial, which
            keep the labels that all repeats share. "time": `Responses` with one vector per trial.

        Raises
        ------
        TypeError, ValueError
            For no dimension, several, or any other; "neuron" of movies, "time" of images.
        """
        if not isinstance(dim, str):
            raise TypeError(
                f"dim is {dim!r}: expected one of 'trial', 'neuron', 'image_id' and 'time', as in "
                'responses.mean("trial").'
            )
        averages: dict[str, Callable[[Responses], Any]] = {
            "trial": over_trials,
            "neuron": over_neurons,
            "image_id": over_repeats,
            "time": over_time,
        }
        if dim not in averages:
            raise ValueError(f"dim is {dim!r}: expected 'trial', 'neuron', 'image_id' or 'time'.")
        return averages[dim](self)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per trial, frame of movies, and neuron, for pandas, seaborn or statsmodels.

        Returns
        -------
        DataFrame
            Columns `mouse`, `trial` (its place in this view), `time` of movies, in seconds or
            frames, `image_id`, `tier` where there are tiers, `neuron`, other labels of the neurons
            and trials, positions in micrometres, and the response under its name ("value" without
            one). A label that some mice lack is missing there: NaN, and NA among integers, which
            stay integers. Of large recordings select before: 5,000 trials of 8,000 neurons are 40
            million rows.

        Raises
        ------
        ValueError
            If the name is that of a column of labels.
        """
        return to_dataframe(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("responses of several mice cannot become an array without a copy.")
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if dtype is None and caller.startswith("sklearn.utils"):
            raise TypeError(
                "scikit-learn looks for classes, or other numbers, one per trial, and responses "
                "are vectors, one per trial. Splits that keep mice balanced look at mouse ids: "
                "cv=StratifiedKFold(5).split(trials, trials.mouse_ids), or, with all repeats of an "
                "image on one side, cv=StratifiedGroupKFold(5).split(trials, trials.mouse_ids, "
                "trials.image_ids); train_test_split takes stratify=trials.mouse_ids."
            )
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
        return without_padding(out, self.n_frames)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle labels and responses, not the stimuli they belong to."""
        for mouse in self.mice:
            self._mouse_image_ids(mouse)
        state = {name: value for name, value in self.__dict__.items() if name != "_origin"}
        state["_recordings"] = {
            m: ds.drop_vars([v for v in LARGE if v in ds]) for m, ds in self._recordings.items()
        }
        state["_sources"], state["_columns"] = {}, dict(self._columns)
        for mouse in self.mice:
            source = self._source(mouse)
            if mouse in self._columns and getattr(source, "_in_memory", True):
                source = np.asarray(source)[..., compact(state["_columns"].pop(mouse))]
            state["_sources"][mouse] = source
        return state

    def _title(self) -> str:
        kind = type(self).__name__
        called = f"{kind} {self.name!r}" if self.name else kind
        return super()._title().replace(kind, called, 1)

    def _counts_shown(self) -> list[Column]:
        units = [str(self._attrs.get(mouse, {}).get("units", "–")) for mouse in self.mice]
        return [*super()._counts_shown(), ("units", units)]


def _refuse_others(path: str | Path, tree: xr.DataTree) -> None:
    if tree.attrs.get("kind") != RESPONSES_FILE:
        raise ValueError(
            f"{path} does not hold responses as Responses.to_netcdf writes them; those of a file "
            "of recordings are Trials.open(path).responses."
        )
