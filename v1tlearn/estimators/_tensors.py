"""From `Trials` to tensors on the device, with the statistics learned at `fit`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from v1tlearn.estimators._modules import PUPIL, shift_columns
from v1tlearn.preprocessing.statistics import trial_statistics
from v1tlearn.training import MouseData
from v1tlearn.trials import Responses, Trials

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor

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
    check_targets(target)
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
    statistics = {m: _learned(estimator, trials, target, m, names[m]) for m in mice}
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
        "statistics_": statistics,
    }
    if core_columns:
        out["feature_names_in_"] = np.asarray(core_columns, dtype=object)
    return out


def check_targets(target: Responses) -> None:
    """Check the responses that a model is to be trained on.

    Raises
    ------
    ValueError
        If a mouse has too few trials, infinite responses, or no activity at all.
    """
    for mouse in target.mice:
        values = target.get(mouse)
        if len(values) < 2:
            raise ValueError(
                f"mouse {mouse!r} has {len(values)} trial to train on: expected at least 2. Leave "
                "this mouse out, or set validation_fraction=0 if the others went to validation."
            )
        _check_no_infinity(mouse, values)
        if not np.nan_to_num(values).any():
            raise ValueError(
                f"mouse {mouse!r} is silent: all its responses are zero or NaN. Leave this mouse "
                "out (withheld test responses cannot be trained on)."
            )
        if (values < 0).any():
            warnings.warn(
                f"mouse {mouse!r}: responses reach {np.nanmin(values):.3g}, but the Poisson loss "
                "is meant for values from 0 on: shift or rectify them.",
                UserWarning,
                stacklevel=4,
            )


def check_validation(target: Responses) -> None:
    """Check the responses that choose the best epoch.

    Raises
    ------
    ValueError
        If a correlation over trials cannot be computed for a mouse.
    """
    for mouse in target.mice:
        values = target.get(mouse)
        _check_no_infinity(mouse, values)
        n = int((~np.isnan(values)).sum(axis=0).max())
        if n < 2:
            raise ValueError(
                f"mouse {mouse!r} has recorded responses in {n} trial of the validation set: a "
                "correlation needs at least 2. Give it more trials, leave this mouse out of "
                "validation, or set validation_fraction=0 to train on everything."
            )


def _check_no_infinity(mouse: str, values: np.ndarray) -> None:
    if np.isinf(values).any():
        raise ValueError(
            f"mouse {mouse!r}: responses hold infinite values: replace them with NaN (not "
            "recorded) or leave these neurons out."
        )


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
                f"mouse {mouse!r}: shift_columns asks for {missing}, the columns are {columns}."
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
                f"mouse {mouse!r}: behavior_columns asks for {missing}, the columns are {columns}."
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
    target: Responses,
    mouse: str,
    names: list[str] | None,
) -> dict[str, Any]:
    """Statistics of one mouse over its training trials; floats and arrays."""
    values = target.get(mouse)
    blocks = [response_moments(values[:, i : i + 512]) for i in range(0, values.shape[1], 512)]
    mean, std = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    scale = np.fmax(std, RESPONSE_STD_FLOOR * np.nanmean(std))
    if not (scale > 0).all():
        raise ValueError(
            f"mouse {mouse!r}: no neuron's responses vary over the {len(values)} training trials: "
            "give more trials, or leave this mouse out."
        )
    out: dict[str, Any] = {
        "response_mean": mean.astype(np.float32),
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
    values = values.astype(np.float64)
    recorded = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        n = recorded.sum(axis=0) / recorded.any(axis=0)
        mean = np.where(recorded, values, 0).sum(axis=0) / n
        std = np.sqrt(np.where(recorded, (values - mean) ** 2, 0).sum(axis=0) / n)
    return mean, std


def to_device(
    estimator: EncodingRegressor, trials: Trials, target: Responses
) -> dict[str, MouseData]:
    """Bring trials and scaled responses to the device.

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
    return {mouse: mouse_data(estimator, trials, mouse, target) for mouse in trials.mice}


def mouse_data(
    estimator: EncodingRegressor, trials: Trials, mouse: str, target: Responses | None
) -> MouseData:
    """Bring one mouse's trials to the device.

    Parameters
    ----------
    estimator : EncodingRegressor
    trials : Trials
    mouse : str
    target : Responses or None
        None where responses are to be predicted.

    Returns
    -------
    MouseData
    """
    device = estimator.device_
    statistics = estimator.statistics_[mouse]
    data = MouseData(
        _images(trials, mouse, device),
        float(statistics["image_mean"]),
        float(statistics["image_std"]),
    )
    if estimator.used_columns_[mouse]:
        values, names = _behavior(estimator, trials, mouse, device)
        if estimator.core_columns_:
            data.behaviors = values[:, [names.index(c) for c in estimator.core_columns_]]
        moving = shift_columns(estimator.parameters_["shift_columns"])
        if estimator.parameters_["shift"] != "none" and set(moving) <= set(names):
            data.pupil = values[:, [names.index(c) for c in moving]]
        if estimator.parameters_["shift"] == "both_behavior":
            others = [i for i, c in enumerate(names) if c not in moving]
            data.shifter_inputs = torch.cat([values[:, others], data.pupil], 1)
    if target is not None:
        scaled = target.get(mouse) / statistics["response_scale"]
        responses = torch.as_tensor(scaled.astype(np.float32), device=device)
        recorded = ~torch.isnan(responses)
        data.responses = torch.nan_to_num(responses)
        data.recorded = None if recorded.all() else recorded
        whole = estimator.loss_scale == "sqrt_recording"
        data.scale_trials = trials.recorded_trials(mouse) if whole else len(responses)
    return data


def _images(trials: Trials, mouse: str, device: torch.device) -> torch.Tensor:
    """Images in their own dtype, read and checked block by block."""
    n = len(trials.rows(mouse)[0])
    out, start = None, 0
    for block in trials.blocks(mouse):
        images = block.get("stimuli", mouse)
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise ValueError(
                f"mouse {mouse!r}: stimuli hold NaN or infinite values: leave these trials out."
            )
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
        tensor = torch.from_numpy(np.array(images, copy=None if images.flags.writeable else True))
        if out is None:
            out = torch.empty((n, *tensor.shape[1:]), dtype=tensor.dtype, device=device)
        out[start : start + len(tensor)] = tensor.to(device)
        start += len(tensor)
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
