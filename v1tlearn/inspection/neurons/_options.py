"""Options that several functions of the neurons take, checked in one place."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def check_whole(least: int, **options: Any) -> None:
    """Check that options are whole numbers from the least one on.

    Parameters
    ----------
    least : int
    **options
        By name.

    Raises
    ------
    ValueError
        If one is not.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name}={value!r}: expected a whole number from {least} on.")


def check_share(share: Any) -> None:
    """Check that a share is one.

    Parameters
    ----------
    share : float
        Above 0 and up to 1.

    Raises
    ------
    ValueError
        If it is not.
    """
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) <= 1:
        raise ValueError(f"share={share!r}: expected a number above 0 and up to 1.")
