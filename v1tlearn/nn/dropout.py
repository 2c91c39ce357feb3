"""Dropout whose random numbers are cheap on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Dropout(nn.Dropout):
    """Dropout of single elements (Srivastava et al. 2014), as torch's, but quick on the CPU.

    There 16 bits decide on each element, many of which come out of one draw; torch draws a number
    for every element, which for a transformer takes as long as its matrix products. Torch's
    generator gives one seed per call.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs, of any shape, with some elements zero and the others scaled up in training."""
        if not self.training or self.p == 0:
            return inputs
        quick = inputs.device.type == "cpu" and inputs.is_floating_point() and self.p < 1
        if quick and not torch.compiler.is_compiling():
            return _Dropout.apply(inputs, self.p)
        return F.dropout(inputs, self.p)


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
