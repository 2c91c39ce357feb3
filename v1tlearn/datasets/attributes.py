"""What a netCDF file can hold, and attributes in it, so that they come back as they were.

Attributes that netCDF, HDF5 or xarray would change, or take for their own, stand as JSON in one
more attribute; the others stand as they are, for any reader.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.indexes import PandasMultiIndex

from v1tlearn._opening import json_object

NOTES = "v1tlearn_attributes"  # of attributes that stand there, or came as another type
COORDINATES = "v1tlearn_coordinates"  # of a group: those that xarray cannot mark
DTYPE = "v1tlearn_dtype"  # of dates, which are numbers in a file

# Names that netCDF or xarray give a meaning of their own: what they do to values is not undone.
_RESERVED = {"_FillValue", "missing_value", "scale_factor", "add_offset", "coordinates"}
# Names that they, or HDF5, take away, beside all that start with an underscore.
_TAKEN = {
    NOTES, COORDINATES, DTYPE, "calendar", "dtype", "least_significant_digit", "grid_mapping",
    "bounds", "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS",
}  # fmt: skip
_NUMBERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
_LONGEST_NAME = 250  # bytes of UTF-8
_LONGEST_TEXT = 30_000  # characters that surely fit where attributes stand


def packed(attrs: Mapping[str, Any], dtype: np.dtype | None = None) -> dict[str, Any]:
    """Give attributes as they are written, of a variable of some dtype, or of a group."""
    native: dict[str, Any] = {}
    notes: dict[str, list] = {}
    for name, value in attrs.items():
        kind, plain = _kind(value)
        if not (_is_free(name, value, dtype) and _stays(value)):
            notes[name] = [kind, plain]
            continue
        native[name] = value
        if kind in ("int", "float", "list", "tuple") or (kind[:5] == "array" and value.size == 1):
            notes[name] = [kind]  # a file gives numbers as those of NumPy, lists as arrays
    return native | ({NOTES: json.dumps(notes)} if notes else {})


def unpacked(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Give attributes as they were, of what `packed` gave."""
    attrs = dict(attrs)
    for name, (kind, *value) in json_object(attrs.pop(NOTES, "{}")).items():
        if value or name in attrs:  # others may have removed it since
            attrs[name] = _restored(kind, value[0] if value else attrs[name])
    return attrs


def packed_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Give a dataset whose variables xarray can write so that `unpacked` gives them back."""
    dataset = dataset.copy()
    for variable in dataset.variables.values():
        variable.attrs = packed(variable.attrs, variable.dtype)
        if variable.dtype.kind == "M":
            variable.attrs[DTYPE] = variable.dtype.str
    # xarray marks coordinates in one text, where spaces part them.
    spaced = [name for name in dataset.coords if " " in str(name) and name not in dataset.dims]
    dataset.attrs = packed(dataset.attrs) | ({COORDINATES: json.dumps(spaced)} if spaced else {})
    return dataset.reset_coords(spaced)


def unpacked_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Give a dataset as it was, of what xarray reads of `packed_dataset`."""
    attrs = dict(dataset.attrs)
    dataset = dataset.set_coords(json.loads(attrs.pop(COORDINATES, "[]")))
    dataset.attrs = unpacked(attrs)
    for name, variable in dataset.variables.items():
        attrs = dict(variable.attrs)
        dtype = attrs.pop(DTYPE, variable.dtype)  # of dates, whose resolution xarray takes
        variable.attrs = unpacked(attrs)
        if dtype != variable.dtype:
            dataset = dataset.assign({name: variable.astype(dtype)})
    return dataset


def _kind(value: Any) -> tuple[str, Any]:
    """Give the type of an attribute as text, and its value as JSON."""
    if isinstance(value, np.ndarray):
        return f"array{value.ndim}:{value.dtype.str}", value.tolist()
    if isinstance(value, np.number):
        return f"scalar:{value.dtype.str}", value.item()
    if isinstance(value, list | tuple):
        plain = [item.item() if isinstance(item, np.generic) else item for item in value]
        return type(value).__name__, plain
    kind = next(kind for kind in (str, int, float) if isinstance(value, kind))
    return kind.__name__, kind(value)


def _restored(kind: str, value: Any) -> Any:
    kind, _, dtype = kind.partition(":")
    if dtype and dtype[1:] not in _NUMBERS:
        raise ValueError(f"an attribute has the unknown dtype {dtype}")
    if kind == "scalar":
        return np.dtype(dtype).type(value)
    if kind == "array0":
        return np.array(value, dtype)
    if kind in ("str", "int", "float"):
        return {"str": str, "int": int, "float": float}[kind](value)
    items = value if isinstance(value, list) else np.atleast_1d(value).tolist()
    return {"list": list, "tuple": tuple}.get(kind, lambda x: np.array(x, dtype))(items)


