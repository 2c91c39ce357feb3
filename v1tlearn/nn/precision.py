"""Number formats of values: what is computed in float32 wherever half of it came."""

from __future__ import annotations

from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Give numbers of half precision in float32, and others as they are.

    Parameters
    ----------
    values : Tensor

    Returns
    -------
    Tensor
    """
    return values.float() if values.dtype.itemsize < 4 else values
