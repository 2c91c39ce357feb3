"""Statistics of identification, over any draws of images or pairings.

All that is known of a draw is how often each rank in the whole gallery came: measures of smaller
galleries, their bootstrap and their null are sums over these counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from v1tlearn.metrics import seen_ranks, similarity_ranks
from v1tlearn.metrics.retrieval import (
    medians,
    ranks_within,
    reciprocal_by_rank,
    top_k_by_rank,
)
from v1tlearn.nn import steady_cosines

Counts = np.ndarray  # (n_draws, n_images)


class Statistic(NamedTuple):
    """A measure of identification in galleries of one size.

    Attributes
    ----------
    metric : str
    size : int
    of : callable
        Of counts of ranks (n_draws, n_images), the values (n_draws,).
    chance : float
        Where all ranks are as frequent.
    lower_is_better : bool
    """

    metric: str
    size: int
    of: Callable[[Counts], np.ndarray]
    chance: float
    lower_is_better: bool = False


class Draws(NamedTuple):
    """Counts of ranks: those that came, resampled ones, and those of shuffled pairs."""

    found: Counts
    resampled: Counts
    shuffled: Counts


def statistics(n_images: int, sizes: Sequence[int], ks: Sequence[int]) -> list[Statistic]:
    """Measures of identification of a gallery and of smaller ones drawn from it.

    Parameters
    ----------
    n_images : int
    sizes : sequence of int
        From 2 to `n_images`.
    ks : sequence of int
        Those above a size are left out for it.

    Returns
    -------
    list of Statistic
    """
    out = []
    for size in sizes:
        for k in ks:
            if k < size:
                out.append(_mean(f"top_{k}", size, top_k_by_rank(n_images, k, size)))
        out.append(_median(n_images, size))
        out.append(_mean("mean_reciprocal_rank", size, reciprocal_by_rank(n_images, size)))
    out.append(_mean("two_way_identification", 2, top_k_by_rank(n_images, 1, 2)))
    return out


def _mean(metric: str, size: int, by_rank: np.ndarray) -> Statistic:
    def of(counts: Counts) -> np.ndarray:
        return counts @ by_rank / counts.sum(axis=1)

    return Statistic(metric, size, of, float(by_rank.mean()))


def _median(n_images: int, size: int) -> Statistic:
    within = ranks_within(n_images, size)

    def of(counts: Counts) -> np.ndarray:
        return medians(counts, within).astype(np.float64)

    return Statistic("median_rank", size, of, float(of(np.ones((1, n_images)))[0]), True)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Similarities of vectors (n, features) and (m, features), as those of `DINAAligner`, (n, m).

    Parameters
    ----------
    first : ndarray of shape (n, features)
    second : ndarray of shape (m, features)

    Returns
    -------
    ndarray of shape (n, m)
    """
    return steady_cosines(torch.from_numpy(first), torch.from_numpy(second)).numpy()


def draw_counts(
    similarity: np.ndarray, seen: np.ndarray, weights: np.ndarray, orders: np.ndarray
) -> Draws:
    """Count ranks as they came, with images resampled, and with images shuffled.

    Parameters
    ----------
    similarity : ndarray of shape (n_queries, n_images)
    seen : ndarray of int of shape (n_queries,)
    weights : ndarray of shape (n_draws, n_images)
        How often each image is in a draw, with all its queries.
    orders : ndarray of int of shape (n_shuffles, n_images)
        Which image takes the place of each; all its queries move with it.

    Returns
    -------
    Draws
    """
    n_images = similarity.shape[1]
    ranks = similarity_ranks(similarity) - 1
    queries = np.arange(len(seen))
    by_image = np.zeros((n_images, n_images))
    np.add.at(by_image, (seen, ranks[queries, seen]), 1)
    shuffled = [
        np.bincount(ranks[queries, order[seen]], minlength=n_images).astype(np.float64)
        for order in orders
    ]
    nothing = np.empty((0, n_images))
    return Draws(
        by_image.sum(axis=0, keepdims=True),
        weights @ by_image,
        np.stack(shuffled) if shuffled else nothing,
    )


def repeat_counts(queries: np.ndarray, shown: np.ndarray) -> Counts | None:
    """Count ranks at which the second trial of an image finds the first, and the first the second.

    Parameters
    ----------
    queries : ndarray of shape (n_trials, features)
    shown : ndarray of int of shape (n_trials,)

    Returns
    -------
    ndarray of shape (1, n_repeated) or None
        Of the images with two trials and more; None where there are fewer than two such.
    """
    places = [np.flatnonzero(shown == image)[:2] for image in np.unique(shown)]
    pairs = np.array([pair for pair in places if len(pair) == 2])
    if len(pairs) < 2:
        return None
    similarity = cosines(queries[pairs[:, 0]], queries[pairs[:, 1]])
    ranks = np.concatenate([seen_ranks(similarity), seen_ranks(similarity.T)])
    return np.bincount(ranks - 1, minlength=len(pairs))[None].astype(np.float64)
