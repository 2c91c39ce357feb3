"""From `Trials` to tensors on the device, with the statistics learned at `fit`."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn.estimators._modules import PUPIL, shift_columns
from v1tlearn.estimators._moments import ResponseMoments, moments_in_blocks, response_blocks
from v1tlearn.estimators._placement import (
    DEVICE,
    MEMORY,
    RECORDINGS,
    StoredImages,
    StoredResponses,
    place,
    read_images,
    scale_responses,
)
from v1tlearn.preprocessing.statistics import trial_statistics
from v1tlearn.training import MouseData, resolve_device
from v1tlearn.training.sources import HostArray
from v1tlearn.trials import Responses, Trials

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor

logger = logging.getLogger("v1tlearn")

RESPONSE_STD_FLOOR = 0.01  # of the mean standard deviation over neurons, as published


def describe(estimator: EncodingRegressor, trials: Trials, target: Responses) -> dict[str, Any]:
    """Learn from training trials everything that a model needs to know of its mice.

    Parameters
    ----------
    estimator : EncodingRegressor
        For its parameters.
    trials : Trials
    target : Responses
        Of these trials.

    Returns
    -------
    dict
        Fitted attributes by name.

    Raises
    ------
    ValueError
        If a mouse cannot be trained on, or behaviour does not fit the parameters.
    """
    mice = trials.mice
    moments = check_targets(target)
    shapes = {m: trials[trials.rows(m)[0][:1]].get("stimuli", m).shape[1:] for m in mice}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"stimuli differ in shape (channels, height, width) between mice: {shapes}. Bring "
            "them to one shape first (ResizeStimuli, Grayscale)."
        )
    names = {m: trials.behavior_names(m) for m in mice}
    _check_shift_columns(estimator, names)
    mode = _behavior_mode(estimator, names)
    core_columns = _core_columns(estimator, names) if mode != "none" else []
    used = {m: _used_columns(estimator, names[m], core_columns) for m in mice}
    statistics = {m: _learned(estimator, trials, moments[m], m, names[m]) for m in mice}
    out = {
        "mice_": mice,
        "n_neurons_": {m: len(statistics[m]["response_scale"]) for m in mice},
        "image_shape_": tuple(int(s) for s in shapes[mice[0]]),
        "behavior_names_": names,
        "columns_assumed_": False,
        "behavior_mode_": mode,
        "core_columns_": core_columns,
        "used_columns_": used,
        "positions_": {m: trials.positions(m) for m in mice},
        "neurons_": {m: plain_labels(trials.neuron_labels(m)) for m in mice},
        "statistics_": statistics,
    }
    if core_columns:
        out["feature_names_in_"] = np.asarray(core_columns, dtype=object)
    return out


def plain_labels(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring labels of neurons to numbers and text, which every file can hold.

    Parameters
    ----------
    labels : dict of str to ndarray

    Returns
    -------
    dict of str to ndarray
    """
    out = {}
    for name, values in labels.items():
        if values.dtype.kind in "biuf":
            values = values.astype(values.dtype.newbyteorder("="))
        elif values.dtype.kind != "U":
            values = np.array([str(value) for value in values])
        out[name] = values
    return out


def check_targets(target: Responses) -> dict[str, ResponseMoments]:
    """Check the responses that a model is to be trained on.

    Returns
    -------
    dict of str to ResponseMoments
        What the check learned of them, per mouse.

    Raises
    ------
    ValueError
        If a mouse has too few trials, infinite responses, or no activity at all.
    """
    out = {}
    for mouse in target.mice:
        n = len(target.rows(mouse)[0])
        if n < 2:
            raise ValueError(
                f"mouse {mouse!r} has {n} trial to train on: expected at least 2. Leave "
                "this mouse out, or set validation_fraction=0 if the others went to validation."
            )
        moments = out[mouse] = _recorded_moments(target, mouse)
        if not any(np.nan_to_num(values).any() for values in (moments.mean, moments.std)):
            raise ValueError(
                f"mouse {mouse!r} is silent: all its responses are zero or NaN. Leave this mouse "
                "out (withheld test responses cannot be trained on)."
            )
        if moments.lowest < 0:
            warnings.warn(
                f"mouse {mouse!r}: responses reach {moments.lowest:.3g}, but the Poisson loss "
                "is meant for values from 0 on: shift or rectify them.",
                UserWarning,
                stacklevel=4,
            )
    return out


