"""What experiments on models share: which model, which neurons, and behaviour that stands still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._models import last_step
from v1tlearn._values import first_few
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators.prediction import PredictionMixin
from v1tlearn.nn import EncodingModel


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


def known_mice(fitted: Fitted, mice: str | Sequence[str] | None) -> list[str]:
    """Mice that are asked for, all by default; unknown ones are refused.

    Parameters
    ----------
    fitted : Fitted
    mice : str or sequence of str, optional

    Returns
    -------
    list of str
    """
    if mice is None:
        return list(fitted.mice)
    wanted = [mice] if isinstance(mice, str) else [str(mouse) for mouse in mice]
    unknown = [mouse for mouse in wanted if mouse not in fitted.mice]
    if unknown or not wanted:
        found = [name for mouse in unknown for name in guess(mouse, fitted.mice)]
        raise ValueError(
            f"mice: {unknown or wanted} came, this model has {list(fitted.mice)}"
            f"{did_you_mean(list(map(repr, found)))}"
        )
    return list(dict.fromkeys(wanted))


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
    values = np.atleast_1d(np.asarray(wanted))
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
    fitted: Fitted, mouse: str, behaviors: Mapping[str, float] | None
) -> np.ndarray | None:
    """One row of behaviour of a mouse, in the units of its recording.

    Parameters
    ----------
    fitted : Fitted
    mouse : str
    behaviors : mapping of str to float, optional
        By column. Others are at the zero of what the model sees: their mean, or zero where they are
        only scaled.

    Returns
    -------
    ndarray of shape (n_columns,), or None of a model without behaviour

    Raises
    ------
    ValueError
        If a column is unknown or a value not finite.
    """
    one = fitted.mice[mouse]
    used, names = list(one.used_columns), list(one.behavior_names or [])
    for name, value in (behaviors or {}).items():
        if name not in used:
            found = guess(str(name), used)
            raise ValueError(
                f"behaviors names {name!r}, the model uses the columns {used} of mouse {mouse!r}"
                f"{did_you_mean(list(map(repr, found)))} Name those only."
            )
        if not np.isfinite(value):
            raise ValueError(f"behaviors: {name!r} is {value}: expected a finite number.")
    if not used:
        return None
    shift = one.statistics.get("behavior_shift")
    row = np.zeros(len(names)) if shift is None else np.array(shift, dtype=np.float64)
    for name, value in (behaviors or {}).items():
        row[names.index(name)] = float(value)
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


def one_trial(fitted: Fitted, mouse: str, behaviors: Mapping[str, float] | None) -> Any:
    """Trials of one empty image at constant behaviour, from which a model's inputs are read.

    Parameters
    ----------
    fitted : Fitted
    mouse : str
    behaviors : mapping of str to float, optional

    Returns
    -------
    Trials
    """
    return as_trials(
        {mouse: np.zeros((1, *fitted.image_shape), np.float32)}, fitted, behaviors, frames=False
    )


def as_trials(
    stimuli: Mapping[str, np.ndarray],
    fitted: Fitted,
    behaviors: Mapping[str, float] | None,
    *,
    frames: bool,
) -> Any:
    """Trials of stimuli (n, [time,] channel, height, width) of each mouse, at constant behaviour.

    Parameters
    ----------
    stimuli : mapping of str to ndarray
    fitted : Fitted
    behaviors : mapping of str to float, optional
    frames : bool
        Whether stimuli are movies.

    Returns
    -------
    Trials
    """
    from v1tlearn.trials import Trials

    recordings = {}
    for mouse, values in stimuli.items():
        dims = ("trial", *(("time",) if frames else ()), "channel", "height", "width")
        data: dict[str, Any] = {"stimuli": (dims, values)}
        coords: dict[str, Any] = {"image_id": ("trial", np.arange(len(values)))}
        row = constant_behavior(fitted, mouse, behaviors)
        if row is not None:
            shape = values.shape[: 1 + frames]
            data["behaviors"] = ((*dims[: 1 + frames], "behavior"), np.tile(row, (*shape, 1)))
            coords["behavior"] = list(fitted.mice[mouse].behavior_names or [])
        if frames and fitted.frame_rate is not None:
            times = np.arange(values.shape[1]) / fitted.frame_rate
            coords["time"] = ("time", times, {"units": "s"})
        recordings[mouse] = xr.Dataset(data, coords)
    return Trials(recordings)


def on_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Tensor in float32 on a device.

    Parameters
    ----------
    values : ndarray
    device : torch.device

    Returns
    -------
    Tensor
    """
    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32, device=device)
