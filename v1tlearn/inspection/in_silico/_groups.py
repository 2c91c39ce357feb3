"""Weights of neurons in groups, whose responses an image is to drive together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._options import as_numbers
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.inspection.in_silico._known import neuron_coords


def weights_of_groups(
    fitted: Fitted, places: Mapping[str, np.ndarray], weights: Any
) -> dict[str, xr.DataArray]:
    """Check the weights of the chosen neurons of each mouse, and label them.

    Parameters
    ----------
    fitted : Fitted
    places : mapping of str to ndarray of int
        Chosen neurons by mouse.
    weights : array, DataArray, or mapping of these by mouse

    Returns
    -------
    dict of str to DataArray of shape (n_groups, n_neurons)
        With the dimensions "group" and "neuron".

    Raises
    ------
    ValueError
        If they do not fit the neurons, or are not finite.
    """
    if not isinstance(weights, Mapping):
        if len(places) > 1:
            raise ValueError(f"weights: give those of the mice {list(places)} in a dict by mouse.")
        weights = {next(iter(places)): weights}
    weights = {str(mouse): values for mouse, values in weights.items()}
    if set(weights) != set(places):
        raise ValueError(
            f"weights came for the mice {list(weights)}, neurons are those of {list(places)}: give "
            "both for the same mice."
        )
    out = {}
    for mouse, chosen in places.items():
        values = weights[mouse]
        if isinstance(values, xr.DataArray):
            named = values if "group" in values.dims else values.expand_dims("group")
            if set(named.dims) != {"group", "neuron"}:
                raise ValueError(
                    f"mouse {mouse!r}: weights have the dimensions {values.dims}: expected group "
                    "and neuron."
                )
            named = named.transpose("group", "neuron")
            named = named.copy(data=as_numbers(named.values, f"mouse {mouse!r}: weights"))
        else:
            array = np.atleast_2d(as_numbers(values, f"mouse {mouse!r}: weights", of="group"))
            if array.ndim != 2:
                raise ValueError(
                    f"mouse {mouse!r}: weights have the shape {array.shape}: expected (groups, "
                    "neurons), or one weight for each neuron."
                )
            named = xr.DataArray(array, dims=("group", "neuron"))
        fits = len(named) and named.shape[1] == len(chosen)
        if not fits or not np.isfinite(named.values).all():
            raise ValueError(
                f"mouse {mouse!r}: weights have the shape {named.shape}: expected finite ones "
                f"(groups, neurons) of the {len(chosen)} chosen neurons."
            )
        ids = neuron_coords(fitted, mouse, chosen)["neuron"][1]
        if "neuron" in named.coords and list(named["neuron"].values) != list(ids):
            raise ValueError(
                f"mouse {mouse!r}: the neurons of the weights are not those that were chosen, in "
                "their order: give weights for neurons in the order of `neurons`."
            )
        if "group" not in named.coords:
            named = named.assign_coords(group=np.arange(len(named)))
        out[mouse] = named
    return out