def check_validation(target: Responses) -> None:
    """Check the responses that choose the best epoch.

    Raises
    ------
    ValueError
        If a correlation over trials cannot be computed for a mouse.
    """
    for mouse in target.mice:
        n = int(_recorded_moments(target, mouse).count.max())
        if n < 2:
            raise ValueError(
                f"mouse {mouse!r} has recorded responses in {n} trial of the validation set: a "
                "correlation needs at least 2. Give it more trials, leave this mouse out of "
                "validation, or set validation_fraction=0 to train on everything."
            )


def _recorded_moments(target: Responses, mouse: str) -> ResponseMoments:
    moments = moments_in_blocks(lambda: response_blocks(target, mouse))
    if not np.isfinite(moments.total).all():
        raise ValueError(
            f"mouse {mouse!r}: responses hold infinite values: replace them with NaN (not "
            "recorded) or leave these neurons out."
        )
    return moments


def _behavior_mode(estimator: EncodingRegressor, names: dict[str, list[str] | None]) -> str:
    without = [m for m, columns in names.items() if columns is None]
    mode = estimator.behavior_mode
    if mode == "none":
        return mode
    if mode == "auto":
        if not without:
            return estimator._published_behavior_mode
        if len(without) == len(names):
            return "none"
    if without:
        raise ValueError(
            f"behavior_mode={mode!r}, but the mice {without} have no behaviors: give behaviour for "
            "all mice, leave these mice out, or set behavior_mode='none'."
        )
    return mode


def _check_shift_columns(estimator: EncodingRegressor, names: dict[str, list[str] | None]) -> None:
    if isinstance(estimator.shift_columns, str) or estimator.shift == "none":
        return  # mice without pupil columns do without a shifter
    wanted = shift_columns(estimator.shift_columns)
    if not wanted:
        raise ValueError("shift_columns is empty: name behaviour columns, or set shift='none'.")
    for mouse, columns in names.items():
        missing = [c for c in wanted if c not in (columns or [])]
        if missing:
            raise ValueError(
                f"mouse {mouse!r}: shift_columns asks for {missing}, the columns are {columns}"
                f"{did_you_mean([c for name in missing for c in guess(name, columns or [])])}"
            )


def _core_columns(estimator: EncodingRegressor, names: dict[str, list[str] | None]) -> list[str]:
    wanted = estimator.behavior_columns
    first, columns = next(iter(names.items()))
    if isinstance(wanted, str):
        dropped = PUPIL if wanted == "non_pupil" else ()
        per_mouse = {m: [c for c in n if c not in dropped] for m, n in names.items()}
        for mouse, others in per_mouse.items():
            if others != per_mouse[first]:
                raise ValueError(
                    f"mouse {mouse!r} has the behaviour columns {others}, mouse {first!r} "
                    f"{per_mouse[first]}: name common ones in behavior_columns."
                )
        chosen = per_mouse[first]
    else:
        chosen = [str(c) for c in wanted]
    for mouse, columns in names.items():
        missing = [c for c in chosen if c not in columns]
        if missing:
            raise ValueError(
                f"mouse {mouse!r}: behavior_columns asks for {missing}, the columns are {columns}"
                f"{did_you_mean([c for name in missing for c in guess(name, columns)])}"
            )
    if not chosen:
        raise ValueError(
            f"behavior_columns={wanted!r} leaves no column of {columns} for the core: choose "
            "others, or set behavior_mode='none'."
        )
    return chosen


