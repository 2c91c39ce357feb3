"""Files of the netCDF library that are open, and the lock that it is used behind.

Neither the library nor HDF5 bears two threads. What reads and writes such files is in `netcdf`.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import OrderedDict
from typing import Any, Literal, NamedTuple

import netCDF4
from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK, combine_locks

from v1tlearn.training.memory import InsufficientMemoryError

_OPEN_FILES = 64  # kept open at most; the others are opened again when they are read
_ROOM_BYTES = 2**23  # that the library takes to open a file, or to make one


def opened(path: str, mode: Literal["r", "w"] = "r") -> netCDF4.Dataset:
    """Open or make a file by the library; call it behind the lock.

    Where memory ends, the library crashes as it makes a file, and says of any that it is broken.

    Parameters
    ----------
    path : str
    mode : {"r", "w"}, default="r"

    Returns
    -------
    netCDF4.Dataset

    Raises
    ------
    InsufficientMemoryError
        If what it needs is not there.
    """
    try:
        bytearray(_ROOM_BYTES)
    except MemoryError as error:
        what = f"open {path}" if mode == "r" else "make a netCDF file"
        raise InsufficientMemoryError(f"memory does not suffice to {what}.") from error
    return netCDF4.Dataset(path, mode)


class ReplacedFileError(ValueError):
    """A file is gone, or another lies in its place, since it was opened."""


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


library_lock = _Lock()
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that it lacks
    os.register_at_fork(
        before=library_lock.acquire,
        after_in_parent=library_lock.release,
        after_in_child=library_lock.release,
    )


class FileState(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    mtime_ns: int


def file_state(path: str | os.PathLike) -> FileState | None:
    """Look at a file; None where there is none."""
    try:
        return state_of(os.stat(path))
    except OSError:
        return None


def state_of(found: os.stat_result) -> FileState:
    """What tells the state of a file, of all that the system says."""
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
    if library_lock.acquire(blocking=False):
        try:
            _close_gone()
        finally:
            library_lock.release()


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
        with library_lock:
            self._handle = _handles.setdefault((self.path, self.state), _Handle())
        self._reader = next(_readers)
        weakref.finalize(self, _forget, self._handle, self._reader).atexit = False

    def __reduce__(self) -> tuple[Any, ...]:
        # The state at this moment is for those who compare pickles, as joblib's Memory does.
        return StoredFile, (self.path, self.state, file_state(self.path))

    @property
    def lock(self) -> _Lock:
        """What to hold while it is read."""
        return library_lock

    def open(self) -> netCDF4.Dataset:
        """Give the open file, to who holds the lock."""
        _close_gone()
        handle, now = self._handle, file_state(self.path)
        there = now is not None and self.state is not None and now.inode == self.state.inode
        # Where another file lies there, one that is open is still as it was.
        if now != self.state and (there or handle.dataset is None):
            raise ReplacedFileError(
                f"{self.path} was {'removed' if now is None else 'written anew'} since it was "
                "opened: open it again"
            )
        if handle.dataset is None:
            try:
                handle.dataset = opened(self.path)
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
        with library_lock:
            self._handle.leave(self._reader)


_readers = itertools.count()
