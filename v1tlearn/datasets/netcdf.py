"""Every use of the netCDF library, behind one lock, since neither it nor HDF5 bears two threads.

No other module imports netCDF4 or calls what of xarray reads and writes such files.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import netCDF4
import numpy as np
import xarray as xr
from xarray.backends import NetCDF4DataStore
from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK, combine_locks
from xarray.backends.netCDF4_ import NetCDF4ArrayWrapper
from xarray.core import indexing

from v1tlearn._opening import reading, system_errors_named
from v1tlearn.datasets.attributes import packed, packed_dataset, unpacked_dataset
from v1tlearn.datasets.blocks import blocks, blocks_in_time
from v1tlearn.datasets.checksums import append, of_trials
from v1tlearn.datasets.time_axis import frames_per_chunk
from v1tlearn.training.memory import is_out_of_memory

_OPEN_FILES = 64  # kept open at most; the others are opened again when they are read
_TRIED_BYTES = 2**20  # written where the library failed, to see what the system says
_CHECKED_BYTES = 32 * 2**20  # read at once where trials are checked and only a part is kept


class _Lock:
    """Reentrant, and one with that of xarray, by which the user may read files of his own.

    Nothing waits for it but who uses the library: what is collected as garbage, at any moment and
    in any thread, tries it and leaves the closing to others.
    """

    def __init__(self) -> None:
        combined = combine_locks([NETCDFC_LOCK, HDF5_LOCK])
        self._own, self._xarray = threading.RLock(), getattr(combined, "locks", (combined,))
        self._depth = 0

    def acquire(self, blocking: bool = True) -> bool:
        if not self._own.acquire(blocking):
            return False
        held: list[Any] = []
        entered = False
        try:  # who waits may be interrupted
            for lock in () if self._depth else self._xarray:
                if not lock.acquire(blocking):
                    return False
                held.append(lock)
            self._depth += 1
            entered = True
        finally:
            if not entered:
                for lock in (*held, self._own):
                    lock.release()
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            for lock in self._xarray:
                lock.release()
        self._own.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


_lock = _Lock()
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that it lacks
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


# ------------------------------------------------------------------------------------ open files


class FileState(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    mtime_ns: int


def file_state(path: str | os.PathLike) -> FileState | None:
    """Look at a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileState(found.st_ino, found.st_size, found.st_mtime_ns)


class _Handle:
    """What of a file is open, once for all who read it: HDF5 fails at some that are open twice.

    It outlives the `StoredFile`, so that it is closed under the lock.
    """

    def __init__(self) -> None:
        self.dataset: netCDF4.Dataset | None = None
        self.readers: set[int] = set()

    def leave(self, reader: int) -> None:
        """Close what the last reader leaves."""
        self.readers.discard(reader)
        if not self.readers:
            self.close()

    def close(self) -> None:
        _recent.pop(id(self), None)
        dataset, self.dataset = self.dataset, None
        if dataset is not None:
            dataset.close()


_handles: weakref.WeakValueDictionary[tuple, _Handle] = weakref.WeakValueDictionary()
_recent: OrderedDict[int, _Handle] = OrderedDict()  # open ones, the last one used stands last
_gone: list[tuple[_Handle, int]] = []  # readers that are no more


def _forget(handle: _Handle, reader: int) -> None:
    """Close what a `StoredFile` that is gone had opened; soon, where others use the library."""
    _gone.append((handle, reader))
    if _lock.acquire(blocking=False):
        try:
            _close_gone()
        finally:
            _lock.release()


def _close_gone() -> None:
    while _gone:
        handle, reader = _gone.pop()
        handle.leave(reader)


class StoredFile:
    """A netCDF file in the state in which it was found, open as far as it is needed.

    Copies, pickled ones too, find it by its path; one that was written over is refused.
    """

    is_remote = False

    def __init__(self, path: str, state: FileState | None = None, now: FileState | None = None):
        self.path, self.state = path, state or file_state(path)
        with _lock:
            self._handle = _handles.setdefault((self.path, self.state), _Handle())
        self._reader = next(_readers)
        weakref.finalize(self, _forget, self._handle, self._reader).atexit = False

    def __reduce__(self) -> tuple[Any, ...]:
        # The state at this moment is for those who compare pickles, as joblib's Memory does.
        return StoredFile, (self.path, self.state, file_state(self.path))

    @property
    def lock(self) -> _Lock:
        """What to hold while it is read."""
        return _lock

    def open(self) -> netCDF4.Dataset:
        """Give the open file, to who holds the lock."""
        _close_gone()
        handle, now = self._handle, file_state(self.path)
        there = now is not None and self.state is not None and now.inode == self.state.inode
        # Where another file lies there, one that is open is still as it was.
        if now != self.state and (there or handle.dataset is None):
            raise ValueError(
                f"{self.path} was {'removed' if now is None else 'written anew'} since it was "
                "opened: open it again"
            )
        if handle.dataset is None:
            try:
                handle.dataset = netCDF4.Dataset(self.path)
            except (OSError, RuntimeError):
                open(self.path, "rb").close()  # the library does not say what the system refuses
                raise
        handle.readers.add(self._reader)
        _recent[id(handle)] = handle
        _recent.move_to_end(id(handle))
        while len(_recent) > _OPEN_FILES:
            next(iter(_recent.values())).close()
        return handle.dataset

    def close(self) -> None:
        """Close it, unless others read it; it is opened again when it is read."""
        with _lock:
            self._handle.leave(self._reader)


