"""Scores of torch tensors, on their device and without waiting for it, for validation.

The correlation gives the same numbers as `single_trial_correlation` of arrays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from v1tlearn._rounding import ROUNDING_FLOAT32, ROUNDING_FLOAT64


@torch.no_grad()
def correlation(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pearson's correlation over trials of each neuron.

    Parameters
    ----------
    prediction : Tensor (n, neurons)
        Predicted responses, any floating dtype.
    target : Tensor (n, neurons)
        Recorded responses; NaN where not recorded.
    mask : bool Tensor (n, neurons), optional
        False where `target` is to be left out, in addition to NaN.

    Returns
    -------
    Tensor (neurons,)
        0 where prediction or target is constant up to rounding (as in `v1tlearn.metrics`) or
        predictions are not finite, NaN with fewer than two recorded trials.
        float64, or float32 on devices that have no float64.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    Values are taken relative to each neuron's first recorded trial, so that large means do not
    cancel and a constant neuron has a variance of exactly 0.
    """
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; "
            "expected the same (trials, neurons)."
        )
    dtype = torch.float32 if target.device.type == "mps" else torch.float64
    values = torch.stack([prediction.to(dtype), target.to(dtype)])  # (2, n, neurons)
    if len(target) == 0:
        return torch.full_like(values.sum(dim=(0, 1)), torch.nan)
    recorded = ~torch.isnan(target)
    if mask is not None:
        recorded = recorded & mask
    largest = torch.where(recorded, values.abs(), 0).amax(dim=1)  # (2, neurons)
    first = recorded.int().argmax(dim=0)  # (neurons,) 0 where nothing is recorded
    origin = values.gather(1, first.expand(2, 1, -1))  # (2, 1, neurons)
    values = torch.where(recorded, values - origin, 0)
    count = recorded.sum(dim=0).to(dtype)
    mean = values.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(recorded, values - mean, 0)
    squares = centred.square().sum(dim=1)
    varies = [
        (square / count).sqrt() > _rounding(kind) * size
        for square, kind, size in zip(
            squares, (prediction.dtype, target.dtype), largest, strict=True
        )
    ]
    scale = squares[0].sqrt() * squares[1].sqrt()
    product = (centred[0] * centred[1]).sum(dim=0)
    r = torch.where(varies[0] & varies[1], (product / scale).clamp(-1, 1), 0)
    return torch.where(count < 2, torch.nan, r)


@torch.no_grad()
def variance_explained(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, least: float = 0.0
) -> Tensor:
    """Share of the variance over trials that is explained, ``1 - SSE / SST``, of each neuron.

    Parameters
    ----------
    prediction : Tensor (n, neurons)
        Predicted responses, any floating dtype.
    target : Tensor (n, neurons)
        Recorded responses; NaN where not recorded.
    mask : bool Tensor (n, neurons), optional
        False where `target` is to be left out, in addition to NaN.
    least : float, default=0.0
        What SST counts as where it is less.

    Returns
    -------
    Tensor (neurons,)
        At most 1, and below 0 where the mean response predicts better. Both sums run over the
        recorded trials. NaN where the recorded responses are constant. float64, or float32 on
        devices that have no float64.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if prediction.shape != target.shape or prediction.ndim != 2:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; "
            "expected the same (trials, neurons)."
        )
    dtype = torch.float32 if target.device.type == "mps" else torch.float64
    recorded = ~torch.isnan(target)
    if mask is not None:
        recorded = recorded & mask
    low = torch.where(recorded, target, torch.inf).amin(0) if len(target) else target.sum(0)
    high = torch.where(recorded, target, -torch.inf).amax(0) if len(target) else low
    target = torch.where(recorded, target.to(dtype) - low, 0)
    mean = target.sum(0) / recorded.sum(0).clamp(min=1)
    total = torch.where(recorded, target - mean, 0).square().sum(0)
    errors = torch.where(recorded, prediction.to(dtype) - low - target, 0).square().sum(0)
    return torch.where(high > low, 1 - errors / total.clamp(min=least), torch.nan)


def _rounding(dtype: torch.dtype) -> float:
    short = dtype.is_floating_point and dtype.itemsize <= 4
    return ROUNDING_FLOAT32 if short else ROUNDING_FLOAT64
