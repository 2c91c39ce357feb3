"""The npy format: one array in the bytes of a file, believed as far as its bytes are there."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import numpy as np

from v1tlearn._opening import reading
from v1tlearn.training.memory import is_out_of_memory

_LONGEST_HEADER = 2**16  # bytes; NumPy reads none above 10,000


class Layout(NamedTuple):
    """What the header of a .npy file tells."""

    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    n_header: int  # bytes before the values


def npy_layout(data: bytes | bytearray | memoryview, where: str) -> Layout:
    """Read the header of a whole .npy file, and hold it against the bytes that follow.

    Parameters
    ----------
    data : bytes-like
        The whole file.
    where : str
        Mouse and file, for the message of the error.
    """
    with _reading(where):
        start = bytes(data[:_LONGEST_HEADER])
        file = io.BytesIO(start)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"its version is {version}")
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        else:  # 3.0 differs from 2.0 in the encoding of names only
            header = np.lib.format.read_array_header_2_0(file)
        shape, fortran, dtype = header
        if any(side < 0 for side in shape):
            raise ValueError(f"its shape is {shape}")
    if dtype.hasobject:
        raise ValueError(
            f"{where}: holds pickled Python objects, which are never loaded because they can "
            "run code; expected numbers or fixed-width text: save it again with a plain dtype, "
            'e.g. np.save(file, array.astype(str)) or .astype("float32")'
        )
    if dtype.kind == "V" or dtype.itemsize == 0:
        raise ValueError(
            f"{where}: its dtype is {str(dtype)[:80]}, structured or void; expected numbers or "
            "fixed-width text: save each field in a file of its own"
        )
    n_told, n_there = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if n_told != n_there:
        why = "it is probably cut off" if n_told > n_there else "more than one array is in it"
        raise ValueError(
            f"{where}: is not a readable .npy file: its header tells of {n_told} bytes (shape "
            f"{shape}, dtype {dtype}), but {n_there} follow; {why}: copy or download it again"
        )
    return Layout(dtype, shape, "F" if fortran else "C", file.tell())


def parse_npy(data: bytes | bytearray | memoryview, where: str) -> np.ndarray:
    """Read an array from the bytes of a .npy file; pickled objects are refused.

    Parameters
    ----------
    data : bytes-like
        The whole file.
    where : str
        Mouse and file, for the message of the error.
    """
    layout = npy_layout(data, where)
    with _reading(where, is_out_of_memory):  # what it tells of is there
        values = np.frombuffer(data, layout.dtype, offset=layout.n_header)
        array = values.reshape(layout.shape, order=layout.order)
        array = array.astype(layout.dtype.newbyteorder("="), order="K")
        if array.dtype.kind == "U" and array.size:
            points = np.ascontiguousarray(array).view("u4")
            if points.max() > 0x10FFFF or ((points >= 0xD800) & (points < 0xE000)).any():
                raise ValueError("its text holds what is no character")
    return array


def _reading(where: str, *passed: Callable[[Exception], bool]) -> AbstractContextManager[None]:
    remedy = "it is probably cut off: copy or download it again"
    return reading(where + ":", "is not a readable .npy file", remedy, ValueError, *passed)
