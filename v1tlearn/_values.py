"""Arrays and labels of users as NumPy arrays: the one door through which they come in.

Nothing that a mask, a dimension or a label says is lost here: it is used, or refused by name. What
the values mean, and which shape they need, is known to the callers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

_SHOWN = 5  # trials, neurons or labels that an error names

# Dimensions of recordings: an array that bears one of them says where it belongs.
_DIMENSIONS = frozenset(
    {"trial", "time", "channel", "height", "width", "behavior", "neuron", "axis", "row", "column"}
)
_ALSO_CALLED = {"unit": "neuron", "cell": "neuron", "sample": "trial", "presentation": "trial"}
_ALSO_CALLED |= {"y": "height", "x": "width", "axi": "axis", "axe": "axis"}  # less a plural's s
_SELECT = "Select the same {}s in both; where the labels mean nothing, give the numbers alone."
_SPELT_MISSING = ("", "nan", "none", "nat", "<na>")  # as text that was made of nothing reads


def as_array(values: Any, name: str, *, of: str = "trial", expected: str = "numbers") -> np.ndarray:
    """Real numbers, of which none is masked or missing.

    `name` begins the errors, `of` is what the first axis counts.
    """
    array, absent = _read(values, name, expected)
    if absent is not None:
        places = np.unique(np.nonzero(np.atleast_1d(absent))[0])
        raise ValueError(
            f"{name}: {int(absent.sum())} of {absent.size} values are masked or missing, those of "
            f"{first_few(places, of)}: fill them, or leave these {of}s out. Only responses may "
            "lack values."
        )
    return array


def as_responses(values: Any, name: str) -> np.ndarray:
    """Real numbers, of which those that are masked or missing become NaN, "not recorded"."""
    array, absent = _read(values, name)
    if absent is None:
        return array
    return np.where(absent, np.nan, array.astype(np.result_type(array.dtype, np.float32)))


def as_ids(values: Any, name: str, *, of: str = "trial", blank: bool = False) -> np.ndarray:
    """Labels, text or numbers, of which none is missing; bytes are read as text.

    Labels of several types become text, as they are compared, and so do numbers that no one type
    of numbers holds apart. A whole number is one label, however it is written. With `blank` empty
    text is a label.
    """
    if type(values) is np.ndarray and values.dtype.kind in "iu":
        return values
    labels, shape = _checked_labels(values, name, of, blank)
    return _of_one_type(labels, name).reshape(shape)


def as_names(values: Any, name: str, *, of: str = "mouse", blank: bool = False) -> list[str]:
    """The text of each of several labels, of which none is missing; `blank` allows empty ones."""
    return [str(label) for label in _checked_labels(list(values), name, of, blank)[0]]


def as_text(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels of which bytes, as files hold them, are text."""
    if labels.dtype.kind not in "SO" or not any(isinstance(v, bytes) for v in labels.flat):
        return labels
    decoded = np.array([_decoded(label, name) for label in labels.flat], dtype=object)
    return decoded.reshape(labels.shape).astype(str if labels.dtype.kind == "S" else object)


def as_dims(values: Any, dims: Sequence[str], name: str) -> Any:
    """A labelled array with its dimensions under these names in this order; others as they came.

    Dimensions with names that recordings do not know go by their place.
    """
    if not isinstance(values, xr.DataArray) or values.dims == tuple(dims):
        return values
    known = {_known_dimension(dim): dim for dim in values.dims}
    if set(known) == set(dims) and len(known) == values.ndim:
        values = values.transpose(*(known[dim] for dim in dims))
        for dim in dims:
            if known[dim] != dim:  # unless a coordinate of that name labels it already
                rename = values.swap_dims if dim in values.coords else values.rename
                values = rename({known[dim]: dim})
        return values
    places = dict(enumerate(dims))
    if any(d in _DIMENSIONS and places.get(place) != d for place, d in enumerate(known)):
        raise ValueError(
            f"{name} has the dimensions {values.dims}: expected {tuple(dims)}. Rename or transpose "
            "them, or give the numbers alone, .values."
        )
    return values


