"""Gradients that say so where they cannot be differentiated again.

Torch's own decorator for that, `once_differentiable`, raises only where the gradient that comes in
is a function itself and the graph leads on; elsewhere second derivatives come out as zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import transformed

Backward = Callable[..., tuple[Tensor | None, ...]]


class _Refusal(torch.autograd.Function):
    """A gradient, and all that it is a function of."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *reached: Tensor) -> Tensor:
        """Gradient as it is."""
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        """Refuse."""
        _refuse()


def _refuse() -> None:
    raise RuntimeError(
        "a gradient of a gradient, or several gradients at once, are asked of a quick form that "
        "has first derivatives only; compute within `with v1tlearn.nn.plain():`, where there are "
        "derivatives of any order."
    )


def differentiable_once(backward: Backward) -> Backward:
    """Let an error name `nn.plain` where second derivatives reach a backward pass.

    Which is that of an autograd function that saves all inputs with gradients.
    """

    @wraps(backward)
    def once(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Go back, and refuse to go on."""
        if transformed():
            _refuse()
        with torch.no_grad():
            found = backward(ctx, *gradients)
        if not torch.is_grad_enabled():
            return found
        given = (*gradients, *ctx.saved_tensors)
        reached = [tensor for tensor in given if tensor is not None and tensor.requires_grad]
        return tuple(None if g is None else _Refusal.apply(g, *reached) for g in found)

    return once


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors as they are."""
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Gradients as they are."""
        return gradients


def once(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Pass tensors on to an operation of torch whose gradients cannot be differentiated."""
    return tensors if torch.compiler.is_compiling() else _Once.apply(*tensors)
