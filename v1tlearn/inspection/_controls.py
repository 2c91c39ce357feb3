"""What the analyses of alignments share: their checks, their draws, and images not seen."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from v1tlearn._values import as_whole, plain
from v1tlearn.estimators import DINAAligner
from v1tlearn.training import draw_seed


def check_aligner(aligner: Any) -> None:
    """Check that this is a fitted alignment.

    Parameters
    ----------
    aligner : object

    Raises
    ------
    TypeError
        If it is something else.
    NotFittedError
        Before `fit`.
    """
    if not isinstance(aligner, DINAAligner):
        raise TypeError(
            f"aligner is a {type(aligner).__name__}: expected a fitted DINAAligner; of a Pipeline "
            "give the last step, and trials that went through the others."
        )
    check_is_fitted(aligner)


def check_counts(least: int = 1, **counts: Any) -> None:
    """Check that options are whole numbers from the least one on.

    Parameters
    ----------
    least : int, default=1
    **counts
        By name.

    Raises
    ------
    ValueError
        If one is not.
    """
    for name, value in counts.items():
        as_whole(value, name, least)


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
    number = plain(share, "share")
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 < float(number) <= 1:
        raise ValueError(f"share={share!r}: expected a number above 0 and up to 1.")


def generator(random_state: Any) -> np.random.Generator:
    """Random numbers of one call.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None

    Returns
    -------
    Generator
    """
    return np.random.default_rng(draw_seed(plain(random_state)))


def other_images(n_images: int, rng: np.random.Generator) -> np.ndarray:
    """Pair every image with another one, along a random circle of all.

    Parameters
    ----------
    n_images : int
        At least 2.
    rng : Generator

    Returns
    -------
    ndarray of int of shape (n_images,)
        Each image once, none in its own place.
    """
    circle = rng.permutation(n_images)
    other = np.empty(n_images, dtype=np.int64)
    other[circle] = np.roll(circle, 1)
    return other
