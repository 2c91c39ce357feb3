"""Selecting trials and neurons by their labels: from what callers write to positions.

Pure functions of labels; views apply what they answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._equality import same_arrays
from v1tlearn._values import as_array, as_ids, holds_mask

_SHOWN = 20  # labels that an error lists


def pick_trials(name: str, wanted: Any, have: np.ndarray) -> np.ndarray:
    """Mask of the trials that bear one of the wanted labels."""
    wanted = _as_list(wanted)
    _refuse_truth_values(name, wanted, have)
    mask, missing = _matching(wanted, have)
    if missing:
        present = sorted(set(have.tolist()) - {""})
        raise ValueError(
            f"no trial with {name} {', '.join(map(repr, missing))}: "
            + (f"these trials have {_some(present)}." if present else f"there is no {name} here.")
        )
    return mask


def pick_neurons(
    wanted: Any, labels: Mapping[str, Any], ids: Mapping[str, np.ndarray], coords: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Positions of the wanted neurons among those of each mouse."""
    if isinstance(wanted, slice):
        raise TypeError(
            "neurons are selected by their ids, by a mask or by a label such as area=..., not by a "
            "slice: give the ids, such as list(range(start, stop))."
        )
    found = {} if wanted is None else _by_neuron(wanted, ids)
    for name, values in labels.items():
        masks = _by_label(name, values, {mouse: coords[mouse].get(name) for mouse in ids})
        for mouse, mask in masks.items():
            picked = found.get(mouse, np.arange(len(mask)))
            found[mouse] = picked[mask[picked]]
    empty = [mouse for mouse, picked in found.items() if not len(picked)]
    if empty:
        rest = [mouse for mouse in ids if mouse not in empty]
        raise ValueError(
            f"{'mouse' if len(empty) == 1 else 'mice'} {', '.join(map(repr, empty))} would be left "
            "without neurons: "
            + (
                f"select the mice, too: sel(mouse_id={rest}, ...)."
                if rest
                else "no neuron fits all that was asked for."
            )
        )
    return found


def units_differ(expected: np.ndarray | None, found: np.ndarray | None) -> int | None:
    """Compare the unit ids of as many neurons; numbers equal text that reads alike."""
    if expected is None or found is None or len(expected) != len(found):
        return None
    if same_arrays(expected, found):
        return None
    pairs = zip(expected, found, strict=True)
    return next((k for k, (a, b) in enumerate(pairs) if a != b and str(a) != str(b)), None)


