"""Dropout whose random numbers are cheap on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ._compiled import TYPES, kernel, takes, threshold

# Below, starting threads costs more than they save.
_WORTH_THREADS = 100_000


class Dropout(nn.Dropout):
    """Dropout of single elements (Srivastava et al. 2014), as torch's, but quick on the CPU.

    There 16 bits decide on each element, which follow from a seed, by a compiled kernel or by
    NumPy's generator where there is none; torch draws a number for every element, which for a
    transformer takes as long as its matrix products. Torch's generator gives one seed per call.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs, of any shape, with some elements zero and the others scaled up in training."""
        if not self.training or self.p == 0:
            return inputs
        on_cpu = inputs.device.type == "cpu" and inputs.is_floating_point()
        if torch.compiler.is_compiling() or not on_cpu or self.p == 1:
            return F.dropout(inputs, self.p)
        if takes(inputs, self.p):
            return _CompiledDropout.apply(inputs, *threshold(self.p))
        return _Dropout.apply(inputs, self.p)


class _CompiledDropout(torch.autograd.Function):
    """By a kernel that keeps nothing but a seed: what is dropped is computed again."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, upscale: float, limit: int) -> Tensor:
        """Drop elements."""
        ctx.options = (upscale, limit, int(torch.randint(2**62, (), device="cpu")))
        out = torch.empty_like(inputs)
        ctx.stride = out.stride()
        return _drop(inputs, out, *ctx.options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of what was kept."""
        out = grad.new_empty_strided(grad.shape, ctx.stride)
        return _drop(grad, out, *ctx.options), None, None


def _drop(inputs: Tensor, out: Tensor, upscale: float, limit: int, seed: int) -> Tensor:
    """Drop the elements that a seed decides on, in the order of the output's memory."""
    if inputs.stride() != out.stride():
        inputs = out.copy_(inputs)
    n, name = inputs.numel(), TYPES[inputs.dtype]
    n_threads = torch.get_num_threads() if n > _WORTH_THREADS else 1
    kernel.drop(name, n, upscale, limit, seed, inputs.data_ptr(), out.data_ptr(), n_threads)
    return out


class _Dropout(torch.autograd.Function):
    """Keep a byte per element for the way back."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, rate: float) -> Tensor:
        """Drop elements."""
        n = inputs.numel()
        random = np.random.SFC64(int(torch.randint(2**62, (), device="cpu")))
        numbers = random.random_raw(-(-n // 4)).view(np.uint16)[:n]
        kept = torch.from_numpy((numbers >= round(rate * 2**16)).view(np.uint8)).view(inputs.shape)
        ctx.save_for_backward(kept)
        ctx.scale = 1 / (1 - rate)
        return (inputs * ctx.scale).mul_(kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Gradient of what was kept."""
        (kept,) = ctx.saved_tensors
        return (grad * ctx.scale).mul_(kept), None
