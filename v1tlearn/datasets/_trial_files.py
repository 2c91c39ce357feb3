"""Numbered .npy files of one mouse, one per trial, in a folder or inside a zip, as a lazy array.

Knows the npy and zip formats; which file means what in a recording stands in sensorium.py.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

_LOCAL_HEADER = struct.Struct(
    "<4s22xHH"
)  # signature, length of the name, length of the extra field
_EXTRA_GUESS = 64
_BLOCK_BYTES = 32 * 2**20
_THREAD_BYTES = 2 * 2**20
_MAX_THREADS = 4


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

    def members(self, folder: str, names: Sequence[str]) -> FolderMembers:
        """Return a reader of the files `names` of `folder`, by number."""
        return FolderMembers(str(self.root / folder), tuple(names))


@dataclass(frozen=True)
class FolderMembers:
    """Files of a folder, read by their number in `names`."""

    folder: str
    names: tuple[str, ...]

    def read_many(self, numbers: np.ndarray) -> Iterator[bytes]:
        """Yield the content of files, in the order of `numbers`."""
        for number in numbers:
            yield Path(self.folder, self.names[number]).read_bytes()

    def where(self, number: int) -> str:
        """Return the path of one file."""
        return os.path.join(self.folder, self.names[number])


class ZipFiles:
    """The files below a folder inside a zip, without unpacking it."""

    def __init__(self, path: Path, prefix: str, infos: dict[str, zipfile.ZipInfo]):
        self.path = Path(os.path.abspath(path))
        self.prefix = prefix
        self._infos = infos
        self._folders: dict[str, list[str]] = {}
        for name in infos:
            if name.startswith(prefix):
                folder, _, file = name[len(prefix) :].rpartition("/")
                if file and not file.startswith("."):
                    self._folders.setdefault(folder, []).append(file)

    def __str__(self) -> str:
        return f"{self.path}/{self.prefix}".rstrip("/")

    def listdir(self, folder: str) -> list[str]:
        """Return the names of files and folders in `folder`; none if it is missing."""
        files = self._folders.get(folder, [])
        inside = f"{folder}/"
        below = {
            name[len(inside) :].split("/")[0] for name in self._folders if name.startswith(inside)
        }
        return files + sorted(below)

    def read(self, name: str) -> bytes | None:
        """Return the content of one file, None if it is missing."""
        if self.prefix + name not in self._infos:
            return None
        folder, _, file = name.rpartition("/")
        return next(self.members(folder, [file]).read_many(np.zeros(1, np.int64)))

    def members(self, folder: str, names: Sequence[str]) -> ZipMembers:
        """Return a reader of the files `names` of `folder`, by number."""
        inside = f"{self.prefix}{folder}/" if folder else self.prefix
        infos = [self._infos[inside + name] for name in names]
        for info in infos:
            if info.flag_bits & 1 or info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(
                    f"{self.path}: {info.filename} is encrypted or compressed with method "
                    f"{info.compress_type}; expected stored or deflated members: unpack the zip "
                    "and read the folder"
                )
        table = [
            (i.header_offset, i.compress_size, i.file_size, i.compress_type, i.CRC) for i in infos
        ]
        return ZipMembers(str(self.path), inside, tuple(names), np.array(table, np.int64))


@dataclass(frozen=True)
class ZipMembers:
    """Members of a zip, read by their number in `names`.

    The central directory is read once, by whoever makes the object, and kept as a table of offset,
    sizes, method and checksum; so each read is one seek, and threads and processes share nothing.
    """

    path: str
    folder: str
    names: tuple[str, ...]
    table: np.ndarray

    def read_many(self, numbers: np.ndarray) -> Iterator[bytes]:
        """Yield the content of members, in the order of `numbers`."""
        with open(self.path, "rb", buffering=0) as file:
            for number in numbers:
                offset, size, full_size, method, crc = self.table[number].tolist()
                name_bytes = len(self.folder) + len(self.names[number])
                file.seek(offset)
                raw = _read_exactly(file, 30 + name_bytes + _EXTRA_GUESS + size)
                if len(raw) < 30:
                    raise self._damaged(number, "the zip ends before it")
                signature, n_name, n_extra = _LOCAL_HEADER.unpack_from(raw)
                start = 30 + n_name + n_extra
                if signature != b"PK\x03\x04":
                    raise self._damaged(number, "the zip was replaced since it was opened")
                if len(raw) < start + size:
                    raw += _read_exactly(file, start + size - len(raw))
                content = raw[start : start + size]
                try:
                    data = zlib.decompress(content, -15, full_size or 1) if method else content
                except zlib.error as error:
                    raise self._damaged(number, str(error)) from error
                if zlib.crc32(data) != crc:
                    raise self._damaged(number, "its checksum does not match")
                yield data

    def where(self, number: int) -> str:
        """Return the zip and the name of one member."""
        return f"{self.path}/{self.folder}{self.names[number]}"

    def _damaged(self, number: int, why: str) -> ValueError:
        return ValueError(
            f"{self.where(number)}: damaged ({why}); copy or download the zip again and reopen it"
        )


def _read_exactly(file: io.RawIOBase, n_bytes: int) -> bytes:
    """Read `n_bytes`, or less at the end of the file; an unbuffered read may return less."""
    parts, missing = [], n_bytes
    while missing > 0 and (part := file.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def numbered_files(files: FolderFiles | ZipFiles, folder: str, mouse: str) -> list[str]:
    """Return the names of the files 0.npy, 1.npy, ... of a folder, in numerical order.

    Raises
    ------
    ValueError
        If a number is missing or occurs twice.
    """
    numbers: dict[int, str] = {}
    for name in files.listdir(folder):
        match = re.fullmatch(r"(\d+)\.npy", name)
        if match is None:
            continue
        if (number := int(match[1])) in numbers:
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
        data = next(members.read_many(np.zeros(1, np.int64)))
        first = parse_npy(data, self._where(0))
        self.n_trials = len(members.names)
        self.trial_shape = first.shape
        self.dtype = self._dtype_in_memory(first.dtype, 0)
        # Files of one kind nearly always share their header: those that do are not parsed.
        raw = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        self._header = data[: len(data) - raw.nbytes]
        self._raw_dtype = raw.dtype
        self._order = "C" if raw.flags.c_contiguous else "F"

    def read_into(self, out: np.ndarray, rows: np.ndarray, trials: np.ndarray) -> None:
        """Fill the rows `rows` (n,) of `out` with the trials numbered `trials` (n,)."""
        n_bytes = len(rows) * math.prod(self.trial_shape) * self.dtype.itemsize
        n_threads = min(_MAX_THREADS, os.cpu_count() or 1, len(rows), n_bytes // _THREAD_BYTES)
        if n_threads <= 1:
            self._read_into(out, rows, trials)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            shares = zip(
                np.array_split(rows, n_threads), np.array_split(trials, n_threads), strict=True
            )
            list(pool.map(lambda share: self._read_into(out, *share), shares))

    def _read_into(self, out: np.ndarray, rows: np.ndarray, trials: np.ndarray) -> None:
        header, shape, dtype = self._header, self.trial_shape, self._raw_dtype
        n_bytes = len(header) + math.prod(shape) * dtype.itemsize
        for row, trial, data in zip(rows, trials, self._members.read_many(trials), strict=True):
            if len(data) == n_bytes and data.startswith(header):
                array = np.frombuffer(data, dtype, offset=len(header))
                out[row] = array.reshape(shape, order=self._order)
            else:
                out[row] = self._parse(data, int(trial))

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
        step = max(1, _BLOCK_BYTES // per_trial)
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
