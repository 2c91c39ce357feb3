"""Movies as trials of single frames, and back: the one place where the time axis is folded.

What knows images alone, a core that sees frame by frame or a statistic over trials, gets views
whose trials are the frames of movies; views of images go through as they are. Padding is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn.datasets.lazy_rows import Key, LazyRows, take
from v1tlearn.datasets.time_axis import frame_rate_of, frames_of
from v1tlearn.trials._reading import compact
from v1tlearn.trials._view import View
from v1tlearn.trials.responses import Responses
from v1tlearn.trials.trials import Trials

V = TypeVar("V", Trials, Responses)

_STRETCH = 64  # frames, about a chunk of a file, that are read at once where only some are wanted
_FEW = 4  # of a stretch, which are read one by one

FRAME_RATE = "frame_rate"  # attribute of folded recordings, in frames per second


def fold_time(view: V, names: Literal["movies", "frames", None] = "frames") -> V:
    """Make a trial of every frame; nothing is read or copied, but for ids that are not known.

    Parameters
    ----------
    view : Trials or Responses
        Of movies; of images they come back as they are.
    names : {"movies", "frames", None}, default="frames"
        What `image_id` of a frame is: that of its movie, so that no split puts frames of one movie
        on both sides; that of its movie with the number of the frame, which repeats share; or
        nothing, so that no stimulus is read to know it.

    Returns
    -------
    Trials or Responses
        Frames stand trial after trial in the order of the view. They keep the labels of their
        trials and have `frame_number` beside them.
    """
    n_frames = view.n_frames
    if n_frames is None:
        return view
    recordings, starts, origin = {}, {}, {}
    for mouse, recording in view._recordings.items():
        counts = frames_of(recording)
        starts[mouse] = np.cumsum(counts) - counts
        trial_of = np.repeat(np.arange(len(counts)), counts)
        frame_of = np.arange(len(trial_of)) - starts[mouse][trial_of]
        recordings[mouse] = _folded(recording, trial_of, frame_of)
        if names is not None and mouse in view.mice:
            ids = view._mouse_image_ids(mouse)[trial_of]
            if names == "frames":
                ids = frame_ids(ids, frame_of)
            recordings[mouse] = recordings[mouse].assign_coords(image_id=("trial", ids))
        else:
            recordings[mouse] = recordings[mouse].drop_vars("image_id", errors="ignore")
        origin[mouse] = (view._recorded(mouse), trial_of)
    mice = list(view._recordings)
    first = np.array([starts[mice[m]][row] for m, row in view._index], np.int64)
    frame = np.arange(n_frames.sum()) - np.repeat(np.cumsum(n_frames) - n_frames, n_frames)
    number = np.repeat(view._index[:, 0], n_frames)
    changes: dict[str, Any] = {
        "_recordings": recordings,
        "_index": np.column_stack([number, np.repeat(first, n_frames) + frame]),
        "_hashes": {},
        "_origin": origin,
    }
    if isinstance(view, Responses):
        lengths = np.array([view._recordings[mouse].sizes["time"] for mouse in mice])
        rows = np.repeat(view._rows * lengths[view._index[:, 0]], n_frames) + frame
        changes |= {"_sources": {m: _flat(s) for m, s in view._sources.items()}, "_rows": rows}
    return view._copy(**changes)


def unfold_time(values: Mapping[str, np.ndarray], like: View) -> dict[str, np.ndarray]:
    """Bring what stands frame after frame to the time axis of movies.

    Parameters
    ----------
    values : mapping of str to ndarray of shape (frames of all trials, ...)
        Per mouse, as `fold_time` of the view orders them.
    like : Trials or Responses
        The view; of images, values come back as they are.

    Returns
    -------
    dict of str to ndarray of shape (n_trials, n_frames, ...)
        NaN behind the last frame of each trial.
    """
    n_frames = like.n_frames
    if n_frames is None:
        return dict(values)
    out = {}
    for mouse, flat in values.items():
        counts = n_frames[like.rows(mouse)[0]]
        there = np.arange(like._recordings[mouse].sizes["time"]) < counts[:, None]
        if there.all():
            out[mouse] = flat.reshape(*there.shape, *flat.shape[1:])
            continue
        out[mouse] = np.full((*there.shape, *flat.shape[1:]), np.nan, flat.dtype)
        out[mouse][there] = flat
    return out


def frame_ids(image_ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Name frames by their movie and their number, the same in all repeats.

    Parameters
    ----------
    image_ids : ndarray of shape (n,)
        Of the movies.
    frames : ndarray of int, of shape (n,)

    Returns
    -------
    ndarray of str, of shape (n,)
    """
    parts = (np.char.add(np.asarray(image_ids).astype(str), "["), frames.astype(str))
    return np.char.add(np.char.add(*parts), "]")


