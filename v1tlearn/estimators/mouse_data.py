"""From `Trials` to what a model reads of one mouse, on the device or on its way there."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from v1tlearn.estimators._casting import float32
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators.moments import response_blocks
from v1tlearn.estimators.placement import (
    DEVICE,
    MEMORY,
    RECORDINGS,
    StoredImages,
    StoredResponses,
    place,
    read_images,
    scale_responses,
)
from v1tlearn.training import MouseData
from v1tlearn.training.memory import remedies_named
from v1tlearn.training.sources import HostArray
from v1tlearn.trials import Responses, Trials

logger = logging.getLogger("v1tlearn")


def read_responses(
    stream: str | bool, device: torch.device, trials: Trials, target: Responses
) -> Responses:
    """Read responses once for all who need them, unless they are to stay where they are.

    Parameters
    ----------
    stream : "auto" or bool
        See `v1tlearn.estimators.placement.place`.
    device : torch.device
    trials : Trials
    target : Responses
        Of these trials.

    Returns
    -------
    Responses
        In memory, or the same where even that is too small for the recordings.
    """
    where, _ = place(stream, device, trials, target)
    return target if where == RECORDINGS else target.load()


def bring(
    fitted: Fitted,
    trials: Trials,
    target: Responses,
    device: torch.device,
    *,
    stream: str | bool,
    count_recording: bool,
) -> dict[str, MouseData]:
    """Bring trials and scaled responses to the device, or to where they are streamed from.

    Parameters
    ----------
    fitted : Fitted
    trials : Trials
    target : Responses
        Of these trials.
    device : torch.device
    stream : "auto" or bool
    count_recording : bool
        Whether the loss scale counts all trials of the recording.

    Returns
    -------
    dict of str to MouseData

    Raises
    ------
    InsufficientMemoryError
        If memory does not suffice; what helps is named.
    """
    what = f"bringing the trials of the mice {trials.mice} to the device {device}"
    with remedies_named(what, ["low_memory=True", "fewer trials or mice at a time"]):
        where, why = place(stream, device, trials, target)
        if where != DEVICE:
            logger.info(
                "images and responses of %d trials of %d mice are streamed from %s: %s",
                len(trials),
                len(trials.mice),
                "host memory" if where == MEMORY else "the recordings",
                why,
            )
        return {
            mouse: with_responses(
                fitted, trials, mouse, target, device, where, count_recording=count_recording
            )
            for mouse in trials.mice
        }


def mouse_data(fitted: Fitted, trials: Trials, mouse: str, device: torch.device) -> MouseData:
    """Bring the images and the behaviour of one mouse to the device.

    Parameters
    ----------
    fitted : Fitted
    trials : Trials
    mouse : str
    device : torch.device

    Returns
    -------
    MouseData
        Without responses.
    """
    return MouseData(_images(trials, mouse, device), **_common(fitted, trials, mouse, device))


def _common(fitted: Fitted, trials: Trials, mouse: str, device: torch.device) -> dict[str, Any]:
    statistics = fitted.mice[mouse].statistics
    scaling = {name: float(statistics[name]) for name in ("image_mean", "image_std")}
    return {**scaling, **_columns(fitted, trials, mouse, device)}


def with_responses(
    fitted: Fitted,
    trials: Trials,
    mouse: str,
    target: Responses,
    device: torch.device,
    where: str,
    *,
    count_recording: bool = False,
) -> MouseData:
    """Bring everything of one mouse to the device, or to where it is streamed from.

    Parameters
    ----------
    fitted : Fitted
    trials : Trials
    mouse : str
    target : Responses
        Of these trials.
    device : torch.device
    where : {"device", "memory", "recordings"}
    count_recording : bool, default=False

    Returns
    -------
    MouseData
    """
    scale = fitted.mice[mouse].statistics["response_scale"]
    common = _common(fitted, trials, mouse, device)
    n = len(trials.rows(mouse)[0])
    common["scale_trials"] = trials.recorded_trials(mouse) if count_recording else n
    if where == RECORDINGS:
        common |= {"complete": False, "device": device}
        stored = StoredResponses(target, mouse, scale)
        return MouseData(StoredImages(trials, mouse), responses=stored, **common)
    at = torch.device("cpu") if where == MEMORY else device
    images = _images(trials, mouse, at)
    responses, common["complete"] = _responses(target, mouse, scale, at)
    if where == MEMORY:
        held = HostArray(responses.numpy())
        return MouseData(HostArray(images.numpy()), responses=held, device=device, **common)
    return MouseData(images, responses=responses, device=device, **common)


def _images(trials: Trials, mouse: str, device: torch.device) -> torch.Tensor:
    """Images in their own dtype, read and checked block by block."""
    n = len(trials.rows(mouse)[0])
    out: torch.Tensor | None = None
    start = 0
    for block in trials.blocks(mouse):
        images = read_images(block, mouse)
        tensor = torch.from_numpy(np.array(images, copy=None if images.flags.writeable else True))
        if out is None:
            out = torch.empty((n, *tensor.shape[1:]), dtype=tensor.dtype, device=device)
        out[start : start + len(tensor)] = tensor.to(device)
        start += len(tensor)
    assert out is not None  # every mouse has trials
    return out


def _responses(
    target: Responses, mouse: str, scale: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """Scaled responses, NaN where not recorded; and whether all were recorded."""
    rows = target.rows(mouse)[1]
    out = torch.empty((len(rows), len(scale)), dtype=torch.float32, device=device)
    complete, start = True, 0
    for block in response_blocks(target, mouse):
        scaled = scale_responses(block, mouse, scale, rows[start : start + len(block)], target)
        complete = complete and not np.isnan(scaled).any()
        out[start : start + len(scaled)] = torch.from_numpy(scaled).to(device)
        start += len(scaled)
    return out, complete


def _columns(
    fitted: Fitted, trials: Trials, mouse: str, device: torch.device
) -> dict[str, torch.Tensor]:
    """Behaviour of one mouse for the parts of the model that use it."""
    if not fitted.mice[mouse].used_columns:
        return {}
    values, names = _behavior(fitted, trials, mouse, device)
    out = {}
    if fitted.core_columns:
        out["behaviors"] = values[:, [names.index(c) for c in fitted.core_columns]]
    moving = fitted.moving_columns
    if fitted.parameters["shift"] != "none" and set(moving) <= set(names):
        out["pupil"] = values[:, [names.index(c) for c in moving]]
    if fitted.parameters["shift"] == "both_behavior":
        others = [i for i, c in enumerate(names) if c not in moving]
        out["shifter_inputs"] = torch.cat([values[:, others], out["pupil"]], 1)
    return out


def _behavior(
    fitted: Fitted, trials: Trials, mouse: str, device: torch.device
) -> tuple[torch.Tensor, list[str]]:
    """Behaviour columns that the model knows of one mouse, standardised; and their names."""
    values = np.asarray(trials.get("behaviors", mouse), dtype=np.float64)
    one = fitted.mice[mouse]
    given, known = trials.behavior_names(mouse) or [], one.behavior_names or []
    names = [name for name in known if name in given]  # all, in this order, unless assumed
    values = values.take([given.index(name) for name in names], axis=1)
    statistics, rows = one.statistics, trials.rows(mouse)[1]
    scaled = values
    if "behavior_shift" in statistics:
        kept = [known.index(name) for name in names]
        shift, scale = (statistics[f"behavior_{kind}"][kept] for kind in ("shift", "scale"))
        scaled = (values - shift) / scale
    for i, name in enumerate(names):
        for column in (values, scaled) if name in one.used_columns else ():
            float32(column[:, i], mouse, "behaviors", rows, column=name, of=trials)
    with np.errstate(over="ignore"):  # in columns that nobody uses
        return torch.as_tensor(scaled.astype(np.float32), device=device), names
