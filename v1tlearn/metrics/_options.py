"""Options of metrics: numbers and truth values, checked before anything is computed."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from v1tlearn._values import plain


def as_flag(value: Any, name: str) -> bool:
    """Return a truth value; text, numbers and None are none."""
    flag = plain(value, name)
    if not isinstance(flag, bool):
        raise TypeError(f"{name} is {value!r}, expected True or False.")
    return flag


def as_number(value: Any, name: str, minimum: float = -math.inf) -> float:
    """Return one number that is not below `minimum` and not NaN."""
    number = plain(value, name)
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} is {value!r}, expected one number.")
    if not float(number) >= minimum:  # not so NaN
        wanted = "a number" if minimum == -math.inf else f"a number from {minimum:g} on"
        raise ValueError(f"{name} is {value!r}, expected {wanted}.")
    return float(number)
