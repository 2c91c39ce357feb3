"""`Trials` and `Responses`: labelled, sliceable views of the recordings of several mice.

Both put the trials of all mice on one flat axis, which is what scikit-learn slices; slicing copies
an index, never data. Reading, and the preprocessing recorded on a view, happen on demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import xarray as xr

from v1tlearn.datasets.netcdf import announce_rows_of
from v1tlearn.datasets.schema import default_behavior_names
from v1tlearn.datasets.store import open_recordings, save_recordings
from v1tlearn.datasets.time_axis import is_movie
from v1tlearn.trials._call_forms import CallForm, recordings_from_arrays
from v1tlearn.trials._pickling import state_of_shown
from v1tlearn.trials._reading import (
    BLOCK,
    DATA,
    checked_recordings,
    compact,
    pixel_coords,
    read,
    with_neurons,
)
from v1tlearn.trials._steps import Step, read_processed
from v1tlearn.trials._summary import Column
from v1tlearn.trials._view import View
from v1tlearn.trials.inputs import Inputs, with_processed
from v1tlearn.trials.responses import Responses


class Trials(View):
    """Trials of one or several mice on one axis: what estimators fit, score and predict.

    A view: slicing and preprocessing copy no data, and files are read when numbers are needed.
    ``trials[indices]`` are trials by number, ``trials["A"]`` is one mouse as a `Dataset`; `sel`
    selects trials and neurons by label.

    Parameters
    ----------
    recordings : DataTree, dict of str to Dataset or DataTree, or Dataset
        One recording per mouse, see `v1tlearn.validate_recordings` for its form. A child of a
        DataTree is one mouse, under its name; so is a dataset, under its attribute `mouse_id`
        ("mouse" without it).

    Raises
    ------
    TypeError, ValueError
        If this is no recording, or a recording lacks stimuli.

    See Also
    --------
    Trials.from_arrays : From dicts, lists or flat arrays.
    Trials.open : From a netCDF file, lazily.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> recordings = v1.make_v1_recordings(n_mice=2, n_neurons=5, n_trials=20, random_state=0,
    ...                                    n_test_images=2, n_repeats=3, image_shape=(12, 16))
    >>> trials = v1.Trials(recordings)
    >>> test = trials.sel(tier="test")
    >>> len(test), test.mice, test.n_neurons
    (12, ['A', 'B'], {'A': 5, 'B': 5})
    """

    _called = "trials"

    def __init__(
        self,
        recordings: xr.DataTree | Mapping[str, xr.Dataset | xr.DataTree] | xr.Dataset,
    ) -> None:
        self._recordings = checked_recordings(recordings, unnamed="mouse")
        counts = [ds.sizes["trial"] for ds in self._recordings.values()]
        self._index = np.concatenate(
            [np.column_stack([np.full(n, k), np.arange(n)]) for k, n in enumerate(counts)]
        ).astype(np.int64)
        self._steps: tuple[Step, ...] = ()
        self._neurons, self._hashes = {}, {}

    @classmethod
    def from_arrays(
        cls,
        stimuli: Any,
        behaviors: Any = None,
        responses: Any = None,
        mouse_ids: Any = None,
        *,
        image_ids: Any = None,
        tiers: Any = None,
        positions: Any = None,
        behavior_names: Sequence[str] | None = None,
        frame_rate: float | None = None,
    ) -> Trials:
        """Label plain arrays.

        What labelled arrays say is used: dimensions of DataArrays go by their names (trial,
        channel, height, width, behavior, neuron, axis); the coordinates `neuron`, `image_id`,
        `tier` and `trial_id`, and the columns of tables of pandas, come along; arrays whose trials
        bear different labels are refused. Masked responses are not recorded.

        Parameters
        ----------
        stimuli : dict, list or ndarray
            Grey levels, (trials, channels, height, width) per mouse: (a) a dict per mouse; (b) a
            list with one entry per recording; (c) one array of the trials of all mice, with one id
            per trial in `mouse_ids`; (d) one array of one mouse, ``mouse_ids=None``. Movies have
            a time axis, (trials, time, channels, height, width); of different lengths they are,
            per mouse, a list or object array of movies (frames, channels, height, width), or an
            array of floats whose frames of NaN at the end are padding. Behaviour is then (trials,
            time, columns) and responses (trials, time, neurons), or lists alike.
        behaviors : dict, list, ndarray or DataFrame, optional
            In the form of `stimuli`, (trials, columns) per mouse. The columns of a DataFrame
            bring their names.
        responses : dict, list, ndarray or DataFrame, optional
            In the form of `stimuli`, (trials, neurons) per mouse; NaN where not recorded. For (c)
            a list or object array of vectors, or a (trials, max_neurons) array whose all-NaN
            columns at the right end are, per mouse, padding.
        mouse_ids : sequence, optional
            (b) one id per recording, (c) one id per trial.
        image_ids, tiers : dict, list or ndarray, optional
            In the form of `stimuli`, one label per trial. Without `image_ids` an image's id is a
            hash of its content.
        positions : dict, list or ndarray, optional
            Cortical positions in micrometres, (neurons, 2 or 3) per mouse.
        behavior_names : sequence of str, optional
            Names of the behaviour columns. Without names three columns are pupil dilation, its
            derivative and running speed; five are those and pupil x and y.
        frame_rate : float, optional
            Frames per second of movies. Without it, and without a coordinate `time` of labelled
            stimuli, nothing is guessed: time is counted in frames.

        Returns
        -------
        Trials
            In the order of the arrays (c), or mouse after mouse.

        Raises
        ------
        TypeError, ValueError
            If the forms are mixed or shapes do not fit; the mouse and the variable are named. If
            stimuli, behaviour, labels or positions are masked, or ids are missing (None, NaN,
            blank); the trials are named.
        """
        return cls._from_call(
            stimuli,
            behaviors,
            responses,
            mouse_ids,
            image_ids=image_ids,
            tiers=tiers,
            positions=positions,
            behavior_names=behavior_names,
            frame_rate=frame_rate,
        )[0]

    @classmethod
    def _from_call(cls, *args: Any, **kwargs: Any) -> tuple[Trials, CallForm]:
        """Like `from_arrays`, and tell the form in which the arrays came."""
        recordings, form = recordings_from_arrays(*args, **kwargs)
        trials = cls(recordings)
        if form.order is not None:
            trials = trials[np.argsort(form.order, kind="stable")]
        return trials, form

    @classmethod
    def open(cls, path: str | Path) -> Trials:
        """Open recordings in a netCDF file; data are read when they are used.

        Parameters
        ----------
        path : str or Path
            Written by `to_netcdf` or `v1tlearn.save_recordings`.

        Returns
        -------
        Trials

        Raises
        ------
        FileNotFoundError, IsADirectoryError
            If there is no such file, or a folder; the error says what opens that.
        TypeError, ValueError
            If `path` is no path, or the file holds no recordings, such as responses alone.
        """
        return cls(open_recordings(path))

    def to_netcdf(self, path: str | Path) -> None:
        """Write the trials of this view, unprocessed, with their labels.

        Parameters
        ----------
        path : str or Path
            A netCDF4 file with one group per mouse; replaced only when fully written.
        """
        save_recordings(self.recordings, path)

    @overload
    def __getitem__(self, key: str) -> xr.Dataset: ...

    @overload
    def __getitem__(self, key: Any) -> Trials: ...

    def __getitem__(self, key: Any) -> Trials | xr.Dataset:
        """Select trials by number; or give one mouse as a `Dataset`.

        ``trials["A"]`` holds the trials of this view, with their labels and neurons. Stimuli and
        behaviour are what an estimator sees: as recorded, and read when they are used, where the
        view has no preprocessing steps; else processed, and in memory, without the attributes and
        statistics of the recorded ones. Rows of images count from the top.
        """
        if isinstance(key, str):
            return self._dataset(key)
        return self._copy(_index=self._index[self._key(key)])

    def _dataset(self, mouse: str) -> xr.Dataset:
        rows = self._rows_of_shown(mouse)
        recording = with_neurons(self._recordings[mouse], self._neurons.get(mouse))
        dataset = recording.isel(trial=compact(rows)).assign_attrs(mouse_id=mouse)
        if not self._steps:
            return dataset.assign_coords(pixel_coords(dataset["stimuli"]))
        own = self.sel(mouse_id=mouse)  # others may lack behaviour
        inputs = [Inputs(own, name) for name in ("stimuli", "behaviors") if name in dataset]
        return with_processed(dataset, mouse, inputs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            "Trials are no array: they hold stimuli, behaviour and labels of several mice. Read "
            'numbers with trials.get("stimuli", mouse) or numpy.asarray(trials.responses). In a '
            "Pipeline TrialStandardizer stands for StandardScaler."
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the mice of this view only, and of what is in memory only its neurons."""
        state = {name: value for name, value in self.__dict__.items() if name != "_origin"}
        return state | state_of_shown(self._recordings, self._neurons, self._index)

    def with_step(self, step: Step) -> Trials:
        """Record one more preprocessing step; it is applied when data are read.

        Parameters
        ----------
        step : object
            With methods ``stimuli(mouse_id, images)`` and ``behaviors(mouse_id, values, names)``.

        Returns
        -------
        Trials
        """
        return self._copy(_steps=(*self._steps, step))

    def blocks(self, mouse_id: str, size: int = BLOCK) -> Iterator[Trials]:
        """Pass through the trials of one mouse in views of at most `size` trials.

        Parameters
        ----------
        mouse_id : str
        size : int

        Yields
        ------
        Trials
        """
        positions, _ = self.rows(mouse_id)
        for start in range(0, len(positions), size):
            yield self[positions[start : start + size]]

    @overload
    def get(
        self, name: Literal["stimuli"], mouse_id: str
    ) -> np.ndarray: ...  # numpydoc ignore=GL08

    @overload
    def get(self, name: str, mouse_id: str) -> np.ndarray | None: ...  # numpydoc ignore=GL08

    def get(self, name: str, mouse_id: str) -> np.ndarray | None:
        """Read one variable of one mouse, in the order of this view, preprocessed.

        Parameters
        ----------
        name : {"stimuli", "behaviors", "responses", "expected_responses"}
        mouse_id : str

        Returns
        -------
        ndarray or None
            First axis: trials; second, of movies: time, padding included, see `n_frames`. None if
            the recording lacks the variable.
        """
        return self._get(name, mouse_id)

    def _get(self, name: str, mouse_id: str, out: np.ndarray | None = None) -> np.ndarray | None:
        """Read a variable; what comes back is `out` where that is a place for it as recorded."""
        if name not in DATA:
            raise ValueError(f"no variable {name!r}: expected one of {list(DATA)}.")
        rows = self.rows(mouse_id)[1]
        mouse_id = str(mouse_id)
        recording = self._recordings[mouse_id]
        if name not in recording:
            return None
        if name not in ("stimuli", "behaviors"):
            return read(recording.variables[name], rows, self._neurons.get(mouse_id), out)
        if not self._steps:
            return read(recording.variables[name], rows, out=out)
        names = self.behavior_names(mouse_id) if name == "behaviors" else None
        return read_processed(
            recording.variables[name],
            rows,
            self._steps,
            mouse_id,
            behavior_names=names,
            movies=is_movie(recording),
        )

    def _announce(self, name: str, mouse_id: str) -> None:
        """Tell the disk that a variable of these trials is read soon."""
        announce_rows_of(self._recordings[mouse_id].variables[name], self.rows(mouse_id)[1])

    def has(self, name: str, mouse_id: str) -> bool:
        """Tell whether a mouse's recording has a variable, without reading it.

        Parameters
        ----------
        name : str
        mouse_id : str

        Returns
        -------
        bool
        """
        return name in self._recordings[str(mouse_id)]

    def behavior_names(self, mouse_id: str) -> list[str] | None:
        """Names of a mouse's behaviour columns.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        list of str or None
            None without behaviour.
        """
        recording = self._recordings[str(mouse_id)]
        if "behaviors" not in recording:
            return None
        if "behavior" in recording.coords:
            return [str(name) for name in recording["behavior"].values]
        return default_behavior_names(recording.sizes["behavior"])

    def channel_names(self, mouse_id: str) -> list[str] | None:
        """Names of the channels of a mouse's stimuli.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        list of str or None
            None where the recording does not tell, or preprocessing makes others of them.
        """
        recording = self._recordings[str(mouse_id)]
        if "channel" not in recording.coords:
            return None
        names = [str(name) for name in recording["channel"].values]
        first = self[self.rows(mouse_id)[0][:1]].get("stimuli", mouse_id)
        assert first is not None  # every recording has stimuli
        return names if first.shape[-3] == len(names) else None

    def recorded_trials(self, mouse_id: str) -> int:
        """Trials in the whole recording of a mouse, whatever this view shows of them.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        int
        """
        return self._recordings[str(mouse_id)].sizes["trial"]

    @property
    def stimuli(self) -> Inputs:
        """The stimuli of these trials, labelled, preprocessed, and read when they are used."""
        return Inputs(self, "stimuli")

    @property
    def behaviors(self) -> Inputs:
        """The behaviour of these trials, labelled, preprocessed, and read when it is used.

        Raises
        ------
        ValueError
            If a mouse has none.
        """
        return Inputs(self, "behaviors")

    @property
    def responses(self) -> Responses:
        """The recorded responses of these trials.

        Raises
        ------
        ValueError
            If a mouse has none.
        """
        return self._target(
            "responses",
            "give them to Trials.from_arrays, or use predict, which needs none.",
        )

    @property
    def expected_responses(self) -> Responses:
        """The true rates of simulated recordings, in the units of the responses.

        Raises
        ------
        ValueError
            If a recording is not a simulated one.
        """
        return self._target(
            "expected_responses",
            "only simulated recordings (make_v1_recordings) know the true rate.",
        )

    def _target(self, name: str, hint: str) -> Responses:
        for mouse in self.mice:
            if name not in self._recordings[mouse]:
                raise ValueError(f"mouse {mouse!r} has no {name}: {hint}")
        sources = {m: self._recordings[m].variables[name] for m in self.mice}
        return Responses(self, sources, self._index[:, 1], name=name, columns=self._neurons)

    @property
    def recordings(self) -> xr.DataTree:
        """The trials of this view as labelled recordings, unprocessed, one child per mouse."""
        tree = {}
        for mouse in self.mice:
            recording = with_neurons(self._recordings[mouse], self._neurons.get(mouse))
            tree[mouse] = recording.isel(trial=compact(self.rows(mouse)[1]))
        return xr.DataTree.from_dict(tree)

    def _title(self) -> str:
        steps = len(self._steps)
        told = f", {steps} preprocessing step{'s' if steps > 1 else ''}" if steps else ""
        return super()._title() + told

    def _details_shown(self) -> list[Column]:
        shapes, behavior = [], []
        for mouse in self.mice:
            sizes = self._recordings[mouse].sizes
            shapes.append(" × ".join(str(sizes[dim]) for dim in ("channel", "height", "width")))
            behavior.append(", ".join(self.behavior_names(mouse) or ["–"]))
        return [("recorded stimuli", shapes), ("behaviour", behavior)]
