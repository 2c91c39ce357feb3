"""How much a netCDF file may tell of: no more than its own bytes can have been packed from.

HDF5 makes up what was never written, so a file of some kilobytes may tell of terabytes, which would
be set aside. Imports nothing of the package, since the process that opens a file first, in
`checksums`, runs this file alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

SMALL = 2**26  # bytes that any file may tell of
MOST_INFLATED = 1032  # bytes that deflate can make of one
MOST_FOLDED = 200  # ... and that labels, and whole chunks, may take for each of the file


def told_bytes(variable: Any) -> int:
    """Bytes that a variable of a file takes in memory, texts of any length as their places."""
    return math.prod(variable.shape) * _item_bytes(variable)


def _item_bytes(variable: Any) -> int:
    return int(getattr(variable.dtype, "itemsize", 8))


def check_variables(group: Any, n_file: int) -> None:
    """Check, before anything is read, what all variables of a file tell of.

    Parameters
    ----------
    group : netCDF4.Dataset
        The file, or a group of it.
    n_file : int
        Bytes of the file.

    Raises
    ------
    ValueError
        If a variable, or a chunk, which is read as a whole, is larger than the file can hold.
    """
    for name, variable in group.variables.items():
        where = f"{group.path.rstrip('/')}/{name}"
        _check(f"{where} of shape {variable.shape}", told_bytes(variable), MOST_INFLATED, n_file)
        chunk = variable.chunking()
        if isinstance(chunk, list):
            size = math.prod(chunk) * _item_bytes(variable)
            _check(f"{where} in chunks of {chunk}", size, MOST_FOLDED, n_file)
    for child in group.groups.values():
        check_variables(child, n_file)


def check_labels(variables: Iterable[Any], n_file: int) -> None:
    """Check what is about to be read into memory, all variables but those that stay in the file.

    Parameters
    ----------
    variables : iterable of netCDF4.Variable
    n_file : int
        Bytes of the file.

    Raises
    ------
    ValueError
        If together they take far more than the file has.
    """
    _check("what is not read trial by trial", sum(map(told_bytes, variables)), MOST_FOLDED, n_file)


def _check(what: str, n_told: int, most: int, n_file: int) -> None:
    allowed = SMALL + most * n_file
    if n_told > allowed:
        raise ValueError(
            f"{what} would take {n_told} bytes, which a file of {n_file} bytes cannot hold; "
            f"expected at most {allowed}"
        )
