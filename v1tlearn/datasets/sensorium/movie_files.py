"""Numbered .npy files with a time axis, one per trial, padded by NaN at its end: a lazy array.

Which file means what in a recording stands in layout.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from v1tlearn.datasets.lazy_rows import Key, LazyRows, take
from v1tlearn.datasets.sensorium.folder_files import FolderMembers
from v1tlearn.datasets.sensorium.npy import npy_layout, parse_npy
from v1tlearn.datasets.sensorium.zip_files import ZipMembers


class MovieFiles:
    """One kind of files of one mouse, whose last axis is time.

    Parameters
    ----------
    mouse : str
        Named in errors.
    members : FolderMembers or ZipMembers
        The files, by trial.
    keep_uint8 : bool
        Whether uint8 stays; all other numbers become float32.

    Attributes
    ----------
    frame_shape : tuple of int
        Of the first file, without time.
    """

    def __init__(self, mouse: str, members: FolderMembers | ZipMembers, *, keep_uint8: bool):
        self._mouse, self._members = mouse, members
        _, data = next(members.read_many(np.zeros(1, np.int64)))
        first = npy_layout(data, self.where(0))
        self.n_trials = len(members.names)
        self.shape, self.frame_shape = first.shape, first.shape[:-1]
        uint8 = keep_uint8 and first.dtype == np.uint8
        self.dtype = np.dtype("uint8" if uint8 else "float32")

    def read(self, trials: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position in `trials`, values (time, ...)), in the order that suits the files."""
        for position, data in self._members.read_many(trials) if len(trials) else ():
            trial = int(trials[position])
            values = parse_npy(data, self.where(trial))
            if values.ndim != len(self.shape) or values.shape[:-1] != self.frame_shape:
                raise ValueError(
                    f"{self.where(trial)}: shape is {values.shape}, expected "
                    f"{(*self.frame_shape, 'time')} as in {self._members.names[0]}; the file is "
                    "damaged or of another recording"
                )
            if values.dtype.kind not in "biuf":
                raise ValueError(f"{self.where(trial)}: dtype is {values.dtype}, expected numbers")
            if self.dtype == np.uint8 and values.dtype != np.uint8:
                raise ValueError(
                    f"{self.where(trial)}: dtype is {values.dtype}, expected uint8 as in "
                    f"{self._members.names[0]}; save all files with one dtype"
                )
            with np.errstate(over="ignore"):  # which is then no longer finite
                yield position, np.moveaxis(values, -1, 0).astype(self.dtype)

    def where(self, trial: int) -> str:
        """Mouse and file of one trial."""
        return f"mouse {self._mouse!r}, {self._members.where(trial)}"


class MovieArray(LazyRows):
    """Trials of one mouse, (trial, time, ...), read when, and as far as, they are indexed.

    Parameters
    ----------
    parts : sequence of MovieFiles
        Kinds of files laid side by side along the third axis (behaviour and pupil centre).
    n_frames : ndarray of int (n_trials,)
        Frames of each trial; behind them there is padding, NaN, or 0 in uint8.
    channel : bool, default=False
        Whether a dimension of length 1 is put behind the time: the grey channel of videos.
    withheld : ndarray of bool (n_trials,), optional
        Trials that are NaN, whatever their files hold.
    missing : bool, default=False
        Whether NaN may stand within the frames, as in responses: not recorded.
    """

    def __init__(
        self,
        parts: Sequence[MovieFiles],
        n_frames: np.ndarray,
        *,
        channel: bool = False,
        withheld: np.ndarray | None = None,
        missing: bool = False,
    ):
        self._parts, self._n_frames, self._channel = tuple(parts), n_frames, channel
        self._withheld, self._missing = withheld, missing
        first = self._parts[0]
        frame: tuple[int, ...]
        if channel:
            frame = (1, *first.frame_shape)
        else:
            frame = (sum(part.frame_shape[0] for part in parts),)
        self.shape = (first.n_trials, int(n_frames.max()), *frame)
        self.dtype = first.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        if not len(rows):
            return take(np.empty((0, *self.shape[1:]), self.dtype), others)
        return np.concatenate([take(self._read(rows[n : n + 1]), others) for n in range(len(rows))])

    def _read(self, trials: np.ndarray) -> np.ndarray:
        fill = np.nan if self.dtype.kind == "f" else 0
        out = np.full((len(trials), *self.shape[1:]), fill, self.dtype)
        rows = np.arange(len(trials))
        if self._withheld is not None:
            rows = rows[~self._withheld[trials]]
        column = 0
        for part in self._parts:
            columns = slice(column, column := column + part.frame_shape[0])
            for position, values in part.read(trials[rows]):
                row = rows[position]
                n = self._n_frames[trials[row]]
                self._check(part, int(trials[row]), values, n)
                if self._channel:
                    out[row, :n, 0] = values[:n]
                else:
                    out[row, :n, columns] = values[:n]
        return out

    def _check(self, part: MovieFiles, trial: int, values: np.ndarray, n: int) -> None:
        """Refuse frames that are missing, or too many, or not finite."""
        if len(values) < n:
            raise ValueError(
                f"{part.where(trial)}: has {len(values)} frames, others of the trial {n}; expected "
                "as many in all: copy or download the recording again"
            )
        if values.dtype.kind != "f":
            if len(values) != n:
                raise ValueError(
                    f"{part.where(trial)}: has {len(values)} frames of uint8, others of the trial "
                    f"{n}; expected as many in all: copy or download the recording again"
                )
            return
        bad = np.isinf(values[:n]) if self._missing else ~np.isfinite(values[:n])
        if bad.any():
            frame = int(np.argmax(bad.reshape(n, -1).any(axis=1)))
            raise ValueError(
                f"{part.where(trial)}: {values[frame][bad[frame]][0]} in frame {frame} of {n}; "
                "expected finite numbers" + " or NaN" * self._missing + ": repair it, or drop the "
                "trial"
            )
        if not np.isnan(values[n:]).all():
            frame = n + int(np.argmax(~np.isnan(values[n:].reshape(len(values) - n, -1)).all(1)))
            raise ValueError(
                f"{part.where(trial)}: there are numbers in frame {frame}, though the trial ends "
                f"after {n}; expected NaN: copy or download the recording again"
            )


def frames_told(parts: Sequence[MovieFiles]) -> np.ndarray:
    """Frames of each trial: up to the last one that is not NaN in all the files.

    Parameters
    ----------
    parts : sequence of MovieFiles
        Small ones, which are read.

    Raises
    ------
    ValueError
        If a trial has no frames.
    """
    counts = np.zeros(parts[0].n_trials, np.int64)
    for part in parts:
        for trial, values in part.read(np.arange(part.n_trials)):
            told = ~np.isnan(values).all(axis=tuple(range(1, values.ndim)))
            some = np.flatnonzero(told)
            counts[trial] = max(counts[trial], some[-1] + 1 if len(some) else 0)
    if not counts.all():
        trial = int(np.argmin(counts))
        raise ValueError(
            f"{parts[0].where(trial)}: holds NaN alone, expected at least one frame: drop the "
            "trial, or download the recording again"
        )
    return counts
