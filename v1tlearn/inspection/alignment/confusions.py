"""Whether images are mistaken for others of their category, more than chance would have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import hypergeom

from v1tlearn._values import as_whole
from v1tlearn.inspection._controls import check_counts
from v1tlearn.inspection.alignment._labels import by_mouse, generators, with_categories
from v1tlearn.inspection.alignment._pairs import read_pairs, similarity
from v1tlearn.inspection.alignment._ranks import draw_alike, mean_over_drawn
from v1tlearn.metrics._chance import as_level, interval, p_value, shuffle_images
from v1tlearn.trials import Trials


def class_confusions(
    aligner: Any,
    trials: Trials,
    labels: Any = None,
    *,
    among: Any = None,
    n_bootstrap: int = 1000,
    n_permutations: int = 1000,
    level: float = 0.95,
    random_state: Any = 0,
) -> xr.Dataset:
    """Tell whether a wrong image that is found is of the category of the seen one.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        Of images that were not trained on; each asks for its image among those of its mouse here.
    labels : array of shape (n_trials,), optional
        Category of the image of each trial; by default the coordinate `category`.
    among : sequence, optional
        Take the images of these categories only, with all their trials; by default all but
        "unknown".
    n_bootstrap : int, default=1000
        Draws of images with replacement, for the interval.
    n_permutations : int, default=1000
        Shuffles of the categories among images, for the control.
    level : float, default=0.95
        Of the interval.
    random_state : int, RandomState, Generator or None, default=0

    Returns
    -------
    Dataset
        Over ``mouse``: ``estimate``, of the trials to which another image is as similar as the
        right one, or more so, the share where the most similar other one is of the right one's
        category, with its interval from ``low`` to ``high``; ``chance``, what it is if every other
        image is as likely, the mean over these trials of ``(n_c - 1) / (n - 1)`` with n_c of all n
        images in the category; and ``sum_of_squares``, the sum over categories of
        ``(n_c / n) ** 2``, to which chance comes near in large galleries; ``p_value``, the share of
        shuffles that give as much; ``n_wrong`` and ``n_trials``. NaN where nothing is confused.

    Raises
    ------
    TypeError, ValueError
        If this is no alignment, a mouse saw one image, categories are missing, not as many as
        trials, contradict each other, or are one, or none is of `among`; or an option is out of
        its range.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Images of one category may be confused because they look alike: compare with
    `representational_similarity` to low-passed pixels.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import class_confusions
    >>> trials = v1.Trials(v1.make_coarse_recordings(
    ...     n_neurons=20, n_trials=60, n_test_images=12, image_shape=(16, 24), n_categories=3,
    ...     random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> found = class_confusions(est.fit(trials.sel(tier="train")), trials.sel(tier="test"))
    >>> list(found.data_vars)[:4]
    ['estimate', 'low', 'high', 'chance']
    """
    check_counts(n_bootstrap=n_bootstrap, n_permutations=n_permutations)
    level = as_level(level)
    pairs, classes = with_categories(trials, read_pairs(aligner, trials), labels, among)
    rng, orders = generators(random_state)
    counts = draw_alike([own.image_ids for own in pairs], n_bootstrap, rng)
    found = []
    for own, kinds, drawn in zip(pairs, classes, counts, strict=True):
        cosines = similarity(own.response_maps.values, own.image_maps.values)
        trial = np.arange(len(own.shown))
        right = cosines[trial, own.shown]
        cosines[trial, own.shown] = -np.inf
        best = cosines.argmax(1)  # of the other images
        wrong = cosines[trial, best] >= right
        n, sizes = len(kinds), np.bincount(kinds)
        row = {"sum_of_squares": ((sizes / n) ** 2).sum(), "n_wrong": wrong.sum()}
        row["n_trials"] = len(wrong)
        if wrong.any():
            shown, instead = own.shown[wrong], best[wrong]
            same = kinds[shown] == kinds[instead]
            shuffles = kinds[shuffle_images(len(kinds), n_permutations, orders)]
            control = (shuffles[:, shown] == shuffles[:, instead]).mean(1)
            draws = _of_drawn(same, shown, drawn)
            low, high = interval(draws, level)
            row |= {"estimate": same.mean(), "low": low, "high": high}
            row |= {"chance": ((sizes[kinds[shown]] - 1) / (n - 1)).mean()}
            row |= {"p_value": p_value(same.mean(), control)}
        found.append(row)
    names = ("estimate", "low", "high", "chance", "sum_of_squares", "p_value")
    return by_mouse(pairs, found, (*names, "n_wrong", "n_trials"), {"level": level})


def class_galleries(
    aligner: Any,
    trials: Trials,
    labels: Any = None,
    *,
    among: Any = None,
    gallery_size: int = 2,
    n_permutations: int = 1000,
    random_state: Any = 0,
) -> xr.Dataset:
    """Tell whether images are harder to find among those of their own category than among others.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        Of images that were not trained on.
    labels : array of shape (n_trials,), optional
        Category of the image of each trial; by default the coordinate `category`.
    among : sequence, optional
        Take the images of these categories only, with all their trials; by default all but
        "unknown".
    gallery_size : int, default=2
        Images of a gallery, the right one included. The others are all of its category, or all of
        other ones.
    n_permutations : int, default=1000
        Shuffles of the categories among images, for the control.
    random_state : int, RandomState, Generator or None, default=0

    Returns
    -------
    Dataset
        Over ``mouse``: ``same_class`` and ``other_classes``, how often the right image is found in
        galleries of either kind, the mean over all galleries that there are, in closed form;
        ``difference``, the second less the first; ``chance`` of either, one over the gallery size;
        ``p_value``, the share of shuffles with such a difference or a larger one; and ``n_trials``,
        those with enough images of their category and of others. The rest do not count.

    Raises
    ------
    TypeError, ValueError
        As `class_confusions`; or if no category has enough images.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import class_galleries
    >>> trials = v1.Trials(v1.make_coarse_recordings(
    ...     n_neurons=20, n_trials=60, n_test_images=12, image_shape=(16, 24), n_categories=3,
    ...     random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> found = class_galleries(est.fit(trials.sel(tier="train")), trials.sel(tier="test"))
    >>> found.attrs["gallery_size"], float(found["chance"][0])
    (2, 0.5)
    """
    check_counts(n_permutations=n_permutations)
    gallery_size = as_whole(gallery_size, "gallery_size", 2)
    pairs, classes = with_categories(trials, read_pairs(aligner, trials), labels, among)
    orders = generators(random_state)[1]
    found = []
    for own, kinds in zip(pairs, classes, strict=True):
        cosines = similarity(own.response_maps.values, own.image_maps.values)
        right = cosines[np.arange(len(own.shown)), own.shown][:, None]
        ahead = (cosines >= right).astype(float)
        ahead[np.arange(len(own.shown)), own.shown] = 0
        same, other, n = _galleries(ahead, own.shown, kinds, gallery_size)
        if not n:
            raise ValueError(
                f"mouse {own.mouse!r}: galleries of {gallery_size} images of one category came to "
                f"categories of {np.bincount(kinds).tolist()} images: lower gallery_size."
            )
        shuffles = kinds[shuffle_images(len(kinds), n_permutations, orders)]
        control = [_galleries(ahead, own.shown, row, gallery_size) for row in shuffles]
        differences = np.array([there - here for here, there, _ in control])
        row = {"same_class": same, "other_classes": other, "difference": other - same}
        row |= {"chance": 1 / gallery_size, "n_trials": n}
        found.append(row | {"p_value": p_value(other - same, differences)})
    names = ("same_class", "other_classes", "difference", "chance", "p_value", "n_trials")
    return by_mouse(pairs, found, names, {"gallery_size": gallery_size})


def _of_drawn(same: np.ndarray, shown: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Shares over draws of images; draws without any of these trials do not count."""
    some = counts[:, shown].any(1)
    return mean_over_drawn(same.astype(float), shown, counts[some])


def _galleries(
    ahead: np.ndarray, shown: np.ndarray, kinds: np.ndarray, size: int
) -> tuple[float, float, int]:
    """How often images are found among those of their category, and of others; trials that count.

    All galleries are as likely: how many of them are as similar as the right image, or more so, is
    a hypergeometric number, and the image is found where that is 0.
    """
    same = kinds[shown][:, None] == kinds
    n_same = same.sum(1) - 1
    n_other = len(kinds) - n_same - 1
    counts = (np.minimum(n_same, n_other) >= size - 1).nonzero()[0]
    if not len(counts):
        return np.nan, np.nan, 0
    a_same = (ahead * same).sum(1)
    a_other = ahead.sum(1) - a_same
    pairs = ((a_same, n_same), (a_other, n_other))
    here, there = (hypergeom.pmf(0, n[counts], a[counts], size - 1).mean() for a, n in pairs)
    return here, there, len(counts)
