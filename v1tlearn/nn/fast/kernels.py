"""The compiled kernels, where they were built and run on this processor."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import chosen

logger = logging.getLogger(__name__)

try:
    from v1tlearn.nn.fast import _kernels as kernel  # type: ignore[attr-defined]  # it is in C
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


def kernel_types() -> tuple[torch.dtype, ...]:
    """Types of numbers that there are compiled kernels for, on this processor.

    Returns
    -------
    tuple of torch.dtype
        Empty where nothing was compiled; the logger of this module says why.
    """
    return tuple(TYPES)


def threshold(rate: float) -> tuple[float, int]:
    """Factor of what dropout keeps, and below which of 2^16 random numbers it drops."""
    return 1 / (1 - rate), round(rate * _RANDOM_STEPS)


def takes(tensor: Tensor, rate: float, dtype: torch.dtype | None = None) -> bool:
    """Tell whether the kernels are made for a tensor, once it has a type, and a dropout rate.

    Not for tensors without memory of their own, nor where `using` does without.
    """
    known = tensor.device.type == "cpu" and (dtype or tensor.dtype) in TYPES
    has_memory = type(tensor) in (Tensor, torch.nn.Parameter)
    return known and has_memory and 0 <= rate <= _MAX_RATE and chosen() in ("auto", "compiled")


def prefers_torch(dtype: torch.dtype) -> bool:
    """Tell whether torch multiplies matrices by instructions that the kernels do not use (AMX)."""
    return dtype == torch.bfloat16 and kernel is not None and kernel.has_amx()
