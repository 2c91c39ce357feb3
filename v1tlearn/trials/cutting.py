"""Parts of movies as trials of their own: cut when they are read, and without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn.datasets.lazy_rows import Key, LazyRows
from v1tlearn.datasets.time_axis import frames_of
from v1tlearn.trials.trials import Trials

Span = tuple[int, int]  # the first frame, and the one behind the last


def cut_in_time(trials: Trials, spans: Sequence[Sequence[Span]]) -> Trials:
    """Make a trial of each part of each movie.

    Parameters
    ----------
    trials : Trials
        Of movies.
    spans : sequence of sequences of (int, int)
        For every trial its parts: the first frame, and the one behind the last. What stands behind
        the last frame of the trial is left out, and so are parts of which nothing is left.

    Returns
    -------
    Trials
        Trial after trial, part after part, with the labels of their trials. Time begins anew in
        each part; `first_frame` tells where it did in the movie, also where this was cut before.
        Another part is another stimulus: of the movie "m" the frames 10 to 19 have the `image_id`
        "m[10:20]", also in a repeat that ends before.

    Raises
    ------
    ValueError
        If parts of different lengths are cut from responses that are integers, which cannot be
        padded.
    """
    counts = trials.n_frames
    assert counts is not None  # checked by who offers it
    parts = [
        [(start, stop) for start, stop in own if start < min(stop, count)]
        for own, count in zip(spans, counts, strict=True)
    ]
    recordings, steps = {}, []
    for number, mouse in enumerate(trials.mice):
        positions, rows = trials.rows(mouse)
        trial_of = np.repeat(rows, [len(parts[position]) for position in positions])
        own = np.array([part for p in positions for part in parts[p]], np.int64).reshape(-1, 2)
        ids = trials._mouse_image_ids(mouse)[trial_of]
        recordings[mouse] = _cut(mouse, trials._recordings[mouse], trial_of, own, ids)
        flat = np.repeat(positions, [len(parts[position]) for position in positions])
        steps.append(np.column_stack([flat, np.full(len(flat), number), np.arange(len(flat))]))
    index = np.concatenate(steps)
    index = index[np.argsort(index[:, 0], kind="stable"), 1:]
    return trials._copy(_recordings=recordings, _index=index, _hashes={}, _origin={})


def one_part(trials: Trials, position: int, start: int, stop: int) -> Trials:
    """Cut one part out of one movie, with the labels of its trial and its time in the movie.

    Parameters
    ----------
    trials : Trials
        Of movies.
    position : int
        Of the movie among the trials.
    start, stop : int
        The first frame, and the one behind the last.

    Returns
    -------
    Trials
        One trial; nothing of it is read.
    """
    number, row = trials._index[position]
    mouse = list(trials._recordings)[number]
    recording = trials._recordings[mouse].isel(trial=[row], time=slice(start, stop))
    recording = recording.assign_coords(n_frames=("trial", [stop - start]))
    kept = {mouse: recording}
    index = np.zeros((1, 2), np.int64)
    return trials._copy(_recordings=kept, _index=index, _hashes={}, _origin={})


def _cut(
    mouse: str, recording: xr.Dataset, trial_of: np.ndarray, spans: np.ndarray, ids: np.ndarray
) -> xr.Dataset:
    names = [f"{one}[{start}:{stop}]" for one, (start, stop) in zip(ids, spans, strict=True)]
    first = spans[:, 0]
    spans = np.column_stack([first, np.minimum(spans[:, 1], frames_of(recording)[trial_of])])
    lengths = spans[:, 1] - first
    longest = int(lengths.max(initial=1))
    variables: dict[Any, xr.Variable] = {}
    for name, variable in recording.variables.items():
        if variable.dims[:2] == ("trial", "time"):
            padded = name in ("responses", "expected_responses") and (lengths < longest).any()
            if padded and variable.dtype.kind != "f":
                raise ValueError(
                    f"mouse {mouse!r}, {name}: dtype is {variable.dtype}, which has no NaN for "
                    "what stands behind the shorter parts of movies: convert them with "
                    '.astype("float32").'
                )
            data = indexing.LazilyIndexedArray(_Parts(variable, trial_of, spans, longest))
            variables[name] = xr.Variable(variable.dims, data, variable.attrs, variable.encoding)
        elif "trial" in variable.dims:
            variables[name] = variable.isel(trial=trial_of)
        elif variable.dims == ("time",):
            values = variable.values
            variables[name] = variable.isel(time=slice(0, longest))
            if name == "time":
                variables[name] = variables[name].copy(data=values[:longest] - values[0])
        elif "time" not in variable.dims:
            variables[name] = variable
    variables["image_id"] = xr.Variable("trial", np.array(names, dtype=str))
    variables["n_frames"] = xr.Variable("trial", lengths)
    if "first_frame" in variables:  # of a movie that is a part itself
        first = first + variables["first_frame"].values
    variables["first_frame"] = xr.Variable("trial", first)
    labels = {*recording.coords, "image_id", "n_frames", "first_frame"}
    coords = {name: variables.pop(name) for name in list(variables) if name in labels}
    return xr.Dataset(variables, coords, recording.attrs)


class _Parts(LazyRows):
    """Parts of movies (trial, time, ...), read where they are indexed; padded with NaN or 0."""

    def __init__(
        self, variable: xr.Variable, trial_of: np.ndarray, spans: np.ndarray, longest: int
    ) -> None:
        self._variable, self._trial_of, self._spans = variable, trial_of, spans
        self.shape, self.dtype = (len(trial_of), longest, *variable.shape[2:]), variable.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        frames, others = others[0], others[1:]
        times = np.arange(self.shape[1])[frames]
        empty = np.asarray(self._variable[(slice(0, 0), np.arange(0), *others)])
        values = np.empty((rows.size, times.size, *empty.shape[2:]), self.dtype)
        for place, row in enumerate(rows):
            values[place] = self._part(row, np.atleast_1d(times), others)
        return values[:, 0] if times.ndim == 0 else values

    def _part(self, row: int, times: np.ndarray, others: Key) -> np.ndarray:
        start, stop = self._spans[row]
        there = times < stop - start
        frames = start + times[there]
        in_a_row = len(frames) and (np.diff(frames) == 1).all()
        at = slice(int(frames[0]), int(frames[-1]) + 1) if in_a_row else frames
        found = np.asarray(self._variable[(int(self._trial_of[row]), at, *others)])
        if there.all():
            return found
        fill = np.nan if self.dtype.kind == "f" else 0
        out = np.full((len(times), *found.shape[1:]), fill, self.dtype)
        out[there] = found
        return out
