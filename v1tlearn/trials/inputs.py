"""`Inputs`: the stimuli, or the behaviour, of trials as an estimator sees them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.datasets.schema import DIMS, STATISTICS
from v1tlearn.datasets.time_axis import is_movie, with_time
from v1tlearn.trials._reading import compact, pixel_coords, without_padding
from v1tlearn.trials._summary import Column
from v1tlearn.trials._view import View


class Inputs(View):
    """One variable of `Trials`, labelled and read when it is used.

    What ``trials.stimuli`` and ``trials.behaviors`` are. Slicing and `sel` copy an index, as those
    of `Trials` do. ``numpy.asarray`` gives a 1-D object array with one entry per trial.

    Parameters
    ----------
    trials : Trials
        The trials.
    name : {"stimuli", "behaviors"}
        The variable.

    Raises
    ------
    ValueError
        If a mouse of the trials lacks the variable.
    """

    dtype = np.dtype(object)  # of numpy.asarray

    def __init__(self, trials: View, name: str) -> None:
        for mouse in trials.mice:
            if name not in trials._recordings[mouse]:
                having = [m for m in trials.mice if name in trials._recordings[m]]
                raise ValueError(
                    f"mouse {mouse!r} has no {name}: the mice that have them are {having}; select "
                    "them with sel(mouse_id=...)."
                )
        self._trials, self._called = trials, f"trials.{name}"
        self._recordings, self._hashes = trials._recordings, trials._hashes
        self._index, self._neurons = trials._index, trials._neurons
        self.name = name

    def __getitem__(self, key: Any) -> Any:
        """Select trials by number; or give one mouse as a `DataArray`.

        ``trials.stimuli["A"]`` is (trial, channel, height, width), ``trials.behaviors["A"]``
        (trial, behavior); of movies both have `time` behind `trial`. Without preprocessing steps
        it is read when it is used; with steps it is in memory, and bears no attributes where a step
        changed the values. Rows of images count from the top: `v1tlearn.inspection.ImageDisplay`
        draws them the right way up, plots of xarray do with ``plot.imshow(yincrease=False)``.
        """
        if isinstance(key, str):
            return self._array(key)
        return Inputs(self._trials[self._key(key)], self.name)

    def get(self, mouse_id: str) -> np.ndarray:
        """Read the variable of one mouse.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        ndarray
            First axis: this mouse's trials in the order of this view.
        """
        return self._trials.get(self.name, mouse_id)

    def _with_neurons(self, picked: Any) -> Inputs:
        return Inputs(self._trials._with_neurons(picked), self.name)

    def _array(self, mouse: str) -> xr.DataArray:
        rows = self._rows_of_shown(mouse)
        source = self._recordings[mouse][self.name]
        if not self._trials._steps:
            array = source.drop_vars(source.coords).isel(trial=compact(rows))
            attrs = source.attrs
        else:
            values = self.get(mouse)
            dims = DIMS[self.name]
            if is_movie(self._recordings[mouse]):
                dims = with_time(dims)
            array = xr.DataArray(values, dims=dims, name=self.name)
            attrs = {} if self._is_changed(mouse) else source.attrs
        coords = self._coords(mouse, rows, array.sizes)
        if self.name == "behaviors" and "behavior" not in coords:
            coords["behavior"] = self._trials.behavior_names(mouse)
        array = array.assign_coords(coords).assign_attrs(attrs)
        return array.assign_coords(pixel_coords(array)) if self.name == "stimuli" else array

    def _is_changed(self, mouse: str) -> bool:
        """Whether a step changes the values of one trial, or hands the array through."""
        position = self.rows(mouse)[0][:1]
        one = self._trials[position]
        values = one._copy(_steps=()).get(self.name, mouse)
        if is_movie(self._recordings[mouse]):
            values = values[0, :1]  # a frame
        for step in one._steps:
            after = (
                step.stimuli(mouse, values)
                if self.name == "stimuli"
                else step.behaviors(mouse, values, one.behavior_names(mouse))
            )
            if after is not values:
                return True
        return False

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False or (dtype is not None and np.dtype(dtype) != self.dtype):
            raise ValueError(
                f"{self.name} of several mice become a 1-D object array, one entry per trial, by a "
                f'copy: use {self._called}["A"] for the array of one mouse.'
            )
        out = np.empty(len(self), dtype=object)
        for mouse in self.mice:
            for position, value in zip(self.rows(mouse)[0], self.get(mouse), strict=True):
                out[position] = value
        return without_padding(out, self.n_frames)

    def _title(self) -> str:
        return super()._title().replace(type(self).__name__, self.name.capitalize(), 1)

    def _counts_shown(self) -> list[Column]:
        columns = [column for column in super()._counts_shown() if column[0] != "neurons"]
        cells = []
        for mouse in self.mice:
            sizes = self._recordings[mouse].sizes
            if self.name == "stimuli":
                cells.append(" × ".join(str(sizes[d]) for d in DIMS["stimuli"][1:]))
            else:
                cells.append(", ".join(self._trials.behavior_names(mouse)))
        return [*columns, ("recorded" if self.name == "stimuli" else "columns", cells)]


def with_processed(dataset: xr.Dataset, mouse: str, inputs: Iterable[Inputs]) -> xr.Dataset:
    """Put what an estimator sees of a mouse in place of what was recorded.

    Parameters
    ----------
    dataset : Dataset
        The recording of the mouse, of the trials of the inputs.
    mouse : str
    inputs : iterable of Inputs

    Returns
    -------
    Dataset
        Without the statistics of what preprocessing changes: they are of recorded values.
    """
    for own in inputs:
        array = own[mouse]
        if own._is_changed(mouse):
            gone = {f"{own.name}_{statistic}" for statistic in STATISTICS}
            dataset = dataset.drop_vars(gone & set(dataset.variables))
        sized = [dim for dim in array.dims if array.sizes[dim] != dataset.sizes[dim]]
        dataset = dataset.drop_dims(sized)
        dataset[own.name] = array
    return dataset
