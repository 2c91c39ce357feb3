"""From the ways in which arrays of several mice are handed over to one ``Dataset`` per mouse.

Dicts, lists, flat arrays with one mouse id per trial, and plain arrays of one mouse meet here and
nowhere else. No estimator and no file format lives here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._instead import check_axes, check_form
from v1tlearn.datasets.schema import default_behavior_names

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
    unnamed: Callable[[str, int], list[str]] | None = None,
    n_neurons: Mapping[str, int] | None = None,
) -> tuple[dict[str, xr.Dataset], CallForm]:
    """Bring the four call forms to one ``Dataset`` per mouse."""
    check_form(stimuli, mouse_ids)
    per_trial = {
        "stimuli": stimuli,
        "behaviors": behaviors,
        "responses": np.asarray(responses) if hasattr(responses, "mouse_ids") else responses,
        "image_ids": image_ids,
        "tiers": tiers,
    }
    if isinstance(stimuli, Mapping):
        parts, form = _split_dict(per_trial, mouse_ids)
    elif isinstance(stimuli, list | tuple):
        parts, form = _split_list(per_trial, mouse_ids)
    else:
        parts, form = _split_flat(per_trial, mouse_ids, n_neurons or {})
    positions = _positions_by_mouse(positions, form)
    recordings = {
        mouse: _dataset(mouse, part, positions.get(mouse), behavior_names, unnamed or _by_number)
        for mouse, part in parts.items()
    }
    return recordings, form


def _names(ids: Sequence[Hashable]) -> dict[str, Hashable]:
    keys = {str(i): i for i in ids}
    if len(keys) != len(ids):
        names = [str(i) for i in ids]
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
        given = [str(i) for i in np.atleast_1d(np.asarray(mouse_ids, dtype=object))]
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
        by_name = {str(k): v for k, v in field.items()}
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
    n = len(stimuli)
    if mouse_ids is None or np.ndim(mouse_ids) == 0:
        key = ONE_MOUSE if mouse_ids is None else np.asarray(mouse_ids).item()
        part = {name: field for name, field in fields.items() if field is not None}
        return {str(key): part}, CallForm("single", {str(key): key})
    ids = np.asarray(mouse_ids)
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
        if len(field) != n:
            raise ValueError(
                f"stimuli has {n} trials but {name} has {len(field)}: "
                "flat arrays need one entry per trial."
            )
        for mouse, take in zip(keys, rows, strict=True):
            part = _take(field, take)
            if name == "responses":
                part = _without_padding(part, n_neurons.get(mouse))
            parts[mouse][name] = part
    return parts, CallForm("flat", keys, np.concatenate(rows))


def _take(field: Any, rows: np.ndarray) -> Any:
    if isinstance(field, list | tuple):
        return [field[i] for i in rows]
    if hasattr(field, "iloc"):
        return field.iloc[rows]
    return field[rows]


def _positions_by_mouse(positions: Any, form: CallForm) -> dict[str, Any]:
    if positions is None:
        return {}
    mice = list(form.keys)
    if isinstance(positions, Mapping):
        by_name = {str(k): v for k, v in positions.items() if v is not None}
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


def _matrix(mouse: str, responses: Any) -> np.ndarray:
    """Responses of one mouse as (trials, neurons), from vectors or a padded matrix."""
    if isinstance(responses, list | tuple) or getattr(responses, "dtype", None) == np.dtype(object):
        vectors = [np.asarray(v) for v in responses]
        if not vectors:
            raise ValueError(f"mouse {mouse!r}: responses is empty: there are no trials.")
        shapes = sorted({v.shape for v in vectors})
        if len(shapes) > 1 or len(shapes[0]) != 1:
            raise ValueError(
                f"mouse {mouse!r}: responses are vectors of the shapes {shapes[:4]}: expected one "
                "vector per trial, all with this mouse's number of neurons."
            )
        return np.stack(vectors)
    matrix = np.asarray(responses)
    if matrix.ndim != 2:
        raise ValueError(
            f"mouse {mouse!r}: responses has shape {matrix.shape}: expected (trials, neurons)."
        )
    return matrix


def _numbers(mouse: str, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        with contextlib.suppress(TypeError, ValueError):
            values = values.astype(np.float64)
    if values.dtype.kind not in "buif":
        raise TypeError(f"mouse {mouse!r}: {name} has dtype {values.dtype}: expected numbers.")
    return values


def _without_padding(responses: Any, n_neurons: int | None) -> Any:
    """Cut the all-NaN columns at the right end, which pad this mouse to the largest."""
    if isinstance(responses, list | tuple):
        return responses
    matrix = np.asarray(responses)
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        return responses
    recorded = np.flatnonzero(~np.isnan(matrix).all(axis=0))
    if n_neurons is not None and not (recorded >= n_neurons).any():
        return matrix[:, :n_neurons]
    return matrix[:, : recorded[-1] + 1] if len(recorded) else matrix


def _by_number(mouse: str, n_columns: int) -> list[str]:
    try:
        return default_behavior_names(n_columns)
    except ValueError as error:
        raise ValueError(
            f"mouse {mouse!r}: {error}. Are these the responses? The order is stimuli, behaviors, "
            "responses: without behaviour give None, fit(stimuli, None, responses)."
        ) from error


def _behavior_table(
    mouse: str,
    behaviors: Any,
    given: Sequence[str] | None,
    unnamed: Callable[[str, int], list[str]],
) -> tuple[np.ndarray, list[str]]:
    names = None
    if hasattr(behaviors, "columns"):
        names = [str(c) for c in behaviors.columns]
    elif isinstance(behaviors, xr.DataArray) and "behavior" in behaviors.coords:
        names = [str(c) for c in behaviors["behavior"].values]
    table = np.asarray(behaviors)
    if table.ndim != 2:
        raise ValueError(
            f"mouse {mouse!r}: behaviors has shape {table.shape}: expected (trials, columns)."
        )
    if isinstance(given, str):
        raise TypeError(f"behavior_names is {given!r}: expected a list of names.")
    if given is not None:
        given = [str(c) for c in given]
        if names is not None and names != given:
            raise ValueError(
                f"mouse {mouse!r}: behavior_names are {given}, but the columns of behaviors are "
                f"called {names}: leave behavior_names out, or bring both to one order."
            )
        if len(given) != table.shape[1]:
            raise ValueError(
                f"mouse {mouse!r}: behaviors has {table.shape[1]} columns but behavior_names has "
                f"{len(given)}: {given}."
            )
        names = given
    if names is None:
        names = unnamed(mouse, table.shape[1])
    if len(set(names)) != len(names):
        raise ValueError(f"mouse {mouse!r}: behaviour columns bear the same name: {names}.")
    return table, list(names)


def _dataset(
    mouse: str,
    part: dict[str, Any],
    positions: Any,
    behavior_names: Sequence[str] | None,
    unnamed: Callable[[str, int], list[str]],
) -> xr.Dataset:
    stimuli = np.asarray(part["stimuli"])
    check_axes(mouse, {**part, "stimuli": stimuli})
    if stimuli.dtype.kind not in "uif":
        raise TypeError(
            f"mouse {mouse!r}: stimuli has dtype {stimuli.dtype}: expected grey levels as integers "
            "or floats."
        )
    if not len(stimuli):
        raise ValueError(f"mouse {mouse!r}: stimuli is empty: expected at least one trial.")
    lengths = {"stimuli": len(stimuli)}
    variables: dict[str, Any] = {"stimuli": (("trial", "channel", "height", "width"), stimuli)}
    coords: dict[str, Any] = {}
    if "behaviors" in part:
        table, names = _behavior_table(mouse, part["behaviors"], behavior_names, unnamed)
        table = _numbers(mouse, "behaviors", table)
        lengths["behaviors"] = len(table)
        variables["behaviors"] = (("trial", "behavior"), table)
        coords["behavior"] = names
    if "responses" in part:
        matrix = _numbers(mouse, "responses", _matrix(mouse, part["responses"]))
        lengths["responses"] = len(matrix)
        variables["responses"] = (("trial", "neuron"), matrix)
    for name, coordinate in (("image_ids", "image_id"), ("tiers", "tier")):
        if name in part:
            labels = np.asarray(part[name])
            if labels.ndim != 1:
                raise ValueError(
                    f"mouse {mouse!r}: {name} has shape {labels.shape}: expected one label per "
                    "trial."
                )
            if labels.dtype == object:
                labels = labels.astype(str)
            lengths[name] = len(labels)
            coords[coordinate] = ("trial", labels)
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{k} {v}" for k, v in lengths.items())
        raise ValueError(
            f"mouse {mouse!r}: different numbers of trials: {counts}. Every variable needs one "
            "entry per trial."
        )
    if positions is not None:
        positions = np.asarray(positions)
        n_neurons = variables["responses"][1].shape[1] if "responses" in variables else None
        if positions.ndim != 2 or positions.shape[1] not in (2, 3):
            raise ValueError(
                f"mouse {mouse!r}: positions has shape {positions.shape}: expected (neurons, 2) "
                "or (neurons, 3), in micrometres."
            )
        if n_neurons is not None and len(positions) != n_neurons:
            raise ValueError(
                f"mouse {mouse!r}: positions has {len(positions)} rows for {n_neurons} neurons: "
                "give one row per neuron, in the order of the responses."
            )
        coords["position"] = (("neuron", "axis"), positions)
        coords["axis"] = list("xyz"[: positions.shape[1]])
    return xr.Dataset(variables, coords)
