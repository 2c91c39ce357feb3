"""Numbered .npy files of one mouse, one per trial, in a folder or inside a zip, as a lazy array.

Which file means what in a recording stands in layout.py.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from v1tlearn.datasets.lazy_rows import Key, LazyRows, take
from v1tlearn.datasets.sensorium.folder_files import FolderFiles, FolderMembers
from v1tlearn.datasets.sensorium.inflate import Content
from v1tlearn.datasets.sensorium.npy import npy_layout, parse_npy
from v1tlearn.datasets.sensorium.zip_files import ZipFiles, ZipMembers

BLOCK_BYTES = 32 * 2**20
THREAD_BYTES = 2 * 2**20
_SHARES_PER_THREAD = 4
_MAX_THREADS = 8


def numbered_files(
    files: FolderFiles | ZipFiles, folder: str, mouse: str, skipped: list[str]
) -> list[str]:
    """Return the names of the files 0.npy, 1.npy, ... of a folder, in numerical order.

    Others are left out and told in `skipped`.

    Raises
    ------
    ValueError
        If a number is missing or occurs twice.
    """
    numbers: dict[int, str] = {}
    others = []
    for name in files.listdir(folder):
        stem = name.lower().removesuffix(".npy")
        if len(stem) == len(name) or not stem.isdecimal():
            others.append(name)
            continue
        if (number := int(stem)) in numbers:
            raise ValueError(
                f"mouse {mouse!r}, {folder} in {files}: {numbers[number]} and {name} are both "
                f"trial {number}; expected one file per trial: remove one"
            )
        numbers[number] = name
    if numbers and max(numbers) >= len(numbers):
        n_missing = max(numbers) + 1 - len(numbers)
        first = itertools.islice((n for n in itertools.count() if n not in numbers), 3)
        which = ", ".join(f"{number}.npy" for number in first if number < max(numbers))
        raise ValueError(
            f"mouse {mouse!r}, {folder} in {files}: {which} is missing, {n_missing} in all; "
            f"expected {len(numbers)} or more files numbered from 0 without gaps (the highest is "
            f"{max(numbers)}): copy or download the recording again"
        )
    if others:
        skipped.append(f"in {folder} of {files} {first_few(others)}, no trials")
    return [numbers[number] for number in range(len(numbers))]


class TrialFiles:
    """One kind of files of one mouse, of which any trials can be read.

    Parameters
    ----------
    mouse : str
        Named in errors.
    members : FolderMembers or ZipMembers
        The files, by trial.
    keep_uint8 : bool
        Whether uint8 stays; all other numbers become float32.
    """

    def __init__(self, mouse: str, members: FolderMembers | ZipMembers, *, keep_uint8: bool):
        self._mouse, self._members, self._keep_uint8 = mouse, members, keep_uint8
        _, data = next(members.read_many(np.zeros(1, np.int64)))
        self._first = npy_layout(data, self._where(0))
        self.n_trials = len(members.names)
        self.trial_shape = self._first.shape
        self.dtype = self._dtype_in_memory(self._first.dtype, 0)
        # Files of one kind nearly always share their header: those that do are not parsed.
        self._header = bytes(data[: self._first.n_header])

    def read_into(self, out: np.ndarray, rows: np.ndarray, trials: np.ndarray) -> None:
        """Fill the rows `rows` (n,) of `out` with the trials numbered `trials` (n,)."""
        if len(rows) == 0:
            return
        n_bytes = len(rows) * math.prod(self.trial_shape) * self.dtype.itemsize
        n_threads = min(_MAX_THREADS, os.cpu_count() or 1, len(rows), n_bytes // THREAD_BYTES)
        if n_threads <= 1:
            self._read_into(out, rows, trials)
            return
        shares = self._members.shares(trials, _SHARES_PER_THREAD * n_threads)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(lambda share: self._read_into(out, rows[share], trials[share]), shares))

    def _read_into(self, out: np.ndarray, rows: np.ndarray, trials: np.ndarray) -> None:
        header, (dtype, shape, order, n_header) = self._header, self._first
        n_bytes = n_header + math.prod(shape) * dtype.itemsize
        position = 0
        try:
            with np.errstate(over="raise"):
                for position, data in self._members.read_many(trials):
                    if len(data) == n_bytes and data[:n_header] == header:
                        array = np.frombuffer(data, dtype, offset=n_header)
                        array = array.reshape(shape, order=order)
                    else:
                        array = self._parse(data, int(trials[position]))
                    out[rows[position]] = array
        except FloatingPointError:
            raise ValueError(
                f"{self._where(int(trials[position]))}: holds numbers beyond those of float32 "
                "(3.4e38), in which trials are read; repair or scale them"
            ) from None

    def _parse(self, data: Content, trial: int) -> np.ndarray:
        array = parse_npy(data, self._where(trial))
        if array.shape != self.trial_shape:
            raise ValueError(
                f"{self._where(trial)}: shape is {array.shape}, expected {self.trial_shape} as in "
                f"{self._members.names[0]}; the file is damaged or of another recording"
            )
        if self._dtype_in_memory(array.dtype, trial) != self.dtype and array.dtype != np.uint8:
            raise ValueError(
                f"{self._where(trial)}: dtype is {array.dtype}, expected {self.dtype} as in "
                f"{self._members.names[0]}; save all files with one dtype"
            )
        return array

    def _dtype_in_memory(self, dtype: np.dtype, trial: int) -> np.dtype:
        if dtype.kind not in "biuf":
            raise ValueError(f"{self._where(trial)}: dtype is {dtype}, expected numbers")
        return np.dtype("uint8" if self._keep_uint8 and dtype == np.uint8 else "float32")

    def _where(self, trial: int) -> str:
        return f"mouse {self._mouse!r}, {self._members.where(trial)}"


class TrialArray(LazyRows):
    """Trials of one mouse as an array that xarray reads when, and as far as, it is indexed.

    Parameters
    ----------
    parts : sequence of TrialFiles
        Kinds of files laid side by side along the second axis (behaviour and pupil centre).
    withheld : ndarray of bool (n_trials,), optional
        Trials that are NaN, whatever their files hold.

    Notes
    -----
    It holds paths and tables, no open file, so it can be pickled and read from several processes.
    """

    def __init__(self, parts: Sequence[TrialFiles], withheld: np.ndarray | None = None):
        self._parts, self._withheld = tuple(parts), withheld
        first = self._parts[0]
        width = sum(part.trial_shape[0] for part in self._parts)
        self.shape = (first.n_trials, width, *first.trial_shape[1:])
        self.dtype = first.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        per_trial = math.prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, BLOCK_BYTES // per_trial)
        whole = all(isinstance(k, slice) and k == slice(None) for k in others)
        if whole or len(rows) <= step:
            return take(self._read(rows), others)
        return np.concatenate(  # a few neurons or pixels of many trials: keep only them
            [
                take(self._read(rows[start : start + step]), others)
                for start in range(0, len(rows), step)
            ]
        )

    def _read(self, trials: np.ndarray) -> np.ndarray:
        out = np.empty((len(trials), *self.shape[1:]), self.dtype)
        rows = np.arange(len(trials))
        if self._withheld is not None:
            out[self._withheld[trials]] = np.nan
            rows = np.flatnonzero(~self._withheld[trials])
        column = 0
        for part in self._parts:
            columns = slice(column, column := column + part.trial_shape[0])
            part.read_into(out[:, columns], rows, trials[rows])
        return out


def first_few(names: Sequence[str], most: int = 3) -> str:
    """List the first few of names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
