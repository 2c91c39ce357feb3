"""Trials that lie in a row in a file, read straight to where they are wanted.

The system copies them once, without the netCDF library and its lock; who asks compares checksums.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from v1tlearn.datasets.open_files import FileState, state_of

_MOST_BUFFERS = 512  # of one call; systems take 1,024 or more
_ANNOUNCED = 2**19  # bytes of which the system is told at once

IS_OFFERED = hasattr(os, "preadv")


def read_rows(
    path: str | Path, state: FileState, start: int, rows: np.ndarray, out: np.ndarray
) -> bool:
    """Fill `out` with rows of a file.

    Parameters
    ----------
    path : str or Path
    state : FileState
        In which the file is expected.
    start : int
        Where the first row of the file lies, in bytes.
    rows : ndarray of int
        In any order, from 0 on.
    out : ndarray
        C-contiguous, a row for each.

    Returns
    -------
    bool
        False, with nothing read, where the file is not there in this state any more.

    Raises
    ------
    OSError
        If the system cannot read it.
    """
    with _opened(path, state) as file:
        if file is not None:
            _fill(file, start, rows, out)
        return file is not None


def announce_rows(
    path: str | Path, state: FileState, start: int, n_bytes: int, rows: np.ndarray
) -> None:
    """Let the disk bring rows of a file into what the system keeps, meanwhile; nobody waits.

    Parameters
    ----------
    path : str or Path
    state : FileState
        In which the file is expected; in another one nothing is done.
    start : int
        Where the first row of the file lies, in bytes.
    n_bytes : int
        Of a row.
    rows : ndarray of int
        In any order, from 0 on.
    """
    with _opened(path, state) as file:
        if file is not None:
            ordered = np.sort(rows)
            for first, stop in _in_a_row(ordered):
                _announce(file, start + n_bytes * int(ordered[first]), n_bytes * (stop - first))


@contextmanager
def _opened(path: str | Path, state: FileState) -> Iterator[int | None]:
    """Open a file in the state in which it is expected; None where it is not."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file if state_of(os.fstat(file)) == state else None
    finally:
        os.close(file)


def _announce(file: int, place: int, n_bytes: int) -> None:
    """Tell the disk what is wanted soon, in parts: systems leave out the rest of a large one."""
    if hasattr(os, "posix_fadvise"):
        for part in range(0, n_bytes, _ANNOUNCED):
            size = min(_ANNOUNCED, n_bytes - part)
            os.posix_fadvise(file, place + part, size, os.POSIX_FADV_WILLNEED)


def _fill(file: int, start: int, rows: np.ndarray, out: np.ndarray) -> None:
    n_bytes, flat = out[:1].nbytes, out.reshape(-1).view(np.uint8)
    order = np.argsort(rows, kind="stable")  # files are read forwards
    spans = list(_in_a_row(rows[order]))
    places = [start + n_bytes * int(rows[order[first]]) for first, _ in spans]
    if hasattr(os, "posix_fadvise"):  # the disk is to know all that is wanted at once, no more
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    for (first, stop), place in zip(spans, places, strict=True):
        _announce(file, place, n_bytes * (stop - first))
    for (first, stop), place in zip(spans, places, strict=True):
        own = order[first:stop]
        parts = [flat[n_bytes * own[i] : n_bytes * (own[j - 1] + 1)] for i, j in _in_a_row(own)]
        for at in range(0, len(parts), _MOST_BUFFERS):
            place = _read_into(file, parts[at : at + _MOST_BUFFERS], place)


def _in_a_row(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where numbers follow each other: start and stop of each such part."""
    cuts = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
    return itertools.pairwise(cuts)


def _read_into(file: int, parts: list[np.ndarray], place: int) -> int:
    """Fill arrays of bytes, one after the other, from a place on; and give that of the end."""
    while parts:
        n_read = os.preadv(file, parts, place)  # type: ignore[arg-type]
        if not n_read:
            raise OSError("the file ends early")
        place += n_read
        done = 0
        while done < len(parts) and n_read >= len(parts[done]):
            n_read -= len(parts[done])
            done += 1
        parts = parts[done:]
        if n_read:
            parts[0] = parts[0][n_read:]
    return place
