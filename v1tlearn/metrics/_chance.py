"""How far chance goes: draws of images, what they give, and what shuffled pairs give."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from v1tlearn._values import plain

ROUNDING = 1e-9  # by which sums in another order may differ and still be as good


def draw_images(n_images: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw as many images as there are, with replacement.

    Parameters
    ----------
    n_images, n : int
        How many images there are, and how many draws.
    rng : Generator

    Returns
    -------
    ndarray of int of shape (n, n_images)
        How often each image was drawn.
    """
    return rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=n)


def shuffle_images(n_images: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Put another image in the place of each.

    Parameters
    ----------
    n_images, n : int
        How many images there are, and how many shuffles.
    rng : Generator

    Returns
    -------
    ndarray of int of shape (n, n_images)
    """
    return rng.permuted(np.tile(np.arange(n_images), (n, 1)), axis=1)


def as_level(level: Any) -> float:
    """Check the level of an interval.

    Parameters
    ----------
    level : float

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If it is not between 0 and 1.
    """
    number = plain(level, "level")
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 < float(number) < 1:
        raise ValueError(f"level={level!r}: expected a number between 0 and 1.")
    return float(number)


def interval(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the central part of draws, which lie along the first axis.

    Parameters
    ----------
    draws : ndarray of shape (n, ...)
    level : float
        The part, such as 0.95.

    Returns
    -------
    low, high : ndarray of shape (...)
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def p_value(
    found: np.ndarray | float, control: np.ndarray, *, lower_is_better: bool = False
) -> np.ndarray:
    """Share of shuffles, the pairs themselves counted in, that do as well as what was found.

    Parameters
    ----------
    found : float or ndarray of shape (...)
    control : ndarray of shape (n, ...)
    lower_is_better : bool, default=False

    Returns
    -------
    ndarray of shape (...)
        NaN where nothing was found, or there are no shuffles.
    """
    if not len(control):
        return np.full(np.shape(found), np.nan)
    sign = -1 if lower_is_better else 1
    as_good = sign * control >= sign * np.asarray(found) - ROUNDING
    return np.where(np.isnan(found), np.nan, (1 + as_good.sum(0)) / (1 + len(control)))
