"""The compiled kernels, where they were built and run on this processor."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)

try:
    from . import _attention_kernel as kernel
except ImportError as error:
    kernel = None
    logger.info(
        "v1tlearn was installed without a C compiler (%s): attention on CPUs takes longer", error
    )

# Types that there are kernels for, and their names.
TYPES = {getattr(torch, name): name for name in (kernel.types() if kernel else ())}
if kernel and not TYPES:
    logger.info("this processor has no AVX-512: attention on CPUs takes longer")
RANDOM_STEPS = 2**16  # of the random numbers that decide on what is dropped
MAX_RATE = 0.99  # above, these steps would change the mean of what is kept by a thousandth


def steps(rate: float) -> tuple[float, int]:
    """Factor of what is kept, and below which of the random numbers something is dropped.

    Parameters
    ----------
    rate : float
        Probability of being dropped, below 1; in effect a multiple of 2^-16.

    Returns
    -------
    upscale : float
    limit : int
    """
    return 1 / (1 - rate), round(rate * RANDOM_STEPS)


def takes(tensor: torch.Tensor, rate: float) -> bool:
    """Tell whether the kernels are made for a tensor and a dropout rate."""
    known = tensor.device.type == "cpu" and tensor.dtype in TYPES
    has_memory = type(tensor) in (torch.Tensor, torch.nn.Parameter)  # other than fake tensors
    return known and has_memory and 0 <= rate <= MAX_RATE


def n_threads(*, worth_it: bool) -> int:
    """Threads that share the work of a kernel, which are those of torch."""
    return torch.get_num_threads() if worth_it else 1
