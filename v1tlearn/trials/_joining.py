"""Recordings of one mouse, joined along their trials: what must agree, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._equality import same_arrays
from v1tlearn._warn import warn
from v1tlearn.datasets.lazy_rows import Key, LazyRows, is_number
from v1tlearn.datasets.schema import STATISTICS
from v1tlearn.trials._reading import DATA, compact, pixel_coords

_STATISTICS = {f"{name}_{s}" for name in ("stimuli", "behaviors", "responses") for s in STATISTICS}


def join(mouse: str, parts: Sequence[xr.Dataset], numbers: Sequence[int]) -> xr.Dataset:
    """Join recordings of one mouse along the trials."""
    if len(parts) == 1:
        return parts[0]
    parts = [_without_pixel_coords(part) for part in parts]
    differ = _other_statistics(parts)
    parts = [part.drop_vars(differ, errors="ignore") for part in parts]
    first = parts[0]
    for number, part in zip(numbers[1:], parts[1:], strict=True):
        both = (numbers[0], number)
        _check_variables(mouse, both, first, part)
        for name, variable in first.variables.items():
            _check_alike(mouse, both, str(name), variable, part.variables[name])
    if differ:
        warn(
            f"mouse {mouse!r}: {', '.join(differ)} are left out: the parts differ in them, so that "
            "they describe none but their own trials.",
        )
    longest = max(parts, key=lambda part: part.sizes.get("time", 0))
    joined: dict[Any, xr.Variable] = {}
    for name, variable in longest.variables.items():
        variables = [part.variables[name] for part in parts]
        if "trial" not in variable.dims:
            joined[name] = variable
            continue
        if variable.dims[:2] == ("trial", "time"):
            n_frames = longest.sizes["time"]
            variables = [longer(mouse, str(name), one, n_frames) for one in variables]
        joined[name] = along_trials(variables)
    coords = {name: joined.pop(name) for name in first.coords}
    return xr.Dataset(joined, coords, attrs=common_attrs([part.attrs for part in parts]))


def _without_pixel_coords(part: xr.Dataset) -> xr.Dataset:
    """Drop the rows and columns that ``trials["A"]`` adds for plots: they say nothing more."""
    if "stimuli" not in part:
        return part
    bare = part.drop_vars(["height", "width"], errors="ignore")
    added = pixel_coords(bare["stimuli"])
    ours = [
        name
        for name, (_, values, _) in added.items()
        if name in part.coords and same_arrays(part[name].values, values)
    ]
    return part.drop_vars(ours)


def _other_statistics(parts: list[xr.Dataset]) -> list[str]:
    """Statistics that came with the files and are not those of all parts."""
    names = {str(name) for part in parts for name in part.variables if name in _STATISTICS}
    first = parts[0].variables
    return sorted(
        name
        for name in names
        if not all(name in p and _equal(p.variables[name], first[name]) for p in parts)
    )


def _check_variables(
    mouse: str, numbers: tuple[int, int], first: xr.Dataset, part: xr.Dataset
) -> None:
    for one, other, number in ((first, part, numbers[1]), (part, first, numbers[0])):
        only = sorted(str(name) for name in set(one.variables) - set(other.variables))
        if only:
            raise ValueError(
                f"mouse {mouse!r}: part {number} has no {', '.join(only)}, which another part has: "
                f"give every part the same variables, or leave them out, dataset.drop_vars({only})."
            )


def _check_alike(
    mouse: str, numbers: tuple[int, int], name: str, one: xr.Variable, other: xr.Variable
) -> None:
    where = f"mouse {mouse!r}, {name}: part {numbers[0]} and part {numbers[1]}"
    if one.dims != other.dims:
        raise ValueError(f"{where} have the dimensions {one.dims} and {other.dims}.")
    ends = one.dims[:2] == ("trial", "time") or "trial" not in one.dims  # of movies, at `n_frames`
    free = ("trial", "time") if ends else ("trial",)
    sizes = [{d: n for d, n in v.sizes.items() if d not in free} for v in (one, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{where} have the sizes {sizes[0]} and {sizes[1]}; sessions of one mouse are joined "
            "trial by trial, of the same neurons, columns and image size: select what both have, "
            "or name the mice apart."
        )
    if name in DATA and one.dtype != other.dtype:
        raise ValueError(
            f"{where} have the dtypes {one.dtype} and {other.dtype}: convert one, "
            f'dataset.assign({name}=dataset["{name}"].astype("{one.dtype}")).'
        )
    rounded = np.result_type(one.dtype, other.dtype).kind == "f" and "f" not in (
        one.dtype.kind,
        other.dtype.kind,
    )  # int64 and uint64
    if _kind(one.dtype) != _kind(other.dtype) or rounded:
        raise ValueError(
            f"{where} have the dtypes {one.dtype} and {other.dtype}: bring the labels to one kind."
        )
    if one.attrs.get("units") != other.attrs.get("units"):
        raise ValueError(
            f"{where} have the units {one.attrs.get('units')!r} and {other.attrs.get('units')!r}: "
            "bring both to one unit."
        )
    if "trial" in one.dims:
        return
    if "time" in one.dims:
        shorter = {"time": slice(min(one.sizes["time"], other.sizes["time"]))}
        one, other = one.isel(shorter), other.isel(shorter)
    if not _equal(one, other):
        raise ValueError(f"{where} differ{_first_difference(one, other)}")


def _kind(dtype: np.dtype) -> str:
    """Numbers, text or truth: what can be told apart without a conversion."""
    return {"i": "integer", "u": "integer", "U": "text", "T": "text", "O": "text"}.get(
        dtype.kind, dtype.kind
    )


def _first_difference(one: xr.Variable, other: xr.Variable) -> str:
    kinds = {"neuron": "neurons", "behavior": "columns", "time": "times of frames"}
    hint = next((kinds[dim] for dim in one.dims if dim in kinds), "values")
    advice = f": the same mouse is joined with the same {hint} in the same order."
    if one.ndim != 1:
        return advice
    values = one.values, other.values
    differ = np.flatnonzero([a != b for a, b in zip(*(v.tolist() for v in values), strict=True)])
    place = int(differ[0])
    return (
        f" at {len(differ)} of {len(values[0])} places, first at {place}: "
        f"{values[0][place].item()!r} and {values[1][place].item()!r}{advice}"
        if hasattr(values[0][place], "item")
        else f" first at place {place}: {values[0][place]!r} and {values[1][place]!r}{advice}"
    )


def _equal(one: xr.Variable, other: xr.Variable) -> bool:
    return one is other or one.equals(other)


def along_trials(variables: list[xr.Variable]) -> xr.Variable:
    """Arrays of equal sizes one after the other; what lies in files stays there."""
    attrs = common_attrs([variable.attrs for variable in variables])
    dims = variables[0].dims
    if all(variable._in_memory for variable in variables):
        values = np.concatenate([np.asarray(variable.values) for variable in variables])
        return xr.Variable(dims, values, attrs)
    sources = [variable.encoding.get("source") for variable in variables]
    return xr.Variable(
        dims,
        indexing.LazilyIndexedArray(_Joined(variables)),
        attrs,
        encoding={"sources": tuple(source for source in sources if source)},
    )


def longer(mouse: str, name: str, variable: xr.Variable, n_frames: int) -> xr.Variable:
    """Movies (trial, time, ...) that end after as many frames, padded behind their own.

    With NaN; stimuli and behaviour of whole numbers with 0. What lies in files stays there.

    Raises
    ------
    ValueError
        If they are whole numbers of another kind, in which nothing says that no frame is there.
    """
    n_own = variable.sizes["time"]
    if n_own == n_frames:
        return variable
    if variable.dtype.kind != "f" and name not in ("stimuli", "behaviors"):
        raise ValueError(
            f"mouse {mouse!r}, {name}: movies of up to {n_own} and of up to {n_frames} frames are "
            f"joined, and the shorter ones end in NaN, which {variable.dtype} has not: convert "
            'them with .astype("float32").'
        )
    padded = _Padded(variable, n_frames)
    if variable._in_memory:
        return xr.Variable(
            variable.dims,
            padded[indexing.BasicIndexer((slice(None),) * variable.ndim)],
            variable.attrs,
        )
    lazy = indexing.LazilyIndexedArray(padded)
    return xr.Variable(variable.dims, lazy, variable.attrs, encoding=variable.encoding)


def common_attrs(attrs: Sequence[dict]) -> dict[Any, Any]:
    """Attributes that all parts share: others would not be true of all trials."""
    first, *others = attrs
    return {
        name: value
        for name, value in first.items()
        if all(name in a and same_arrays(a[name], value) for a in others)
    }


class _Joined(LazyRows):
    """Arrays one after the other along the first dimension, read where they are indexed."""

    def __init__(self, variables: Sequence[xr.Variable]) -> None:
        self._variables = tuple(variables)
        self._starts = np.cumsum([0, *(len(variable) for variable in variables)])
        self.shape = (int(self._starts[-1]), *variables[0].shape[1:])
        self.dtype = np.result_type(*(variable.dtype for variable in variables))

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        out: np.ndarray | None = None
        for number in np.unique(part_of):
            places = np.flatnonzero(part_of == number)
            own = rows[places] - self._starts[number]
            values = np.asarray(self._variables[number][(compact(own), *others)])
            if out is None:
                out = np.empty((len(rows), *values.shape[1:]), self.dtype)
            out[places] = values
        if out is None:
            out = np.asarray(self._variables[0][(np.arange(0), *others)])
        return out


class _Padded(LazyRows):
    """Movies with frames behind their last ones, read where they are indexed."""

    def __init__(self, variable: xr.Variable, n_frames: int) -> None:
        self._variable, self._n_own = variable, variable.shape[1]
        self.shape = (len(variable), n_frames, *variable.shape[2:])
        self.dtype = variable.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        frames = np.atleast_1d(np.arange(self.shape[1])[others[0]])
        known = frames < self._n_own
        own = compact(frames[known]) if known.any() else slice(0)
        values = np.asarray(self._variable[(compact(rows), own, *others[1:])])
        shape = (len(rows), len(frames), *values.shape[2:])
        out = np.full(shape, np.nan if self.dtype.kind == "f" else 0, self.dtype)
        out[:, known] = values
        return out[:, 0] if is_number(others[0]) else out