def movies_of_frames(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell movie and number of frames from what `frame_ids` called them.

    Parameters
    ----------
    ids : ndarray of str, of shape (n,)

    Returns
    -------
    image_ids : ndarray of str, of shape (n,)
    frames : ndarray of int, of shape (n,)
    """
    parts = np.char.rpartition(ids, "[")  # (n, 3): movie, "[", frame and "]"
    numbers = np.char.partition(parts[:, 2], "]")[:, 0]  # rstrip of NumPy 2.0.0 empties "0]"
    return parts[:, 0], numbers.astype(np.int64)


def _folded(recording: xr.Dataset, trial_of: np.ndarray, frame_of: np.ndarray) -> xr.Dataset:
    """A recording whose trials are the frames of its movies."""
    variables = {}
    for name, variable in recording.variables.items():
        if variable.dims[:2] == ("trial", "time"):
            variables[name] = _frames(variable, trial_of, frame_of)
        elif "trial" in variable.dims:
            variables[name] = variable.isel(trial=trial_of)
        elif "time" not in variable.dims:
            variables[name] = variable
    variables.pop("n_frames")
    variables["frame_number"] = xr.Variable("trial", frame_of)
    coords = [*(name for name in recording.coords if name in variables), "frame_number"]
    labels = {name: variables.pop(name) for name in coords}
    rate = frame_rate_of(recording)
    attrs = recording.attrs if rate is None else {**recording.attrs, FRAME_RATE: rate}
    return xr.Dataset(variables, labels, attrs)


def _frames(variable: xr.Variable, trial_of: np.ndarray, frame_of: np.ndarray) -> xr.Variable:
    dims = ("trial", *variable.dims[2:])
    if variable._in_memory and len(trial_of) == variable.shape[0] * variable.shape[1]:
        values = np.asarray(variable.values)
        if values.flags.c_contiguous:
            return xr.Variable(dims, values.reshape(-1, *values.shape[2:]), variable.attrs)
    data = indexing.LazilyIndexedArray(_Frames(variable, trial_of, frame_of))
    return xr.Variable(dims, data, variable.attrs)


def _flat(source: Any) -> Any:
    """Matrices (trials, time, neurons) as (trials times time, neurons)."""
    if isinstance(source, np.ndarray):
        source = xr.Variable(("trial", "time", "neuron"), source)
    n_trials, n_frames = source.shape[:2]
    trial_of = np.repeat(np.arange(n_trials), n_frames)
    return _frames(source, trial_of, np.tile(np.arange(n_frames), n_trials))


class _Frames(LazyRows):
    """Frames of movies (trial, time, ...) on one axis, read where they are indexed."""

    def __init__(self, variable: xr.Variable, trial_of: np.ndarray, frame_of: np.ndarray) -> None:
        self._variable, self._trial_of, self._frame_of = variable, trial_of, frame_of
        self.shape, self.dtype = (len(trial_of), *variable.shape[2:]), variable.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        trials, frames = self._trial_of[rows], self._frame_of[rows]
        if self._variable._in_memory:
            return take(np.asarray(self._variable.values)[trials, frames], others)
        parts = [self._variable[(slice(0, 0), 0, *others)].values]
        cuts = np.flatnonzero(np.diff(trials)) + 1
        order: np.ndarray | None = None
        if len(cuts) > len(np.unique(trials)):  # each movie once
            order = np.argsort(trials, kind="stable")
            trials, frames = trials[order], frames[order]
            cuts = np.flatnonzero(np.diff(trials)) + 1
        for own, at in zip(np.split(trials, cuts), np.split(frames, cuts), strict=True):
            if len(own):
                parts.append(self._of_movie(int(own[0]), at, others))
        values = np.concatenate(parts)
        if order is None:
            return values
        out = np.empty_like(values)
        out[order] = values
        return out

    def _of_movie(self, trial: int, frames: np.ndarray, others: Key) -> np.ndarray:
        """Frames of one movie, in any order; where many lie near each other, by the stretch.

        Files look up single frames one after the other, which takes longer than a whole chunk.
        """
        order = np.argsort(frames, kind="stable")
        cuts = np.flatnonzero(np.diff(frames[order] // _STRETCH)) + 1
        key = compact(frames)
        if isinstance(key, slice) or _FEW * (len(cuts) + 1) > len(frames):
            return np.asarray(self._variable[(trial, key, *others)])
        out: np.ndarray | None = None
        for own in np.split(order, cuts):
            first, last = int(frames[own[0]]), int(frames[own[-1]])
            found = np.asarray(self._variable[(trial, slice(first, last + 1), *others)])
            if out is None:
                out = np.empty((len(frames), *found.shape[1:]), found.dtype)
            out[own] = found[frames[own] - first]
        assert out is not None  # there are frames
        return out
