"""How well images are found by responses, trial by trial, and what chance and resampling give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from v1tlearn.metrics._chance import draw_images

MEASURES = ("top1", "reciprocal_rank", "two_way", "similarity")
MEAN = "mean"  # over mice, beside their names


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


def draw_alike(
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
        key = tuple(ids.tolist())
        if key not in drawn:
            drawn[key] = draw_images(len(ids), n, rng)
    return [drawn[tuple(ids.tolist())] for ids in galleries]


def mean_over_drawn(values: np.ndarray, shown: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means over the trials of the images that were drawn.

    Parameters
    ----------
    values : ndarray of shape (..., n_trials)
    shown : ndarray of int of shape (n_trials,)
    counts : ndarray of shape (n, n_images)
        From `draw_alike`.

    Returns
    -------
    ndarray of shape (n, ...)
    """
    per_image = np.zeros((counts.shape[1], *values.shape[:-1]))
    np.add.at(per_image, shown, np.moveaxis(values, -1, 0))
    trials = counts @ np.bincount(shown, minlength=counts.shape[1])
    sums = np.tensordot(counts, per_image, axes=1)
    return sums / trials.reshape(-1, *[1] * (sums.ndim - 1))
