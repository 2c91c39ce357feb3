"""Dropout whose random numbers are cheap on the CPU.

There 16 bits decide on each element, which follow from a seed, by a compiled kernel or by NumPy's
generator where there is none; torch draws a number for every element, which for a transformer takes
as long as its matrix products. Torch's generator gives one seed per call. Rows of a part of a batch
lose what they do where all of it passes, see `v1tlearn.nn.drawing`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn import drawing
from v1tlearn.nn.fast.choice import chosen_variant
from v1tlearn.nn.fast.kernels import TYPES, takes, threshold
from v1tlearn.nn.fast.variants import kernel

# Below, starting threads costs more than they save.
_WORTH_THREADS = 100_000


def drop(inputs: Tensor, rate: float) -> Tensor:
    """Set elements to zero with a probability above 0, and scale the others up."""
    on_cpu = inputs.device.type == "cpu" and inputs.is_floating_point()
    if torch.compiler.is_compiling() or not on_cpu or rate == 1:
        return F.dropout(inputs, rate)
    where = drawing.places(len(inputs)) if inputs.dim() else None
    if where is not None and inputs.stride(0) != max(inputs.stride()):
        inputs = inputs.contiguous()  # rows one after the other
    seed = drawing.seed(where)
    if takes(inputs, rate):
        rows = None if where is None else where.rows
        return CompiledDropout.apply(inputs, None, *threshold(rate), seed, rows)
    return NumpyDropout.apply(inputs, rate, seed, where)


def drop_plainly(inputs: Tensor, drop: Callable[[Tensor], Tensor], *, axes: int) -> Tensor:
    """Dropout of torch, which draws for the first axes of its inputs."""
    if drawing.places(len(inputs)) is None:
        return drop(inputs)
    rest = [*inputs.shape[1:axes], *[1] * (inputs.dim() - axes)]
    order = inputs.dim_order()  # torch draws in the order of memory

    def draw(n: int) -> Tensor:
        """What `n` rows of ones keep, scaled up."""
        ones = inputs.new_ones([[n, *rest][axis] for axis in order])
        return drop(ones.permute([order.index(axis) for axis in range(inputs.dim())]))

    return inputs * drawing.drawn(draw, len(inputs))


class CompiledDropout(torch.autograd.Function):
    """By a kernel that keeps nothing but a seed: what is dropped is computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        stride: tuple[int, ...] | None,
        upscale: float,
        limit: int,
        seed: int,
        rows: Tensor | None,
    ) -> Tensor:
        """Drop the elements that a seed decides on, in the order of the output's memory.

        They are those of some rows of a batch, int64 and contiguous, where these are given.
        """
        if stride is None:
            out = torch.empty_like(inputs)
        else:
            out = inputs.new_empty_strided(inputs.shape, stride)
        ctx.options = (out.stride(), upscale, limit, seed, rows)
        if inputs.stride() != out.stride():
            inputs = out.copy_(inputs)
        n, name = inputs.numel(), TYPES[inputs.dtype]
        n_threads = torch.get_num_threads() if n > _WORTH_THREADS else 1
        addresses = (inputs.data_ptr(), out.data_ptr())
        of_rows = (n, 0) if rows is None else (n // len(rows), rows.data_ptr())
        options = (upscale, limit, seed, *addresses, n_threads, *of_rows)
        kernel.drop(chosen_variant(), name, n, *options)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Drop the same elements of the gradient."""
        return CompiledDropout.apply(grad, *ctx.options), None, None, None, None, None


class NumpyDropout(torch.autograd.Function):
    """Keep a byte per element for the way back."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, rate: float, seed: int, where: drawing.Places | None
    ) -> Tensor:
        """Drop elements."""
        n = inputs.numel() if where is None else inputs[0].numel() * where.whole
        numbers = np.random.SFC64(seed).random_raw(-(-n // 4)).view(np.uint16)[:n]
        if where is not None:
            numbers = numbers.reshape(where.whole, -1)[where.rows.numpy()]
        kept = torch.from_numpy((numbers >= round(rate * 2**16)).view(np.uint8)).view(inputs.shape)
        ctx.save_for_backward(kept)
        ctx.scale = 1 / (1 - rate)
        return (inputs * ctx.scale).mul_(kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of what was kept."""
        (kept,) = ctx.saved_tensors
        return (grad * ctx.scale).mul_(kept), None, None, None
