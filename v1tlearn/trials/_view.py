"""What `Trials` and `Responses` share: one axis over mice, labels, and reading on demand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._values import without_flips
from v1tlearn.datasets.schema import DIMS, NEURON_LABELS
from v1tlearn.datasets.time_axis import frame_rate_of, frames_of, is_movie, with_time
from v1tlearn.trials import _guesses, _summary
from v1tlearn.trials._hashing import content_hashes
from v1tlearn.trials._keys import trial_key
from v1tlearn.trials._reading import LARGE, with_neurons
from v1tlearn.trials._selection import pick_neurons, pick_trials


class UnknownMouseError(ValueError, KeyError):
    """A mouse that is not there: a wrong value for most, a missing key for ``view["Z"]``."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class View:
    """What `Trials` and `Responses` share: one axis, labels, and indexing that copies an index."""

    ndim = 1
    _called = "view"  # what callers call it, for errors
    _recordings: dict[str, xr.Dataset]
    _index: np.ndarray  # (n_trials, 2): number of the mouse, row of its recording
    _neurons: dict[str, np.ndarray]  # which neurons of the recording; all of mice not in it
    _hashes: dict[str, np.ndarray]
    # Of frames that were trials of their own once: what was recorded, and the row each is of.
    _origin: Mapping[str, tuple[Any, np.ndarray]] = MappingProxyType({})

    def __getattr__(self, name: str) -> Any:
        """Tell what is written here, where a name of xarray or pandas came."""
        mice = self.__dict__.get("_recordings", ())
        message = _guesses.attribute(type(self).__name__, self._called, name, mice)
        raise AttributeError(message, name=name, obj=self)

    def _copy(self, **changes: Any) -> Self:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, **changes)
        return view

    def __getitem__(self, key: Any) -> Any:
        """Select trials by number; or give what is there of one mouse, by its id."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int]:
        """Number of trials, as a one-element tuple."""
        return (len(self._index),)

    def _key(self, key: Any) -> Any:
        """Check an index of the trial axis."""
        return trial_key(key, type(self).__name__, len(self), self._labels_along_trials)

    def _labels_along_trials(self) -> dict[str, np.ndarray]:
        return {name: self._trial_labels(name) for name in sorted(self._names_of_labels()[0])}

    def __contains__(self, mouse_id: object) -> bool:
        return str(mouse_id) in self.mice

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

    def _rows_of_shown(self, mouse: str) -> np.ndarray:
        """Rows of a mouse that has trials here."""
        rows = self.rows(mouse)[1]
        if not len(rows):
            raise UnknownMouseError(
                f"there is no trial of mouse {mouse!r} here, only of {self.mice}."
            )
        return rows

    def _number(self, mouse_id: Hashable) -> int:
        names = list(self._recordings)
        if str(mouse_id) not in names:
            message = _guesses.mouse(str(mouse_id), self._called, names, set(self.tiers.tolist()))
            raise UnknownMouseError(message)
        return names.index(str(mouse_id))

    @property
    def n_neurons(self) -> dict[str, int]:
        """Number of neurons per mouse; 0 where nothing tells it."""
        return {mouse: self._count(mouse) for mouse in self.mice}

    def _count(self, mouse: str) -> int:
        if mouse in self._neurons:
            return len(self._neurons[mouse])
        return int(self._recordings[mouse].sizes.get("neuron", 0))

    def neuron_ids(self, mouse_id: str) -> np.ndarray:
        """Unit ids of a mouse's neurons.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        ndarray of shape (n_neurons,)
            Where the recording has none, the number of each neuron in the recording.
        """
        mouse = str(mouse_id)
        ids = self._known_neuron_ids(mouse)
        return np.arange(self._count(mouse)) if ids is None else ids

    def _known_neuron_ids(self, mouse: str) -> np.ndarray | None:
        self._number(mouse)
        recording, neurons = self._recordings[mouse], self._neurons.get(mouse)
        if "neuron" in recording.coords:
            ids = recording["neuron"].values
            return ids if neurons is None else ids[neurons]
        return neurons

    def _with_known_neurons(self, ids: Mapping[str, Any]) -> Self:
        """Name neurons that the recordings do not name, by their unit ids per mouse."""
        unnamed = {
            mouse: self._recordings[mouse].assign_coords(neuron=("neuron", np.asarray(ids[mouse])))
            for mouse in self.mice
            if ids.get(mouse) is not None and self._known_neuron_ids(mouse) is None
        }
        return self._copy(_recordings=self._recordings | unnamed) if unnamed else self

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
        ids = self._known_neuron_ids(str(mouse_id))
        labels = {} if ids is None else {"neuron": np.asarray(ids)}
        described = self._described(str(mouse_id))
        names = [name for name in NEURON_LABELS if name in described.coords]
        return labels | {name: np.asarray(described[name].values) for name in names}

    def positions(self, mouse_id: str) -> np.ndarray | None:
        """Cortical positions of a mouse's neurons.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        ndarray of shape (n_neurons, 2 or 3) or None
            In micrometres; None where the recording does not tell.
        """
        self._number(mouse_id)
        mouse = str(mouse_id)
        if "position" not in self._recordings[mouse]:
            return None
        position = without_flips(self._recordings[mouse]["position"].values)
        return position[self._neurons[mouse]] if mouse in self._neurons else position

    def _described(self, mouse: str) -> xr.Dataset:
        """What a recording holds beside its data, of the neurons of this view: all of it small."""
        recording = self._recordings[mouse]
        labels = recording.drop_vars([name for name in LARGE if name in recording])
        return with_neurons(labels, self._neurons.get(mouse))

    @property
    def image_ids(self) -> np.ndarray:
        """Image of every trial, shape (n_trials,); a hash of its content where none was given."""
        return self._labels(lambda mouse, rows: self._mouse_image_ids(mouse)[rows])

    @property
    def n_frames(self) -> np.ndarray | None:
        """Frames of every trial, shape (n_trials,), where trials are movies; None for images."""
        if not any(map(is_movie, self._recordings.values())):
            return None
        if not len(self):
            return np.empty(0, np.int64)
        return self._labels(lambda mouse, rows: frames_of(self._recordings[mouse])[rows])

    def _dims(self, mouse: str) -> tuple[str, ...]:
        """Dimensions of the responses of a mouse."""
        dims = DIMS["responses"]
        return with_time(dims) if is_movie(self._recordings[mouse]) else dims

    def frame_rate(self, mouse_id: str) -> float | None:
        """Frames per second of the movies that a mouse saw.

        Parameters
        ----------
        mouse_id : str

        Returns
        -------
        float or None
            None for images, and where time is counted in frames.
        """
        self._number(mouse_id)
        return frame_rate_of(self._recordings[str(mouse_id)])

    def _mouse_image_ids(self, mouse: str) -> np.ndarray:
        recording = self._recordings[mouse]
        if "image_id" in recording.coords:
            return recording["image_id"].values
        if mouse not in self._hashes:
            self._hashes[mouse] = content_hashes(recording)
        return self._hashes[mouse]

    def _names_images(self, mouse: str) -> bool:
        """Whether the recording bears labels of images, and not what they contain names them."""
        return "image_id" in self._recordings[mouse].coords

    def _has_image_ids(self, mouse: str, *, hashing: bool) -> bool:
        """Whether labels of images are known, or follow from images that are in memory."""
        known = self._names_images(mouse) or mouse in self._hashes
        return known or (hashing and self._recordings[mouse].variables["stimuli"]._in_memory)

    def _recorded(self, mouse: str) -> Any:
        """What tells the recording of a mouse from others while it lives, in all views of it."""
        recording = self._recordings[mouse]
        values = recording.variables["responses"]._data if "responses" in recording else None
        return values if isinstance(values, np.ndarray) else recording

    def _recorded_rows(self, mouse: str) -> tuple[Any, np.ndarray]:
        """What was recorded of a mouse, and the rows of these trials in it."""
        rows = self.rows(mouse)[1]
        if mouse not in self._origin:
            return self._recorded(mouse), rows
        recorded, trial_of = self._origin[mouse]
        return recorded, trial_of[rows]

    @property
    def tiers(self) -> np.ndarray:
        """Tier of every trial, shape (n_trials,); empty text where the recording has none."""
        return self._trial_labels("tier")

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

    def _coords(self, mouse: str, rows: np.ndarray, sizes: Mapping[Any, int]) -> dict[str, Any]:
        """Coordinates of an array of these sizes that holds these rows of a mouse's recording."""
        coords: dict[str, Any] = {}
        described = self._described(mouse)
        for name, label in described.coords.items():
            if not set(label.dims) <= set(sizes):
                continue
            if "trial" in label.dims:
                label = label.isel(trial=rows)
            if all(label.sizes[dim] == sizes[dim] for dim in label.dims):
                coords[str(name)] = label.variable
        return coords

    def sel(
        self,
        *,
        tier: Any = None,
        mouse_id: Any = None,
        image_id: Any = None,
        neuron: Any = None,
        **labels: Any,
    ) -> Self:
        """Select trials and neurons by label; what is selected is an index, no data.

        Parameters
        ----------
        tier : str or sequence of str, optional
            "train", "validation", "test", "final_test".
        mouse_id : str or sequence, optional
            Mouse or mice.
        image_id : label or sequence of labels, optional
            Images. Where the recordings do not name them, the hashes of `image_ids`, for which the
            stimuli are read.
        neuron : label, sequence of labels, mask, or dict, optional
            Unit ids, which come in the order asked for; or a mask of the neurons of one mouse; or
            a dict of either per mouse, where mice that it does not name keep all their neurons; or
            a mask over the units of several mice, as in ``scores > 0.2``. An id that several mice
            have is selected in each of them. Neurons without ids go by their number in the
            recording.
        **labels
            Any other coordinate along the trials, such as `trial_id`, or the neurons, such as
            `area`, `layer` or `animal_id`: a label or a sequence of labels.

        Returns
        -------
        Trials or Responses
            The trials in the order of this view. Of each mouse the neurons that fit everything
            asked for, in the order of the ids asked for, or else of this view.

        Raises
        ------
        TypeError
            If a keyword is no label of these trials.
        ValueError
            If no trial or neuron bears such a label, or a mouse would be left without neurons.

        Examples
        --------
        >>> import v1tlearn as v1
        >>> trials = v1.Trials(v1.make_v1_recordings(n_mice=2, n_neurons=5, n_trials=20,
        ...                    random_state=0, n_test_images=2, n_repeats=3, image_shape=(12, 16)))
        >>> some = trials.sel(tier="test", neuron={"A": trials.neuron_ids("A")[:2]})
        >>> len(some), some.n_neurons
        (12, {'A': 2, 'B': 5})
        """
        of_trials = {"tier": tier, "mouse_id": mouse_id, "image_id": image_id}
        along_trials, along_neurons = self._names_of_labels()
        for name in labels:
            if name not in along_trials and name not in along_neurons:
                known = [*of_trials, "neuron", *sorted(along_trials | along_neurons)]
                raise TypeError(_guesses.keyword(name, known))
        of_trials |= {name: value for name, value in labels.items() if name in along_trials}
        of_neurons = {name: value for name, value in labels.items() if name in along_neurons}
        of_neurons = {name: value for name, value in of_neurons.items() if value is not None}
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in of_trials.items():
            if wanted is not None:
                keep &= pick_trials(name, wanted, self._trial_labels(name))
        view = self if keep.all() else self[keep]
        if not len(view) or (neuron is None and not of_neurons):
            return view._copy()
        ids = {mouse: view.neuron_ids(mouse) for mouse in view.mice}
        coords = {
            mouse: {
                name: found[name].values
                for name in of_neurons
                if name in found.coords and found[name].dims == ("neuron",)
            }
            for mouse in (view.mice if of_neurons else ())
            for found in [view._described(mouse)]
        }
        return view._with_neurons(pick_neurons(neuron, of_neurons, ids, coords))

    def _names_of_labels(self) -> tuple[set[str], set[str]]:
        """Coordinates along the trials and along the neurons, beside those that `sel` names."""
        along: dict[tuple, set[str]] = {("trial",): set(), ("neuron",): set()}
        for mouse in self.mice:
            for name, variable in self._recordings[mouse].coords.items():
                if variable.dims in along:
                    along[variable.dims].add(str(name))
        named = {"tier", "mouse_id", "image_id", "neuron"}
        return along[("trial",)] - named, along[("neuron",)] - named

    def _trial_labels(self, name: str) -> np.ndarray:
        if name == "mouse_id":
            return self.mouse_ids
        if name == "image_id":
            return self.image_ids
        return self._labels(
            lambda mouse, rows: (
                self._recordings[mouse][name].values[rows]
                if name in self._recordings[mouse].coords
                else np.full(len(rows), "")
            )
        )

    def _with_neurons(self, picked: Mapping[str, np.ndarray]) -> Self:
        """Keep neurons by their places among those of this view."""
        return self._copy(_neurons=selected(self._neurons, picked))

    def _title(self) -> str:
        return _summary.title(type(self).__name__, len(self), len(self.mice))

    def _counts_shown(self) -> list[_summary.Column]:
        """What the representations tell of each mouse; nothing is read for them."""
        neurons = [str(n or "–") for n in self.n_neurons.values()]
        counts = _summary.counts(self.mouse_ids, self.tiers, self.mice)
        return [*counts, ("neurons", neurons), *self._frames_shown()]

    def _frames_shown(self) -> list[_summary.Column]:
        """How long the movies of each mouse are; nothing of images."""
        n_frames = self.n_frames
        if n_frames is None:
            return []
        of_mice = [n_frames[self.rows(mouse)[0]] for mouse in self.mice]
        rates = [self.frame_rate(mouse) for mouse in self.mice]
        return _summary.frames(of_mice, rates)

    def __repr__(self) -> str:
        return _summary.as_text(self._title(), self._counts_shown())

    def _repr_html_(self) -> str:
        return _summary.as_html(self._title(), [*self._counts_shown(), *self._details_shown()])

    def _details_shown(self) -> list[_summary.Column]:
        """What only the page in a notebook has room for."""
        return []


def selected(before: Mapping[str, np.ndarray], picked: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Selections of selections, per mouse."""
    after = {m: before[m][places] if m in before else places for m, places in picked.items()}
    return {**before, **after}
