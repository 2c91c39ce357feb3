"""Arrays of numbers in MATLAB files: version 5, parsed in `mat_elements`, and 7.3, which is HDF5.

Of version 5 only what leads to one named array is looked at: uncompressed ones are mapped, deflated
ones inflated into memory once. No sizes are believed that the bytes of the file cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from v1tlearn._opening import check_plain, reading
from v1tlearn.datasets.checksums import open_in_child
from v1tlearn.datasets.mat_elements import MOST_INFLATED, Inflated, Variable, numbers_of, variables
from v1tlearn.datasets.open_files import StoredFile
from v1tlearn.training.memory import is_out_of_memory

_CHUNK = 2**20


class Place(NamedTuple):
    """Where an array that is not deflated lies in its file; the first axis runs fastest."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MatArray:
    """An array of a MATLAB file, with its place in the file where it is mapped.

    Attributes
    ----------
    values : ndarray
        Of the shape that MATLAB shows.
    place : Place or None
        None where the values are in memory.
    """

    values: np.ndarray
    place: Place | None


def read_mat(path: Path, name: str) -> MatArray:
    """Find an array of numbers by its name.

    Parameters
    ----------
    path : Path
        A MATLAB file, version 5 (also called 6 and 7) or 7.3.
    name : str
        Of the variable.

    Raises
    ------
    ValueError
        If it is no such file or a damaged one, or has no such array of numbers.
    """
    n_file = check_plain(path).st_size
    with reading_mat(path):
        if is_hdf5(path):
            return MatArray(_read_hdf5(path, name, n_file), None)
        with open(path, "rb") as file:
            found = _find(file, name, n_file)
        return MatArray(map_place(path, found), found) if isinstance(found, Place) else found


def map_place(path: Path, place: Place) -> np.ndarray:
    """Map an array that lies in a file as it is."""
    return np.memmap(path, place.dtype, "r", place.offset, place.shape, order="F")


def reading_mat(path: Path) -> AbstractContextManager[None]:
    """Name the file in whatever goes wrong while it is parsed."""
    remedy = "copy or download it again"
    return reading(path, "is no MATLAB file, or a damaged one", remedy, passed=is_out_of_memory)


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, as those of version 7.3 are."""
    signature = b"\x89HDF\r\n\x1a\n"
    with open(path, "rb") as file:
        if file.read(len(signature)) == signature:
            return True
        file.seek(512)  # behind what MATLAB writes of itself
        return file.read(len(signature)) == signature


def _read_hdf5(path: Path, name: str, n_file: int) -> np.ndarray:
    open_in_child(path)  # as of any HDF5 file without a checksum: the library may crash
    file = StoredFile(str(path))
    try:
        with file.lock:
            variables = file.open().variables
            if name not in variables:
                raise ValueError(f"there is no {name!r} in it, only {list(variables)[:10]}")
            return _hdf5_numbers(variables[name], name, n_file)
    finally:
        file.close()


def read_hdf5_numbers(path: Path, group: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read those arrays of numbers of a group, a structure of MATLAB's, that are there."""
    n_file, file = check_plain(path).st_size, StoredFile(str(path))
    try:
        with file.lock:
            groups = file.open().groups
            if group not in groups:
                raise ValueError(f"there is no structure {group!r} in it, only {list(groups)[:10]}")
            found = groups[group].variables
            return {n: _hdf5_numbers(found[n], n, n_file) for n in names if n in found}
    finally:
        file.close()


def _hdf5_numbers(variable: Any, name: str, n_file: int) -> np.ndarray:
    variable.set_auto_maskandscale(False)
    shape, dtype = variable.shape, np.dtype(variable.dtype)
    if dtype.kind not in "iuf":
        raise ValueError(f"{name!r} in it is {dtype}, expected numbers")
    if math.prod(shape) * dtype.itemsize > MOST_INFLATED * n_file:
        raise ValueError(f"{name!r} in it cannot have the shape {shape}")
    values = np.empty(shape, dtype)
    step = max(1, _CHUNK * max(1, len(values)) // max(1, values.nbytes))
    for start in range(0, len(values), step):
        values[start : start + step] = variable[start : start + step]
    return values.T  # HDF5 names the slowest axis first, MATLAB last


# --------------------------------------------------------------------------------------- version 5


def _find(file: BinaryIO, name: str, n_file: int) -> Place | MatArray:
    names = []
    for found in variables(file, n_file):
        if found.matrix.name == name:
            if found.stream is not None:
                return MatArray(_inflated(found, found.stream), None)
            return _place(found, file)
        names.append(found.matrix.name)
    raise ValueError(f"there is no {name!r} in it, only {names[:10]}")


def _place(found: Variable, file: BinaryIO) -> Place | MatArray:
    matrix = found.matrix
    tag, dtype = numbers_of(found.reader, matrix)
    if tag.data is not None or tag.n_bytes == 0:
        values = np.frombuffer(tag.data or b"", dtype)
        return MatArray(values.reshape(matrix.shape, order="F"), None)
    if found.reader.position + tag.n_bytes > found.n_content:
        raise ValueError("it ends within an array")
    return Place(file.tell(), dtype.str, matrix.shape)


def _inflated(found: Variable, stream: Inflated) -> np.ndarray:
    matrix = found.matrix
    tag, dtype = numbers_of(found.reader, matrix)
    if tag.data is None and tag.n_bytes > MOST_INFLATED * found.n_bytes:
        raise ValueError(f"{matrix.name!r} in it cannot have the shape {matrix.shape}")
    data = np.empty(tag.n_bytes, np.uint8)
    start = 0
    for part in [tag.data] if tag.data is not None else stream.parts(tag.n_bytes):
        data[start : start + len(part)] = np.frombuffer(part, np.uint8)
        start += len(part)
    if start != tag.n_bytes or not stream.is_whole():
        raise ValueError("it ends within an array")
    return data.view(dtype).reshape(matrix.shape, order="F")
