"""Responses of a model's neurons to stimuli that somebody made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._models import last_step
from v1tlearn._values import as_array
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.inspection.in_silico._known import (
    as_trials,
    chosen_neurons,
    known,
    neuron_coords,
)
from v1tlearn.nn import EncodingModel
from v1tlearn.training import isolated
from v1tlearn.trials import Trials

_AT_ONCE = 2**26  # pixels of stimuli that are made into trials at a time
_SIDES = ("channel", "height", "width")


@isolated()
def tuning_curves(
    estimator: Any,
    stimuli: Any,
    neurons: Any = None,
    *,
    behaviors: Mapping[str, float] | None = None,
) -> dict[str, xr.DataArray]:
    """Predict the responses of all neurons to stimuli, at constant behaviour.

    Parameters
    ----------
    estimator : estimator or Pipeline
        Fitted: any model that predicts responses, of images or of movies, ensembles too.
    stimuli : DataArray, array, Trials, or dict of these by mouse
        In the units that `predict` takes, and of the size. A DataArray (..., [time,] channel,
        height, width), such as `gratings`, `gabors` and `plaids` make, keeps its dimensions; where
        one of them is ``neuron``, each neuron is shown its own stimuli. An array (n, [time,]
        channels, height, width) has the dimension ``stimulus``. Of Trials the images are taken,
        and no behaviour. A model of movies takes movies, with ``time``.
    neurons : dict of str to sequence, or sequence, optional
        Unit ids of each mouse, or a mask over its neurons; a model of one mouse needs no dict. All
        neurons of all mice, or those that stimuli name, by default.
    behaviors : mapping of str to float, optional
        Behaviour by column, in the units of the recordings. Columns that are not named are at the
        zero of what the model sees: their mean, or zero where they are only scaled.

    Returns
    -------
    dict of str to DataArray (neuron, ...[, time])
        Per mouse, in the units of the responses: dimensions and coordinates of the stimuli without
        their pixels.

    Raises
    ------
    TypeError
        If this is no model that predicts responses.
    ValueError
        If stimuli do not fit the model, or a mouse, a neuron or a column is unknown.
    NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    tuning_properties : Preferred orientation, selectivity, F1/F0 and others.

    Notes
    -----
    Images go through the core once for all neurons of a mouse, and for all mice where no behaviour
    stands between. A drifting grating is, to a model of images, the sequence of its phases.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import gratings, tuning_curves
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0)).sel(tier="train")
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> curves = tuning_curves(model.fit(trials), gratings((16, 24), spatial_frequency=0.1))
    >>> curves["A"].dims, curves["A"].shape
    (('neuron', 'orientation', 'phase'), (5, 12, 8))
    """
    fitted, model = known(estimator, "tuning curves")
    by_mouse = _by_mouse(stimuli, fitted, neurons)
    places = _neurons(by_mouse, fitted, neurons)
    for mouse, own in by_mouse.items():
        _check(own, fitted, model, mouse, alone=last_step(estimator) is estimator)
    shared = all(own is next(iter(by_mouse.values())) for own in by_mouse.values())
    if shared and "neuron" not in next(iter(by_mouse.values())).dims:
        return _all_see_the_same(estimator, fitted, by_mouse, places, behaviors)
    out = {}
    for mouse, own in by_mouse.items():
        one = {mouse: own}
        if "neuron" in own.dims:
            out[mouse] = _each_sees_its_own(estimator, fitted, mouse, own, places[mouse], behaviors)
        else:
            out |= _all_see_the_same(estimator, fitted, one, places, behaviors)
    return out


def _labelled(stimuli: Any, mouse: str | None = None) -> xr.DataArray:
    """Stimuli with named dimensions."""
    if isinstance(stimuli, Trials):
        assert mouse is not None
        values = np.asarray(stimuli.get("stimuli", mouse))
        ids = stimuli.image_ids[stimuli.rows(mouse)[0]]
        time = ("time",) if values.ndim == 5 else ()
        coords = {"image_id": ("stimulus", ids)}
        return xr.DataArray(values, dims=("stimulus", *time, *_SIDES), coords=coords)
    if isinstance(stimuli, xr.DataArray):
        if not set(_SIDES) <= set(stimuli.dims):
            raise ValueError(
                f"stimuli have the dimensions {stimuli.dims}: expected channel, height and width, "
                "time of movies, and any others."
            )
        time = ("time",) if "time" in stimuli.dims else ()
        stimuli = stimuli.copy(data=as_array(stimuli.values, "stimuli", of="stimulus"))
        return stimuli.transpose(..., *time, *_SIDES)
    values = as_array(stimuli, "stimuli", of="stimulus")
    if values.ndim not in (4, 5):
        raise ValueError(
            f"stimuli have the shape {values.shape}: expected (n, [time,] channels, height, "
            "width), or a DataArray with named dimensions."
        )
    time = ("time",) if values.ndim == 5 else ()
    return xr.DataArray(values, dims=("stimulus", *time, *_SIDES))


def _by_mouse(stimuli: Any, fitted: Fitted, neurons: Any) -> dict[str, xr.DataArray]:
    wanted = list(chosen_neurons(fitted, neurons))
    if isinstance(stimuli, Trials):
        stimuli = dict.fromkeys([m for m in stimuli.mice if m in wanted], stimuli)
        if not stimuli:
            raise ValueError(f"the trials are of none of the mice {wanted} that are asked for.")
    if isinstance(stimuli, Mapping):
        named = {str(mouse): values for mouse, values in stimuli.items()}
        if strangers := [mouse for mouse in named if mouse not in fitted.mice]:
            raise ValueError(
                f"stimuli came for the mice {strangers}, this model has {list(fitted.mice)}."
            )
        if not named.keys() & set(wanted):
            raise ValueError(
                f"stimuli came for the mice {list(named)}: expected some of {wanted}, whose "
                "neurons are asked for."
            )
        return {mouse: _labelled(own, mouse) for mouse, own in named.items() if mouse in wanted}
    own = _labelled(stimuli)
    if "neuron" in own.dims and len(wanted) > 1:
        raise ValueError(
            f"stimuli of each neuron came for the mice {wanted}: give them in a dict by mouse."
        )
    return dict.fromkeys(wanted, own)


def _neurons(
    by_mouse: Mapping[str, xr.DataArray], fitted: Fitted, neurons: Any
) -> dict[str, np.ndarray]:
    asked = chosen_neurons(fitted, neurons)
    out = {}
    for mouse, own in by_mouse.items():
        out[mouse] = asked[mouse]
        if "neuron" not in own.dims:
            continue
        if "neuron" in own.coords:
            named = chosen_neurons(fitted, {mouse: own["neuron"].values})[mouse]
        elif own.sizes["neuron"] == len(asked[mouse]):
            named = asked[mouse]
        else:
            raise ValueError(
                f"mouse {mouse!r}: stimuli came for {own.sizes['neuron']} neurons without unit "
                f"ids, of {len(asked[mouse])}: name them by a coordinate, or choose as many."
            )
        if neurons is not None and set(named.tolist()) != set(asked[mouse].tolist()):
            raise ValueError(
                f"mouse {mouse!r}: stimuli are for other neurons than those that are asked for: "
                "leave out `neurons`, or select from the stimuli."
            )
        out[mouse] = named
    return out


def _check(
    own: xr.DataArray, fitted: Fitted, model: EncodingModel, mouse: str, *, alone: bool
) -> None:
    """Refuse stimuli that do not fit; of which size those of a Pipeline are, its steps know."""
    sees_time = model.context_frames is not None
    if ("time" in own.dims) != sees_time:
        came, takes = ("movies", "images") if "time" in own.dims else ("images", "movies")
        raise ValueError(
            f"mouse {mouse!r}: stimuli are {came}, this model takes {takes}"
            + (": give gratings a temporal_frequency." if sees_time else ", without time.")
        )
    size = own.sizes["height"], own.sizes["width"]
    fits = own.sizes["channel"] == fitted.image_shape[0] and model.cropper.takes(size)
    if alone and not fits:
        raise ValueError(
            f"mouse {mouse!r}: stimuli of (channels, height, width) "
            f"{(own.sizes['channel'], *size)} came, this model takes {fitted.image_shape}."
        )
    if not own.size or not np.isfinite(own.values).all():
        raise ValueError(
            f"mouse {mouse!r}: stimuli are empty or not finite: expected finite pixels."
        )
    if sees_time and "units" in own["time"].attrs and fitted.frame_rate and own.sizes["time"] > 1:
        rate = 1 / float(np.diff(own["time"].values).mean())
        if not np.isclose(rate, fitted.frame_rate, rtol=1e-3):
            raise ValueError(
                f"mouse {mouse!r}: stimuli of {rate:.4g} frames per second came, the model was "
                f"fitted to {fitted.frame_rate:.4g}: set frame_rate."
            )


def _all_see_the_same(
    estimator: Any,
    fitted: Fitted,
    stimuli: Mapping[str, xr.DataArray],
    places: Mapping[str, np.ndarray],
    behaviors: Mapping[str, float] | None,
) -> dict[str, xr.DataArray]:
    own = next(iter(stimuli.values()))
    flat = _flat(own)
    parts: dict[str, list[np.ndarray]] = {mouse: [] for mouse in stimuli}
    for rows in _portions(len(flat), flat[0].size):
        given = dict.fromkeys(stimuli, flat[rows])
        for mouse, values in _predicted(estimator, fitted, given, behaviors).items():
            parts[mouse].append(values[..., places[mouse]])
    return {
        mouse: _as_curves(np.moveaxis(np.concatenate(found), -1, 0), own, fitted, mouse, places)
        for mouse, found in parts.items()
    }


def _each_sees_its_own(
    estimator: Any,
    fitted: Fitted,
    mouse: str,
    own: xr.DataArray,
    places: np.ndarray,
    behaviors: Mapping[str, float] | None,
) -> xr.DataArray:
    own = own.transpose("neuron", ...)
    flat = _flat(own)
    each = len(flat) // len(places)
    found = []
    for rows in _portions(len(flat), flat[0].size):
        values = _predicted(estimator, fitted, {mouse: flat[rows]}, behaviors)[mouse]
        whose = places[np.arange(rows.start, rows.stop) // each]
        index = whose[:, None] if flat.ndim == 5 else whose
        picked = np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
        found.append(picked)
    joined = np.concatenate(found)
    values = joined.reshape(len(places), each, *joined.shape[1:])
    return _as_curves(values, own.isel(neuron=0, drop=True), fitted, mouse, {mouse: places}, own)


def _flat(own: xr.DataArray) -> np.ndarray:
    """Stimuli along one axis."""
    values = np.asarray(own.values)
    return values.reshape(-1, *values.shape[values.ndim - 3 - ("time" in own.dims) :])


def _portions(n: int, size: int) -> Iterator[slice]:
    step = max(1, _AT_ONCE // size)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _predicted(
    estimator: Any,
    fitted: Fitted,
    stimuli: Mapping[str, np.ndarray],
    behaviors: Mapping[str, float] | None,
) -> dict[str, np.ndarray]:
    responses = last_step(estimator).predict(as_trials(estimator, stimuli, fitted, behaviors))
    return {mouse: np.asarray(responses[mouse]) for mouse in stimuli}


def _as_curves(
    values: np.ndarray,
    own: xr.DataArray,
    fitted: Fitted,
    mouse: str,
    places: Mapping[str, np.ndarray],
    labels: xr.DataArray | None = None,
) -> xr.DataArray:
    """Curves (neuron, ...[, time]) with what is known of stimuli and neurons."""
    kept = [dim for dim in own.dims if dim not in _SIDES]
    of_stimuli = own if labels is None else labels
    coords: dict[Any, Any] = {
        name: coord.variable
        for name, coord in of_stimuli.coords.items()
        if not set(coord.dims) & set(_SIDES)
    }
    coords |= neuron_coords(fitted, mouse, places[mouse])
    shape = (len(places[mouse]), *(own.sizes[dim] for dim in kept))
    attrs = {"mouse_id": mouse, "units": "response unit"}
    return xr.DataArray(
        values.reshape(shape), dims=("neuron", *kept), coords=coords, name="response", attrs=attrs
    )
