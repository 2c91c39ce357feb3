"""Draws of images, and what they make of a metric: per neuron an interval, per mouse all draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._values import as_whole, plain
from v1tlearn.metrics._arrays import MouseArrays, there
from v1tlearn.metrics._chance import as_level, draw_images, interval
from v1tlearn.metrics._corrected import corrected_bounds, left_out
from v1tlearn.metrics._evaluate import blocks_of
from v1tlearn.metrics._weighted import Statistic, Weighted
from v1tlearn.training.seeds import draw_seed
from v1tlearn.trials.folding import movies_of_frames

_DRAWN_VALUES = 2**18  # values of a metric held at once: draws times neurons


@dataclass(frozen=True)
class Draws:
    """How images are drawn, the same for all metrics, models and mice with as many images.

    Attributes
    ----------
    n : int
        Draws; none for 0.
    level : float
        Of the intervals.
    seed : int
    block_frames : int or None
        Of movies, how many successive frames are drawn together; None draws movies.
    """

    n: int
    level: float
    seed: int
    block_frames: int | None = None

    @classmethod
    def checked(cls, n: Any, level: Any, random_state: Any, block_frames: Any = None) -> Draws:
        """Take options as users give them.

        Raises
        ------
        ValueError
            If one is out of its range.
        """
        n, level, random_state, block_frames = plain((n, level, random_state, block_frames))
        level = as_level(level)
        if block_frames is not None:
            as_whole(block_frames, "block_frames", 1)
        return cls(as_whole(n, "n_bootstrap", 0), level, draw_seed(random_state), block_frames)

    def of(self, image_ids: np.ndarray, mouse: str, *, movies: bool) -> tuple[np.ndarray, Any]:
        """Draw the images of a mouse, or parts of its movies.

        Parameters
        ----------
        image_ids : ndarray of shape (n_trials,)
        mouse : str
        movies : bool
            Whether these are the frames of movies.

        Returns
        -------
        weights : ndarray of shape (1 + n, n_units)
            How often each was drawn: in the first row once each, as recorded.
        units : ndarray of int of shape (n_trials,)
            What is drawn with each trial.

        Raises
        ------
        ValueError
            If there is but one thing to draw from.
        """
        labels = image_ids
        if movies:
            labels, frames = movies_of_frames(image_ids.astype(str))
            if self.block_frames is not None:
                labels = np.char.add(labels, (frames // self.block_frames).astype("U21"))
        units = np.unique(labels, return_inverse=True)[1].ravel()
        n_units = int(units.max()) + 1
        if self.n and n_units < 2:
            raise ValueError(
                f"mouse {mouse!r}: an interval draws several "
                + (
                    "movies, or parts of them, and there is one: set block_frames, the successive "
                    "frames that are drawn together, to a few times what responses outlast."
                    if movies
                    else "images, and there is one: set n_bootstrap=0 for none."
                )
            )
        rng = np.random.default_rng([self.seed, n_units])
        drawn = draw_images(n_units, self.n, rng).astype(np.float64)
        return np.concatenate([np.ones((1, n_units)), drawn]), units


def drawn_values(
    statistic: Statistic, arrays: MouseArrays, drawn: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield neurons, block by block, with the values of a metric as recorded and in every draw.

    Parameters
    ----------
    statistic : Statistic
    arrays : MouseArrays
    drawn : tuple
        Weights (1 + n, n_units) and units (n_trials,), as `Draws.of` gives them.

    Yields
    ------
    neurons : ndarray of int of shape (n_some,)
    values : ndarray of shape (1 + n, n_some)
    oracle : ndarray of shape (1 + n, n_some) or None
        Of a slope through the origin: what the values are held against.
    """
    weights, units = drawn
    n_most = max(1, _DRAWN_VALUES // len(weights))
    for block, neurons, rows in blocks_of(arrays, statistic.trials, n_most):
        of_images = units[rows[there(block.repeats).starts]]
        with np.errstate(divide="ignore", invalid="ignore"):
            values, oracle = statistic.of(Weighted(block, of_images, weights))
        yield neurons, values, oracle


@dataclass
class Found:
    """A metric of one mouse: of each neuron with an interval, and sums over neurons of each draw.

    Attributes
    ----------
    neurons : mapping of str to Variable
    bounds : ndarray of shape (3, n_neurons)
        Value, lower and upper end; the ends are NaN without draws.
    above, below : ndarray of shape (1 + n,)
        Their ratio is the metric of the mouse in every draw.
    """

    neurons: Mapping[str, xr.Variable]
    bounds: np.ndarray
    above: np.ndarray = field(default_factory=lambda: np.zeros(1))
    below: np.ndarray = field(default_factory=lambda: np.zeros(1))

    @property
    def of_mouse(self) -> np.ndarray:
        """The metric of the mouse, as recorded and in every draw, (1 + n,)."""
        return _ratio(self.above, self.below)


def found_of(
    statistic: Statistic,
    arrays: MouseArrays,
    drawn: tuple[np.ndarray, np.ndarray],
    level: float,
) -> Found:
    """Gather a metric of one mouse.

    Parameters
    ----------
    statistic : Statistic
    arrays : MouseArrays
    drawn : tuple
        As `Draws.of` gives it.
    level : float

    Returns
    -------
    Found
    """
    weights, units = drawn
    n, corrected = len(weights), statistic.corrected and len(weights) > 1
    sums = np.zeros((2, n))
    bounds = np.full((3, arrays.true.shape[1]), np.nan)
    if corrected:
        weights = np.concatenate([weights, left_out(weights.shape[1])])
    for neurons, every, oracle in drawn_values(statistic, arrays, (weights, units)):
        values, without = every[:n], every[n:]
        if corrected:
            bounds[:, neurons] = corrected_bounds(values, without, level)
            terms = values, np.ones_like(values)
        elif oracle is None:
            bounds[:, neurons] = bounds_of(values, level, statistic.limits)
            terms = values, np.ones_like(values)
        else:
            bounds[:, neurons] = bounds_of(_ratio(values, oracle), level)
            terms = values * oracle, oracle**2
        known = ~np.isnan(terms[0] + terms[1])
        for total, term in zip(sums, terms, strict=True):
            total += np.where(known, term, 0).sum(axis=1)
    return Found(arrays.neurons, bounds, *sums)


def centred(values: np.ndarray) -> np.ndarray:
    """Draws around what was recorded: fewer different images vary less, and shift all draws.

    Parameters
    ----------
    values : ndarray of shape (1 + n, ...)
        First as recorded, then in every draw; NaN without a value.

    Returns
    -------
    ndarray of shape (n, ...)
        Moved so that their median is the value as recorded.
    """
    draws = values[1:]
    if not len(draws):
        return draws
    known = ~np.isnan(draws)
    some = known.any(axis=0)
    middle = np.full(values.shape[1:], np.nan)
    if known.all():
        middle = np.median(draws, axis=0)
    else:
        middle[some] = np.nanmedian(draws[:, some], axis=0)
    return draws + (values[0] - middle)


def bounds_of(
    values: np.ndarray, level: float, limits: tuple[float, float] = (-np.inf, np.inf)
) -> np.ndarray:
    """Value and interval of what is first as recorded and then in every draw.

    Parameters
    ----------
    values : ndarray of shape (1 + n, ...)
        Draws without a value are NaN, and left out.
    level : float
    limits : (float, float)
        Between which all values lie.

    Returns
    -------
    ndarray of shape (3, ...)
        The ends are NaN where there is no value, or no draw has one.
    """
    draws = centred(values)
    low = high = np.full(values.shape[1:], np.nan)
    if len(draws) and not np.isnan(draws).any():
        low, high = interval(draws, level)
    elif len(draws):
        flat = draws.reshape(len(draws), -1)
        ends = [interval_of(column, level) for column in flat.T]
        low, high = np.array(ends).T.reshape(2, *values.shape[1:])
    return np.stack([values[0], *np.clip([low, high], *limits)])


def mean_over_mice(of_mice: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the mice that have a value, as recorded and in every draw, (1 + n,).

    Parameters
    ----------
    of_mice : sequence of ndarray of shape (1 + n,)

    Returns
    -------
    ndarray of shape (1 + n,)
    """
    values = np.stack(of_mice)
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


def interval_of(draws: np.ndarray, level: float) -> tuple[Any, Any]:
    """Ends of the central part of the draws that have a value; NaN where none has.

    Parameters
    ----------
    draws : ndarray of shape (n,)
    level : float

    Returns
    -------
    low, high : float
    """
    known = draws[~np.isnan(draws)]
    return interval(known, level) if len(known) else (np.nan, np.nan)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    known = np.full(np.shape(above), np.nan)
    return np.divide(above, below, out=known, where=below != 0)
