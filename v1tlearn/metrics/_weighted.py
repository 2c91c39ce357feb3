"""Metrics of resampled images, all draws at once: an image counts as often as it was drawn.

Every metric of a neuron is a function of a few sums over images, so that a draw costs a product of
matrices and no pass over the trials. An image that was drawn twice is two images, as if its trials
had been copied under another id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from v1tlearn._rounding import ROUNDING_FLOAT32, variance_left
from v1tlearn.metrics._arrays import there
from v1tlearn.metrics._evaluate import Block, Repeats, Selection

_CONSTANT = ROUNDING_FLOAT32**2  # a variance below this share of the mean square is rounding


@dataclass(frozen=True)
class Weighted:
    """A block of neurons, its trials sorted by image, and how often its images were drawn.

    Attributes
    ----------
    block : Block
    units : ndarray of int of shape (n_images,)
        Which of the things that are drawn each image belongs to: itself, or a part of a movie.
    weights : ndarray of shape (n_draws, n_units)
    """

    block: Block
    units: np.ndarray
    weights: np.ndarray

    @property
    def repeats(self) -> Repeats:
        """Trials of each image."""
        return there(self.block.repeats)

    @cached_property
    def true(self) -> np.ndarray:
        """Responses less their mean, (n_trials, n_neurons)."""
        return self.block.true - self.block.true.mean(axis=0)

    @cached_property
    def pred(self) -> np.ndarray:
        """Predictions less their mean, (n_trials, n_neurons)."""
        pred = there(self.block.pred)
        return pred - pred.mean(axis=0)

    @cached_property
    def between_repeats(self) -> np.ndarray:
        """Squares of the responses to each image around their mean, summed, (n_images, n)."""
        means = self.repeats.mean(self.true)
        return self.repeats.sum((self.true - self.repeats.spread(means)) ** 2)

    @cached_property
    def n_images(self) -> np.ndarray:
        """Images in each draw, (n_draws, 1)."""
        return self.total(np.ones((len(self.repeats.counts), 1)))

    @cached_property
    def n_trials(self) -> np.ndarray:
        """Trials in each draw, (n_draws, 1)."""
        return self.total(self.repeats.counts[:, None].astype(np.float64))

    @cached_property
    def _by_unit(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.argsort(self.units, kind="stable")
        present, starts = np.unique(self.units[order], return_index=True)
        return order, starts, self.weights[:, present]

    def total(self, of_images: np.ndarray) -> np.ndarray:
        """Sum over the images of each draw, (n_images, n) to (n_draws, n)."""
        order, starts, weights = self._by_unit
        return weights @ np.add.reduceat(of_images[order], starts, axis=0)

    def total_of_trials(self, values: np.ndarray) -> np.ndarray:
        """Sum over the trials of each draw, (n_trials, n) to (n_draws, n)."""
        return self.total(self.repeats.sum(values))


@dataclass(frozen=True)
class Statistic:
    """What is computed of every draw.

    Attributes
    ----------
    of : callable
        Of a `Weighted`, the values (n_draws, n_neurons), or a pair of such: value and weight of a
        slope through the origin.
    trials : str
        Which trials it is of, as in `evaluate`.
    limits : (float, float)
        Between which all values lie.
    corrected : bool
        Whether intervals of neurons are corrected for its bias and skew.
    """

    of: Callable[[Weighted], tuple[np.ndarray, np.ndarray | None]]
    trials: Selection
    limits: tuple[float, float] = (-np.inf, np.inf)
    corrected: bool = False


def _variance(
    count: np.ndarray, sums: np.ndarray, squares: np.ndarray, ddof: int = 0
) -> np.ndarray:
    """Variance (n_draws, n_neurons) from sums; 0 where it is nothing but rounding."""
    variance = squares - sums**2 / count
    return np.where(variance > _CONSTANT * squares, variance, 0.0) / (count - ddof)


def _correlation(
    count: np.ndarray, x: np.ndarray, y: np.ndarray, total: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Correlation of (n, n_neurons) over what is drawn; 0 where one is constant."""
    of_x, of_y = total(x), total(y)
    variances = _variance(count, of_x, total(x * x)) * _variance(count, of_y, total(y * y))
    covariance = total(x * y) / count - of_x * of_y / count**2
    r = np.where(variances > 0, np.clip(covariance / np.sqrt(variances), -1, 1), 0.0)
    return np.where(count >= 2, r, np.nan)


def _single_trial(drawn: Weighted) -> np.ndarray:
    return _correlation(drawn.n_trials, drawn.true, drawn.pred, drawn.total_of_trials)


def _to_average(drawn: Weighted) -> np.ndarray:
    means = drawn.repeats.mean(drawn.true), drawn.repeats.mean(drawn.pred)
    return _correlation(drawn.n_images, *means, drawn.total)


