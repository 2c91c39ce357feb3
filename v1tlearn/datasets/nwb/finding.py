"""What an NWB file holds, by name: one of a kind is found, several are listed; rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._values import as_text, plain
from v1tlearn.datasets.nwb.opening import refuse


def name_of(container: Any) -> str:
    """Where something stands in the file, "ophys/DfOverF/plane_1".

    Parameters
    ----------
    container : container of pynwb

    Returns
    -------
    str
    """
    parts: list[str] = []
    while container.parent is not None:
        parts.insert(0, container.name)
        container = container.parent
    return "/".join(parts)


def choose(
    path: Path, what: str, candidates: Mapping[str, Any], wanted: str | None, argument: str
) -> tuple[str, Any]:
    """Give the candidate of a name, or the only one.

    Parameters
    ----------
    path : Path
    what : str
        What is looked for, in errors.
    candidates : mapping of str to container
        By what `name_of` gives.
    wanted : str or None
        A name, or the end of one that no other ends in.
    argument : str
        By which it is chosen, in errors.

    Returns
    -------
    tuple of str and container
    """
    if wanted is None:
        found = list(candidates)
    else:
        ends = [name for name in candidates if name == wanted or name.endswith(f"/{wanted}")]
        found = [wanted] if wanted in candidates else ends
    if len(found) == 1:
        return found[0], candidates[found[0]]
    listed = ", ".join(map(repr, sorted(candidates)))  # a file has no order
    if not candidates:
        refuse(path, f"there are no {what}", f"one, or another {argument}")
    if wanted is None:
        refuse(path, f"there are several {what}, {listed}", f"the name of one: pass {argument}=")
    said = f"fits {', '.join(map(repr, sorted(found)))}" if found else "is not there"
    refuse(path, f"{argument} {wanted!r} {said}; the {what} are {listed}", "the name of one")


def column_of(path: Path, name: str, table: Any, column: str) -> np.ndarray:
    """Read a column of a table that has one label per row.

    Parameters
    ----------
    path : Path
    name : str
        Of the table, for errors.
    table : table of pynwb
    column : str

    Returns
    -------
    ndarray
        Numbers or text.
    """
    from hdmf.common import DynamicTableRegion, EnumData, VectorIndex

    stored = table[column]
    if isinstance(stored, VectorIndex | DynamicTableRegion):  # its numbers count other rows
        told = "lists" if isinstance(stored, VectorIndex) else "rows of another table"
        refuse(path, f"{column} of {name} holds {told}", "one value per row")
    values = np.asarray(stored.data[:])
    if isinstance(stored, EnumData):
        values = np.asarray(stored.elements.data[:])[values]
    if values.shape != (len(table),):
        refuse(path, f"{column} of {name} has the shape {values.shape}", "one value per row")
    return as_text(values, f"{path}: {column} of {name}")


def as_wanted(wanted: Any, argument: str) -> dict[str, list[Any]]:
    """Put what columns are to hold into one form.

    Parameters
    ----------
    wanted : mapping of str to label or list of labels, or None
    argument : str
        By which it is asked for, in errors.

    Returns
    -------
    dict of str to list of labels

    Raises
    ------
    TypeError
        If it is something else.
    """
    if wanted is None:
        return {}
    if not isinstance(wanted, Mapping):
        raise TypeError(f"{argument}={wanted!r}: expected labels by column, {{'quality': 'good'}}.")
    out = {}
    for column, told in wanted.items():
        labels = plain(told, f"{argument}[{column!r}]")
        out[column] = list(labels) if isinstance(labels, list | tuple) else [labels]
        if not all(isinstance(label, str | Real) for label in out[column]):
            raise TypeError(
                f"{argument}[{column!r}]={told!r}: expected a label, or a list of them; of an "
                "array, array.tolist()."
            )
    return out


def rows_where(
    path: Path, name: str, table: Any, wanted: Mapping[str, list[Any]], argument: str = "where"
) -> np.ndarray:
    """Find the rows of a table in which columns hold what is asked for.

    Parameters
    ----------
    path : Path
    name : str
        Of the table, for errors.
    table : table of pynwb
    wanted : mapping of str to list of labels
        For each column labels of which one is there.
    argument : str
        By which it is asked for, in errors.

    Returns
    -------
    ndarray of int
    """
    kept = np.ones(len(table), bool)
    for column, told in wanted.items():
        if column not in table.colnames:
            refuse(path, f"{argument} names {column!r}", f"columns of {name}, {table.colnames}")
        values = column_of(path, name, table, column)
        fit = np.zeros(len(table), bool)
        for label in told:
            found = np.array([value == label for value in values.tolist()], bool)
            if not found.any():
                some = list(dict.fromkeys(values.tolist()))[:5]
                refuse(
                    path,
                    f"{argument} asks for {label!r} in {column} of {name}, where no row holds it",
                    f"what is there, such as {some}",
                )
            fit |= found
        kept &= fit
    if not kept.any():
        refuse(path, f"no row of {name} is left" if wanted else f"{name} is empty", "some")
    return np.flatnonzero(kept)
