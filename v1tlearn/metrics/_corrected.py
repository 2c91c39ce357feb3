"""Intervals of metrics that are biased and skewed: bias-corrected and accelerated bootstrap."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

_GROUPS = 100  # of what is drawn, of which each is left out once


def left_out(n_units: int) -> np.ndarray:
    """How often each unit counts where one, or one group of many, is left out.

    Parameters
    ----------
    n_units : int

    Returns
    -------
    ndarray of shape (n_groups, n_units)
    """
    n_groups = min(n_units, _GROUPS)
    return (np.arange(n_units) % n_groups != np.arange(n_groups)[:, None]).astype(np.float64)


def corrected_bounds(
    values: np.ndarray, without: np.ndarray, level: float, most: float = 1.0
) -> np.ndarray:
    """Value and interval, bias-corrected and accelerated (Efron 1987).

    Parameters
    ----------
    values : ndarray of shape (1 + n_draws, n_neurons)
        As recorded, and in every draw. A ratio whose denominator is no positive number, NaN, counts
        as beyond all others, on the side of the value.
    without : ndarray of shape (n_groups, n_neurons)
        Where a group of images is left out.
    level : float
    most : float, default=1.0
        What an end beyond all numbers is taken for; the value itself where that is farther.

    Returns
    -------
    ndarray of shape (3, n_neurons)
        The ends are NaN where there is no value, or there are no draws.
    """
    value, draws = values[0], values[1:]
    ends = np.full((2, len(value)), np.nan)
    known = ~np.isnan(value)
    if len(draws) and known.any():
        ends[:, known] = _ends(value[known], draws[:, known], without[:, known], level, most)
    return np.stack([value, *ends])


def _ends(
    value: np.ndarray, draws: np.ndarray, without: np.ndarray, level: float, most: float
) -> np.ndarray:
    n = len(draws)
    beyond = np.where(value < 0, -np.inf, np.inf)
    ordered = np.sort(np.where(np.isnan(draws), beyond, draws), axis=0)
    share = ((ordered < value).sum(0) + (ordered == value).sum(0) / 2) / n
    bias = norm.ppf(np.clip(share, 1 / (n + 1), n / (n + 1)))
    away = np.nanmean(without, axis=0) - without
    squares = np.nansum(away**2, axis=0) ** 1.5
    cubes = np.nansum(away**3, axis=0)
    skew = np.divide(cubes, 6 * squares, where=squares > 0, out=np.zeros_like(squares))
    ends = []
    for point in norm.ppf([(1 - level) / 2, (1 + level) / 2]):
        moved = bias + (bias + point) / (1 - skew * (bias + point))
        place = np.clip(np.rint(norm.cdf(moved) * (n + 1)).astype(int) - 1, 0, n - 1)
        end = np.take_along_axis(ordered, place[None], axis=0)[0]
        farthest = np.sign(end) * np.maximum(most, np.abs(value))
        ends.append(np.where(np.isinf(end), farthest, end))
    low, high = ends
    return np.stack([np.minimum(low, value), np.maximum(high, value)])
