"""Checksums behind the end of a netCDF file, and whether a file is fit to be opened.

HDF5 checks only what it compressed, and some damage sends its functions into endless loops. So a
file is compared with its checksums before it is opened: all of it but trials that lie in a row,
which are compared as they are read. The library never sees bytes behind the end of its file, and
cuts them off where it changes one, so that what other programs write bears no checksums.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from v1tlearn._opening import first_line, json_object
from v1tlearn.datasets import told_sizes

logger = logging.getLogger(__name__)


def _libdeflate() -> Any:
    try:
        return import_module("deflate")
    except ImportError:
        return None


deflate = _libdeflate()
crc32 = zlib.crc32 if deflate is None else deflate.crc32

_END = struct.Struct("<IQ8s")  # checksum and length of the text before it, and the signature
_OURS, _FORMAT = b"V1TLRN", b"1\n"
_AT_ONCE = 2**24
_MOST_COMPARED = 2**25  # bytes; larger files are opened by a child first, which takes as long
_PLACES_TRIED = 8
SECONDS = 60.0  # of its processor for the child; it may wait for a disk
WAITING_SECONDS = 600.0


class InARow(NamedTuple):
    """Trials of a variable, of which each has a checksum."""

    sums: np.ndarray  # (n_trials,)
    place: list[int] | None  # start and stop in the file, where it is known


def of_trials(values: np.ndarray) -> np.ndarray:
    """Give the checksum of every trial."""
    rows = np.ascontiguousarray(values).reshape(len(values), math.prod(values.shape[1:]))
    rows = rows.view(np.uint8)
    return np.array([crc32(row.data) for row in rows], dtype="<u4")


def append(path: Path, in_a_row: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write the checksums of a closed file behind its end.

    Parameters
    ----------
    path : Path
    in_a_row : mapping of str to (ndarray, ndarray)
        By the name of the variable, its first trial and the checksums of all.
    """
    known: dict[str, dict[str, Any]] = {}
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        for name, (first, sums) in in_a_row.items():
            text = base64.b64encode(sums.tobytes()).decode()
            known[name] = {"checksums": text, "place": _place(file, size, first, sums)}
        rest = _rest(file, size, [entry["place"] for entry in known.values()])
        told = json.dumps({"size": size, "rest": rest, "trials": known}).encode()
        file.seek(0, 2)
        file.write(told + _END.pack(crc32(told), len(told), _OURS + _FORMAT))


# Files are read, never mapped: others may cut one off meanwhile, and maps count as memory.


def _part(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)


