"""From the arrays of one mouse to its labelled `Dataset`: numbers, names and labels are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._instead import check_axes
from v1tlearn._values import (
    aligned_vectors,
    as_array,
    as_dims,
    as_ids,
    as_names,
    as_responses,
    is_count,
    labels_along,
    order_like,
)
from v1tlearn.datasets.schema import DIMS, NEURON_LABELS, default_behavior_names
from v1tlearn.datasets.time_axis import with_time
from v1tlearn.trials._movies import check_frame_rate, stack_movies, time_of

_OF_TRIALS = {"image_id": "image", "trial_id": "trial", "tier": "tier"}  # labels, and their words
_FIELD_DIMS = DIMS | dict.fromkeys(("image_ids", "tiers"), ("trial",))

Unnamed = Callable[[str, int], list[str]]  # (mouse, columns) -> their names


def turned(name: str, field: Any, whose: str = "") -> Any:
    """A labelled array with its dimensions in the order of recordings."""
    dims = _FIELD_DIMS[name]
    if isinstance(field, xr.DataArray) and {"time", "times"} & {str(d).lower() for d in field.dims}:
        dims = with_time(dims)
    return as_dims(field, dims, f"{whose}{name}")


def check_same_trials(fields: Mapping[str, Any], whose: str = "") -> None:
    """Refuse labelled arrays of which one shows other trials than another, or in another order."""
    for one, two in combinations(fields, 2):
        for label, of in ((None, "trial"), *_OF_TRIALS.items()):
            first, second = (labels_along(fields[name], "trial", label) for name in (one, two))
            told = f"{whose}{one} and {two} are not of the same trials in one order"
            if order_like(first, second, told, of) is not None:
                raise ValueError(
                    f"{told}: the labels of {two} are those of {one} in another order. Bring both "
                    f"to one, as {two}.sel(trial={one}.trial) does."
                )


def dataset_of_mouse(
    mouse: str,
    part: Mapping[str, Any],
    positions: Any,
    behavior_names: Sequence[str] | None,
    unnamed: Unnamed | None,
    frame_rate: float | None = None,
) -> xr.Dataset:
    """Label the arrays of one mouse, which came under the names of the arguments."""
    whose = f"mouse {mouse!r}: "
    if "stimuli" not in part:
        raise ValueError(f"{whose}stimuli is None: expected an array, or leave this mouse out.")
    part = {name: turned(name, field, whose) for name, field in part.items()}
    part, n_frames = stack_movies(mouse, part)
    stimuli, movies = _stimuli(mouse, part), n_frames is not None
    rate = check_frame_rate(frame_rate, movies=movies)
    dims = {name: with_time(own) if movies else own for name, own in DIMS.items()}
    lengths = {"stimuli": len(stimuli)}
    variables: dict[str, Any] = {"stimuli": (dims["stimuli"], stimuli)}
    coords: dict[str, Any] = {}
    if movies:
        coords["time"] = time_of(mouse, part, stimuli.shape[1], rate)
        coords["n_frames"] = ("trial", n_frames)
    if "behaviors" in part:
        unnamed = unnamed or _by_number
        table, names = _behaviors(mouse, part["behaviors"], behavior_names, unnamed, movies=movies)
        lengths["behaviors"] = len(table)
        variables["behaviors"] = (dims["behaviors"], table)
        coords["behavior"] = names
    if "responses" in part:
        matrix, ids = _matrix(mouse, part["responses"], movies=movies)
        if ids is not None:
            part["responses"] = pd.DataFrame(matrix, columns=ids)
        lengths["responses"] = len(matrix)
        variables["responses"] = (dims["responses"], matrix)
        coords |= _neurons(part["responses"], whose)
    for name, coordinate in (("image_ids", "image_id"), ("tiers", "tier")):
        if name in part:
            labels = as_ids(part[name], f"{whose}{name}", blank=name == "tiers")
            if labels.ndim != 1:
                raise ValueError(
                    f"{whose}{name} has shape {labels.shape}: expected one label per trial."
                )
            lengths[name] = len(labels)
            if set(labels.tolist()) != {""}:  # as `Trials.tiers` says that there are none
                coords[coordinate] = ("trial", labels)
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{k} {v}" for k, v in lengths.items())
        raise ValueError(
            f"{whose}different numbers of trials: {counts}. Every variable needs one entry per "
            "trial."
        )
    coords = _trial_labels(part, whose) | coords
    if positions is not None:
        positions = _positions(mouse, positions, part.get("responses"), variables)
        coords["position"] = (("neuron", "axis"), positions)
        coords["axis"] = list("xyz"[: positions.shape[1]])
    return xr.Dataset(variables, coords)


def _stimuli(mouse: str, part: Mapping[str, Any]) -> np.ndarray:
    grey = "grey levels as integers or floats"
    stimuli = as_array(part["stimuli"], f"mouse {mouse!r}: stimuli", expected=grey)
    named = "channel" in getattr(part["stimuli"], "dims", ())
    check_axes(mouse, {**part, "stimuli": stimuli}, named=named)
    if stimuli.dtype.kind == "b":
        raise TypeError(f"mouse {mouse!r}: stimuli has dtype bool: expected {grey}.")
    if not len(stimuli):
        raise ValueError(f"mouse {mouse!r}: stimuli is empty: expected at least one trial.")
    return stimuli


def _matrix(mouse: str, responses: Any, *, movies: bool) -> tuple[np.ndarray, pd.Index | None]:
    """Responses of one mouse as (trials, [time,] neurons), and the labels that vectors bear."""
    name = f"mouse {mouse!r}: responses"
    vectors = isinstance(responses, list | tuple) or (
        getattr(responses, "ndim", 0) == 1 and responses.dtype == object
    )
    if not vectors:
        matrix = as_responses(responses, name)
        if matrix.ndim != 2 and not movies:
            hint = {
                1: " One neuron alone needs an axis: responses[:, None].",
                3: " Repeats of an image are trials of their own, which share its image_id.",
            }.get(matrix.ndim, "")
            raise ValueError(f"{name} has shape {matrix.shape}: expected (trials, neurons).{hint}")
        return matrix, None
    rows, ids = aligned_vectors(responses, name)
    if not rows:
        raise ValueError(f"{name} is empty: there are no trials.")
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1 or len(shapes[0]) != 1:
        raise ValueError(
            f"{name} are vectors of the shapes {shapes[:4]}: expected one vector per trial, all "
            "with this mouse's number of neurons."
        )
    return np.stack(rows), ids


def _neurons(responses: Any, whose: str) -> dict[str, Any]:
    """Unit ids, and what else labelled responses tell of their neurons."""
    coords: dict[str, Any] = {}
    ids = labels_along(responses, "neuron")
    if ids is not None and not is_count(ids):
        coords["neuron"] = as_ids(ids, f"{whose}ids of the neurons", of="neuron")
    for name in NEURON_LABELS:
        if labels_along(responses, "neuron", name) is not None:
            coords[name] = ("neuron", responses[name].values)
    return coords


def _trial_labels(part: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """Labels that arrays bring along their trials, of the first that has them."""
    found = {
        name: labels
        for field in reversed(list(part.values()))
        for name in _OF_TRIALS
        if (labels := labels_along(field, "trial", name)) is not None
    }
    return {
        name: ("trial", as_ids(labels, f"{whose}{name}", blank=name == "tier"))
        for name, labels in found.items()
    }


def _positions(
    mouse: str, positions: Any, responses: Any, variables: Mapping[str, Any]
) -> np.ndarray:
    name = f"mouse {mouse!r}: positions"
    positions = as_dims(positions, ("neuron", "axis"), name)
    rows = "trial" if isinstance(positions, pd.DataFrame) else "neuron"  # what its index is called
    order = order_like(
        labels_along(responses, "neuron"),
        labels_along(positions, rows),
        f"{name} and responses are of different neurons",
    )
    axes = _axes(labels_along(positions, "axis"), name)
    positions = as_array(positions, name, of="neuron")
    if positions.ndim != 2 or positions.shape[1] not in (2, 3):
        raise ValueError(
            f"{name} has shape {positions.shape}: expected (neurons, 2) or (neurons, 3), in "
            "micrometres."
        )
    n_neurons = variables["responses"][1].shape[-1] if "responses" in variables else None
    if n_neurons is not None and len(positions) != n_neurons:
        raise ValueError(
            f"{name} has {len(positions)} rows for {n_neurons} neurons: give one row per neuron, "
            "in the order of the responses."
        )
    positions = positions if axes is None else positions[:, axes]
    return positions if order is None else positions[order]


def _axes(labels: pd.Index | None, name: str) -> list[int] | None:
    """Where x, y and z stand among labels of the axes; None where these have no names."""
    if labels is None or labels.equals(pd.RangeIndex(len(labels))):
        return None
    named = [str(label).strip().lower().removeprefix("position_") for label in labels]
    if sorted(named) not in (["x", "y"], ["x", "y", "z"]):
        raise ValueError(
            f"{name} has the axes {list(labels)}: expected x, y or x, y, z. Call them so, or give "
            "the numbers alone, in this order."
        )
    return [named.index(axis) for axis in sorted(named)]


def _by_number(mouse: str, n_columns: int) -> list[str]:
    try:
        return default_behavior_names(n_columns)
    except ValueError as error:
        raise ValueError(
            f"mouse {mouse!r}: {error}. Are these the responses? The order is stimuli, behaviors, "
            "responses: without behaviour give None, fit(stimuli, None, responses)."
        ) from error


def _behaviors(
    mouse: str,
    behaviors: Any,
    given: Sequence[str] | None,
    unnamed: Unnamed,
    *,
    movies: bool,
) -> tuple[np.ndarray, list[str]]:
    names = labels_along(behaviors, "behavior")
    if names is not None:
        names = as_names(names, f"mouse {mouse!r}: the columns of behaviors", of="column")
    table = as_array(behaviors, f"mouse {mouse!r}: behaviors")
    if table.ndim != 2 and not movies:
        hint = " One column alone needs an axis: behaviors[:, None]." if table.ndim == 1 else ""
        raise ValueError(
            f"mouse {mouse!r}: behaviors has shape {table.shape}: expected (trials, columns).{hint}"
        )
    if isinstance(given, str):
        raise TypeError(f"behavior_names is {given!r}: expected a list of names.")
    if given is not None:
        given = as_names(given, "behavior_names", of="column")
        if names is not None and names != given:
            raise ValueError(
                f"mouse {mouse!r}: behavior_names are {given}, but the columns of behaviors are "
                f"called {names}: leave behavior_names out, or bring both to one order."
            )
        if len(given) != table.shape[-1]:
            raise ValueError(
                f"mouse {mouse!r}: behaviors has {table.shape[-1]} columns but behavior_names has "
                f"{len(given)}: {given}."
            )
        names = given
    if names is None:
        names = unnamed(mouse, table.shape[-1])
    if len(set(names)) != len(names):
        raise ValueError(f"mouse {mouse!r}: behaviour columns bear the same name: {names}.")
    return table, list(names)
