"""Draws of images and of neurons at once, and how far few of either widen what draws tell.

Draws with replacement of n things vary by (n - 1) / n of what means of n things vary, and draws of
few things know little of how far things differ: quantiles of Student's t are further out than those
of draws. Hesterberg (2015) widens intervals of one sample so; here there are two, of which one may
be small and hardly count. As for a mean with several sources of variance, degrees of freedom are
those of Satterthwaite (1946).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as t_distribution

from v1tlearn.metrics._draws import centred, interval_of, mean_over_mice


@dataclass(frozen=True)
class TwoWays:
    """A mean over neurons, as recorded and in every draw.

    Attributes
    ----------
    both : ndarray of shape (1 + n,)
        Images and neurons drawn.
    images : ndarray of shape (1 + n,)
        Images drawn, neurons as recorded.
    neurons : tuple of ndarray of shape (1 + n,)
        Images as recorded, neurons drawn: of every mouse its part of the mean.
    n_images : int
    n_neurons : tuple of int
        Of every mouse.
    """

    both: np.ndarray
    images: np.ndarray
    neurons: tuple[np.ndarray, ...]
    n_images: int
    n_neurons: tuple[int, ...]

    @classmethod
    def mean(cls, of_mice: Sequence[TwoWays]) -> TwoWays:
        """Mean over mice, whose neurons are others and are drawn on their own.

        Parameters
        ----------
        of_mice : sequence of TwoWays

        Returns
        -------
        TwoWays
        """
        return cls(
            mean_over_mice([one.both for one in of_mice]),
            mean_over_mice([one.images for one in of_mice]),
            tuple(part / len(of_mice) for one in of_mice for part in one.neurons),
            min(one.n_images for one in of_mice),
            tuple(n for one in of_mice for n in one.n_neurons),
        )

    def _widening(self) -> tuple[float, float]:
        """By how much draws are too close to each other, and degrees of freedom."""
        counts = (self.n_images, *self.n_neurons)
        sources = zip((self.images, *self.neurons), counts, strict=True)
        parts = [(_variance(draws), n - 1) for draws, n in sources]
        parts = [(variance, df) for variance, df in parts if variance > 0 and df > 0]
        drawn = _variance(self.both)
        if not parts or not drawn > 0:
            return 1.0, np.inf
        total = sum(variance for variance, _ in parts)
        lacking = sum(variance / df for variance, df in parts)
        df = total**2 / sum(variance**2 / df for variance, df in parts)
        return float(np.sqrt(1 + lacking / drawn)), float(df)

    def bounds(
        self, level: float, limits: tuple[float, float] = (-np.inf, np.inf)
    ) -> tuple[float, float, float]:
        """Value and interval.

        Parameters
        ----------
        level : float
        limits : (float, float)
            Between which all values lie.

        Returns
        -------
        value, low, high : float
            The ends are NaN where no draw has a value.
        """
        wider, df = self._widening()
        quantile = (1 + level) / 2
        wider *= t_distribution.ppf(quantile, df) / norm.ppf(quantile)
        value = self.both[0]
        ends = interval_of(value + wider * (centred(self.both) - value), level)
        low, high = np.clip(ends, *limits)
        return float(value), float(low), float(high)

    def p_value(self) -> float:
        """Two-sided p-value of a value of 0.

        Returns
        -------
        float
            NaN where no draw has a value.
        """
        drawn = centred(self.both)
        drawn = drawn[~np.isnan(drawn)]
        if not len(drawn):
            return np.nan
        below, above = (1 + int((side <= 0).sum()) for side in (drawn, -drawn))
        p = min(1.0, 2 * min(below, above) / (1 + len(drawn)))
        wider, df = self._widening()
        return float(2 * t_distribution.sf(norm.isf(p / 2) / wider, df))


def _variance(values: np.ndarray) -> float:
    """Of the draws; 0 where there are none, or nothing but rounding."""
    draws = values[1:][~np.isnan(values[1:])]
    if not len(draws):
        return 0.0
    variance = float(draws.var())
    return variance if variance > 1e-24 * float(np.square(draws).max()) else 0.0