def _by_neuron(wanted: Any, ids: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    wanted = _of_named_mouse(_once(wanted), list(ids))
    per_mouse = _per_mouse(wanted, list(ids))
    if per_mouse is not None:
        return {mouse: _of_one(mouse, part, ids[mouse]) for mouse, part in per_mouse.items()}
    if _is_mask(wanted):
        if len(ids) > 1:
            raise ValueError(
                f"one mask of neurons came for the mice {list(ids)}: give one per mouse, "
                f'neuron={{"{next(iter(ids))}": mask, ...}}, or select the mouse first.'
            )
        return {mouse: _of_one(mouse, wanted, have) for mouse, have in ids.items()}
    found = {mouse: _find(mouse, wanted, have) for mouse, have in ids.items()}
    missing = [w for w in _as_list(wanted) if all(w in missed for _, missed in found.values())]
    if missing:
        have = "; ".join(f"mouse {mouse!r} has {_span(i)}" for mouse, i in ids.items())
        raise ValueError(f"no neuron with the id {_some(missing)}: {have}.")
    return {mouse: picked for mouse, (picked, _) in found.items()}


def _once(wanted: Any) -> Any:
    """The same in a form that can be read once per mouse, labelled where it bears labels."""
    if isinstance(wanted, Mapping):
        return {mouse: _once(part) for mouse, part in wanted.items()}
    if holds_mask(wanted):
        text = np.ma.asarray(wanted).dtype.kind in "USO"
        return (as_ids if text else as_array)(wanted, "neuron", of="neuron")
    if isinstance(wanted, pd.MultiIndex) or (
        isinstance(wanted, pd.Series) and wanted.dtype.kind not in "biuUSO"
    ):
        raise TypeError(
            f"neuron is a {type(wanted).__name__} that is neither unit ids nor a mask: give the "
            "mask, such as scores > 0.3."
        )
    if isinstance(wanted, pd.Series) and pd.api.types.is_bool_dtype(wanted.dtype):
        return _labelled(wanted)
    if isinstance(wanted, bool | np.bool_) or (
        isinstance(wanted, np.ndarray) and wanted.ndim == 0 and wanted.dtype == bool
    ):
        raise TypeError(
            f"neuron is {wanted!r}: expected unit ids, or a mask with one truth value per neuron."
        )
    known = str | bytes | set | frozenset | slice
    if (
        isinstance(wanted, Iterable)
        and not isinstance(wanted, known)
        and not hasattr(wanted, "dtype")
    ):
        return list(wanted)
    return wanted


def _labelled(mask: pd.Series) -> xr.DataArray:
    """A mask of pandas, whose index names units, as one of xarray."""
    index, values = mask.index, mask.to_numpy(dtype=bool)
    if not isinstance(index, pd.MultiIndex):
        return xr.DataArray(values, dims="neuron", coords={"neuron": index.to_numpy()})
    if set(index.names) != {"mouse", "neuron"}:
        raise TypeError(
            f"the mask of neurons has an index with the levels {list(index.names)}: expected "
            "'mouse' and 'neuron'; set them by mask.index.set_names(...), or give mask.to_numpy()."
        )
    levels = {name: ("unit", index.get_level_values(name).to_numpy()) for name in index.names}
    return xr.DataArray(values, dims="unit", coords=levels)


def _of_named_mouse(wanted: Any, mice: list[str]) -> Any:
    """A mask whose scalar coordinate `mouse` names the only mouse it is of, as a dict."""
    if not isinstance(wanted, xr.DataArray) or "mouse" not in wanted.coords:
        return wanted
    if wanted["mouse"].ndim:
        return wanted
    mouse = str(wanted["mouse"].item())
    if mouse not in mice or len(mice) > 1:
        raise ValueError(
            f"neuron is of mouse {mouse!r}, these trials are of {mice}: "
            + (
                f"to select in that mouse alone, write neuron={{{mouse!r}: ...}}."
                if mouse in mice
                else "give the neurons of these."
            )
        )
    return {mouse: wanted}


def _per_mouse(wanted: Any, mice: list[str]) -> dict[str, Any] | None:
    """What is wanted of each mouse, where it came so: as a dict, or labelled as scores are."""
    if isinstance(wanted, Mapping):
        parts = {str(mouse): part for mouse, part in wanted.items()}
        unknown = [mouse for mouse in parts if mouse not in mice]
        if unknown:
            raise ValueError(f"neurons of the unknown mice {unknown}: these trials are of {mice}.")
        return parts
    if not isinstance(wanted, xr.DataArray) or not {"mouse", "neuron"} <= set(wanted.coords):
        return None
    if wanted.ndim != 1 or wanted.dtype != bool or wanted["mouse"].dims != wanted.dims:
        raise TypeError(
            f"neuron is an array {wanted.dims} of {wanted.dtype} that names mice and neurons: "
            "expected a mask of all of them, such as scores > 0.3, not scores[scores > 0.3]."
        )
    named = wanted["mouse"].values.astype(str)
    lacking = [mouse for mouse in mice if mouse not in named]
    if lacking:
        raise ValueError(f"the mask of neurons says nothing about the mice {lacking}.")
    dim = str(wanted.dims[0])
    parts = {}
    for mouse in mice:
        own = np.flatnonzero(named == mouse)
        neurons = wanted["neuron"].values[own]
        parts[mouse] = xr.DataArray(wanted.values[own], dims=dim, coords={"neuron": (dim, neurons)})
    return parts


def _of_one(mouse: str, wanted: Any, ids: np.ndarray) -> np.ndarray:
    if isinstance(wanted, slice) or wanted is None:
        raise TypeError(
            f"mouse {mouse!r}: neurons are selected by their ids or by a mask, not by {wanted!r}; "
            "mice that the dict does not name keep all their neurons."
        )
    if isinstance(wanted, xr.DataArray) and "mouse" in wanted.coords:
        mice = set(np.atleast_1d(wanted["mouse"].values).astype(str).tolist())
        if mice != {mouse}:
            raise ValueError(
                f"mouse {mouse!r}: the neurons that came are of mouse {_some(sorted(mice))}: give "
                "each mouse its own."
            )
    if _is_float(wanted):
        raise TypeError(
            f"mouse {mouse!r}: neuron is an array of {wanted.dtype}: expected unit ids, or the "
            "mask, such as scores > 0.3, not scores[scores > 0.3]."
        )
    if _is_mask(wanted):
        mask = np.asarray(wanted)
        if mask.shape != ids.shape:
            raise ValueError(
                f"mouse {mouse!r}: a mask of shape {mask.shape} came for {len(ids)} neurons: "
                "expected one truth value per neuron."
            )
        if isinstance(wanted, xr.DataArray) and "neuron" in wanted.coords:
            named = wanted["neuron"].values
            if units_differ(ids, named) is not None:
                raise ValueError(
                    f"mouse {mouse!r}: the mask is of the neurons {_span(named)}, the mouse has "
                    f"{_span(ids)}, or has them in another order: make the mask of these neurons, "
                    "or, if it has them in their order, give mask.to_numpy()."
                )
        return np.flatnonzero(mask)
    picked, missing = _find(mouse, wanted, ids)
    if missing:
        raise ValueError(
            f"mouse {mouse!r} has no neuron with the id {_some(missing)}: it has {_span(ids)}."
        )
    return picked


def _find(mouse: str, wanted: Any, ids: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Positions of unit ids, in the order asked for, and the ids that are not there."""
    where, labels = _places(ids), _as_list(wanted)
    places = [_at(label, where) for label in labels]
    missing = [label for label, place in zip(labels, places, strict=True) if place is None]
    picked = np.asarray([place for place in places if place is not None], dtype=np.int64)
    unique, counts = np.unique(picked, return_counts=True)
    if len(unique) < len(picked):
        twice = ids[unique[counts > 1]].tolist()
        raise ValueError(
            f"mouse {mouse!r}: the neurons {_some(twice)} are asked for more than once: unit ids "
            "stay unique."
        )
    return (unique if isinstance(wanted, set | frozenset) else picked), missing


def _by_label(
    name: str, wanted: Any, have: Mapping[str, np.ndarray | None]
) -> dict[str, np.ndarray]:
    without = [mouse for mouse, labels in have.items() if labels is None]
    if without:
        raise ValueError(
            f"{'mouse' if len(without) == 1 else 'mice'} {', '.join(map(repr, without))}: the "
            f"recording has no {name} of its neurons: select the mice that have it, "
            f"sel(mouse_id={[m for m in have if m not in without]}, ...)."
        )
    wanted = _as_list(wanted)
    told = {mouse: labels for mouse, labels in have.items() if labels is not None}
    for labels in told.values():
        _refuse_truth_values(name, wanted, labels)
    matched = {mouse: _matching(wanted, labels) for mouse, labels in told.items()}
    missing = [w for w in wanted if all(w in missed for _, missed in matched.values())]
    if missing:
        present = {label for labels in told.values() for label in labels.tolist()}
        raise ValueError(
            f"no neuron with {name} {_some(missing)}: these have {_some(sorted(present, key=str))}."
        )
    return {mouse: mask for mouse, (mask, _) in matched.items()}


def _refuse_truth_values(name: str, wanted: list[Any], have: np.ndarray) -> None:
    """A mask is no list of labels: True would be the label 1."""
    if have.dtype.kind in "bO":
        return
    if any(isinstance(label, bool | np.bool_) for label in wanted):
        raise TypeError(
            f"{name} holds truth values: expected labels. To select by a mask of trials write "
            "trials[mask]; of neurons, sel(neuron=mask)."
        )


def _matching(wanted: Any, have: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Mask of the wanted labels, and what of these is not there; text is compared as text."""
    text = have.dtype.kind in "USO"
    labels = list(map(str, have.tolist())) if have.dtype.kind in "SO" else have.tolist()
    wanted = [str(w) if text else w for w in _as_list(wanted)]
    present = set(labels)
    missing = [w for w in wanted if not _is_in(w, present)]
    chosen = {w for w in wanted if _is_in(w, present)}
    return np.asarray([label in chosen for label in labels], dtype=bool), missing


def _as_list(wanted: Any) -> list[Any]:
    if isinstance(wanted, xr.DataArray):
        wanted = wanted.values
    if hasattr(wanted, "tolist"):
        wanted = wanted.tolist()
    if isinstance(wanted, str | bytes) or not isinstance(wanted, Iterable):
        return [wanted]
    return list(wanted)


def _is_mask(wanted: Any) -> bool:
    if isinstance(wanted, str | bytes | set | frozenset) or not isinstance(wanted, Iterable):
        return False
    if not hasattr(wanted, "dtype"):
        return (
            isinstance(wanted, list | tuple)
            and bool(wanted)
            and all(isinstance(w, bool | np.bool_) for w in wanted)
        )
    return np.asarray(wanted).dtype == bool


def _is_float(wanted: Any) -> bool:
    return (
        isinstance(wanted, xr.DataArray) and wanted.dtype.kind == "f" and "neuron" in wanted.coords
    )


def _places(ids: np.ndarray) -> dict[Any, int]:
    """Where each unit stands, by its id and by the text of that."""
    labels = ids.tolist()
    return {str(label): place for place, label in enumerate(labels)} | {
        label: place for place, label in enumerate(labels)
    }


def _at(label: Any, places: Mapping[Any, int]) -> int | None:
    try:
        found = places.get(label)
    except TypeError:  # no label: unhashable
        return None
    return places.get(str(label)) if found is None else found


def _is_in(label: Any, present: set[Any]) -> bool:
    try:
        return label in present
    except TypeError:
        return False


def _some(labels: list[Any]) -> str:
    shown = ", ".join(map(repr, labels[:_SHOWN]))
    return f"[{shown}{', ...' if len(labels) > _SHOWN else ''}]"


def _span(ids: np.ndarray) -> str:
    if not len(ids):
        return "no neurons"
    labels = ids.tolist()
    if len(labels) <= 6:
        return f"{len(labels)} with the ids {labels}"
    return f"{len(labels)} with the ids {labels[0]!r}, {labels[1]!r}, ... {labels[-1]!r}"