def _jackknife(drawn: Weighted) -> np.ndarray:
    true, repeats = drawn.true, drawn.repeats
    others = repeats.spread(repeats.sum(true)) - true
    others /= np.repeat(repeats.counts - 1.0, repeats.counts)[:, None]
    return _correlation(drawn.n_trials, true, others, drawn.total_of_trials)


def _total_and_noise(drawn: Weighted) -> tuple[np.ndarray, np.ndarray]:
    """Variance over all trials, mean over images of that between repeats, (n_draws, n_neurons)."""
    sums, squares = (drawn.total_of_trials(values) for values in (drawn.true, drawn.true**2))
    total = _variance(drawn.n_trials, sums, squares, ddof=1)
    noise = drawn.between_repeats / (drawn.repeats.counts[:, None] - 1.0)
    return total, drawn.total(noise) / drawn.n_images


def _fev(drawn: Weighted) -> np.ndarray:
    total, noise = _total_and_noise(drawn)
    return np.where(total > 0, variance_left(total, noise) / total, np.nan)


def _feve(drawn: Weighted, *, strict: bool = False, threshold: float = 0.15) -> np.ndarray:
    total, noise = _total_and_noise(drawn)
    error = drawn.total_of_trials(there(drawn.block.error) ** 2) / drawn.n_trials
    left = variance_left(total, noise)
    explainable = left / total
    enough = explainable > threshold if strict else explainable >= threshold
    explained = 1.0 - (error - noise) / left
    return np.where((total > 0) & (left != 0) & enough, explained, np.nan)


def _of_means(drawn: Weighted) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean responses over images, and signal power, (n_draws, n_neurons)."""
    repeats, count = drawn.repeats, drawn.n_images
    means, counts = repeats.mean(drawn.true), repeats.counts
    variance = _variance(count, drawn.total(means), drawn.total(means**2), ddof=1)
    n = counts[0]
    if (counts != n).any():
        noise = drawn.between_repeats / (counts * (counts - 1.0))[:, None]
        return variance, variance_left(variance, drawn.total(noise) / count)
    by_repeat = drawn.true.reshape(len(counts), n, -1)  # (images, repeats, neurons)
    of_repeats = sum(
        _variance(count, drawn.total(by_repeat[:, k]), drawn.total(by_repeat[:, k] ** 2), ddof=1)
        for k in range(n)
    )
    return variance, variance_left(n**2 * variance, of_repeats) / (n * (n - 1.0))


def _normalized_correlation(drawn: Weighted) -> np.ndarray:
    count = drawn.n_images
    response, prediction = drawn.repeats.mean(drawn.true), drawn.repeats.mean(drawn.pred)
    sums = drawn.total(response), drawn.total(prediction)
    covariance = drawn.total(response * prediction) - sums[0] * sums[1] / count
    variance = _variance(count, sums[1], drawn.total(prediction**2), ddof=1)
    power = _of_means(drawn)[1]
    value = covariance / (count - 1.0) / np.sqrt(variance * power)
    return np.where((power > 0) & (count >= 2), np.where(variance > 0, value, 0.0), np.nan)


def _single_trial_ceiling(drawn: Weighted) -> np.ndarray:
    explainable = _fev(drawn)
    return np.sqrt(np.where(explainable > 0, explainable, 0.0))


def _average_ceiling(drawn: Weighted) -> np.ndarray:
    variance, power = _of_means(drawn)
    ceiling = np.sqrt(np.where(power > 0, power / variance, 0.0))
    return np.where(drawn.n_images >= 2, ceiling, np.nan)


def _alone(of: Callable[[Weighted], np.ndarray]) -> Callable[[Weighted], tuple[np.ndarray, None]]:
    return lambda drawn: (of(drawn), None)


METRICS = {
    "single_trial_correlation": Statistic(_alone(_single_trial), "by_image", (-1, 1)),
    "average_correlation": Statistic(_alone(_to_average), "by_image", (-1, 1)),
    "feve": Statistic(_alone(_feve), "repeated"),
    "feve_strict": Statistic(_alone(partial(_feve, strict=True)), "repeated"),
    "fraction_oracle": Statistic(lambda d: (_single_trial(d), _jackknife(d)), "repeated"),
    "normalized_correlation": Statistic(
        _alone(_normalized_correlation), "repeated", corrected=True
    ),
}
CEILINGS = {
    "oracle": Statistic(_alone(_jackknife), "repeated", (-1, 1)),
    "explainable_variance": Statistic(_alone(_fev), "repeated", (-np.inf, 1)),
    "single_trial_ceiling": Statistic(_alone(_single_trial_ceiling), "repeated", (0, 1)),
    "average_ceiling": Statistic(_alone(_average_ceiling), "repeated", (0, 1)),
}