def _known_dimension(dim: Any) -> str:
    name = str(dim).lower().removesuffix("s")
    return _ALSO_CALLED.get(name, name)


def labels_along(values: Any, dim: str, name: str | None = None) -> pd.Index | None:
    """Labels that an array of xarray, or a table of pandas, bears along one dimension.

    Those of the dimension itself, or, with `name`, others that lie along it.
    """
    if isinstance(values, xr.DataArray):
        label = values.coords.get(name or dim)
        index = None if label is None or label.dims != (dim,) else label.to_index()
    elif name is None and isinstance(values, pd.DataFrame | pd.Series):
        index = values.index if dim == "trial" else getattr(values, "columns", None)
    else:
        return None
    return index.map(str) if isinstance(index, pd.MultiIndex) else index


def aligned_vectors(
    vectors: Sequence[Any], name: str, places: Sequence[int] | None = None
) -> tuple[list[np.ndarray], pd.Index | None]:
    """One vector (neurons,) per trial, in the order of the first that bears labels; and these."""
    rows, wanted, first = [], None, 0
    for place, vector in zip(places if places is not None else count(), vectors, strict=False):
        found = _labels_of_vector(vector)
        if wanted is None:
            wanted, first = found, place
        told = f"{name}: the vectors of trials {first} and {place} hold different neurons"
        order = order_like(wanted, found, told, names=(f"trial {first}", f"trial {place}"))
        row = as_responses(vector, name)
        rows.append(row if order is None else row[order])
    return rows, wanted


def _labels_of_vector(vector: Any) -> pd.Index | None:
    if isinstance(vector, xr.DataArray):
        return labels_along(vector, str(vector.dims[0])) if vector.ndim == 1 else None
    return labels_along(vector, "trial") if isinstance(vector, pd.Series) else None


def is_count(labels: pd.Index) -> bool:
    """Whether labels are those with which pandas counts what nobody labelled."""
    return isinstance(labels, pd.RangeIndex) and labels.start == 0 and labels.step == 1


def order_like(
    wanted: pd.Index | None,
    found: pd.Index | None,
    told: str,
    of: str = "neuron",
    names: tuple[str, str] = ("the one", "the other"),
) -> np.ndarray | None:
    """Where the wanted labels stand among those found; None where nothing has to be moved.

    Numbers equal text that reads alike. The numbers with which pandas counts rows and columns that
    nobody labelled tell nothing about other labels. `told` begins the error.
    """
    if wanted is None or found is None or wanted.equals(found):
        return None
    ours, theirs, counted = wanted, found, is_count(wanted) or is_count(found)
    if not all(pd.api.types.is_numeric_dtype(labels.dtype) for labels in (ours, theirs)):
        ours, theirs = ours.astype(str), theirs.astype(str)
    if ours.equals(theirs):
        return None
    if ours.is_unique and theirs.is_unique and len(ours) == len(theirs):
        places = theirs.get_indexer(ours)
        if (places >= 0).all():
            return places
    if counted:
        return None
    if len(ours) != len(theirs):
        _refuse_other_number(ours, theirs, told, of, names)
        return None
    place = int(np.argmax(ours != theirs))
    raise ValueError(
        f"{told}: number {place} is {of} {wanted[place]} in {names[0]} and {found[place]} in "
        f"{names[1]}. {_SELECT.format(of)}"
    )


def _refuse_other_number(
    ours: pd.Index, theirs: pd.Index, told: str, of: str, names: tuple[str, str]
) -> None:
    """Name labels of which only one side knows."""
    for here, there, name in ((ours, theirs, names[0]), (theirs, ours, names[1])):
        alone = [str(label) for label in here[~here.isin(there)]]
        if alone:
            more = ", ..." if len(alone) > _SHOWN else ""
            raise ValueError(
                f"{told}: the {of}s {', '.join(alone[:_SHOWN])}{more} are in {name} alone. "
                f"{_SELECT.format(of)}"
            )