_readers = itertools.count()


# ----------------------------------------------------------------------------------------- reading


class StoredArray(NetCDF4ArrayWrapper):
    """A variable of a file, read when, and as far as, it is indexed; trials against checksums."""

    def __init__(
        self,
        file: StoredFile,
        group: str,
        name: str,
        like: xr.Variable,
        checksums: np.ndarray | None,
    ) -> None:
        self.datastore, self.variable_name, self._group = file, name, group
        self.shape, self.dtype, self._checksums = like.shape, like.dtype, checksums

    def get_array(self, needs_lock: bool = True) -> netCDF4.Variable:
        """Give the variable, to who holds the lock."""
        variable = self.datastore.open()[self._group][self.variable_name]
        variable.set_auto_maskandscale(False)
        variable.set_auto_chartostring(False)
        return variable

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple) -> np.ndarray:
        if self._checksums is None:
            return self._read(key)
        trials = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        step = max(1, _CHECKED_BYTES // max(1, self.dtype.itemsize * int(np.prod(self.shape[1:]))))
        if all(isinstance(k, slice) and k == slice(None) for k in key[1:]):
            step = max(1, len(trials))
        parts = [
            take(self._checked(trials[start : start + step]), key[1:])
            for start in range(0, max(1, len(trials)), step)
        ]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return values[0] if np.ndim(key[0]) == 0 and not isinstance(key[0], slice) else values

    def _checked(self, trials: np.ndarray) -> np.ndarray:
        """Read whole trials, and compare them with their checksums."""
        in_a_row = len(trials) and (np.diff(trials) == 1).all()
        rows = slice(int(trials[0]), int(trials[-1]) + 1) if in_a_row else trials
        values = np.ascontiguousarray(self._read((rows,)))
        found = of_trials(values)
        assert self._checksums is not None
        with self._damage_named():
            if (bad := np.flatnonzero(found != self._checksums[trials])).size:
                first = trials[bad[0]]
                raise ValueError(f"{bad.size} trials differ from their checksums, first {first}")
        return values

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


def take(values: np.ndarray, key: tuple) -> np.ndarray:
    """Index every axis but the first on its own, the last first because integers drop an axis."""
    for axis in range(len(key), 0, -1):
        values = values[(slice(None),) * axis + (key[axis - 1],)]
    return values


class _Group(NetCDF4DataStore):
    """A group of an open file, some variables of which stay in it."""

    def __init__(
        self,
        file: StoredFile,
        group: str,
        lazy: Sequence[str] | None,
        checksums: Mapping[str, np.ndarray],
    ) -> None:
        super().__init__(file.open(), group=group, mode="r", lock=_lock)
        self._file, self._lazy, self._checksums = file, lazy, checksums

    def open_store_variable(self, name: str, var: netCDF4.Variable) -> xr.Variable:
        variable = super().open_store_variable(name, var)
        if self._lazy is not None and name not in self._lazy:
            return variable
        checksums = self._checksums.get(f"{self._group}/{name}")
        if checksums is not None and len(checksums) != variable.shape[0]:
            raise ValueError(f"{name} has {len(checksums)} checksums, shape {variable.shape}")
        stored = StoredArray(self._file, self._group, name, variable, checksums)
        data = indexing.LazilyIndexedArray(stored)
        return xr.Variable(variable.dims, data, variable.attrs, variable.encoding)


def read_groups(
    path: Path, lazy: Sequence[str], checksums: Mapping[str, np.ndarray]
) -> tuple[StoredFile, dict[str, xr.Dataset]]:
    """Read {path: dataset} of all groups of a file; variables named `lazy` stay in it."""
    file = StoredFile(str(path))
    try:
        with _lock:
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
        with _lock:
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
        root = netCDF4.Dataset(str(path), "w")
    file = Writing(root, path)
    try:
        yield file
    except BaseException:
        with suppress(RuntimeError), _lock:  # what went wrong is told already
            root.close()
        raise
    with _using_the_library(path):
        root.close()
    with system_errors_named(path):
        append(path, file.in_a_row)
