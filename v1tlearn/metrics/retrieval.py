"""How well images are found among others: ranks, and what follows from them.

Plain arrays in and out; from which model the similarities come is no matter here. All measures are
functions of the rank of the right image in the whole gallery, in which ties count against it, so
that similarities without contrast find nothing. What is expected of smaller galleries, drawn from
the whole one at random with the right image always among them, follows in closed form: of the
``b = rank - 1`` better images a gallery of g holds a hypergeometric number.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from scipy.special import gammaln
from scipy.stats import rankdata

from v1tlearn._values import as_array, as_whole

_HALF = 0.5 - 1e-9  # rounding errors of sums of probabilities move no median
_AT_ONCE = 2**22  # probabilities that are there at once


def similarity_ranks(similarity: Any) -> np.ndarray:
    """Rank of every image of a gallery for every query, ties counting against all of them.

    Parameters
    ----------
    similarity : ndarray of shape (n_queries, n_images)
        In any unit, larger is more similar.

    Returns
    -------
    ndarray of int of shape (n_queries, n_images)
        From 1: how many images of the gallery are at least as similar, each counting itself.

    Raises
    ------
    ValueError
        If the gallery has fewer than two images, or a similarity is not finite.

    Examples
    --------
    >>> from v1tlearn.metrics import similarity_ranks
    >>> similarity_ranks([[0.9, 0.1, 0.5], [0.2, 0.2, 0.0]])
    array([[1, 3, 2],
           [2, 2, 3]])
    """
    values = as_array(similarity, "similarity", of="row")
    if values.ndim != 2 or values.shape[1] < 2 or not len(values):
        raise ValueError(
            f"similarity has the shape {values.shape}: expected (queries, images) with a query and "
            "two images at least, as among one image there is nothing to find."
        )
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ValueError(
            f"similarity: {len(bad)} of {len(values)} queries, the first number {bad[0]}, have "
            "values that are not finite: leave them out, or look for what made them."
        )
    # counted from the end, as whole numbers of few bits have no negative
    return values.shape[1] + 1 - rankdata(values, method="min", axis=1).astype(np.int64)


def seen_ranks(similarity: Any, seen: Any = None) -> np.ndarray:
    """Rank of the image that was seen, for every query; ties count against it.

    Parameters
    ----------
    similarity : ndarray of shape (n_queries, n_images)
        In any unit, larger is more similar.
    seen : ndarray of int of shape (n_queries,), optional
        Place in the gallery of the image that belongs to each query; without it query i belongs
        to image i.

    Returns
    -------
    ndarray of int of shape (n_queries,)
        From 1, the best, to the number of images.

    Raises
    ------
    ValueError
        If a place is none of the gallery, or similarities are as `similarity_ranks` refuses them.

    Examples
    --------
    >>> from v1tlearn.metrics import seen_ranks
    >>> seen_ranks([[0.9, 0.1, 0.5], [0.2, 0.2, 0.0]], [2, 0])
    array([2, 2])
    """
    ranks = similarity_ranks(similarity)
    n, n_images = ranks.shape
    places = np.arange(n) if seen is None else as_array(seen, "seen", of="row")
    if places.shape != (n,) or places.dtype.kind not in "iu":
        raise ValueError(
            f"seen has the shape {places.shape} and type {places.dtype}: expected one place in the "
            f"gallery, a whole number, for each of the {n} queries."
        )
    if places.min() < 0 or places.max() >= n_images:
        raise ValueError(
            f"seen names the places {places.min()} to {places.max()}, the gallery has {n_images} "
            "images, numbered from 0"
            + ("." if seen is not None else ": give seen= where queries are not its images.")
        )
    return ranks[np.arange(n), places]


def top_k_accuracy(ranks: Any, n_images: int, k: int = 1, gallery_size: int | None = None) -> float:
    """Share of the queries whose image is among the k most similar ones.

    Parameters
    ----------
    ranks : ndarray of int of shape (n_queries,)
        From `seen_ranks`.
    n_images : int
        Images of the gallery that these are ranks in.
    k : int, default=1
    gallery_size : int, optional
        What is expected of random galleries of so many of the images, the right one included; all
        of them by default.

    Returns
    -------
    float
        Chance is ``k / gallery_size``.

    Raises
    ------
    ValueError
        If ranks are none in such a gallery, the gallery is smaller than `k`, or larger than all.

    Notes
    -----
    With b better ones among the other N = n_images - 1, of which a gallery holds n = g - 1, it is
    the probability that a hypergeometric number (N, b, n) is below k.

    Examples
    --------
    >>> from v1tlearn.metrics import top_k_accuracy
    >>> top_k_accuracy([1, 2, 4, 1], n_images=4)
    0.5
    >>> round(top_k_accuracy([1, 2, 4, 1], n_images=4, gallery_size=2), 3)
    0.667
    """
    ranks, size = _checked(ranks, n_images, gallery_size)
    came, counts = np.unique(ranks, return_counts=True)
    return float(np.average(top_k_by_rank(n_images, k, size, came), weights=counts))


def mean_reciprocal_rank(ranks: Any, n_images: int, gallery_size: int | None = None) -> float:
    r"""Mean of one over the rank.

    Parameters
    ----------
    ranks : ndarray of int of shape (n_queries,)
        From `seen_ranks`.
    n_images : int
        Images of the gallery that these are ranks in.
    gallery_size : int, optional
        What is expected of random galleries of so many of the images, the right one included; all
        of them by default.

    Returns
    -------
    float
        Chance is the mean of one over 1, 2, ..., `gallery_size`.

    Raises
    ------
    ValueError
        If ranks are none in such a gallery, or the gallery is larger than all.

    Notes
    -----
    With rank R among M images a random gallery of g gives
    :math:`\frac{M}{g R} \left(1 - \binom{M - R}{g} / \binom{M}{g}\right)`.

    Examples
    --------
    >>> from v1tlearn.metrics import mean_reciprocal_rank
    >>> mean_reciprocal_rank([1, 2, 4, 1], n_images=4)
    0.6875
    """
    ranks, size = _checked(ranks, n_images, gallery_size)
    return float(reciprocal_by_rank(n_images, size)[ranks - 1].mean())


def median_rank(ranks: Any, n_images: int, gallery_size: int | None = None) -> int:
    """Rank that half of the queries reach.

    Parameters
    ----------
    ranks : ndarray of int of shape (n_queries,)
        From `seen_ranks`.
    n_images : int
        Images of the gallery that these are ranks in.
    gallery_size : int, optional
        The median over queries and all galleries of so many of the images, the right one
        included; all of them by default.

    Returns
    -------
    int
        The smallest rank that at least half of the queries reach, from 1, the best. Chance is half
        of `gallery_size`, rounded up.

    Raises
    ------
    ValueError
        If ranks are none in such a gallery, or the gallery is larger than all.

    Examples
    --------
    >>> from v1tlearn.metrics import median_rank
    >>> median_rank([1, 2, 4, 3], n_images=4)
    2
    """
    ranks, size = _checked(ranks, n_images, gallery_size)
    came, counts = np.unique(ranks, return_counts=True)
    if size == n_images:
        return int(came[(counts.cumsum() >= len(ranks) / 2).argmax()])
    return int(medians(counts[None], ranks_within(n_images, size, came))[0])


def two_way_identification(ranks: Any, n_images: int) -> float:
    """Share of all other images to which the right one is preferred: galleries of two.

    Parameters
    ----------
    ranks : ndarray of int of shape (n_queries,)
        From `seen_ranks`.
    n_images : int
        Images of the gallery that these are ranks in.

    Returns
    -------
    float
        Mean over queries; chance is 0.5.

    Raises
    ------
    ValueError
        If ranks are none in such a gallery.

    Examples
    --------
    >>> from v1tlearn.metrics import two_way_identification
    >>> two_way_identification([1, 3, 5], n_images=5)
    0.5
    """
    ranks, _ = _checked(ranks, n_images, None)
    return float(1 - (ranks - 1).mean() / (n_images - 1))


def top_k_by_rank(n_images: int, k: int, size: int, ranks: np.ndarray | None = None) -> np.ndarray:
    """Probability to be among the k best of a random gallery, for ranks among all images.

    Parameters
    ----------
    n_images, k, size : int
    ranks : ndarray of int of shape (n,), optional
        All from 1 to `n_images`, by default.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError
        If `k` is no whole number from 1 to `size`.
    """
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= size:
        raise ValueError(
            f"k={k!r}: expected a whole number from 1 to {size}, the size of the gallery."
        )
    ranks = np.arange(1, n_images + 1) if ranks is None else ranks
    if size == n_images:
        return (ranks <= k).astype(np.float64)
    blocks = np.array_split(ranks, -(-len(ranks) * size // _AT_ONCE))
    return np.concatenate([ranks_within(n_images, size, block)[:, k - 1] for block in blocks])


def reciprocal_by_rank(n_images: int, size: int) -> np.ndarray:
    """Expected reciprocal of the rank in a random gallery, for every rank among all images.

    Parameters
    ----------
    n_images, size : int

    Returns
    -------
    ndarray of shape (n_images,)
    """
    rank = np.arange(1, n_images + 1)
    worse = n_images - rank
    enough = worse >= size
    log = np.full(n_images, -np.inf)
    log[enough] = (
        gammaln(worse[enough] + 1)
        - gammaln(worse[enough] - size + 1)
        - gammaln(n_images + 1)
        + gammaln(n_images - size + 1)
    )
    return n_images / (size * rank) * -np.expm1(log)


def ranks_within(n_images: int, size: int, ranks: np.ndarray | None = None) -> np.ndarray:
    """Distribution function of the rank in a random gallery, for ranks among all images.

    Parameters
    ----------
    n_images, size : int
    ranks : ndarray of int of shape (n,), optional
        All from 1 to `n_images`, by default.

    Returns
    -------
    ndarray of shape (n, size)

    Notes
    -----
    Hypergeometric, from the ratios of neighbouring probabilities, as scipy takes a time that grows
    with the square of the number of images.
    """
    ranks = np.arange(1, n_images + 1) if ranks is None else ranks
    if size == n_images:
        return (ranks[:, None] <= np.arange(1, size + 1)).astype(np.float64)
    better, worse = ranks[:, None] - 1, n_images - ranks[:, None]
    n = np.arange(size - 1)  # of better ones in the gallery, one less than the next number
    more = (better - n) * (size - 1 - n), (n + 1) * (worse - size + 2 + n)
    possible = np.minimum(*more) > 0  # both this number and the next one
    ratios = np.log(np.where(possible, more[0], 1) / np.where(possible, more[1], 1))
    logs = np.pad(ratios.cumsum(axis=1), ((0, 0), (1, 0)))
    n = np.arange(size)
    logs[(n > better) | (size - 1 - n > worse)] = -np.inf
    each = np.exp(logs - logs.max(axis=1, keepdims=True))
    return (each / each.sum(axis=1, keepdims=True)).cumsum(axis=1).clip(0, 1)


def medians(counts: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Median ranks of several sets of queries.

    Parameters
    ----------
    counts : ndarray of shape (n_sets, n_images)
        How often each rank among all images came.
    within : ndarray of shape (n_images, size)
        From `ranks_within`, for these ranks.

    Returns
    -------
    ndarray of int of shape (n_sets,)
    """
    reached = counts @ within / counts.sum(axis=1, keepdims=True)
    return (reached >= _HALF).argmax(axis=1) + 1


