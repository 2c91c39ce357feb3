"""How well images are found by responses, trial by trial, and what chance and resampling give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MEASURES = ("top1", "reciprocal_rank", "two_way", "similarity")
MEAN = "mean"  # over mice, beside their names
ROUNDING = 1e-9  # by which sums in another order may differ and still be as good


def measures(ranks: np.ndarray, similarity: np.ndarray, n_images: int) -> np.ndarray:
    """What ranks and similarities of images say of the retrieval.

    Parameters
    ----------
    ranks, similarity : ndarray of one shape
        Of the right images.
    n_images : int
        In the gallery.

    Returns
    -------
    ndarray of shape (4, ...)
        In the order of `MEASURES`: whether the image is found; one over its rank; the share of
        the others that are less similar; its similarity.
    """
    return np.stack([ranks == 1, 1 / ranks, (n_images - ranks) / (n_images - 1), similarity])


def shuffled(shown: np.ndarray, n_images: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Images that trials show once pairs are shuffled: all repeats of one image go along.

    Parameters
    ----------
    shown : ndarray of int of shape (n_trials,)
    n_images, n : int
        How many images there are, and how many shuffles.
    rng : Generator

    Returns
    -------
    ndarray of int of shape (n_trials, n)
    """
    orders = rng.permuted(np.tile(np.arange(n_images), (n, 1)), axis=1)
    return orders[:, shown].T


def draw_images(
    galleries: Sequence[np.ndarray], n: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw images with replacement, the same ones for mice that saw the same.

    Parameters
    ----------
    galleries : sequence of ndarray
        Per mouse the ids of its images.
    n : int
        Number of draws.
    rng : Generator

    Returns
    -------
    list of ndarray of int of shape (n, n_images)
        Per mouse how often each image was drawn.
    """
    drawn: dict[tuple, np.ndarray] = {}
    for ids in galleries:
        size = len(ids)
        key = tuple(ids.tolist())
        if key not in drawn:
            drawn[key] = rng.multinomial(size, np.full(size, 1 / size), size=n)
    return [drawn[tuple(ids.tolist())] for ids in galleries]


def mean_over_drawn(values: np.ndarray, shown: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means over the trials of the images that were drawn.

    Parameters
    ----------
    values : ndarray of shape (..., n_trials)
    shown : ndarray of int of shape (n_trials,)
    counts : ndarray of shape (n, n_images)
        From `draw_images`.

    Returns
    -------
    ndarray of shape (n, ...)
    """
    per_image = np.zeros((counts.shape[1], *values.shape[:-1]))
    np.add.at(per_image, shown, np.moveaxis(values, -1, 0))
    trials = counts @ np.bincount(shown, minlength=counts.shape[1])
    sums = np.tensordot(counts, per_image, axes=1)
    return sums / trials.reshape(-1, *[1] * (sums.ndim - 1))


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


def p_value(found: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Share of shuffles, the pairs themselves counted in, that reach what was found.

    Parameters
    ----------
    found : ndarray of shape (...)
    control : ndarray of shape (n, ...)

    Returns
    -------
    ndarray of shape (...)
    """
    return (1 + (control >= found - ROUNDING).sum(0)) / (1 + len(control))
