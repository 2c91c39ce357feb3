"""Whether neighbours in cortex look at neighbouring places."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from v1tlearn._options import as_numbers
from v1tlearn._values import as_whole
from v1tlearn._warn import warn
from v1tlearn.inspection._controls import generator


def retinotopy_smoothness(
    places: xr.Dataset,
    position: Any = None,
    *,
    n_neighbors: int = 10,
    n_permutations: int = 1000,
    random_state: Any = 0,
) -> xr.Dataset:
    """Compare how far neurons look from where their neighbours look with shuffled neurons.

    Parameters
    ----------
    places : Dataset (neuron)
        Of one mouse, with ``x`` and ``y``: from `readout_positions` or `fit_gaussians`. Neurons
        without a place (NaN), or not ``good``, are left out.
    position : array of shape (n_neurons, 2 or 3), optional
        Cortical positions of these neurons, in micrometres; by default ``position`` of `places`.
        The first two axes count, along the surface of the cortex; a DataArray goes by the unit ids
        of both.
    n_neighbors : int, default=10
        In cortex.
    n_permutations : int, default=1000
        Of the places among the neurons.
    random_state : int, RandomState, Generator or None, default=0

    Returns
    -------
    Dataset
        ``scatter``, the root mean squared distance between where a neuron looks and the mean of its
        neighbours, in the unit of ``x``; ``shuffled`` (permutation), the same after permutation;
        ``relative``, `scatter` over the root mean square of `shuffled`, near 1 without any
        retinotopy; ``p_value``, the share of permutations, the true order counted, that are at
        least as smooth; ``distance`` (neuron), that of every neuron that counts.

    Raises
    ------
    TypeError, ValueError
        If there are no places or positions, or no more than `n_neighbors` neurons with both.

    Warns
    -----
    UserWarning
        Where the model computes places from cortical positions (``from_cortex``): such a map is
        smooth whatever it was trained on, and so are the receptive fields of this model. Readouts
        with ``position_network=False`` and averages of what was recorded tell more.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from v1tlearn.inspection import retinotopy_smoothness
    >>> cortex = np.random.default_rng(0).uniform(0, 600, (100, 2))
    >>> x, y = cortex.T / 20
    >>> places = xr.Dataset({"x": ("neuron", x), "y": ("neuron", y)})
    >>> found = retinotopy_smoothness(places, cortex)
    >>> bool(found["relative"] < 0.3), round(float(found["p_value"]), 3)
    (True, 0.001)
    """
    n_neighbors = as_whole(n_neighbors, "n_neighbors")
    n_permutations = as_whole(n_permutations, "n_permutations")
    looks, cortex, counted = places_and_positions(places, position)
    if len(looks) <= n_neighbors:
        raise ValueError(
            f"{len(looks)} neurons have a place and a cortical position: expected more than "
            f"n_neighbors={n_neighbors}."
        )
    if places.attrs.get("from_cortex"):
        warn(
            "the model computes these places from cortical positions, by a smooth function: they "
            "are smooth in an untrained model, too. Fit with position_network=False, or look at "
            "spike_triggered_average of the recordings."
        )
    _, neighbors = cKDTree(cortex[:, :2]).query(cortex[:, :2], n_neighbors + 1)
    # The neuron itself is among them, but not always the first where several lie at one point.
    others = np.array([row[row != i][:n_neighbors] for i, row in enumerate(neighbors)])
    distance = _distances(looks, others)
    rng = generator(random_state)
    shuffled = np.array(
        [_rms(_distances(rng.permutation(looks), others)) for _ in range(n_permutations)]
    )
    scatter = _rms(distance)
    smooth = int((shuffled <= scatter * (1 + 1e-12)).sum())
    unit = {"units": places["x"].attrs.get("units", "pixel")}
    coords = {
        name: ("neuron", places[name].values[counted])
        for name in places.coords
        if places[name].dims == ("neuron",)
    }
    return xr.Dataset(
        {
            "scatter": ((), scatter, unit),
            "relative": ((), scatter / _rms(shuffled)),
            "p_value": ((), (1 + smooth) / (1 + n_permutations)),
            "shuffled": ("permutation", shuffled, unit),
            "distance": ("neuron", distance, unit),
        },
        coords,
        {"mouse_id": places.attrs.get("mouse_id", ""), "n_neighbors": n_neighbors},
    )


def places_and_positions(places: Any, position: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where neurons look, and where they lie, of those for which both are known.

    Parameters
    ----------
    places : Dataset (neuron)
    position : array, DataArray or None

    Returns
    -------
    looks : ndarray of shape (n, 2)
    cortex : ndarray of shape (n, 2 or 3)
    counted : ndarray of bool of shape (n_neurons,)

    Raises
    ------
    TypeError, ValueError
        If there are none, or numbers of neurons differ.
    """
    if not isinstance(places, xr.Dataset) or not {"x", "y"} <= set(places.data_vars):
        raise TypeError(
            f"places is a {type(places).__name__}: expected a Dataset with x and y of one mouse, "
            'such as readout_positions(model)["A"].'
        )
    if position is None:
        if "position" not in places:
            raise ValueError(
                f"places of mouse {places.attrs.get('mouse_id', '')!r} have no cortical position: "
                "the recordings at fit had none; give it, position=array (n_neurons, 2 or 3)."
            )
        position = places["position"]
    if isinstance(position, xr.DataArray):
        if "neuron" not in position.dims:
            raise ValueError(f"position has the dimensions {position.dims}, not neuron.")
        position = position.transpose("neuron", ...)
        if "neuron" in position.coords and "neuron" in places.coords:
            lacks = ~np.isin(places["neuron"].values, position["neuron"].values)
            if lacks.any():
                raise ValueError(
                    f"position lacks {int(lacks.sum())} of the {len(lacks)} neurons of places, such"
                    f" as {places['neuron'].values[lacks][0]!r}."
                )
            position = position.sel(neuron=places["neuron"].values)
    cortex = as_numbers(position, "position", of="neuron")
    n = places.sizes["neuron"]
    if cortex.ndim != 2 or len(cortex) != n or cortex.shape[1] not in (2, 3):
        raise ValueError(
            f"position has the shape {cortex.shape}: expected ({n}, 2 or 3), for the neurons of "
            "places."
        )
    sides = [as_numbers(places[name].values, f"places: {name}", of="neuron") for name in ("x", "y")]
    if any(side.shape != (n,) for side in sides):
        raise ValueError(
            f"places: x and y have the shapes {[side.shape for side in sides]}: expected a number "
            f"for each of the {n} neurons."
        )
    looks = np.stack(sides, 1)
    counted = np.isfinite(looks).all(1) & np.isfinite(cortex).all(1)
    if "good" in places:
        counted &= places["good"].values
    return looks[counted], cortex[counted], np.asarray(counted)


def _distances(looks: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.linalg.norm(looks - looks[others].mean(1), axis=1)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