def shape_of(values: Any) -> tuple[int, ...] | None:
    """Shape of an array or of nested lists; None where these are ragged, or there is none."""
    with suppress(ValueError, TypeError):
        shape = np.shape(values)
        return shape if isinstance(shape, tuple) else None  # the class of arrays has another one
    return None


def holds_mask(values: Any) -> bool:
    """Whether values are masked arrays of NumPy, or a list of such."""
    if isinstance(values, list | tuple):
        return any(holds_mask(entry) for entry in values)
    return isinstance(values, np.ma.MaskedArray)


def plain(value: Any, name: str = "a parameter") -> Any:
    """A number, truth value or text of Python where one of NumPy came, in tuples and lists, too."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name} is {value!r}, of which a value is masked: give the value itself.")
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(plain(entry, name) for entry in value)
    return value


def as_whole(value: Any, name: str, least: int = 1, *, more: str = "") -> int:
    """A whole number that is not below another; `more` tells what else would do."""
    number = plain(value, name)
    if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
        raise ValueError(f"{name}={value!r}: expected {more}a whole number from {least} on.")
    return int(number)


def as_sides(value: Any, name: str) -> tuple[int, int]:
    """Two whole numbers from 1 on, as of a height and a width."""
    sides = whole_numbers(value)
    if sides is None or len(sides) != 2:
        raise ValueError(f"{name} is {value!r}: expected two whole numbers from 1 on.")
    return sides[0], sides[1]


def whole_numbers(values: Any) -> tuple[int, ...] | None:
    """Several whole numbers from 1 on; None where they are something else."""
    if not isinstance(values, tuple | list) and np.ndim(values) != 1:
        return None
    numbers = tuple(plain(number) for number in values)
    return numbers if all(type(n) is int and n >= 1 for n in numbers) else None


def as_flag(value: Any, name: str) -> bool:
    """A truth value; text, numbers and None are none."""
    flag = plain(value, name)
    if not isinstance(flag, bool):
        raise TypeError(f"{name} is {value!r}, expected True or False.")
    return flag


def as_number(value: Any, name: str, minimum: float = -math.inf) -> float:
    """One number that is not below `minimum` and not NaN."""
    number = plain(value, name)
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} is {value!r}, expected one number.")
    if not float(number) >= minimum:  # not so NaN
        wanted = "a number" if minimum == -math.inf else f"a number from {minimum:g} on"
        raise ValueError(f"{name} is {value!r}, expected {wanted}.")
    return float(number)


def without_addresses(text: str) -> str:
    """What an object says of itself in any process: without its place in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def without_flips(array: np.ndarray) -> np.ndarray:
    """The same values where torch can read them: it knows no negative strides."""
    return array.copy() if any(stride < 0 for stride in array.strides) else array


def first_few(places: Sequence[int] | np.ndarray, of: str) -> str:
    """Name the first of several trials or neurons by number or label."""
    listed = ", ".join(map(str, places[:_SHOWN]))
    return f"{of}{'s' * (len(places) > 1)} {listed}{', ...' * (len(places) > _SHOWN)}"


# ------------------------------------------------------------------------------------------ numbers