def _is_free(name: str, value: Any, dtype: np.dtype | None) -> bool:
    """Whether a name has no meaning to others."""
    if name == "units" and (dtype is None or dtype.kind in "mM" or "since" in str(value)):
        return False  # xarray reads numbers as dates by it
    return bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name)) and name not in _TAKEN


def _stays(value: Any) -> bool:
    """Whether a file gives back the same value, if perhaps as another type."""
    if isinstance(value, str):
        return 0 < len(value) < _LONGEST_TEXT and _is_text(value)
    if isinstance(value, list | tuple):
        return (
            len(value) < _LONGEST_TEXT // 8
            and len({type(item) for item in value}) == 1
            and all(map(_stays, value))
        )
    if isinstance(value, np.ndarray | np.number):
        return value.dtype.str[1:] != "f2" and value.size < _LONGEST_TEXT // 8
    return isinstance(value, float) or -(2**63) <= value < 2**63  # which NumPy makes of integers


def _is_text(value: Any) -> bool:
    """Whether it is text that the library holds, to which one ends at the first zero."""
    return isinstance(value, str) and "\0" not in value and _surrogates.search(value) is None


_surrogates = re.compile("[\ud800-\udfff]")  # halves of characters, which have no UTF-8


# ------------------------------------------------------------------------------------ what it holds


def check_fits(mouse: str, dataset: xr.Dataset) -> None:
    """Raise, naming mouse and variable, where a file would not give back what it is given."""
    if not _can_be_named(mouse):
        raise ValueError(
            f"mouse {mouse!r}: netCDF cannot name a group so; expected an id {_NAMES}: rename the "
            "mouse"
        )
    check_attrs(f"mouse {mouse!r}", dataset.attrs)
    for name in (*dataset.variables, *dataset.dims):
        if not _can_be_named(name):
            raise ValueError(
                f"mouse {mouse!r}, {name!r}: netCDF cannot name a variable or dimension so; "
                f"expected a text {_NAMES}: rename it"
            )
    for name, index in dataset.xindexes.items():
        if isinstance(index, PandasMultiIndex):
            raise ValueError(
                f"mouse {mouse!r}, {name}: netCDF cannot hold a MultiIndex; make plain coordinates "
                f"of its levels with dataset.reset_index({index.dim!r})"
            )
    for name, variable in dataset.variables.items():
        check_attrs(f"mouse {mouse!r}, {name}", variable.attrs)
        _check_values(f"mouse {mouse!r}, {name}", variable)


_NAMES = (
    "that starts with a letter, a digit or an underscore, holds no slash and no control "
    f"characters, does not end in a space, is at most {_LONGEST_NAME} bytes long and, where it has "
    "accents, is in the form NFC (unicodedata.normalize)"
)


def _can_be_named(name: Any) -> bool:
    return (
        isinstance(name, str)
        and re.match(r"\w|[^\x00-\x7f]", name) is not None
        and re.search(r"[\x00-\x1f\x7f/]|\s\Z", name) is None
        and _is_text(name)
        and len(name.encode()) <= _LONGEST_NAME
        and unicodedata.is_normalized("NFC", name)
    )


def _check_values(where: str, variable: xr.Variable) -> None:
    dtype = variable.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind in "cV":
        raise ValueError(
            f"{where}: netCDF has no dtype {dtype}; expected numbers, text, truth values or "
            'dates: convert it, e.g. with .astype(str) or .astype("float32")'
        )
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        raise ValueError(
            f'{where}: netCDF has no dtype {dtype}; convert it with .astype("float32")'
        )
    if dtype.kind not in "OTU":
        return
    values = np.asarray(variable.values, dtype=object).ravel()
    bad = [n for n, v in enumerate(values) if not _is_text(v)]
    if bad:
        value = values[bad[0]]
        raise ValueError(
            f"{where}: {len(bad)} of {len(values)} values are no text that netCDF can hold, the "
            f"first, number {bad[0]}, is {value!r} ({type(value).__name__}); expected text without "
            "zero characters, or numbers: convert it, e.g. with .astype(str)"
        )


def check_attrs(where: str, attrs: Mapping[Any, Any]) -> None:
    """Raise where an attribute cannot be written."""
    for name, value in attrs.items():
        if name in _RESERVED:
            raise ValueError(
                f"{where}: the attribute {name!r} has a meaning of its own in netCDF; rename it"
            )
        if not isinstance(name, str) or not _is_attribute(value):
            raise ValueError(
                f"{where}: the attribute {name!r} is {value!r} ({type(value).__name__}), which "
                "netCDF cannot hold; expected, under a text, text, a number, or a list of either: "
                "convert it, e.g. with str() or int(), or delete it"
            )


def _is_attribute(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim <= 1 and value.size > 0 and value.dtype.str[1:] in _NUMBERS
    if isinstance(value, list | tuple) and value:
        return all(isinstance(v, str) for v in value) or all(map(_is_number, value))
    return isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.longdouble):
        return False
    return isinstance(value, int | float | np.integer | np.floating)
