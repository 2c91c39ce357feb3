"""Rollout maps of the trials of one mouse, some at a time, with where they lie in the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn._options import as_word
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.inspection._opened import Opened, check_trials, one_model, with_trials
from v1tlearn.nn import attention_rollout
from v1tlearn.nn.rollout import HEAD_REDUCTIONS, PLACEMENTS, has_attention
from v1tlearn.training import numerics
from v1tlearn.trials._arithmetic import labels_of

_BLOCK = 128  # trials that are read, and mapped, at once


def open_attention(estimator: Any, trials: Any, head_reduction: str, placement: str) -> Opened:
    """Open a model whose core has attention.

    Parameters
    ----------
    estimator : estimator
    trials : Trials
    head_reduction : {"mean", "max"}
    placement : {"stretched", "centers"}

    Returns
    -------
    Opened

    Raises
    ------
    TypeError
        If the model has no attention, or is no single model.
    ValueError
        If an option is unknown, or trials are not like those at `fit`.
    NotFittedError
        Before `fit`.
    """
    options = (
        ("head_reduction", head_reduction, HEAD_REDUCTIONS),
        ("placement", placement, PLACEMENTS),
    )
    for name, value, known in options:
        as_word(value, known, name)
    check_trials(trials)
    found = one_model(estimator, "attention")
    core = found.model.core
    if not has_attention(core):
        raise TypeError(
            f"the core of this model, a {type(core).__name__}, has no attention: expected a "
            "transformer, such as V1TRegressor, ViTRegressor or PretrainedViTRegressor. A core of "
            "your own offers weights by a method attention_by_block and an attribute grid, as "
            "v1tlearn.nn.ViTCore does."
        )
    return with_trials(found, estimator, trials)


def maps_by_block(
    found: Opened, mouse: str, head_reduction: str, placement: str
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Map the trials of one mouse, some at a time.

    Parameters
    ----------
    found : Opened
    mouse : str
    head_reduction, placement : str

    Yields
    ------
    maps : ndarray of shape (n_trials, height, width)
        float32.
    moved : ndarray of shape (n_trials, 2), or None
        By how much the crop lay right and down of its place at rest, in pixels of the images at
        `fit`; None where crops do not move.
    """
    model, device = found.model, found.device
    shifter = model.cropper.shifter(mouse)
    height, width = model.cropper.input_size
    half_sides = np.array([width - 1, height - 1]) / 2
    for block in found.trials.blocks(mouse, _BLOCK):
        data = mouse_data(found.fitted, block, mouse, device)
        with ExitStack() as within:
            within.enter_context(torch.inference_mode())
            within.enter_context(numerics("float32", device, deterministic=found.deterministic))
            batch = data.batch(slice(None))
            images, behaviors = model.core_inputs(mouse, batch)
            maps = attention_rollout(
                model.core,
                images,
                behaviors,
                head_reduction=head_reduction,
                placement=placement,
                sizes=[(mouse, len(images))],
            )
            moved = None
            if shifter is not None:
                moving = batch.pupil if batch.shifter_inputs is None else batch.shifter_inputs
                moved = shifter(moving).cpu().double().numpy() * half_sides
        yield maps.float().cpu().numpy(), moved


def labelled(
    found: Opened, mouse: str, maps: np.ndarray, moved: np.ndarray | None, attrs: dict[str, Any]
) -> xr.DataArray:
    """Label the maps of one mouse.

    Parameters
    ----------
    found : Opened
    mouse : str
    maps : ndarray of shape (n_trials, height, width)
    moved : ndarray of shape (n_trials, 2), or None
    attrs : dict

    Returns
    -------
    DataArray (trial, height, width)
    """
    own = found.trials[found.trials.rows(mouse)[0]]
    rows, columns = (side.numpy() for side in found.model.cropper.source_positions(mouse))
    pixels = {"units": "pixel"}
    coords: dict[str, Any] = {
        "height": ("height", rows, {"long_name": "row of the image", **pixels}),
        "width": ("width", columns, {"long_name": "column of the image", **pixels}),
        "image_id": ("trial", own.image_ids),
        "tier": ("trial", own.tiers),
    }
    if (ids := labels_of(own, "trial_id")) is not None:
        coords["trial_id"] = ("trial", ids)
    if moved is not None:
        for name, values in zip(("moved_x", "moved_y"), moved.T, strict=True):
            coords[name] = ("trial", values, {"long_name": "displacement of the crop", **pixels})
    told = {"long_name": "attention rollout", "units": "1", "mouse_id": mouse, **attrs}
    size = list(found.fitted.image_shape[1:])
    return xr.DataArray(
        maps,
        dims=("trial", "height", "width"),
        coords=coords,
        name="attention_rollout",
        attrs={**told, "image_size": size},
    )
