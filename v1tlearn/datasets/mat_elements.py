"""Elements of MATLAB files of version 5: tags, what stands before an array, deflated parts.

No sizes are believed that the bytes of the file cannot hold.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

N_HEADER = 128  # bytes: text, then version and byte order
MATRIX, COMPRESSED = 14, 15
CELLS, STRUCTURE, TEXT = 1, 2, 4  # classes of arrays
_NUMBERS = range(6, 16)  # double, single and the integers
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_TYPES |= {12: "i8", 13: "u8"}
_COMPLEX = 0x0800
_MOST_DIMS = 32
MOST_INFLATED = 1032  # bytes of data that deflate can make of one
_CHUNK = 2**20  # bytes that are read, or inflated, at once
_PIECE = 2**16  # bytes that are inflated at once


class Element(NamedTuple):
    """The tag of a data element; `data` of the small ones, which the tag holds."""

    type: int
    n_bytes: int
    data: bytes | None


class Reader:
    """Reads the elements of a matrix from the file, or from a stream that is inflated."""

    def __init__(self, read: Callable[[int], bytes], order: str):
        self._read, self.order = read, order
        self.position = 0  # bytes that were read

    def exactly(self, n_bytes: int) -> bytes:
        """Read so many bytes."""
        data = self._read(n_bytes)
        if len(data) != n_bytes:
            raise ValueError("it ends within an array")
        self.position += n_bytes
        return data

    def skip(self, n_bytes: int) -> None:
        """Read so many bytes without keeping them."""
        while n_bytes:
            n_bytes -= len(self.exactly(min(n_bytes, _CHUNK)))

    def tag(self) -> Element:
        """Read what stands before the content of an element."""
        data = self.exactly(8)
        kind, n_bytes = struct.unpack(f"{self.order}II", data)
        if kind >> 16:  # a small element: its size, its type, and four bytes
            kind, n_bytes = kind & 0xFFFF, kind >> 16
            if n_bytes > 4:
                raise ValueError(f"a small element tells of {n_bytes} bytes")
            return Element(kind, n_bytes, data[4 : 4 + n_bytes])
        return Element(kind, n_bytes, None)

    def element(self, kind: int, most: int) -> bytes:
        """Read the content of an element of one type."""
        tag = self.tag()
        if tag.type != kind or tag.n_bytes > most:
            raise ValueError(f"it has an element of type {tag.type} where {kind} is expected")
        return self.exactly(padded(tag.n_bytes))[: tag.n_bytes] if tag.data is None else tag.data


class Matrix(NamedTuple):
    """What stands before the numbers of an array."""

    name: str
    kind: int
    is_complex: bool
    shape: tuple[int, ...]


def padded(n_bytes: int) -> int:
    """Bytes that an element takes, with those that fill it up."""
    return -(-n_bytes // 8) * 8


class Inflated:
    """Reads what a part of a file inflates to."""

    def __init__(self, file: BinaryIO, n_bytes: int):
        self._file, self._left = file, n_bytes
        self._stream = zlib.decompressobj()
        self._ready, self._taken = b"", 0  # what is inflated, and how much of it was given

    def read(self, n_bytes: int) -> bytes:
        """Return as many bytes, or less at the end."""
        return b"".join(self.parts(n_bytes))

    def parts(self, n_bytes: int) -> Iterator[bytes]:
        """Yield these in parts."""
        while n_bytes > 0:
            if self._taken == len(self._ready):
                self._ready, self._taken = self._inflate(), 0
                if not self._ready:
                    return
            part = self._ready[self._taken : self._taken + n_bytes]
            self._taken += len(part)
            n_bytes -= len(part)
            yield part

    def _inflate(self) -> bytes:
        """Inflate some more; nothing at the end."""
        while True:
            content = self._stream.unconsumed_tail
            if not content:
                content = self._file.read(min(_PIECE, self._left))
                self._left -= len(content)
            part = self._stream.decompress(content, _CHUNK)
            if part or not content:
                return part

    def is_whole(self) -> bool:
        """Whether only the padding of an array is left, and the checksum fits."""
        self.read(8)
        return self._stream.eof and self._taken == len(self._ready)


class Variable(NamedTuple):
    """A variable of a file, which stands behind what is before its numbers."""

    matrix: Matrix
    reader: Reader
    stream: Inflated | None  # where it is deflated
    n_bytes: int  # that it takes in the file
    n_content: int  # that it takes inflated, from the first byte that the reader read


def variables(file: BinaryIO, n_file: int) -> Iterator[Variable]:
    """Pass through the variables of a file; what of each is read is up to the caller."""
    header = file.read(N_HEADER)
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if order is None or len(header) < N_HEADER:
        raise ValueError("it has no header of version 5")
    if struct.unpack(f"{order}H", header[124:126])[0] != 0x0100:
        raise ValueError("it is of another version")
    position = N_HEADER
    while position < n_file:
        file.seek(position)
        tag = Reader(file.read, order).tag()
        if tag.data is not None or position + 8 + tag.n_bytes > n_file:
            raise ValueError("it ends within an array")
        if tag.type == COMPRESSED:
            stream = Inflated(file, tag.n_bytes)
            inside = Reader(stream.read, order)
            inner = inside.tag()
            if inner.type == MATRIX:
                content = inside.position + inner.n_bytes
                yield Variable(read_matrix(inside), inside, stream, tag.n_bytes, content)
        elif tag.type == MATRIX:
            inside = Reader(file.read, order)
            yield Variable(read_matrix(inside), inside, None, tag.n_bytes, tag.n_bytes)
        else:
            raise ValueError(f"it has an element of type {tag.type} where an array is expected")
        position += 8 + tag.n_bytes


def read_matrix(reader: Reader) -> Matrix:
    """Read what stands before the content of an array."""
    flags = reader.element(6, 8)
    dims = reader.element(5, 4 * _MOST_DIMS)
    name = reader.element(1, 2**12)
    (word,) = struct.unpack(f"{reader.order}I4x", flags)
    shape = tuple(struct.unpack(f"{reader.order}{len(dims) // 4}i", dims))
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"the shape of an array is {shape}")
    return Matrix(name.decode("ascii"), word & 0xFF, bool(word & _COMPLEX), shape)


def numbers_of(reader: Reader, matrix: Matrix) -> tuple[Element, np.dtype]:
    """Read the tag and the type of the numbers of an array."""
    if matrix.kind not in _NUMBERS or matrix.is_complex:
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
