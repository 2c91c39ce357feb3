"""From where on values vary, and what is only the rounding of the sums behind them."""

from __future__ import annotations

import numpy as np

# What has a standard deviation of at most this share of its largest absolute value is constant. By
# the precision of the values that came.
ROUNDING_FLOAT32 = 1e-6
ROUNDING_FLOAT64 = 1e-12
_OF_VARIANCES = 1e-9  # share of a variance that is rounding, of the sums of squares behind it


def rounding_of(dtype: np.dtype) -> float:
    """Share of the largest absolute value below which values of a dtype do not vary."""
    if dtype.kind != "f" or dtype.itemsize == 8:
        return ROUNDING_FLOAT64
    if dtype.itemsize < 8:
        return ROUNDING_FLOAT32
    return ROUNDING_FLOAT64 * float(np.finfo(dtype).eps / np.finfo(np.float64).eps)


def variance_left(variance: np.ndarray, noise: np.ndarray | float) -> np.ndarray:
    """What noise leaves of a variance: 0 where the two differ by nothing but rounding."""
    left = variance - noise
    return np.where(np.abs(left) > _OF_VARIANCES * variance, left, 0.0)
