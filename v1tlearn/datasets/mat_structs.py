"""What of MATLAB files is no plain array: fields of structures, and texts in cells.

Version 5 is parsed by SciPy, of version 7.3, which is HDF5, only what is stored as plain numbers.
Arrays that stand in a file by themselves are read in `mat_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from v1tlearn._opening import check_plain
from v1tlearn.datasets.mat_files import is_hdf5, read_hdf5_numbers, reading_mat
from v1tlearn.datasets.netcdf import StoredFile

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
            return [name for name, _, _ in scipy.io.whosmat(path)]
        file = StoredFile(str(path))
        try:
            with file.lock:
                return [*file.open().variables, *file.open().groups]
        finally:
            file.close()


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
            struct = _variable(path, name)
            if struct.dtype.names is None or struct.size != 1:
                raise ValueError(f"{name!r} in it is no single structure")
            found = {f: struct[f].item() for f in fields if f in struct.dtype.names}
        for field, values in found.items():
            if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
                raise ValueError(f"{name}.{field} in it is no array of numbers")
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
        return None
    with reading_mat(path):
        if is_hdf5(path):
            marks = read_hdf5_numbers(path, name, [field]).get(field)
            if marks is None:  # which is how references look, or as if there were no such field
                raise ValueError(f"{name}.{field} of version 7.3 cannot be read: {_SAVE_V7}")
            values = marks.reshape(-1)
        else:
            structs = _variable(path, name)
            if structs.dtype.names is None:
                raise ValueError(f"{name!r} in it is no structure")
            if field not in structs.dtype.names:
                return None
            values = np.array([_number(one) for one in structs[field].reshape(-1)])
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
    check_plain(path)
    with reading_mat(path):
        if is_hdf5(path):
            raise ValueError(f"cells of version 7.3 cannot be read: {_SAVE_V7}")
        cells = [np.atleast_1d(one) for one in _variable(path, name).reshape(-1)]
        if any(one.dtype.kind != "U" or one.size > 1 for one in cells):
            raise ValueError(f"{name!r} in it holds no texts")
        return [str(one[0]) if one.size else "" for one in cells]


def _variable(path: Path, name: str) -> np.ndarray:
    found = scipy.io.loadmat(path, variable_names=[name])
    if name not in found:
        raise ValueError(f"there is no {name!r} in it, only {names_in(path)[:10]}")
    return found[name]


def _number(value: Any) -> float:
    """A single number; NaN for anything else."""
    one = isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "biuf"
    return float(value.item()) if one else np.nan
