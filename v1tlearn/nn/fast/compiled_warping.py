"""Soft-DTW and its gradient for the CPU by a compiled kernel, where one was built.

From frames to values in one pass, with gradients beside them, which the backward pass only has to
multiply with what comes in.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import chosen, worth_threads
from v1tlearn.nn.fast.derivatives import differentiable_once

logger = logging.getLogger(__name__)

try:
    from v1tlearn.nn.fast import _warping as kernel  # type: ignore[attr-defined]  # it is in C
except ImportError as error:
    kernel = None
    logger.info("no compiled soft-DTW (%s), so that it takes longer on CPUs", error)

# Cells of a table above which those of eight pairs, which are worked on at once, leave the caches.
_MOST_CELLS = 2**16
# Cells, times values of a frame, below which threads cost more than they save.
_WORK_WORTH_THREADS = 1_000_000


def takes_warping(x: Tensor, y: Tensor) -> bool:
    """Tell whether the kernel is made for two tensors of sequences, and is to be taken."""
    own_memory = all(type(s) in (Tensor, torch.nn.Parameter) for s in (x, y))
    on_cpu = x.device.type == y.device.type == "cpu" and not torch.compiler.is_compiling()
    fits = max(x.shape[1], y.shape[1]) ** 2 <= _MOST_CELLS
    return bool(kernel) and own_memory and on_cpu and fits and chosen() in ("auto", "compiled")


class CompiledWarping(torch.autograd.Function):
    """Values (n,) of sequences (n, p, d), (n, q, d), both float32 or float64.

    Float64 inside. None in place of values where costs, as multiples of the softness, are not
    finite, or beyond 2^50.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, gamma: float, divergence: bool) -> Tensor | None:
        """Values, and gradients of each, which are kept."""
        n, p, d = x.shape
        ordered, q = (x.contiguous(), y.contiguous()), y.shape[1]
        values = torch.empty(n, dtype=torch.float64)
        needed = zip(ordered, ctx.needs_input_grad, strict=False)
        grads = [torch.empty_like(s) if needs else None for s, needs in needed]
        worth_it = worth_threads(n * (p + q) ** 2 * d, _WORK_WORTH_THREADS)
        tensors = (*ordered, values, *grads)
        good = kernel.run(
            (n, p, q, d), x.dtype == torch.float64, divergence, gamma,
            *(0 if tensor is None else tensor.data_ptr() for tensor in tensors),
            torch.get_num_threads() if worth_it else 1,
        )  # fmt: skip
        ctx.save_for_backward(x, y, *grads)
        return values.to(x.dtype) if good else None

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """What comes in, times what was kept."""
        *_, by_x, by_y = ctx.saved_tensors
        factor = gradient[:, None, None]
        return *(None if by is None else by * factor for by in (by_x, by_y)), None, None
