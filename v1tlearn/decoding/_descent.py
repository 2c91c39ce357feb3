"""Minimisation of many functions of the same form side by side, each with its own steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MEMORY = 10  # steps that tell of the curvature
_ENOUGH = 1e-4  # of the decrease that the slope promises (Armijo)
_CURVED = 1e-10  # cosine of step and change of gradient, below which a step tells nothing
_SHORTEST = 1e-6  # step, in units of the direction, at which a descent is over

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


def minimize(objective: Objective, start: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
    """Limited-memory BFGS with backtracking, of each row of its own (Nocedal 1980).

    Parameters
    ----------
    objective : callable
        Of points (n, d), gives the value (n,) in float64, and the gradient (n, d), of each.
    start : Tensor of shape (n, d)
    n_steps : int
        Evaluations after the first one.

    Returns
    -------
    points : Tensor of shape (n, d)
        The best of each row.
    values : Tensor of shape (n, n_steps + 1)
        After every step; they never rise.
    """
    points = start
    values, gradients = objective(points)
    trace = [values]
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    inverses: list[Tensor] = []  # 1 / (step @ change), 0 where a row keeps nothing of a step
    directions = -gradients
    scale = 1 / _dot(gradients, gradients).sqrt().clamp(min=1)  # as no curvature is known yet
    lengths = scale.clone()
    gamma = scale.clone()
    for _ in range(n_steps):
        slopes = _dot(gradients, directions)
        moving = (lengths > _SHORTEST * scale) & (slopes < 0)
        if not moving.any():
            trace.append(values)
            continue
        tried = points + lengths[:, None].to(points) * directions
        new_values, new_gradients = objective(tried)
        good = moving & (new_values <= values + _ENOUGH * lengths * slopes)
        step = torch.where(good[:, None], tried - points, 0)
        change = torch.where(good[:, None], new_gradients - gradients, 0)
        product, size = _dot(step, change), _dot(change, change)
        curved = product > _CURVED * (_dot(step, step) * size).sqrt()
        known = torch.where(curved, product, 1)
        gamma = torch.where(curved, product / torch.where(curved, size, 1), gamma)
        steps, changes, inverses = (
            [*kept, new][-_MEMORY:]
            for kept, new in (
                (steps, step),
                (changes, change),
                (inverses, torch.where(curved, 1 / known, 0)),
            )
        )
        points = torch.where(good[:, None], tried, points)
        values = torch.where(good, new_values, values)
        gradients = torch.where(good[:, None], new_gradients, gradients)
        onward = -_times_inverse_hessian(gradients, steps, changes, inverses, gamma)
        directions = torch.where(good[:, None], onward, directions)
        scale = torch.where(good, 1, scale)
        lengths = torch.where(good, 1, lengths / 2)
        trace.append(values)
    return points, torch.stack(trace, 1)


def _times_inverse_hessian(
    gradients: Tensor,
    steps: list[Tensor],
    changes: list[Tensor],
    inverses: list[Tensor],
    gamma: Tensor,
) -> Tensor:
    """The two loops of the method, newest step first and then back."""
    out = gradients
    weights = []
    for step, change, inverse in zip(*map(reversed, (steps, changes, inverses)), strict=True):
        weight = inverse * _dot(step, out)
        weights.append(weight)
        out = out - weight[:, None].to(out) * change
    out = gamma[:, None].to(out) * out
    for step, change, inverse, weight in zip(
        steps, changes, inverses, reversed(weights), strict=True
    ):
        out = out + (weight - inverse * _dot(change, out))[:, None].to(out) * step
    return out


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Products of rows, in float64 where the device has it."""
    products = first * second
    return products.sum(1, dtype=torch.float64 if first.device.type != "mps" else None)
