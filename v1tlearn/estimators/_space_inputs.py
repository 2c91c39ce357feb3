"""What comes to the space of an alignment, images, responses or maps of either, and what leaves it.

Dimensions and labels of labelled arrays are used or refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr

from v1tlearn._models import by_text
from v1tlearn._values import as_array, as_dims, as_names, as_responses, labels_along, order_like
from v1tlearn.estimators._casting import in_trials
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit, told_apart
from v1tlearn.estimators._reading import read_predict
from v1tlearn.nn import AlignmentModel, check_towers, unit_length
from v1tlearn.trials import Responses, Trials

MapShape = tuple[int, int, int]

_MAPS = "maps"  # the name that labelled maps bear
_AXES = ("channel", "height", "width")


class Population(NamedTuple):
    """Responses of each mouse (trials, neurons), and the places of their trials in all."""

    by_mouse: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]


def read_images(fitted: Fitted, model: AlignmentModel, stimuli: Any) -> Trials:
    """Bring images to trials; those of no mouse in particular go by the name of the first."""
    check_towers(model.core)
    if isinstance(stimuli, list | tuple):
        raise TypeError(
            f"stimuli is a {type(stimuli).__name__}: expected Trials, an array (n, channels, "
            "height, width), or a dict of such arrays per mouse."
        )
    one_array = hasattr(stimuli, "shape") and not isinstance(stimuli, Trials)
    mouse = next(iter(fitted.mice)) if one_array else None
    trials, _ = read_predict(fitted, stimuli, None, mouse, None, "transform_images")
    check_like_fit(fitted, model, trials)
    return trials


def read_population(
    fitted: Fitted, model: AlignmentModel, responses: Any, mouse_ids: Any
) -> Population:
    """Bring responses to one matrix per mouse, with the neurons in the order of those at `fit`."""
    check_towers(*model.readouts)
    if isinstance(responses, Trials | Responses | Mapping) and mouse_ids is not None:
        raise TypeError(
            f"mouse_ids={mouse_ids!r} came beside a {type(responses).__name__}, which tells whose "
            "the responses are: leave mouse_ids out."
        )
    if isinstance(responses, Trials):
        check_like_fit(fitted, model, responses)
        responses = responses.responses
    if isinstance(responses, Responses):
        _check_known(list(responses.mice), fitted)
        given = {mouse: _of_view(responses, mouse, fitted) for mouse in responses.mice}
        rows = {mouse: responses.rows(mouse)[0] for mouse in responses.mice}
    else:
        if not isinstance(responses, Mapping):
            responses = {_whose(mouse_ids, fitted): responses}
        given = by_text("responses", responses)
        _check_known(list(given), fitted)
        given = {mouse: _of_array(own, mouse, fitted) for mouse, own in given.items()}
        ends = np.cumsum([0, *map(len, given.values())])
        rows = {mouse: np.arange(*ends[i : i + 2]) for i, mouse in enumerate(given)}
    if not given or not all(map(len, given.values())):
        raise ValueError("there are no responses: expected those of at least one trial.")
    for mouse, own in given.items():
        check_recorded(own, mouse, np.arange(len(own)))
    return Population(given, rows)


def check_recorded(responses: np.ndarray, mouse: str, rows: np.ndarray) -> None:
    """Refuse trials of which no response was recorded: they would have the map of the mean."""
    if responses.dtype.kind != "f":
        return
    lost = np.isnan(responses).all(axis=1)
    if lost.any():
        raise ValueError(
            f"mouse {mouse!r}: no response was recorded in {in_trials(rows[lost])}, all are NaN: "
            "leave these trials out."
        )


def _check_known(mice: list[str], fitted: Fitted) -> None:
    for mouse in mice:
        if mouse not in fitted.mice:
            raise ValueError(
                f"unknown mouse {mouse!r}: this model was fitted on {list(fitted.mice)}."
            )


def _whose(mouse_ids: Any, fitted: Fitted) -> Hashable:
    """Name the mouse that an array is of."""
    known = list(fitted.mice)
    if mouse_ids is None:
        if len(known) > 1:
            raise ValueError(
                f"mouse_ids is missing: this model has the mice {known}. Say whose responses these "
                "are, or give a dict per mouse."
            )
        return known[0]
    if np.ndim(mouse_ids):
        raise TypeError(
            f"mouse_ids is a {type(mouse_ids).__name__}: expected the id of one mouse, whose "
            "responses an array holds; those of several mice are given as a dict per mouse."
        )
    return as_names([mouse_ids], "mouse_ids")[0]


def _of_view(responses: Responses, mouse: str, fitted: Fitted) -> np.ndarray:
    values = _shaped(responses.get(mouse), mouse, fitted)
    found = responses.neuron_labels(mouse).get("neuron")
    if difference := told_apart(fitted.mice[mouse].unit_ids, found):
        raise ValueError(
            f"mouse {mouse!r}: the responses are not of the neurons that the model was fitted on: "
            f"{difference}. Bring them to the order of model.neurons_[{mouse!r}]['neuron']."
        )
    return values


def _of_array(values: Any, mouse: str, fitted: Fitted) -> np.ndarray:
    name = f"mouse {mouse!r}: responses"
    values = as_dims(values, ("trial", "neuron"), name)
    known = fitted.mice[mouse].unit_ids
    found = labels_along(values, "neuron")
    matrix = _shaped(as_responses(values, name), mouse, fitted)
    told = f"{name} are of other neurons than those of fit"
    order = order_like(None if known is None else pd.Index(known), found, told, names=_SIDES)
    return matrix if order is None else matrix[:, order]


_SIDES = ("those of fit", "what came")


def _shaped(values: np.ndarray, mouse: str, fitted: Fitted) -> np.ndarray:
    expected = fitted.mice[mouse].n_neurons
    if values.ndim != 2 or values.shape[1] != expected:
        raise ValueError(
            f"mouse {mouse!r}: responses have the shape {values.shape}, expected (trials, "
            f"{expected} neurons), those of fit in their order."
        )
    return values


# ------------------------------------------------------------------------------------------- maps


def are_maps(values: Any, map_shape: MapShape, image_shape: MapShape | None = None) -> bool:
    """Tell maps, as the transformations give them, from what they are made of.

    Images have the dimensions of maps, too: by the name of the array, or its shape, they differ.
    """
    if not isinstance(values, xr.DataArray):
        return False
    if "feature" in values.dims or values.name == _MAPS:
        return True
    if values.ndim != 4 or values.name == "stimuli":
        return False
    if image_shape is not None and tuple(image_shape) == tuple(map_shape):
        raise ValueError(
            f"an array of the dimensions {values.dims} may be images or maps, both of which have "
            f'the shape {tuple(map_shape)}: call it "{_MAPS}", .rename("{_MAPS}"), or give images '
            "as numbers, .values."
        )
    turned = as_dims(values, ("trial", *_AXES), "the array")
    return image_shape is None or turned.shape[1:] == tuple(map_shape)


def as_maps(values: xr.DataArray, map_shape: MapShape, name: str) -> torch.Tensor:
    """Maps, or vectors of them, as a matrix (trials, features)."""
    flat = "feature" in values.dims
    expected = (prod(map_shape),) if flat else tuple(map_shape)
    dims = ("trial", "feature") if flat else ("trial", *_AXES)
    found = as_array(as_dims(values, dims, name), name)
    if found.shape[1:] != expected:
        raise ValueError(
            f"{name} has maps of the shape {found.shape[1:]}, but those of this model have "
            f"{expected}, along {dims[1:]}: give what a model with maps of this size gave, with "
            "its trials as first dimension."
        )
    if not len(found):
        raise ValueError(f"{name} is empty: expected at least one map.")
    matrix = found.reshape(len(found), -1).astype(np.float32)
    if (lost := ~np.isfinite(matrix).all(axis=1)).any():
        raise ValueError(
            f"{name} holds NaN or infinite values in {in_trials(np.flatnonzero(lost))}: leave "
            "these maps out."
        )
    return torch.from_numpy(matrix)


def labelled(maps: torch.Tensor, labels: Mapping[str, np.ndarray], *, flat: bool) -> xr.DataArray:
    """Maps with names for their dimensions and their trials, or vectors of length 1 of them."""
    values, dims = (unit_length(maps), ("feature",)) if flat else (maps, _AXES)
    coords = {name: ("trial", of) for name, of in labels.items()}
    return xr.DataArray(values.numpy(), dims=("trial", *dims), coords=coords, name=_MAPS)
