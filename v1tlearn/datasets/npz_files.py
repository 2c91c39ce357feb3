"""Files of arrays that `numpy.savez` wrote, arrays of arrays among them, with nothing in them run.

An array of arrays is a pickle. It is read by stand-ins that take what it says of plain arrays, once
its operations are seen to be those of such data; anything else is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from v1tlearn._opening import check_plain, reading
from v1tlearn.datasets.sensorium.npy import parse_npy
from v1tlearn.datasets.sensorium.zip_files import ZipFiles, plain_name, read_directory
from v1tlearn.training.memory import is_out_of_memory

_PLAIN = re.compile(r"[<>=|]?[biuf][1248]")
_LONGEST_HEADER = 2**16
_OPERATIONS = re.compile(
    "PROTO|FRAME|GLOBAL|STACK_GLOBAL|(SHORT_)?BINUNICODE|(SHORT_)?BINBYTES|BINBYTES8|BYTEARRAY8|"
    "MEMOIZE|(LONG_)?BIN(PUT|GET)|BININT[12]?|LONG1|BINFLOAT|NONE|NEW(TRUE|FALSE)|MARK|TUPLE[123]?|"
    "EMPTY_TUPLE|EMPTY_LIST|APPENDS?|REDUCE|BUILD|STOP"
)


class NpzFile:
    """The arrays of a file, read by name.

    Parameters
    ----------
    path : Path
        A file that `numpy.savez` or `numpy.savez_compressed` wrote.
    """

    def __init__(self, path: Path):
        self.path = path
        check_plain(path)
        with self._reading():
            with open(path, "rb") as file:
                if file.read(2) != b"PK":
                    raise ValueError("it is no zip")
            directory = read_directory(path)
            with zipfile.ZipFile(path) as archive:  # which compares names, where others look later
                for info in directory:
                    archive.open(info).close()
            self._files = ZipFiles(path, "", directory)
            self.names = [plain_name(info).removesuffix(".npy") for info in directory]

    def first_of(self, *names: str) -> str:
        """Return the first of several names that an array of the file has."""
        found = [name for name in names if name in self.names]
        if not found:
            raise ValueError(
                f"{self.path} has no array {' or '.join(map(repr, names))}, only {self.names[:20]}"
            )
        return found[0]

    def numbers(self, name: str) -> np.ndarray:
        """Read an array of numbers."""
        array = self._array(name)
        if array.dtype.kind not in "biuf":
            self._refuse(name, f"is an array of dtype {array.dtype}", "numbers")
        return array

    def labels(self, name: str) -> np.ndarray:
        """Read an array of numbers or text."""
        array = self._array(name)
        if array.dtype.kind not in "biufU":
            self._refuse(name, f"is an array of dtype {array.dtype}", "numbers or text")
        return array

    def arrays(self, name: str) -> list[np.ndarray]:
        """Read an array whose entries along the first axis are arrays, alike in shape or not."""
        array = self._array(name)
        entries = list(array)
        if not array.dtype.hasobject:
            return entries
        if any(not isinstance(entry, np.ndarray) for entry in entries):
            self._refuse(name, "holds other things than arrays", "arrays of numbers")
        return entries

    def _array(self, name: str) -> np.ndarray:
        where = f"{self.path}: {name}.npy"
        with self._reading():
            members = self._files.members("", [f"{self.first_of(name)}.npy"])
            _, data = next(members.read_many(np.zeros(1, np.int64)))
            start = _start_of_pickle(data)
            if start is None:
                return parse_npy(data, where)
            return _array_of_arrays(bytes(data[start:]))

    def _reading(self) -> AbstractContextManager[None]:
        wrong, remedy = "is no file of arrays (.npz), or a damaged one", "copy or download it again"
        return reading(self.path, wrong, remedy, passed=is_out_of_memory)

    def _refuse(self, name: str, what: str, expected: str) -> NoReturn:
        raise ValueError(
            f"{self.path}: {name!r} {what}, expected {expected}: save it again as such"
        )


def _start_of_pickle(data: bytes | bytearray | memoryview) -> int | None:
    """Where the pickle of an array of objects begins; None for other arrays."""
    file = io.BytesIO(bytes(data[:_LONGEST_HEADER]))
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        _, _, dtype = np.lib.format.read_array_header_2_0(file)
    return file.tell() if dtype.hasobject else None


# ---------------------------------------------------------------------------------------- pickles


class _Dtype:
    """Stands for a dtype of plain numbers."""

    def __init__(self, text: Any, align: Any = False, copy: Any = True):
        self._text: Any = text
        self._order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self._order = state[1]

    def made(self) -> np.dtype:
        if self._text == "O8":
            return np.dtype(object)
        if not isinstance(self._text, str) or not _PLAIN.fullmatch(self._text):
            raise pickle.UnpicklingError(f"an array of {self._text!r}")
        dtype = np.dtype(self._text)
        return dtype if self._order == "|" else dtype.newbyteorder(self._order)


class _Array:
    """Stands for an array; knows what the file says of it."""

    def __init__(self, *told: Any):
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def made(self, *, within: bool = False) -> np.ndarray:
        _, shape, dtype, fortran, data = self._state
        return _made(shape, dtype.made(), "F" if fortran else "C", data, within)


class _FromBuffer(_Array):
    """The same in the form of protocol 5."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any):
        self._state = None, shape, dtype, order == "F", data


