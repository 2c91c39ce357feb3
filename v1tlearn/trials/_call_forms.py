"""From the ways in which arrays of several mice are handed over to one ``Dataset`` per mouse.

Dicts, lists, flat arrays with one mouse id per trial, and plain arrays of one mouse meet here and
nowhere else. No estimator and no file format lives here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._instead import check_form
from v1tlearn._models import by_text
from v1tlearn._values import as_ids, as_names, as_responses
from v1tlearn.trials._one_mouse import Unnamed, check_same_trials, dataset_of_mouse, turned

ONE_MOUSE = "mouse"


@dataclass(frozen=True)
class CallForm:
    """How the caller wrote the trials, so that an answer can be given in the same form.

    Attributes
    ----------
    kind : {"dict", "list", "flat", "single"}
        One dict per argument, one list entry per recording, one mouse id per trial, or one mouse.
    keys : dict
        The caller's mouse ids, under the names (``str``) used inside.
    order : ndarray of shape (n_trials,) or None
        For "flat": where in the caller's order the trials, sorted by mouse, stand.
    """

    kind: str
    keys: dict[str, Hashable]
    order: np.ndarray | None = None


def recordings_from_arrays(
    stimuli: Any,
    behaviors: Any = None,
    responses: Any = None,
    mouse_ids: Any = None,
    *,
    image_ids: Any = None,
    tiers: Any = None,
    positions: Any = None,
    behavior_names: Sequence[str] | None = None,
    unnamed: Unnamed | None = None,
    n_neurons: Mapping[str, int] | None = None,
    frame_rate: float | None = None,
) -> tuple[dict[str, xr.Dataset], CallForm]:
    """Bring the four call forms to one ``Dataset`` per mouse."""
    per_trial = {
        "stimuli": stimuli,
        "behaviors": behaviors,
        "responses": np.asarray(responses) if hasattr(responses, "mouse_ids") else responses,
        "image_ids": image_ids,
        "tiers": tiers,
    }
    for name, field in per_trial.items():
        _refuse_classes(name, field)
    check_form(stimuli, mouse_ids)
    if isinstance(stimuli, Mapping):
        parts, form = _split_dict(per_trial, mouse_ids)
    elif isinstance(stimuli, list | tuple):
        parts, form = _split_list(per_trial, mouse_ids)
    else:
        per_trial = {name: turned(name, field) for name, field in per_trial.items()}
        parts, form = _split_flat(per_trial, mouse_ids, n_neurons or {})
    if form.kind in ("dict", "list"):
        for mouse, part in parts.items():
            check_same_trials(part, f"mouse {mouse!r}: ")
    positions = _positions_by_mouse(positions, form)
    recordings = {
        mouse: dataset_of_mouse(
            mouse, part, positions.get(mouse), behavior_names, unnamed, frame_rate
        )
        for mouse, part in parts.items()
    }
    return recordings, form


def _refuse_classes(name: str, field: Any) -> None:
    """Refuse classes in the place of their instances, alone or as an entry."""
    entries = field.values() if isinstance(field, Mapping) else field
    listed = isinstance(field, Mapping | list | tuple)
    for entry in (field, *(entries if listed else ())):
        if isinstance(entry, type):
            raise TypeError(
                f"{name}: the class {entry.__name__} came where an array was expected: give the "
                "values themselves."
            )


def _n_entries(name: str, field: Any) -> int:
    """Count the trials of a flat array, or of a list."""
    try:
        return len(field)
    except TypeError as error:
        shape = getattr(field, "shape", None)
        what = type(field).__name__ if shape is None else f"{type(field).__name__} of shape {shape}"
        raise TypeError(
            f"{name} is a {what}: expected an array or a list with one entry per trial."
        ) from error


def _names(ids: Sequence[Hashable]) -> dict[str, Hashable]:
    names = as_names(ids, "mouse_ids")
    keys = dict(zip(names, ids, strict=True))
    if len(keys) != len(ids):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise ValueError(
            f"duplicate mouse ids {twice} in {names}: every recording needs an id of its own "
            "(ids are compared as text). Join the sessions of one mouse before, or name them apart."
        )
    return keys


def _split_dict(
    fields: dict[str, Any], mouse_ids: Any
) -> tuple[dict[str, dict[str, Any]], CallForm]:
    keys = _names(list(fields["stimuli"]))
    if not keys:
        raise ValueError("stimuli is an empty dict: expected one entry per mouse.")
    if mouse_ids is not None:
        given_ids = as_ids(mouse_ids, "mouse_ids", of="recording")
        _check_row(given_ids)
        given = list(map(str, given_ids.ravel()))
        if sorted(given) != sorted(keys):
            raise ValueError(
                f"mouse_ids are {given}, but stimuli is a dict with the mice {list(keys)}: "
                "leave mouse_ids out, or give each key of the dict once."
            )
    parts: dict[str, dict[str, Any]] = {mouse: {} for mouse in keys}
    for name, field in fields.items():
        if field is None:
            continue
        if not isinstance(field, Mapping):
            raise TypeError(
                f"stimuli is a dict, but {name} is a {type(field).__name__}: "
                f"expected a dict with the mice {list(keys)} too."
            )
        by_name = by_text(name, field)
        unknown = sorted(set(by_name) - set(keys))
        missing = sorted(set(keys) - set(by_name))
        if unknown or (missing and name in ("responses", "image_ids", "tiers")):
            raise ValueError(
                f"{name} has the mice {list(by_name)}, stimuli has {list(keys)}: "
                "expected the same keys."
            )
        for mouse, value in by_name.items():
            if value is not None:
                parts[mouse][name] = value
    return parts, CallForm("dict", keys)


def _check_row(ids: np.ndarray) -> None:
    if ids.ndim > 1:
        raise ValueError(
            f"mouse_ids has shape {ids.shape}: expected one id per recording, in one row."
        )


def _split_list(
    fields: dict[str, Any], mouse_ids: Any
) -> tuple[dict[str, dict[str, Any]], CallForm]:
    n = len(fields["stimuli"])
    if mouse_ids is None:
        raise ValueError(
            f"stimuli is a list of {n} recordings without mouse_ids: give one id per recording in "
            "mouse_ids, or wrap the recordings in Trials(...); an array of trials of one mouse "
            "is given as an array, not as a list."
        )
    _check_row(as_ids(mouse_ids, "mouse_ids", of="recording"))
    ids = list(np.asarray(mouse_ids, dtype=object).ravel()) if n else []
    if len(ids) != n:
        raise ValueError(
            f"stimuli is a list of {n} recordings but mouse_ids has {len(ids)} entries: give one "
            "mouse id per recording, or flat arrays with one mouse id per trial."
        )
    keys = _names(ids)
    if not keys:
        raise ValueError("stimuli is an empty list: expected one entry per recording.")
    parts: dict[str, dict[str, Any]] = {mouse: {} for mouse in keys}
    for name, field in fields.items():
        if field is None:
            continue
        if not isinstance(field, list | tuple):
            raise TypeError(
                f"stimuli is a list of recordings, but {name} is a {type(field).__name__}: "
                "expected a list with one entry per recording too."
            )
        if len(field) != n:
            raise ValueError(
                f"stimuli is a list of {n} recordings, but {name} has {len(field)} entries."
            )
        for mouse, value in zip(keys, field, strict=True):
            if value is not None:
                parts[mouse][name] = value
    return parts, CallForm("list", keys)


def _split_flat(
    fields: dict[str, Any], mouse_ids: Any, n_neurons: Mapping[str, int]
) -> tuple[dict[str, dict[str, Any]], CallForm]:
    stimuli = fields["stimuli"]
    if hasattr(stimuli, "mouse_ids"):
        raise TypeError(
            f"stimuli is a view of {type(stimuli).__name__}, which bring their labels: give the "
            "trials themselves, fit(trials) or predict(trials), or the array of one mouse, "
            'trials.get("stimuli", "A").'
        )
    if getattr(stimuli, "ndim", None) is None or not hasattr(stimuli, "shape"):
        raise TypeError(
            f"stimuli is a {type(stimuli).__name__}: expected an array (trials, channels, height, "
            "width), a list of such arrays, a dict of them per mouse, or Trials."
        )
    for name, field in fields.items():
        if isinstance(field, Mapping):
            raise TypeError(
                f"stimuli is one array, but {name} is a dict: expected an array with one entry "
                "per trial, or dicts per mouse for all of them."
            )
    check_same_trials({**fields, "mouse_ids": mouse_ids})
    n = _n_entries("stimuli", stimuli)
    ids = None if mouse_ids is None else as_ids(mouse_ids, "mouse_ids")
    if ids is None or not ids.ndim:
        key = ONE_MOUSE if ids is None else ids.item()
        (mouse,) = keys = _names([key])
        part = {name: field for name, field in fields.items() if field is not None}
        return {mouse: part}, CallForm("single", keys)
    if ids.shape != (n,):
        raise ValueError(
            f"stimuli has {n} trials but mouse_ids has shape {ids.shape}: give one mouse id per "
            "trial, or lists or dicts with one entry per mouse."
        )
    if not n:
        raise ValueError("stimuli is empty: expected at least one trial.")
    labels = ids.tolist()
    keys = _names(list(dict.fromkeys(labels)))
    number = {key: k for k, key in enumerate(keys.values())}
    numbers = np.array([number[label] for label in labels])
    rows = [np.flatnonzero(numbers == k) for k in range(len(keys))]
    parts: dict[str, dict[str, Any]] = {mouse: {} for mouse in keys}
    for name, field in fields.items():
        if field is None:
            continue
        if _n_entries(name, field) != n:
            raise ValueError(
                f"stimuli has {n} trials but {name} has {len(field)}: "
                "flat arrays need one entry per trial."
            )
        for mouse, take in zip(keys, rows, strict=True):
            part = _take(field, take, name)
            if name == "responses":
                part = _without_padding(mouse, part, n_neurons.get(mouse))
            parts[mouse][name] = part
    return parts, CallForm("flat", keys, np.concatenate(rows))


def _take(field: Any, rows: np.ndarray, name: str) -> Any:
    if isinstance(field, list | tuple):
        return [field[i] for i in rows]
    if hasattr(field, "iloc"):
        return field.iloc[rows]
    try:
        return field[rows]
    except (TypeError, RuntimeError) as error:  # a sparse tensor
        raise TypeError(
            f"{name} is a {type(field).__name__} of which no rows can be taken: {error}. Give an "
            "array of NumPy."
        ) from error


def _positions_by_mouse(positions: Any, form: CallForm) -> dict[str, Any]:
    if positions is None:
        return {}
    mice = list(form.keys)
    if isinstance(positions, Mapping):
        by_name = {m: v for m, v in by_text("positions", positions).items() if v is not None}
        unknown = sorted(set(by_name) - set(mice))
        if unknown:
            raise ValueError(f"positions has the unknown mice {unknown}: the mice are {mice}.")
        return by_name
    if isinstance(positions, list | tuple) and form.kind == "list":
        if len(positions) != len(mice):
            raise ValueError(f"positions has {len(positions)} entries for {len(mice)} recordings.")
        return {m: p for m, p in zip(mice, positions, strict=True) if p is not None}
    if len(mice) == 1:
        return {mice[0]: positions}
    raise TypeError(
        f"positions is a {type(positions).__name__} for {len(mice)} mice: expected a dict with one "
        "array (neurons, axes) per mouse."
    )


def _without_padding(mouse: str, responses: Any, n_neurons: int | None) -> Any:
    """Cut the all-NaN columns at the right end, which pad this mouse to the largest."""
    if isinstance(responses, list | tuple) or responses.ndim not in (2, 3):
        return responses
    matrix = as_responses(responses, f"mouse {mouse!r}: responses")
    if matrix.dtype.kind != "f":
        return responses
    recorded = np.flatnonzero(~np.isnan(matrix).all(axis=tuple(range(matrix.ndim - 1))))
    if n_neurons is not None and not (recorded >= n_neurons).any():
        width = n_neurons
    else:
        width = recorded[-1] + 1 if len(recorded) else matrix.shape[-1]
    return responses.iloc[:, :width] if hasattr(responses, "iloc") else responses[..., :width]
