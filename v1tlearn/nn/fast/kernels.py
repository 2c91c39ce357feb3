"""What the compiled kernels take, and the options that they share."""

from __future__ import annotations

import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import chosen
from v1tlearn.nn.fast.variants import has_amx, kernel

# Types that there are kernels for, and their names.
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"} if kernel else {}

_RANDOM_STEPS = 2**16  # of the random numbers that decide on what is dropped
# Above, a rate rounded to these steps would change the mean of what is kept by a thousandth.
_MAX_RATE = 0.99


def kernel_types() -> tuple[torch.dtype, ...]:
    """Types of numbers that there are compiled kernels for.

    Returns
    -------
    tuple of torch.dtype
        Empty where nothing was compiled, see `describe_kernels`.
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
    return dtype == torch.bfloat16 and has_amx()
