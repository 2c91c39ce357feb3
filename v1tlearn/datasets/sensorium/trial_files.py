"""Numbered .npy files of one mouse, one per trial, in a folder or inside a zip, as a lazy array.

Knows the npy and zip formats; which file means what in a recording stands in layout.py.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from v1tlearn.datasets.sensorium.zip_files import ZipFiles, ZipMembers

BLOCK_BYTES = 32 * 2**20
THREAD_BYTES = 2 * 2**20
_SHARES_PER_THREAD = 4
_MAX_THREADS = 8


def parse_npy(data: bytes, where: str) -> np.ndarray:
    """Read an array from the bytes of a .npy file; pickled objects are refused.

    Parameters
    ----------
    data : bytes
        The whole file.
    where : str
        Mouse and file, for the message of the error.
    """
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, TypeError) as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{where}: holds pickled Python objects, which are never loaded because they can "
                "run code; expected numbers or fixed-width text: save it again with a plain dtype, "
                'e.g. np.save(file, array.astype(str)) or .astype("float32")'
            ) from None
        raise ValueError(
            f"{where}: is not a readable .npy file ({error}); it is probably cut off: copy or "
            "download it again"
        ) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _state(path: str) -> str:
    """Give a text that changes with a file; the second time is that of the system alone."""
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


class FolderFiles:
    """The files below a folder."""

    def __init__(self, root: Path):
        self.root = Path(os.path.abspath(root))

    def __str__(self) -> str:
        return str(self.root)

    def listdir(self, folder: str) -> list[str]:
        """Return the names of files in `folder`, hidden ones left out; none if it is missing."""
        try:
            entries = list(os.scandir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [entry.name for entry in entries if not entry.name.startswith(".")]

    def read(self, name: str) -> bytes | None:
        """Return the content of one file, None if it is missing."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def fingerprint(self) -> str:
        """Return a text that changes with the names, sizes or times of the files."""
        found = []
        for folder in ("data", "meta"):
            for parent, _, names in os.walk(self.root / folder, followlinks=True):
                for name in names:
                    path = os.path.join(parent, name)
                    found.append(f"{path[len(str(self.root)) :]}\0{_state(path)}")
        config = self.read("config.json") or b""
        text = "\n".join(sorted(found)).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text + config).hexdigest()

    def members(self, folder: str, names: Sequence[str]) -> FolderMembers:
        """Return a reader of the files `names` of `folder`, by number."""
        return FolderMembers(str(self.root / folder), tuple(names))


@dataclass(frozen=True)
class FolderMembers:
    """Files of a folder, read by their number in `names`."""

    folder: str
    names: tuple[str, ...]

    def __getstate__(self) -> dict[str, Any]:
        """Pickles differ where files do, for those who compare them, as joblib's Memory does."""
        states = "\n".join(_state(self.where(number)) for number in range(len(self.names)))
        return {**self.__dict__, "state": hashlib.sha256(states.encode()).hexdigest()}

    def shares(self, numbers: np.ndarray, n_shares: int) -> list[np.ndarray]:
        """Split positions in `numbers` into parts of about equal size."""
        return [part for part in np.array_split(np.arange(len(numbers)), n_shares) if len(part)]

    def read_many(self, numbers: np.ndarray) -> Iterator[tuple[int, bytes]]:
        """Yield (position in `numbers`, content) of files."""
        for position, number in enumerate(numbers.tolist()):
            with open(os.path.join(self.folder, self.names[number]), "rb", buffering=0) as file:
                data = file.read()
            yield position, data

    def where(self, number: int) -> str:
        """Return the path of one file."""
        return os.path.join(self.folder, self.names[number])


def numbered_files(files: FolderFiles | ZipFiles, folder: str, mouse: str) -> list[str]:
    """Return the names of the files 0.npy, 1.npy, ... of a folder, in numerical order.

    Raises
    ------
    ValueError
        If a number is missing or occurs twice.
    """
    numbers: dict[int, str] = {}
    for name in files.listdir(folder):
        stem = name.removesuffix(".npy")
        if stem == name or not stem.isdecimal():
            continue
        if (number := int(stem)) in numbers:
            raise ValueError(
                f"mouse {mouse!r}, {folder} in {files}: {numbers[number]} and {name} are both "
                f"trial {number}; expected one file per trial: remove one"
            )
        numbers[number] = name
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None:
        raise ValueError(
            f"mouse {mouse!r}, {folder} in {files}: {missing}.npy is missing; expected "
            f"{len(numbers)} or more files numbered from 0 without gaps (the highest is "
            f"{max(numbers)}): copy or download the recording again"
        )
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
        data = bytes(next(members.read_many(np.zeros(1, np.int64)))[1])
        first = parse_npy(data, self._where(0))
        self.n_trials = len(members.names)
        self.trial_shape = first.shape
        self.dtype = self._dtype_in_memory(first.dtype, 0)
        # Files of one kind nearly always share their header: those that do are not parsed.
        raw = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        self._header = data[: len(data) - raw.nbytes]
        self._raw_dtype = raw.dtype
        self._order: Literal["C", "F"] = "C" if raw.flags.c_contiguous else "F"

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
        header, shape, dtype, order = self._header, self.trial_shape, self._raw_dtype, self._order
        n_header = len(header)
        n_bytes = n_header + math.prod(shape) * dtype.itemsize
        for position, data in self._members.read_many(trials):
            row = rows[position]
            if len(data) == n_bytes and data[:n_header] == header:
                array = np.frombuffer(data, dtype, offset=n_header)
                out[row] = array.reshape(shape, order=order)
            else:
                out[row] = self._parse(bytes(data), int(trials[position]))

    def _parse(self, data: bytes, trial: int) -> np.ndarray:
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


class TrialArray(BackendArray):
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

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple) -> np.ndarray:
        trials = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        per_trial = math.prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, BLOCK_BYTES // per_trial)
        whole = all(isinstance(k, slice) and k == slice(None) for k in key[1:])
        if whole or len(trials) <= step:
            values = _take(self._read(trials), key[1:])
        else:  # a few neurons or pixels of many trials: keep only them
            values = np.concatenate(
                [
                    _take(self._read(trials[start : start + step]), key[1:])
                    for start in range(0, len(trials), step)
                ]
            )
        return values[0] if np.ndim(key[0]) == 0 and not isinstance(key[0], slice) else values

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


def _take(values: np.ndarray, key: tuple) -> np.ndarray:
    """Index every axis but the first on its own, the last first because integers drop an axis."""
    for axis in range(len(key), 0, -1):
        values = values[(slice(None),) * axis + (key[axis - 1],)]
    return values