class _Type:
    """Stands for the type of arrays, which is named and never called."""

    def __new__(cls, *args: Any) -> _Type:
        raise pickle.UnpicklingError("a call of ndarray")


def _made(shape: Any, dtype: np.dtype, order: Any, data: Any, within: bool) -> np.ndarray:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError(f"an array of shape {shape!r}")
    if not dtype.hasobject:
        if not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("an array without its bytes")
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise pickle.UnpicklingError(f"an array of shape {shape} in {len(data)} bytes")
        return np.frombuffer(data, dtype).reshape(shape, order=order)
    if within or not isinstance(data, list) or len(data) != math.prod(shape):
        raise pickle.UnpicklingError("an array of arrays of another form")
    if all(type(entry) in (int, float) for entry in data):
        return np.array(data, np.float64).reshape(shape, order=order)
    if len(shape) != 1 or not all(isinstance(entry, _Array) for entry in data):
        raise pickle.UnpicklingError("an array of other things than arrays")
    out = np.empty(shape, object)
    for number, entry in enumerate(data):
        out[number] = entry.made(within=True)
    return out


_STAND_INS: dict[str, Any] = {
    f"{package}.{name}": thing
    for package in ("numpy.core", "numpy._core")
    for name, thing in (("multiarray._reconstruct", _Array), ("numeric._frombuffer", _FromBuffer))
} | {"numpy.ndarray": _Type, "numpy.dtype": _Dtype}


class _Unpickler(pickle.Unpickler):
    """Knows arrays of plain numbers alone, by stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name."""
        thing = _STAND_INS.get(f"{module}.{name}")
        if thing is None:
            raise pickle.UnpicklingError(
                f"{module}.{name}, which is no part of an array of numbers"
            )
        return thing


def _array_of_arrays(data: bytes) -> np.ndarray:
    for place, (code, argument, _) in enumerate(pickletools.genops(data)):
        if not _OPERATIONS.fullmatch(code.name):
            raise pickle.UnpicklingError(f"{code.name}, no part of an array of numbers")
        if code.name in ("BINPUT", "LONG_BINPUT") and not 0 <= (argument or 0) <= place:
            raise pickle.UnpicklingError("a place in the memo out of order")
    found = _Unpickler(io.BytesIO(data)).load()
    if not isinstance(found, _Array):
        raise pickle.UnpicklingError("no array")
    return found.made()
