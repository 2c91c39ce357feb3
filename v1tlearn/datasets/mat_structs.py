"""What of MATLAB files is no plain array: fields of structures, and texts in cells.

Of version 5 what is not asked for is passed over; of version 7.3, which is HDF5, only plain numbers
are read. Arrays that stand in a file by themselves are read in `mat_files`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._opening import check_plain
from v1tlearn.datasets.mat_elements import (
    CELLS,
    MATRIX,
    MOST_INFLATED,
    STRUCTURE,
    TEXT,
    Matrix,
    Reader,
    Variable,
    numbers_of,
    read_matrix,
    variables,
)
from v1tlearn.datasets.mat_files import is_hdf5, read_hdf5_numbers, reading_mat
from v1tlearn.datasets.open_files import StoredFile

_MOST_NAMES = 2**16  # bytes of the names of fields
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_SAVE_V7 = "save it in MATLAB with the option '-v7'"


def names_in(path: Path) -> list[str]:
    """Names of the variables of a file.

    Parameters
    ----------
    path : Path
        A MATLAB file.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If it is no such file, or a damaged one.
    """
    check_plain(path)
    with reading_mat(path):
        if not is_hdf5(path):
            with open(path, "rb") as file:
                found = variables(file, check_plain(path).st_size)
                return [variable.matrix.name for variable in found]
        stored = StoredFile(str(path))
        try:
            with stored.lock:
                return [*stored.open().variables, *stored.open().groups]
        finally:
            stored.close()


def read_struct(path: Path, name: str, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of numbers that are fields of one structure; those that are empty left out.

    Parameters
    ----------
    path : Path
        A MATLAB file.
    name : str
        Of the structure.
    fields : sequence of str
        Of those that are there.

    Returns
    -------
    dict of str to ndarray
        Of the shape that MATLAB shows.

    Raises
    ------
    ValueError
        If it is no such file or a damaged one, there is no structure of the name, or a field holds
        no numbers.
    """
    check_plain(path)
    with reading_mat(path):
        if is_hdf5(path):
            found = read_hdf5_numbers(path, name, fields)
        else:
            with _variable(path, name) as variable:
                parts = _fields(variable, fields)
            if math.prod(variable.matrix.shape) != 1:
                raise ValueError(f"{name!r} in it is no single structure")
            found = {field: values for field, (values,) in parts.items()}
        return {field: values for field, values in found.items() if values.size}


def read_marks(path: Path, name: str, field: str) -> np.ndarray | None:
    """Read the truth value that every element of an array of structures has in one field.

    Parameters
    ----------
    path : Path
        A MATLAB file.
    name, field : str
        Of the array of structures, and of the field.

    Returns
    -------
    ndarray of bool (elements,) or None
        None if there is no such array, or it has no such field.

    Raises
    ------
    ValueError
        If it is no such file or a damaged one, a value is missing or is no truth value, or, in
        version 7.3, the field cannot be read.
    """
    if name not in names_in(path):
        _check_whole(path)  # or else a damaged name would be one that is not there
        return None
    with reading_mat(path):
        if is_hdf5(path):
            marks = read_hdf5_numbers(path, name, [field]).get(field)
            if marks is None:  # which is how references look, or as if there were no such field
                raise ValueError(f"{name}.{field} of version 7.3 cannot be read: {_SAVE_V7}")
            values = marks.reshape(-1)
        else:
            with _variable(path, name) as variable:
                parts = _fields(variable, [field])
            if field not in parts:
                return None
            values = np.array([one.item() if one.size == 1 else np.nan for one in parts[field]])
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"{name}.{field} in it holds other values than 0 and 1, or none")
        return values.astype(bool)


def read_texts(path: Path, name: str) -> list[str]:
    """Read the texts of a cell array.

    Parameters
    ----------
    path : Path
        A MATLAB file of version 5.
    name : str
        Of the cell array.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If it is no such file or a damaged one, or has no cells of texts under the name.
    """
    texts = _cells(path, name, _text)[0]
    with reading_mat(path):
        if not all(isinstance(text, str) for text in texts):  # written as nothing, not as ""
            raise ValueError(f"a cell of {name!r} in it is empty, where a text was expected")
    return texts


def read_cells(path: Path, name: str) -> np.ndarray:
    """Read the arrays of numbers in a cell array.

    Parameters
    ----------
    path : Path
        A MATLAB file of version 5.
    name : str
        Of the cell array.

    Returns
    -------
    ndarray of object
        Of the shape that MATLAB shows, each entry an array of the shape that it shows; (0, 0) of
        empty cells.

    Raises
    ------
    ValueError
        If it is no such file or a damaged one, or has no cells of numbers under the name.
    """
    found, shape = _cells(path, name, _numbers)
    out = np.empty(len(found), dtype=object)
    for place, values in enumerate(found):
        out[place] = values
    return out.reshape(shape, order="F")


