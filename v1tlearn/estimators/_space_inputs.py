"""What comes to the space of an alignment, images, responses or maps of either, and what leaves it.

Dimensions and labels of labelled arrays are used or refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn._values import as_array, as_dims
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._populations import Population, read_population
from v1tlearn.estimators._ranges import warn_of_other_ranges
from v1tlearn.estimators._reading import read_predict
from v1tlearn.nn import AlignmentModel, check_towers, unit_length
from v1tlearn.trials import Trials
from v1tlearn.trials._places import in_trials

MapShape = tuple[int, int, int]

_MAPS = "maps"  # the name that labelled maps bear
_AXES = ("channel", "height", "width")


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
    warn_of_other_ranges(fitted, trials)
    return trials


def read_responses(
    fitted: Fitted, model: AlignmentModel, responses: Any, mouse_ids: Any = None
) -> Population:
    """Bring responses to one matrix per mouse, with the neurons in the order of those at `fit`."""
    check_towers(*model.readouts)
    if isinstance(responses, Trials):
        check_like_fit(fitted, model, responses)
    return read_population(fitted.mice, responses, mouse_ids)


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
