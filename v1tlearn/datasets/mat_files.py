"""Arrays of numbers in MATLAB files: version 5 parsed here, and 7.3, which is HDF5.

Of version 5 only what leads to one named array is looked at: uncompressed ones are mapped, deflated
ones inflated into memory once. No sizes are believed that the bytes of the file cannot hold.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from v1tlearn._opening import check_plain, reading
from v1tlearn.datasets.netcdf import StoredFile
from v1tlearn.training.memory import is_out_of_memory

_N_HEADER = 128  # bytes: text, then version and byte order
_MATRIX, _COMPRESSED = 14, 15
_CLASSES = range(6, 16)  # double, single and the integers
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_TYPES |= {12: "i8", 13: "u8"}
_COMPLEX = 0x0800
_MOST_DIMS = 32
_MOST_INFLATED = 1032  # bytes of data that deflate can make of one
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
            found = _find(file, file.read(_N_HEADER), name, n_file)
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
    if math.prod(shape) * dtype.itemsize > _MOST_INFLATED * n_file:
        raise ValueError(f"{name!r} in it cannot have the shape {shape}")
    values = np.empty(shape, dtype)
    step = max(1, _CHUNK * max(1, len(values)) // max(1, values.nbytes))
    for start in range(0, len(values), step):
        values[start : start + step] = variable[start : start + step]
    return values.T  # HDF5 names the slowest axis first, MATLAB last


# --------------------------------------------------------------------------------------- version 5


class _Element(NamedTuple):
    """The tag of a data element; `data` of the small ones, which the tag holds."""

    type: int
    n_bytes: int
    data: bytes | None


class _Reader:
    """Reads the elements of a matrix from the file, or from a stream that is inflated."""

    def __init__(self, read: Callable[[int], bytes], order: str):
        self._read, self.order = read, order

    def exactly(self, n_bytes: int) -> bytes:
        data = self._read(n_bytes)
        if len(data) != n_bytes:
            raise ValueError("it ends within an array")
        return data

    def tag(self) -> _Element:
        data = self.exactly(8)
        kind, n_bytes = struct.unpack(f"{self.order}II", data)
        if kind >> 16:  # a small element: its size, its type, and four bytes
            kind, n_bytes = kind & 0xFFFF, kind >> 16
            if n_bytes > 4:
                raise ValueError(f"a small element tells of {n_bytes} bytes")
            return _Element(kind, n_bytes, data[4 : 4 + n_bytes])
        return _Element(kind, n_bytes, None)

    def element(self, kind: int, most: int) -> bytes:
        """Read the content of an element of one type."""
        tag = self.tag()
        if tag.type != kind or tag.n_bytes > most:
            raise ValueError(f"it has an element of type {tag.type} where {kind} is expected")
        return self.exactly(_padded(tag.n_bytes))[: tag.n_bytes] if tag.data is None else tag.data


class _Matrix(NamedTuple):
    """What stands before the numbers of an array."""

    name: str
    kind: int
    is_complex: bool
    shape: tuple[int, ...]


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // 8) * 8


def _find(file: BinaryIO, header: bytes, name: str, n_file: int) -> Place | MatArray:
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if order is None or len(header) < _N_HEADER:
        raise ValueError("it has no header of version 5")
    if struct.unpack(f"{order}H", header[124:126])[0] != 0x0100:
        raise ValueError("it is of another version")
    position, names = _N_HEADER, []
    while position < n_file:
        file.seek(position)
        tag = _Reader(file.read, order).tag()
        if tag.data is not None or position + 8 + tag.n_bytes > n_file:
            raise ValueError("it ends within an array")
        end = position + 8 + tag.n_bytes
        if tag.type == _COMPRESSED:
            stream = _Inflated(file, tag.n_bytes)
            inside = _Reader(stream.read, order)
            if inside.tag().type == _MATRIX:
                matrix = _matrix(inside)
                if matrix.name == name:
                    return MatArray(_inflated(inside, stream, matrix, tag.n_bytes), None)
                names.append(matrix.name)
        elif tag.type == _MATRIX:
            inside = _Reader(file.read, order)
            matrix = _matrix(inside)
            if matrix.name == name:
                return _place(inside, file, matrix, end)
            names.append(matrix.name)
        position = end
    raise ValueError(f"there is no {name!r} in it, only {names[:10]}")


def _matrix(reader: _Reader) -> _Matrix:
    flags = reader.element(6, 8)
    dims = reader.element(5, 4 * _MOST_DIMS)
    name = reader.element(1, 2**12)
    (word,) = struct.unpack(f"{reader.order}I4x", flags)
    shape = tuple(struct.unpack(f"{reader.order}{len(dims) // 4}i", dims))
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"the shape of an array is {shape}")
    return _Matrix(name.decode("ascii"), word & 0xFF, bool(word & _COMPLEX), shape)


def _numbers(reader: _Reader, matrix: _Matrix) -> tuple[_Element, np.dtype]:
    """Tag and type of the numbers of an array."""
    if matrix.kind not in _CLASSES or matrix.is_complex:
        raise ValueError(f"{matrix.name!r} in it is no array of real numbers")
    tag = reader.tag()
    if tag.type not in _TYPES:
        raise ValueError(f"{matrix.name!r} in it holds numbers of type {tag.type}")
    dtype = np.dtype(reader.order + _TYPES[tag.type])
    if math.prod(matrix.shape) * dtype.itemsize != tag.n_bytes:
        raise ValueError(
            f"{matrix.name!r} in it has shape {matrix.shape} and dtype {dtype}, but {tag.n_bytes} "
            "bytes"
        )
    return tag, dtype


def _place(reader: _Reader, file: BinaryIO, matrix: _Matrix, end: int) -> Place | MatArray:
    tag, dtype = _numbers(reader, matrix)
    if tag.data is not None or tag.n_bytes == 0:
        values = np.frombuffer(tag.data or b"", dtype)
        return MatArray(values.reshape(matrix.shape, order="F"), None)
    if file.tell() + tag.n_bytes > end:
        raise ValueError("it ends within an array")
    return Place(file.tell(), dtype.str, matrix.shape)


class _Inflated:
    """Reads what a part of a file inflates to."""

    def __init__(self, file: BinaryIO, n_bytes: int):
        self._file, self._left = file, n_bytes
        self._stream = zlib.decompressobj()

    def read(self, n_bytes: int) -> bytes:
        """Return as many bytes, or less at the end."""
        return b"".join(self.parts(n_bytes))

    def parts(self, n_bytes: int) -> Iterator[bytes]:
        """Yield these in parts."""
        while n_bytes > 0:
            content = self._stream.unconsumed_tail
            if not content:
                content = self._file.read(min(_CHUNK, self._left))
                self._left -= len(content)
            part = self._stream.decompress(content, min(n_bytes, _CHUNK))
            if not part and not content:
                return
            n_bytes -= len(part)
            yield part

    def is_whole(self) -> bool:
        """Whether only the padding of an array is left, and the checksum fits."""
        self.read(8)
        return self._stream.eof


def _inflated(reader: _Reader, stream: _Inflated, matrix: _Matrix, n_stored: int) -> np.ndarray:
    tag, dtype = _numbers(reader, matrix)
    if tag.data is None and tag.n_bytes > _MOST_INFLATED * n_stored:
        raise ValueError(f"{matrix.name!r} in it cannot have the shape {matrix.shape}")
    data = np.empty(tag.n_bytes, np.uint8)
    start = 0
    for part in [tag.data] if tag.data is not None else stream.parts(tag.n_bytes):
        data[start : start + len(part)] = np.frombuffer(part, np.uint8)
        start += len(part)
    if start != tag.n_bytes or not stream.is_whole():
        raise ValueError("it ends within an array")
    return data.view(dtype).reshape(matrix.shape, order="F")