def _used_columns(
    estimator: EncodingRegressor, names: list[str] | None, core_columns: list[str]
) -> list[str]:
    """Columns without which this model cannot predict, in their order."""
    needed = set(core_columns)
    moving = shift_columns(estimator.shift_columns)
    if estimator.shift != "none" and set(moving) <= set(names or []):
        needed |= set(moving)
    if estimator.shift == "both_behavior":
        needed |= set(names or [])
    return [n for n in names or [] if n in needed]


def _learned(
    estimator: EncodingRegressor,
    trials: Trials,
    responses: ResponseMoments,
    mouse: str,
    names: list[str] | None,
) -> dict[str, Any]:
    """Statistics of one mouse over its training trials; floats and arrays."""
    scale = np.fmax(responses.std, RESPONSE_STD_FLOOR * np.nanmean(responses.std))
    if not (scale > 0).all():
        raise ValueError(
            f"mouse {mouse!r}: no neuron's responses vary over the "
            f"{len(trials.rows(mouse)[0])} training trials: "
            "give more trials, or leave this mouse out."
        )
    out: dict[str, Any] = {
        "response_mean": responses.mean.astype(np.float32),
        "response_scale": scale.astype(np.float32),
        "image_mean": 0.0,
        "image_std": 1.0,
    }
    if not estimator.standardize:
        return out
    return out | trial_statistics(trials, mouse).scaling(names)