def _place(file: BinaryIO, size: int, first: np.ndarray, sums: np.ndarray) -> list[int] | None:
    """Find where trials lie in a row, from the first of them: start and stop."""
    trial = np.ascontiguousarray(first).tobytes()
    start, n_bytes = -1, len(trial)
    if not n_bytes:
        return None
    for _ in range(_PLACES_TRIED):  # other variables may hold the same
        start = _find(file, trial, start + 1, size - n_bytes * len(sums))
        if start < 0:
            return None
        n_rows, found = max(1, _AT_ONCE // n_bytes), []
        for row in range(0, len(sums), n_rows):
            stop = start + n_bytes * min(row + n_rows, len(sums))
            block = np.frombuffer(_part(file, start + n_bytes * row, stop), np.uint8)
            found.append(of_trials(block.reshape(-1, n_bytes)))
        if np.array_equal(np.concatenate(found), sums):
            return [start, start + n_bytes * len(sums)]
    return None


def _find(file: BinaryIO, searched: bytes, start: int, last: int) -> int:
    """Give the first place from `start` to `last` at which these bytes begin, or -1."""
    while start <= last:
        stop = min(start + _AT_ONCE, last + 1)  # where they may begin, from `start`
        place = _part(file, start, stop + len(searched) - 1).find(searched)
        if place >= 0:
            return start + place
        start = stop
    return -1


def _rest(file: BinaryIO, size: int, places: list[list[int] | None]) -> int:
    """Checksum of a file but for what lies at some places."""
    total, start = 0, 0
    for left, right in [*sorted(p for p in places if p), [size, size]]:
        while start < left:
            stop = min(left, start + _AT_ONCE)
            total = crc32(_part(file, start, stop), total)
            start = stop
        start = right
    return total


def check(
    path: Path,
    needed: bool = False,
    *,
    most_seconds: float = SECONDS,
    most_waiting: float = WAITING_SECONDS,
) -> dict[str, InARow]:
    """Check that a file is as it was written; or, without checksums, that it can be opened.

    Parameters
    ----------
    path : Path
    needed : bool
        Refuse a file that has none.
    most_seconds, most_waiting : float
        How long another process may compute, and take in all, to open the file. Its memory is
        limited, too, on Linux.

    Returns
    -------
    dict of str to InARow
        Variables whose trials are to be compared with their checksums when they are read.

    Raises
    ------
    ValueError, RuntimeError
        If it is damaged, or opening it does not end or fails.
    """
    with path.open("rb") as file:
        known = _read_end(file)
        if known is None and needed:
            raise ValueError("it has no checksums at its end")
        if known is None:
            open_in_child(path, most_seconds, most_waiting)
            return {}
        places = [trials.place for trials in known.trials.values()]
        compared = known.size - sum(stop - start for start, stop in filter(None, places))
        if compared > _MOST_COMPARED:
            open_in_child(path, most_seconds, most_waiting)
        elif _rest(file, known.size, places) != known.rest:
            raise ValueError("its checksum is not that of what was written")
    return known.trials


class _End(NamedTuple):
    """What `append` wrote, as far as it can be true."""

    size: int
    rest: int
    trials: dict[str, InARow]


def _read_end(file: BinaryIO) -> _End | None:
    size = file.seek(0, 2)
    if size < _END.size:
        return None
    file.seek(size - _END.size)
    checksum, length, signature = _END.unpack(file.read())
    if not signature.startswith(_OURS):
        return None
    if not signature.endswith(_FORMAT):
        raise ValueError(
            f"{file.name} has format {signature[len(_OURS) :]!r}, this version reads {_FORMAT!r}: "
            "update v1tlearn, or copy the file again if it is not of a later version"
        )
    file.seek(max(0, size - _END.size - length))
    text = file.read(min(length, size))
    if crc32(text) != checksum:
        raise ValueError("the checksums at its end are damaged")
    try:
        return _parsed(text, size - _END.size - length)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the checksums at its end are damaged: {first_line(error)}") from error


def _parsed(text: bytes, size: int) -> _End:
    told = json_object(text)
    trials = {
        name: InARow(
            np.frombuffer(base64.b64decode(entry["checksums"], validate=True), "<u4"),
            entry["place"],
        )
        for name, entry in told["trials"].items()
    }
    places = [own.place for own in trials.values()]
    ends = [end for start, stop in filter(None, places) for end in (start, stop)]
    if any(type(number) is not int for number in (told["size"], told["rest"], *ends)):
        raise TypeError("expected whole numbers")
    if told["size"] != size or not all(
        0 <= start < stop <= size for start, stop in filter(None, places)
    ):
        raise ValueError(f"they are of other places than its {size} bytes")
    return _End(size, told["rest"], trials)


_opened: set[tuple] = set()  # states of files that a child opened
_NOT_THERE = 77  # where a child does not find the library
_OUT_OF_TIME = tuple(-getattr(signal, name) for name in ("SIGXCPU",) if hasattr(signal, name))
_LIMITED = """
try:
    from resource import RLIMIT_CPU, RUSAGE_SELF, getrlimit, getrusage, setrlimit
except ImportError:
    pass
else:
    most = int(float(sys.argv[2]) + getrusage(RUSAGE_SELF).ru_utime) + 1
    _, hard = getrlimit(RLIMIT_CPU)
    setrlimit(RLIMIT_CPU, (most if hard < 0 else min(most, hard), hard))
    if sys.platform == "linux":  # where groups that hold themselves would fill all memory
        import os
        from resource import RLIMIT_AS, getpagesize
        with open("/proc/self/statm") as told:
            most = int(told.read().split()[0]) * getpagesize()
        most += 2**30 + 16 * os.path.getsize(sys.argv[1])
        _, hard = getrlimit(RLIMIT_AS)
        setrlimit(RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
"""
_CHILD = f"""
import os, runpy
def read(group):
    for name in group.ncattrs():
        group.getncattr(name)
    for variable in group.variables.values():
        for name in variable.ncattrs():
            variable.getncattr(name)
        variable.set_auto_maskandscale(False)
        if variable.size < 2**22:
            variable[...]
        elif variable.ndim and variable.size // len(variable) < 2**22:
            variable[0], variable[len(variable) - 1]
    for child in group.groups.values():
        read(child)
check_variables = runpy.run_path({str(told_sizes.__file__)!r})["check_variables"]
with netCDF4.Dataset(sys.argv[1]) as file:
    check_variables(file, os.path.getsize(sys.argv[1]))
    read(file)
"""


def open_in_child(
    path: Path,
    most_seconds: float = SECONDS,
    most_waiting: float = WAITING_SECONDS,
    *,
    library: str = "netCDF4",
    script: str = _CHILD,
) -> None:
    """Let another process open a file, which may loop or crash as it likes.

    Parameters
    ----------
    path : Path
    most_seconds, most_waiting : float
        How long it may compute, and take in all.
    library : str
        What it imports.
    script : str
        What it runs, once it has imported the library: ``sys.argv[1]`` is the path.

    Raises
    ------
    ValueError, RuntimeError
        If opening does not end or fails.
    """
    found = path.stat()
    state = (library, str(path), found.st_ino, found.st_size, found.st_mtime_ns)
    if state in _opened or not sys.executable:  # within a program that is no Python
        return
    imported = (
        f"import sys\ntry:\n    import {library}\nexcept Exception:\n    sys.exit({_NOT_THERE})\n"
    )
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-c", imported + _LIMITED + script),
                *(str(path), str(most_seconds)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=most_waiting,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"it kept the library busy for {most_waiting:.0f} s") from None
    if done.returncode == _NOT_THERE:
        logger.warning("%s is opened unchecked: %s fails in another process", path, library)
        return
    if done.returncode in _OUT_OF_TIME:
        raise ValueError(f"it kept the library busy for {most_seconds:.0f} s")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        what = said[-1] if said else f"the library ended with signal {-done.returncode}"
        raise RuntimeError(what)
    _opened.add(state)
