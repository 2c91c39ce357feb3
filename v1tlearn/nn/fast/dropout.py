"""Dropout whose random numbers are cheap on the CPU.

There 16 bits decide on each element, which follow from a seed, by a compiled kernel or by NumPy's
generator where there is none; torch draws a number for every element, which for a transformer takes
as long as its matrix products. Torch's generator gives one seed per call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
    if takes(inputs, rate):
        return CompiledDropout.apply(inputs, None, *threshold(rate), draw_seed())
    return NumpyDropout.apply(inputs, rate)


def draw_seed() -> int:
    """Draw what a dropout follows from, by torch's generator."""
    return int(torch.randint(2**62, (), device="cpu"))


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
    ) -> Tensor:
        """Drop the elements that a seed decides on, in the order of the output's memory."""
        if stride is None:
            out = torch.empty_like(inputs)
        else:
            out = inputs.new_empty_strided(inputs.shape, stride)
        ctx.options = (out.stride(), upscale, limit, seed)
        if inputs.stride() != out.stride():
            inputs = out.copy_(inputs)
        n, name = inputs.numel(), TYPES[inputs.dtype]
        n_threads = torch.get_num_threads() if n > _WORTH_THREADS else 1
        addresses = (inputs.data_ptr(), out.data_ptr())
        kernel.drop(chosen_variant(), name, n, upscale, limit, seed, *addresses, n_threads)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Drop the same elements of the gradient."""
        return CompiledDropout.apply(grad, *ctx.options), None, None, None, None


class NumpyDropout(torch.autograd.Function):
    """Keep a byte per element for the way back."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, rate: float) -> Tensor:
        """Drop elements."""
        n = inputs.numel()
        numbers = np.random.SFC64(draw_seed()).random_raw(-(-n // 4)).view(np.uint16)[:n]
        kept = torch.from_numpy((numbers >= round(rate * 2**16)).view(np.uint8)).view(inputs.shape)
        ctx.save_for_backward(kept)
        ctx.scale = 1 / (1 - rate)
        return (inputs * ctx.scale).mul_(kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Gradient of what was kept."""
        (kept,) = ctx.saved_tensors
        return (grad * ctx.scale).mul_(kept), None