def response_moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of neurons over the trials that were recorded.

    Parameters
    ----------
    values : ndarray of shape (n_trials, n_neurons)
        Responses in any unit, NaN where not recorded.

    Returns
    -------
    mean, std : ndarray of shape (n_neurons,)
        In that unit, float64; NaN for neurons that were never recorded.
    """
    moments = moments_in_blocks(lambda: [values])
    return moments.mean, moments.std


def read_responses(estimator: EncodingRegressor, trials: Trials, target: Responses) -> Responses:
    """Read responses once for all who need them, unless they are to stay where they are.

    Parameters
    ----------
    estimator : EncodingRegressor
        For its parameters.
    trials : Trials
    target : Responses
        Of these trials.

    Returns
    -------
    Responses
        In memory, or the same where even that is too small for the recordings.
    """
    device = resolve_device(estimator.device)
    where, _ = place(estimator.stream_data, device, trials, target)
    return target if where == RECORDINGS else target.load()


def to_device(
    estimator: EncodingRegressor, trials: Trials, target: Responses
) -> dict[str, MouseData]:
    """Bring trials and scaled responses to the device, or to where they are streamed from.

    Parameters
    ----------
    estimator : EncodingRegressor
        Fitted so far that statistics and columns are known.
    trials : Trials
    target : Responses
        Of these trials.

    Returns
    -------
    dict of str to MouseData
    """
    where, why = place(estimator.stream_data, estimator.device_, trials, target)
    if where != DEVICE:
        logger.info(
            "images and responses of %d trials of %d mice are streamed from %s: %s",
            len(trials),
            len(trials.mice),
            "host memory" if where == MEMORY else "the recordings",
            why,
        )
    return {mouse: mouse_data(estimator, trials, mouse, target, where) for mouse in trials.mice}


def mouse_data(
    estimator: EncodingRegressor,
    trials: Trials,
    mouse: str,
    target: Responses | None,
    where: str = DEVICE,
) -> MouseData:
    """Bring one mouse's trials to the device, or to where they are streamed from.

    Parameters
    ----------
    estimator : EncodingRegressor
    trials : Trials
    mouse : str
    target : Responses or None
        None where responses are to be predicted.
    where : {"device", "memory", "recordings"}, default="device"

    Returns
    -------
    MouseData
    """
    device, host = estimator.device_, torch.device("cpu")
    statistics = estimator.statistics_[mouse]
    scale = statistics["response_scale"]
    common = {name: float(statistics[name]) for name in ("image_mean", "image_std")}
    common |= _columns(estimator, trials, mouse, device)
    if target is None:
        return MouseData(_images(trials, mouse, device), **common)
    whole = estimator.loss_scale == "sqrt_recording"
    n = len(trials.rows(mouse)[0])
    common["scale_trials"] = trials.recorded_trials(mouse) if whole else n
    if where == RECORDINGS:
        images, complete = StoredImages(trials, mouse), False
        responses = StoredResponses(target, mouse, scale)
    else:
        kept = host if where == MEMORY else device
        images = _images(trials, mouse, kept)
        responses, complete = _responses(target, mouse, scale, kept)
        if where == MEMORY:
            images, responses = HostArray(images.numpy()), HostArray(responses.numpy())
    return MouseData(images, responses=responses, complete=complete, device=device, **common)


def _images(trials: Trials, mouse: str, device: torch.device) -> torch.Tensor:
    """Images in their own dtype, read and checked block by block."""
    n = len(trials.rows(mouse)[0])
    out, start = None, 0
    for block in trials.blocks(mouse):
        images = read_images(block, mouse)
        tensor = torch.from_numpy(np.array(images, copy=None if images.flags.writeable else True))
        if out is None:
            out = torch.empty((n, *tensor.shape[1:]), dtype=tensor.dtype, device=device)
        out[start : start + len(tensor)] = tensor.to(device)
        start += len(tensor)
    return out


def _responses(
    target: Responses, mouse: str, scale: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """Scaled responses, NaN where not recorded; and whether all were recorded."""
    n = len(target.rows(mouse)[0])
    out = torch.empty((n, len(scale)), dtype=torch.float32, device=device)
    complete, start = True, 0
    for block in response_blocks(target, mouse):
        scaled = scale_responses(block, scale)
        complete = complete and not np.isnan(scaled).any()
        out[start : start + len(scaled)] = torch.from_numpy(scaled).to(device)
        start += len(scaled)
    return out, complete


def _columns(
    estimator: EncodingRegressor, trials: Trials, mouse: str, device: torch.device
) -> dict[str, torch.Tensor]:
    """Behaviour of one mouse for the parts of the model that use it."""
    if not estimator.used_columns_[mouse]:
        return {}
    values, names = _behavior(estimator, trials, mouse, device)
    out = {}
    if estimator.core_columns_:
        out["behaviors"] = values[:, [names.index(c) for c in estimator.core_columns_]]
    moving = shift_columns(estimator.parameters_["shift_columns"])
    if estimator.parameters_["shift"] != "none" and set(moving) <= set(names):
        out["pupil"] = values[:, [names.index(c) for c in moving]]
    if estimator.parameters_["shift"] == "both_behavior":
        others = [i for i, c in enumerate(names) if c not in moving]
        out["shifter_inputs"] = torch.cat([values[:, others], out["pupil"]], 1)
    return out


def _behavior(
    estimator: EncodingRegressor, trials: Trials, mouse: str, device: torch.device
) -> tuple[torch.Tensor, list[str]]:
    """Behaviour columns that the model knows of one mouse, standardised; and their names."""
    values = np.asarray(trials.get("behaviors", mouse), dtype=np.float64)
    given, known = trials.behavior_names(mouse), estimator.behavior_names_[mouse]
    names = [name for name in known if name in given]  # all, in this order, unless assumed
    values = values.take([given.index(name) for name in names], axis=1)
    bad = ~np.isfinite(values).all(axis=0)
    bad &= np.isin(names, estimator.used_columns_[mouse])
    if bad.any():
        raise ValueError(
            f"mouse {mouse!r}: behaviors hold NaN or infinite values in "
            f"{[n for n, b in zip(names, bad, strict=True) if b]}: leave these trials out or "
            "fill the gaps."
        )
    statistics = estimator.statistics_[mouse]
    if "behavior_shift" in statistics:
        kept = [known.index(name) for name in names]
        shift, scale = (statistics[f"behavior_{kind}"][kept] for kind in ("shift", "scale"))
        values = (values - shift) / scale
    return torch.as_tensor(values.astype(np.float32), device=device), names
