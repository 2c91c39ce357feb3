"""Whether arrays are equal, of whatever kinds they are."""

from __future__ import annotations

from typing import Any

import numpy as np


def same_arrays(one: Any, other: Any) -> bool:
    """Whether two arrays have the same shape and the same entries; text is equal to no number."""
    try:
        return np.array_equal(one, other)
    except AttributeError:  # of NumPy 2.0 and 2.1, where text meets numbers
        return False