def _read(
    values: Any, name: str, expected: str = "numbers"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers, and which of them are masked or missing, where any are."""
    if isinstance(values, list | tuple):
        values = _stacked(values, name)
    absent = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    try:
        array = np.asarray(values)
    except (TypeError, RuntimeError) as error:  # a tensor with gradients, or of a type of its own
        kind = type(values).__name__
        raise TypeError(f"{name} is a {kind} that NumPy cannot read: {error}") from error
    if array.dtype == object:
        array, empty = _numbers_of(array, name)
        absent = empty if absent is None else absent | empty
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}: expected {expected}.")
    return array, absent if absent is not None and absent.any() else None


def _stacked(values: list | tuple, name: str) -> np.ndarray:
    try:
        if not holds_mask(values):
            return np.asarray(values)
        if any(entry is np.ma.masked for entry in values):
            return _objects(values)
        entries = [_stacked(e, name) if isinstance(e, list | tuple) else e for e in values]
        return np.ma.stack([np.ma.asarray(entry) for entry in entries])
    except ValueError as error:
        shapes = list(dict.fromkeys(str(shape_of(entry) or "ragged") for entry in values))
        raise ValueError(
            f"{name} is a ragged list: its {len(values)} entries have the shapes "
            f"{', '.join(shapes[:_SHOWN])}: expected all of one shape."
        ) from error


def _numbers_of(array: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that came as objects, as tables of mixed columns give them."""
    out = np.full(array.shape, np.nan)
    empty = np.zeros(array.shape, dtype=bool)
    for place, value in np.ndenumerate(array):
        if value is None or value is pd.NA or value is pd.NaT or value is np.ma.masked:
            empty[place] = True
        elif isinstance(value, Real | np.bool_):
            out[place] = value
        else:
            raise TypeError(
                f"{name} has dtype object and holds a {type(value).__name__}: expected numbers."
            )
    return out, empty


# ---------------------------------------------------------------------------------------------- ids


def _checked_labels(
    values: Any, name: str, of: str, blank: bool = False
) -> tuple[list[Any], tuple[int, ...]]:
    """Labels in a row, bytes as text, and the shape in which they came."""
    labels = _objects(values)
    absent = np.array([_is_missing_id(label, blank) for label in labels.flat], dtype=bool)
    if isinstance(values, np.ma.MaskedArray):
        absent |= np.ma.getmaskarray(values).ravel()
    if absent.any():
        raise ValueError(
            f"{name}: {int(absent.sum())} of {absent.size} ids are missing (None, NaN, masked or "
            f"blank), those of {first_few(np.flatnonzero(absent), of)}: all of them would count as "
            "one id. Give each an id, or leave them out."
        )
    return [_decoded(label, name) for label in labels.flat], labels.shape


def _objects(values: Any) -> np.ndarray:
    """Labels as they are: NumPy would write a NaN beside text as text."""
    if isinstance(values, list | tuple) and not any(isinstance(v, list) for v in values):
        out = np.empty(len(values), dtype=object)
        for place, value in enumerate(values):
            out[place] = value
        return out
    return np.asarray(values, dtype=object)


def _is_missing_id(label: Any, blank: bool) -> bool:
    if isinstance(label, bytes):
        label = label.decode("utf-8", "replace")
    if isinstance(label, str):
        if blank and label == "":
            return False
        return label.strip().casefold() in _SPELT_MISSING or label.strip() == "NA"
    missing = np.ma.is_masked(label) or pd.isna(label)
    return missing is True or missing is np.True_


def _of_one_type(labels: list[Any], name: str) -> np.ndarray:
    """Labels as an array in which those that differ stay apart."""
    labels = [v[()] if isinstance(v, np.ndarray) and v.ndim == 0 else v for v in labels]
    truths = sum(isinstance(label, bool | np.bool_) for label in labels)
    numbers = sum(isinstance(label, Real) for label in labels if not isinstance(label, bool))
    if truths and numbers:
        raise TypeError(
            f"{name} holds {truths} truth values beside {numbers} numbers, and True equals 1: give "
            "labels of one type."
        )
    if all(np.ndim(label) == 0 for label in labels):
        out = np.asarray(labels)
        if out.dtype.kind == "f" and any(
            isinstance(label, Integral) and int(label) != value
            for label, value in zip(labels, out.tolist(), strict=True)
        ):
            return np.array(list(map(_label_text, labels)))
        if out.dtype.kind not in "UO" or all(isinstance(label, str) for label in labels):
            return out
    return np.array(list(map(_label_text, labels)))


def _label_text(label: Any) -> str:
    whole = isinstance(label, Real) and not isinstance(label, bool) and label == label // 1
    return str(int(label)) if whole else str(label)


def _decoded(label: Any, name: str) -> Any:
    if not isinstance(label, bytes):
        return label
    try:
        return label.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: the id {label!r} is bytes that are no text in UTF-8: decode it, or give "
            "numbers."
        ) from error
