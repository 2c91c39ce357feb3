"""The compiled kernels, where they were built and run on this processor."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

try:
    from . import _kernels as kernel
except ImportError as error:
    kernel = None
    logger.info(
        "no compiled kernels (%s), so that attention and dropout on CPUs take longer; on Linux and "
        "x86-64, install v1tlearn again where there are GCC 10 or newer and the headers of Python",
        error,
    )

# Types that there are kernels for, and their names.
TYPES = {getattr(torch, name): name for name in (kernel.types() if kernel else ())}
if kernel and torch.float32 not in TYPES:
    logger.info("the compiled kernels need AVX-512, which this processor does not have")

_RANDOM_STEPS = 2**16  # of the random numbers that decide on what is dropped
# Above, a rate rounded to these steps would change the mean of what is kept by a thousandth.
_MAX_RATE = 0.99


def threshold(rate: float) -> tuple[float, int]:
    """Factor of what dropout keeps, and below which of 2^16 random numbers it drops.

    Parameters
    ----------
    rate : float
        Probability of being dropped.

    Returns
    -------
    upscale : float
    limit : int
    """
    return 1 / (1 - rate), round(rate * _RANDOM_STEPS)


def takes(tensor: Tensor, rate: float, dtype: torch.dtype | None = None) -> bool:
    """Tell whether the kernels are made for a tensor and a dropout rate.

    Parameters
    ----------
    tensor : Tensor
    rate : float
        Probability of being dropped.
    dtype : torch.dtype, optional
        What the tensor will be by then; its own by default.

    Returns
    -------
    bool
        False for tensors without memory of their own, too, and under `torch.func`.
    """
    known = tensor.device.type == "cpu" and (dtype or tensor.dtype) in TYPES
    is_plain = type(tensor) in (Tensor, torch.nn.Parameter)
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return known and is_plain and not transformed and 0 <= rate <= _MAX_RATE


def prefers_torch(dtype: torch.dtype) -> bool:
    """Tell whether torch multiplies matrices by instructions that the kernels do not use (AMX)."""
    return dtype == torch.bfloat16 and kernel is not None and kernel.has_amx()
