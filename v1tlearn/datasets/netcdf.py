"""Reading and writing netCDF files, behind the lock of the library, in `open_files`.

No other modules than these two import netCDF4 or call what of xarray reads and writes such files.
"""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from xarray.backends import NetCDF4DataStore
from xarray.backends.netCDF4_ import NetCDF4ArrayWrapper
from xarray.core import indexing

from v1tlearn._opening import reading, system_errors_named
from v1tlearn.datasets.attributes import packed, packed_dataset, unpacked_dataset
from v1tlearn.datasets.blocks import blocks, blocks_in_time
from v1tlearn.datasets.checksums import InARow, append, of_trials
from v1tlearn.datasets.lazy_rows import is_number, take
from v1tlearn.datasets.open_files import FileState, StoredFile, library_lock, opened
from v1tlearn.datasets.stored_rows import IS_OFFERED, announce_rows, read_rows
from v1tlearn.datasets.time_axis import frames_per_chunk
from v1tlearn.datasets.told_sizes import check_labels, check_variables
from v1tlearn.training.memory import is_out_of_memory

_TRIED_BYTES = 2**20  # written where the library failed, to see what the system says
_CACHED_BYTES, _CACHED_CHUNKS = 4 * 2**20, 4  # of a variable, at least, that the library keeps
_CHECKED_BYTES = 32 * 2**20  # read at once where trials are checked and only a part is kept


# ----------------------------------------------------------------------------------------- reading