def checked_size(size: Any, n_images: int) -> int:
    """Check the size of a gallery that is drawn from all images.

    Parameters
    ----------
    size : int
    n_images : int

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is no whole number from 2 to `n_images`.
    """
    if isinstance(size, bool) or not isinstance(size, Integral) or not 2 <= int(size) <= n_images:
        raise ValueError(
            f"gallery_size={size!r}: expected a whole number from 2 to {n_images}, the number of "
            "images that there are."
        )
    return int(size)


def _checked(ranks: Any, n_images: Any, size: Any) -> tuple[np.ndarray, int]:
    ranks = as_array(ranks, "ranks", of="row")
    n_images = as_whole(n_images, "n_images", 2)
    if ranks.ndim != 1 or not len(ranks) or ranks.dtype.kind not in "iu":
        raise ValueError(
            f"ranks have the shape {ranks.shape} and type {ranks.dtype}: expected whole numbers "
            "(n_queries,), from seen_ranks, of at least one query."
        )
    if ranks.min() < 1 or ranks.max() > n_images:
        raise ValueError(
            f"ranks go from {ranks.min()} to {ranks.max()}: expected 1 to {n_images}, the number "
            "of images in the gallery."
        )
    ranks = ranks.astype(np.int64)
    return ranks, n_images if size is None else checked_size(size, n_images)