def _cells(
    path: Path, name: str, read: Callable[[Reader, Matrix, int], Any]
) -> tuple[list[Any], tuple[int, ...]]:
    """Read what is in the cells of a cell array, the first index fastest, and its shape."""
    check_plain(path)
    with reading_mat(path):
        if is_hdf5(path):
            raise ValueError(f"cells of version 7.3 cannot be read: {_SAVE_V7}")
        with _variable(path, name) as variable:
            if variable.matrix.kind != CELLS:
                raise ValueError(f"{name!r} in it holds no cells")
            n = math.prod(variable.matrix.shape)
            _check_room(variable.reader, n, variable.n_content)
            reader, end = variable.reader, variable.n_content
            return [_within(reader, end, name, read) for _ in range(n)], variable.matrix.shape


# --------------------------------------------------------------------------------------- version 5


def _check_whole(path: Path) -> None:
    """Raise ValueError where the checksum of a deflated variable does not fit."""
    if is_hdf5(path):
        return
    with reading_mat(path), open(path, "rb") as file:
        for variable in variables(file, check_plain(path).st_size):
            _leave(variable)


@contextmanager
def _variable(path: Path, name: str) -> Iterator[Variable]:
    """Find a variable; what is read of it must be followed by all else of it."""
    with open(path, "rb") as file:
        names = []
        for variable in variables(file, check_plain(path).st_size):
            if variable.matrix.name == name:
                break
            names.append(variable.matrix.name)
        else:
            raise ValueError(f"there is no {name!r} in it, only {names[:10]}")
        deflated = variable.stream is not None
        if deflated and variable.n_content > MOST_INFLATED * variable.n_bytes:
            raise ValueError(f"{name!r} in it cannot have the shape {variable.matrix.shape}")
        yield variable
        _leave(variable)


def _leave(variable: Variable) -> None:
    """Pass over what is left of a variable, whose checksum has to fit."""
    _pass_over(variable.reader, variable.n_content)
    if variable.stream is not None and not variable.stream.is_whole():
        raise ValueError("it ends within an array")


def _fields(variable: Variable, wanted: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Read numbers of fields, those of every element of an array of structures, where they are."""
    matrix, reader, end = variable.matrix, variable.reader, variable.n_content
    if matrix.kind != STRUCTURE:
        raise ValueError(f"{matrix.name!r} in it is no structure")
    (longest,) = struct.unpack(f"{reader.order}i", reader.element(5, 4))
    raw = reader.element(1, _MOST_NAMES)
    if longest < 1 or len(raw) % longest:
        raise ValueError(f"the fields of {matrix.name!r} in it have no names")
    starts = range(0, len(raw), longest)
    names = [raw[n : n + longest].split(b"\0")[0].decode("ascii") for n in starts]
    _check_room(reader, math.prod(matrix.shape) * len(names), end)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names if name in wanted}
    for _ in range(math.prod(matrix.shape)):
        for name in names:
            if name in found:
                found[name].append(_within(reader, end, f"{matrix.name}.{name}", _numbers))
            else:
                _within(reader, end, name, None)
    return found


def _within(
    reader: Reader, end: int, name: str, read: Callable[[Reader, Matrix, int], Any] | None
) -> Any:
    """Read the next array within another, or pass over it."""
    tag = reader.tag()
    stop = reader.position + tag.n_bytes
    if tag.type != MATRIX or tag.data is not None or stop > end:
        raise ValueError("it ends within an array")
    value: Any = np.empty((0, 0))  # as empty arrays may be written
    if read is not None and tag.n_bytes:
        value = read(reader, read_matrix(reader)._replace(name=name), stop)
    _pass_over(reader, stop)
    return value


def _numbers(reader: Reader, matrix: Matrix, stop: int) -> np.ndarray:
    tag, dtype = numbers_of(reader, matrix)
    data = tag.data if tag.data is not None else _content(reader, tag.n_bytes, stop)
    return np.frombuffer(data, dtype).reshape(matrix.shape, order="F")


def _text(reader: Reader, matrix: Matrix, stop: int) -> str:
    if matrix.kind != TEXT or math.prod(matrix.shape) != max(matrix.shape[1:], default=0):
        raise ValueError(f"{matrix.name!r} in it holds no texts")
    if reader.position == stop:
        return ""
    tag = reader.tag()
    data = tag.data if tag.data is not None else _content(reader, tag.n_bytes, stop)
    if tag.type not in _ENCODINGS:
        raise ValueError(f"{matrix.name!r} in it holds texts of type {tag.type}")
    encoding = _ENCODINGS[tag.type]
    if encoding == "utf-16":
        encoding += {"<": "-le", ">": "-be"}[reader.order]
    return data.decode(encoding)


def _content(reader: Reader, n_bytes: int, stop: int) -> bytes:
    if reader.position + n_bytes > stop:
        raise ValueError("it ends within an array")
    return reader.exactly(n_bytes)


def _check_room(reader: Reader, n_arrays: int, end: int) -> None:
    """Refuse more arrays than there is room for, of which each takes a tag."""
    if 8 * n_arrays > end - reader.position:
        raise ValueError("it ends within an array")


def _pass_over(reader: Reader, stop: int) -> None:
    if reader.position > stop:
        raise ValueError("an array in it is longer than it tells")
    reader.skip(stop - reader.position)