class StoredArray(NetCDF4ArrayWrapper):
    """A variable of a file, read when, and as far as, it is indexed; trials against checksums."""

    def __init__(
        self,
        file: StoredFile,
        group: str,
        name: str,
        like: xr.Variable,
        in_a_row: InARow | None,
    ) -> None:
        self.datastore, self.variable_name, self._group = file, name, group
        self.shape, self.dtype, self._in_a_row = like.shape, like.dtype, in_a_row

    @property
    def is_in_a_row(self) -> bool:
        """Whether trials follow each other in the file, each with a checksum."""
        return self._in_a_row is not None

    def get_array(self, needs_lock: bool = True) -> netCDF4.Variable:
        """Give the variable, to who holds the lock."""
        variable = self.datastore.open()[self._group][self.variable_name]
        variable.set_auto_maskandscale(False)
        variable.set_auto_chartostring(False)
        _bound_cache(variable)
        return variable

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple) -> np.ndarray:
        if self._in_a_row is None:
            return self._read(key)
        trials = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        step = max(1, len(trials)) if _are_whole(key[1:]) else self._n_checked
        parts = [
            take(self._checked(trials[start : start + step]), key[1:])
            for start in range(0, max(1, len(trials)), step)
        ]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return values[0] if is_number(key[0]) else values

    @property
    def _n_checked(self) -> int:
        """Trials that are read at once where only a part of them is kept."""
        n_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        return max(1, _CHECKED_BYTES // max(1, n_bytes))

    def _checked(self, trials: np.ndarray) -> np.ndarray:
        values = np.empty((len(trials), *self.shape[1:]), self.dtype)
        self.fill(trials, values)
        return values

    def fill(self, trials: np.ndarray, out: np.ndarray) -> None:
        """Read whole trials that lie in a row, in any order, and compare them with checksums."""
        if self._in_a_row is None:
            raise RuntimeError("fill is for what is_in_a_row")
        sums, known = self._in_a_row.sums, self._straight
        with self._damage_named():
            if not (known and len(trials) and read_rows(self.datastore.path, *known, trials, out)):
                for start in range(0, len(trials), self._n_checked):
                    some = slice(start, start + self._n_checked)
                    out[some] = self._by_the_library(trials[some])
            if (bad := np.flatnonzero(of_trials(out) != sums[trials])).size:
                first = trials[bad[0]]
                raise ValueError(f"{bad.size} trials differ from their checksums, first {first}")

    def announce(self, trials: np.ndarray) -> None:
        """Tell the disk which whole trials, in any order, are read soon."""
        if self._straight is not None:
            n_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
            announce_rows(self.datastore.path, *self._straight, n_bytes, trials)

    @property
    def _straight(self) -> tuple[FileState, int] | None:
        """The state of the file, and where in it the trials begin; None for the library alone."""
        state, in_a_row = self.datastore.state, self._in_a_row
        if state is None or in_a_row is None or in_a_row.place is None:
            return None
        return state, in_a_row.place[0]

    def _by_the_library(self, trials: np.ndarray) -> np.ndarray:
        unique, inverse = np.unique(trials, return_inverse=True)
        in_a_row = unique[-1] - unique[0] == len(unique) - 1
        values = self._getitem((slice(unique[0], unique[-1] + 1) if in_a_row else unique,))
        return values if np.array_equal(unique, trials) else values[inverse]

    def _read(self, key: tuple) -> np.ndarray:
        with self._damage_named():
            return self._getitem(key)

    def _damage_named(self) -> AbstractContextManager[None]:
        return reading(
            self.datastore.path,
            f"is damaged at {self.variable_name} of {self._group!r}",
            "write the file again, or copy it again; one in a cache is to be removed",
            passed=is_out_of_memory,
        )


def _are_whole(others: tuple) -> bool:
    """Whether keys of all axes but the first leave nothing out."""
    return all(isinstance(k, slice) and k == slice(None) for k in others)


def fill_rows(variable: Any, rows: np.ndarray, out: np.ndarray) -> bool:
    """Read rows of a variable of a file straight to where they are wanted.

    Parameters
    ----------
    variable : Variable or array
    rows : ndarray of int
        In any order, from 0 on.
    out : ndarray
        Of the shape of these rows.

    Returns
    -------
    bool
        False, with nothing read, where they do not lie in a row in a file, or `out` is no place
        for them as they are.
    """
    found = _whole_rows(variable, rows)
    if found is None:
        return False
    stored, rows = found
    fits = out.dtype == stored.dtype and out.shape == (len(rows), *stored.shape[1:])
    if not (stored.is_in_a_row and fits and out.flags.c_contiguous):
        return False
    stored.fill(rows, out)
    return True


def announce_rows_of(variable: Any, rows: np.ndarray) -> None:
    """Tell the disk which rows of a variable of a file are read soon, where that is of use.

    Parameters
    ----------
    variable : Variable or array
    rows : ndarray of int
        In any order, from 0 on.
    """
    found = _whole_rows(variable, rows)
    if found is not None:
        stored, rows = found
        stored.announce(rows)


def _whole_rows(variable: Any, rows: np.ndarray) -> tuple[StoredArray, np.ndarray] | None:
    """What is stored, and which of its rows these are; None where they are none as they lie."""
    data = getattr(variable, "_data", None)
    if isinstance(data, indexing.CopyOnWriteArray):
        data = data.array
    if not isinstance(data, indexing.LazilyIndexedArray) or not isinstance(data.array, StoredArray):
        return None
    first, *others = data.key.tuple
    if not _are_whole(tuple(others)):
        return None
    if isinstance(first, slice):
        taken = range(data.array.shape[0])[first]
        return data.array, taken.start + taken.step * rows
    return data.array, np.atleast_1d(first)[rows]


def _bound_cache(variable: netCDF4.Variable) -> None:
    """Let the library keep some chunks, not up to 64 MiB of each variable of each mouse."""
    chunk = variable.chunking()
    if not isinstance(chunk, list):
        return
    wanted = max(
        _CACHED_BYTES, _CACHED_CHUNKS * np.dtype(variable.dtype).itemsize * math.prod(chunk)
    )
    if variable.get_var_chunk_cache()[0] > wanted:
        variable.set_var_chunk_cache(size=wanted)


class _Group(NetCDF4DataStore):
    """A group of an open file, some variables of which stay in it."""

    def __init__(
        self,
        file: StoredFile,
        group: str,
        lazy: Sequence[str] | None,
        checksums: Mapping[str, InARow],
    ) -> None:
        super().__init__(file.open(), group=group, mode="r", lock=library_lock)
        self._file, self._lazy, self._checksums = file, lazy, checksums

    def open_store_variable(self, name: str, var: netCDF4.Variable) -> xr.Variable:
        variable = super().open_store_variable(name, var)
        if self._lazy is not None and name not in self._lazy:
            return variable
        in_a_row = self._checksums.get(f"{self._group}/{name}")
        if in_a_row is not None:
            if len(in_a_row.sums) != variable.shape[0]:
                n_sums = len(in_a_row.sums)
                raise ValueError(f"{name} has {n_sums} checksums, shape {variable.shape}")
            if not _is_straight(in_a_row, var, variable):
                in_a_row = in_a_row._replace(place=None)
        stored = StoredArray(self._file, self._group, name, variable, in_a_row)
        data = indexing.LazilyIndexedArray(stored)
        return xr.Variable(variable.dims, data, variable.attrs, variable.encoding)


def _is_straight(in_a_row: InARow, var: netCDF4.Variable, variable: xr.Variable) -> bool:
    """Whether the bytes of the file are the values as this machine holds them."""
    n_bytes = variable.dtype.itemsize * math.prod(variable.shape)
    known = in_a_row.place is not None and in_a_row.place[1] - in_a_row.place[0] == n_bytes
    alike = var.endian() in ("native", sys.byteorder) and variable.dtype.isnative
    return IS_OFFERED and known and alike and variable.dtype.kind in "iuf"


def read_groups(
    path: Path, lazy: Sequence[str], checksums: Mapping[str, InARow]
) -> tuple[StoredFile, dict[str, xr.Dataset]]:
    """Read {path: dataset} of all groups of a file; variables named `lazy` stay in it."""
    file = StoredFile(str(path))
    n_file = path.stat().st_size
    try:
        with library_lock:
            check_variables(file.open(), n_file)
            check_labels(_labels(file.open(), lazy), n_file)
            return file, {
                group: _read_group(_Group(file, group, lazy, checksums), lazy)
                for group in _walk(file.open())
            }
    except BaseException:
        file.close()
        raise


def _walk(group: netCDF4.Dataset) -> Iterator[str]:
    yield group.path
    for child in group.groups.values():
        yield from _walk(child)


def _labels(group: netCDF4.Dataset, lazy: Sequence[str]) -> Iterator[netCDF4.Variable]:
    yield from (variable for name, variable in group.variables.items() if name not in lazy)
    for child in group.groups.values():
        yield from _labels(child, lazy)


def _read_group(store: _Group, lazy: Sequence[str]) -> xr.Dataset:
    # A unit of "s" must not turn numbers into timedelta64.
    read = partial(
        xr.open_dataset,
        store,
        cache=False,
        decode_timedelta=xr.coders.CFTimedeltaCoder(decode_via_units=False),
    )
    try:
        dataset = read()
    except ValueError:  # "ms since stimulus onset" is no unit of dates
        dataset = read(decode_times=False)
    dataset.set_close(None)
    for name, variable in dataset.variables.items():
        if name not in lazy:
            variable.load()
    return unpacked_dataset(dataset)


# ----------------------------------------------------------------------------------------- writing


class Writing:
    """A file that is being written, group by group."""

    def __init__(self, root: netCDF4.Dataset, path: Path) -> None:
        self._root, self._path = root, path
        self.in_a_row: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # first trial, checksums

    def group(self, name: str, dataset: xr.Dataset, streamed: Sequence[str], zipped: bool) -> None:
        """Write a dataset, of which variables named `streamed` are read and written in blocks."""
        in_blocks = [variable for variable in streamed if variable in dataset]
        labels = packed_dataset(dataset.drop_vars(in_blocks)).load().drop_encoding()
        with _using_the_library(self._path):
            group = self._root.createGroup(name)
            labels.dump_to_store(NetCDF4DataStore(group, mode="a", lock=False))
        for variable in in_blocks:
            self._blocks(group, dataset[variable], zipped)

    def attributes(self, attrs: Mapping[str, Any]) -> None:
        """Write those of the whole file."""
        with _using_the_library(self._path):
            xr.Dataset(attrs=packed(attrs)).dump_to_store(
                NetCDF4DataStore(self._root, mode="a", lock=False)
            )

    def _blocks(self, group: netCDF4.Group, array: xr.DataArray, zipped: bool) -> None:
        movies = "time" in array.dims
        layout: dict[str, Any] = {"contiguous": True}
        if movies:  # of which a part is read without the rest, checked by the library
            chunk = (1, frames_per_chunk(array), *array.shape[2:])
            layout = {"chunksizes": chunk, "fletcher32": True}
        elif zipped:
            layout = {"chunksizes": (1, *array.shape[1:]), "fletcher32": True}
        if zipped:
            layout |= {"compression": "zlib", "complevel": 1, "shuffle": True}
        dims = [str(dim) for dim in array.dims]
        with _using_the_library(self._path):
            for dim, size in zip(dims, array.shape, strict=True):
                if dim not in group.dimensions:
                    group.createDimension(dim, size)
            variable = group.createVariable(
                str(array.name),
                array.dtype.newbyteorder("="),
                dims,
                fill_value=False,  # every value is written; NaN stays a value
                **layout,
            )
            variable.set_auto_maskandscale(False)
            _bound_cache(variable)
            for name, value in packed(array.attrs, array.dtype).items():
                _write_attribute(variable, name, value)
        if movies:
            self._movies(variable, array)
            return
        checksums, first = [], np.empty(0)
        for start, block in blocks(array):  # which may be read from a file, under another lock
            block = np.ascontiguousarray(block, array.dtype.newbyteorder("="))
            with _using_the_library(self._path):
                variable[start : start + len(block)] = block
            if not zipped:
                first = first if start else block[:1].copy()
                checksums.append(of_trials(block))
        if not zipped:
            self.in_a_row[f"{group.path}/{array.name}"] = first, np.concatenate(checksums)

    def _movies(self, variable: netCDF4.Variable, array: xr.DataArray) -> None:
        for trial, start, block in blocks_in_time(array):
            block = np.ascontiguousarray(block, variable.dtype)
            with _using_the_library(self._path):
                variable[trial, start : start + len(block)] = block


def _write_attribute(variable: netCDF4.Variable, name: str, value: Any) -> None:
    if isinstance(value, list | tuple) and isinstance(value[0], str):
        variable.setncattr_string(name, list(value))
    else:
        variable.setncattr(name, value)


@contextmanager
def _using_the_library(path: Path) -> Iterator[None]:
    """Hold the lock; where the library cannot write a file, tell why, which it does not say."""
    try:
        with library_lock:
            yield
    except (RuntimeError, OSError) as error:
        with system_errors_named(path), path.open("ab") as file:
            file.write(bytes(_TRIED_BYTES))  # who cannot write either says so; the file is lost
        why = f"the netCDF library could not write it ({error})"
        raise OSError(errno.EIO, why, str(path)) from error


@contextmanager
def writing(path: Path) -> Iterator[Writing]:
    """Make a file, closed at the end of the block, with checksums behind it."""
    with _using_the_library(path):
        root = opened(str(path), "w")
    file = Writing(root, path)
    try:
        yield file
    except BaseException:
        with suppress(RuntimeError), library_lock:  # what went wrong is told already
            root.close()
        raise
    with _using_the_library(path):
        root.close()
    with system_errors_named(path):
        append(path, file.in_a_row)
