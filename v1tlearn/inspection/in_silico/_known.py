"""What experiments on models share: which model, which neurons, and behaviour that stands still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._models import ahead, last_step
from v1tlearn._values import as_ids, first_few, plain
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.inspection._opened import behavior_at_model, known_mice
from v1tlearn.nn import EncodingModel
from v1tlearn.trials import Trials


def known(estimator: Any, what: str) -> tuple[Fitted, EncodingModel]:
    """Give what a fitted estimator, or the last step of a Pipeline, knows of its animals.

    Parameters
    ----------
    estimator : object
    what : str
        What is asked for, for errors.

    Returns
    -------
    Fitted, EncodingModel
        Of an ensemble those of its first member.

    Raises
    ------
    TypeError
        If it predicts no responses.
    NotFittedError
        Before `fit`.
    """
    model = last_step(estimator)
    if isinstance(model, type) or not isinstance(model, PredictionMixin):
        kind = model if isinstance(model, type) else type(model)
        came = "the class" if isinstance(model, type) else "an object of the class"
        raise TypeError(
            f"{what} need a fitted model that predicts responses, {came} {kind.__name__} came: "
            "expected an estimator such as CNNRegressor, or a Pipeline that ends in one."
        )
    check_is_fitted(model)
    return model._knows()


def chosen_neurons(fitted: Fitted, neurons: Any) -> dict[str, np.ndarray]:
    """Places of the neurons that are asked for, by mouse.

    Parameters
    ----------
    fitted : Fitted
    neurons : dict of str to sequence, or sequence, optional
        Unit ids of each mouse, or a mask over its neurons; a model of one mouse needs no dict. All
        by default.

    Returns
    -------
    dict of str to ndarray of int

    Raises
    ------
    ValueError
        If a mouse or a neuron is unknown, an id not unique, or none is left.
    """
    if neurons is None:
        return {mouse: np.arange(one.n_neurons) for mouse, one in fitted.mice.items()}
    if not isinstance(neurons, Mapping):
        if len(fitted.mice) > 1:
            raise ValueError(
                f"neurons: the model has the mice {list(fitted.mice)}: give unit ids by mouse, "
                f"neurons={{{next(iter(fitted.mice))!r}: [...]}}."
            )
        neurons = {next(iter(fitted.mice)): neurons}
    mice = known_mice(fitted, list(neurons))
    return {
        mouse: _places(fitted, mouse, wanted)
        for mouse, wanted in zip(mice, neurons.values(), strict=True)
    }


def _places(fitted: Fitted, mouse: str, wanted: Any) -> np.ndarray:
    values = np.atleast_1d(as_ids(wanted, f"mouse {mouse!r}: neurons", of="neuron"))
    if values.ndim > 1:
        raise ValueError(
            f"mouse {mouse!r}: neurons has the shape {values.shape}: expected unit ids in a row."
        )
    ids = unit_ids(fitted, mouse)
    if values.dtype == bool:
        if values.shape != ids.shape:
            raise ValueError(
                f"mouse {mouse!r}: a mask of the shape {values.shape} came as neurons, the mouse "
                f"has {len(ids)}: expected one entry per neuron."
            )
        places = np.flatnonzero(values)
    else:
        named = [str(value) for value in values.ravel()]
        by_id: dict[str, list[int]] = {}
        for place, name in enumerate(map(str, ids)):
            by_id.setdefault(name, []).append(place)
        if unknown := [name for name in named if name not in by_id]:
            raise ValueError(
                f"mouse {mouse!r}: there is no {first_few(np.array(unknown), 'neuron')} among its "
                f"{len(ids)}, whose unit ids go from {ids[0]} to {ids[-1]}."
            )
        if twice := [name for name in named if len(by_id[name]) > 1]:
            raise ValueError(
                f"mouse {mouse!r}: several neurons have the unit id {twice[0]}: choose by a mask."
            )
        places = np.array([by_id[name][0] for name in named], dtype=np.int64)
        if len(set(places.tolist())) < len(places):
            raise ValueError(f"mouse {mouse!r}: neurons names some unit ids twice: name each once.")
    if not len(places):
        raise ValueError(f"mouse {mouse!r}: neurons chooses none: expected at least one.")
    return places


def unit_ids(fitted: Fitted, mouse: str) -> np.ndarray:
    """Unit ids of the neurons of a mouse; numbers from 0 on where nobody told them.

    Parameters
    ----------
    fitted : Fitted
    mouse : str

    Returns
    -------
    ndarray of shape (n_neurons,)
    """
    one = fitted.mice[mouse]
    return np.arange(one.n_neurons) if one.unit_ids is None else one.unit_ids


def neuron_coords(fitted: Fitted, mouse: str, places: np.ndarray) -> dict[str, Any]:
    """Coordinates of some neurons: unit ids, and what else was told of them.

    Parameters
    ----------
    fitted : Fitted
    mouse : str
    places : ndarray of int

    Returns
    -------
    dict of str to (dims, values)
    """
    labels = {"neuron": unit_ids(fitted, mouse)} | dict(fitted.mice[mouse].labels)
    return {name: ("neuron", values[places]) for name, values in labels.items()}


def constant_behavior(
    estimator: Any, fitted: Fitted, mouse: str, behaviors: Mapping[str, float] | None
) -> np.ndarray | None:
    """One row of behaviour of a mouse, in the units that the last step of a Pipeline takes.

    Parameters
    ----------
    estimator : estimator or Pipeline
    fitted : Fitted
    mouse : str
    behaviors : mapping of str to float, optional
        By column, in the units of the recordings: they go through the steps of a Pipeline. Others
        are at the zero of what the model sees: their mean, or zero where they are only scaled.

    Returns
    -------
    ndarray of shape (n_columns,), or None of a model without behaviour

    Raises
    ------
    TypeError
        If behaviour is no mapping.
    ValueError
        If a column is unknown or a value not finite.
    """
    if behaviors is not None and not isinstance(behaviors, Mapping):
        raise TypeError(
            f"behaviors is a {type(behaviors).__name__}: expected a dict of numbers by column, "
            'such as {"running_speed": 0.0}.'
        )
    one = fitted.mice[mouse]
    used, names = list(one.used_columns), list(one.behavior_names or [])
    named = {
        name: plain(value, f"behaviors[{name!r}]") for name, value in (behaviors or {}).items()
    }
    for name, value in named.items():
        if name not in used:
            found = guess(str(name), used)
            raise ValueError(
                f"behaviors names {name!r}, the model uses the columns {used} of mouse {mouse!r}"
                f"{did_you_mean(list(map(repr, found)))} Name those only."
            )
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"behaviors: {name!r} is {value!r}: expected a finite number.")
    if not used:
        return None
    shift = one.statistics.get("behavior_shift")
    row = np.zeros(len(names)) if shift is None else np.array(shift, dtype=np.float64)
    for name, value in behavior_at_model(estimator, fitted, mouse, named).items():
        row[names.index(name)] = value
    return row


def core_pixels(model: EncodingModel, mouse: str, channels: int) -> dict[str, Any]:
    """Coordinates of the pixels that a core sees, in pixels of the stimuli.

    Parameters
    ----------
    model : EncodingModel
    mouse : str
    channels : int

    Returns
    -------
    dict of str to (dim, values, attrs)
    """
    rows, columns = (side.cpu().numpy() for side in model.cropper.source_positions(mouse))
    pixel = {"units": "pixel"}
    return {
        "channel": np.arange(channels),
        "height": ("height", rows, {"long_name": "row of the stimulus", **pixel}),
        "width": ("width", columns, {"long_name": "column of the stimulus", **pixel}),
    }


def one_trial(
    estimator: Any, fitted: Fitted, mouse: str, behaviors: Mapping[str, float] | None
) -> Trials:
    """Trials of one empty image at constant behaviour, from which a model's inputs are read.

    Parameters
    ----------
    estimator : estimator or Pipeline
    fitted : Fitted
    mouse : str
    behaviors : mapping of str to float, optional

    Returns
    -------
    Trials
        As the model itself takes them.
    """
    row = constant_behavior(estimator, fitted, mouse, behaviors)
    return _trials({mouse: np.zeros((1, *fitted.image_shape), np.float32)}, fitted, {mouse: row})


def as_trials(
    estimator: Any,
    stimuli: Mapping[str, np.ndarray],
    fitted: Fitted,
    behaviors: Mapping[str, float] | None,
) -> Trials:
    """Trials of stimuli of each mouse, at constant behaviour, as the model itself takes them.

    Parameters
    ----------
    estimator : estimator or Pipeline
    stimuli : mapping of str to ndarray of shape (n, [time,] channel, height, width)
        As `estimator` takes them: they go through the steps of a Pipeline.
    fitted : Fitted
    behaviors : mapping of str to float, optional

    Returns
    -------
    Trials
    """
    rows = {mouse: constant_behavior(estimator, fitted, mouse, behaviors) for mouse in stimuli}
    if last_step(estimator) is not estimator:
        any_row = {m: np.zeros(len(fitted.mice[m].behavior_names or [])) for m in stimuli}
        passed = ahead(estimator, _trials(stimuli, fitted, any_row))
        stimuli = {mouse: np.asarray(passed.get("stimuli", mouse)) for mouse in stimuli}
    return _trials(stimuli, fitted, rows)


def _trials(
    stimuli: Mapping[str, np.ndarray], fitted: Fitted, rows: Mapping[str, np.ndarray | None]
) -> Trials:
    recordings = {}
    for mouse, values in stimuli.items():
        frames = values.ndim == 5
        dims = ("trial", *(("time",) if frames else ()), "channel", "height", "width")
        data: dict[str, Any] = {"stimuli": (dims, values)}
        coords: dict[str, Any] = {"image_id": ("trial", np.arange(len(values)))}
        row = rows[mouse]
        if row is not None and len(row):
            shape = values.shape[: 1 + frames]
            data["behaviors"] = ((*dims[: 1 + frames], "behavior"), np.tile(row, (*shape, 1)))
            coords["behavior"] = list(fitted.mice[mouse].behavior_names or [])
        if frames and fitted.frame_rate is not None:
            times = np.arange(values.shape[1]) / fitted.frame_rate
            coords["time"] = ("time", times, {"units": "s"})
        recordings[mouse] = xr.Dataset(data, coords)
    return Trials(recordings)
