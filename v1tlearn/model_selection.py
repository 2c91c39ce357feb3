"""Splits of trials: by tier, and by image so that no image is on both sides.

`GroupKFold` and the other group splitters of scikit-learn work on `trials.image_ids` as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import PredefinedSplit

from v1tlearn.training.seeds import RandomState, draw_seed

__all__ = ["image_train_test_split", "split_by_image", "tier_split"]

_ATTEMPTS = 20  # orders of the images tried before a split is given up


def tier_split(
    trials: Any, test: str | Iterable[str] = "validation", train: str | Iterable[str] = "train"
) -> PredefinedSplit:
    """Cross-validation of one fold: fit on one tier, score on another.

    Parameters
    ----------
    trials : Trials or array (n,)
        Trials, or the tier of each trial.
    test, train : str or several
        Tiers to score on and to fit on.

    Returns
    -------
    PredefinedSplit
        Goes into `cv=` together with the same trials.

    Raises
    ------
    ValueError
        If a tier is missing, is on both sides, or trials belong to neither side.

    Examples
    --------
    >>> from v1tlearn.model_selection import tier_split
    >>> cv = tier_split(["train", "train", "validation"])
    >>> [(fit.tolist(), score.tolist()) for fit, score in cv.split()]
    [([0, 1], [2])]
    """
    tiers = np.asarray(getattr(trials, "tiers", trials)).astype(str)
    test, train = ([side] if isinstance(side, str) else list(side) for side in (test, train))
    if set(test) & set(train):
        raise ValueError(f"tiers {sorted(set(test) & set(train))} are in both test and train.")
    present = sorted(set(tiers.tolist()))
    for side, wanted in (("test", test), ("train", train)):
        if not set(wanted) & set(present):
            raise ValueError(f"no trial is of the {side} tier {wanted}; tiers present: {present}.")
    others = sorted(set(present) - set(test) - set(train))
    if others:
        raise ValueError(
            f"trials of the tiers {others} are in neither train {train} nor test {test}, and "
            "PredefinedSplit would fit on them. Select first: "
            f"trials.sel(tier={[*train, *test]})."
        )
    return PredefinedSplit(np.where(np.isin(tiers, test), 0, -1))


def image_train_test_split(
    trials: Any, test_size: float = 0.1, random_state: RandomState = None
) -> tuple[Any, Any]:
    """Split trials in two such that all repeats of an image, in all mice, are on one side.

    Parameters
    ----------
    trials : Trials
        Trials of one or several mice.
    test_size : float
        Wanted fraction of the trials of each mouse, between 0 and 1.
    random_state : int, RandomState, Generator or None
        Drives the choice of images.

    Returns
    -------
    train, test : Trials
        Views in the order of `trials`.

    Raises
    ------
    ValueError
        If a mouse saw too few images to be on both sides.
    """
    train, test = split_by_image(trials.image_ids, test_size, random_state, trials.mouse_ids)
    return trials[train], trials[test]


def split_by_image(
    image_ids: Any,
    fraction: float,
    random_state: RandomState = None,
    mouse_ids: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split trials in two by image, with about the wanted fraction of every mouse's trials.

    Images are taken in random order; one goes to validation if that brings the mice that saw it
    closer to the wanted fraction. Each mouse keeps two trials on either side, or one where its
    images allow no more.

    Parameters
    ----------
    image_ids : array (n,)
        Image of each trial, the same id in all mice.
    fraction : float
        Wanted fraction of the validation trials, between 0 and 1.
    random_state : int, RandomState, Generator or None
        Drives the order of the images; global generators are not touched.
    mouse_ids : array (n,), optional
        Mouse of each trial; without it all trials are of one mouse.

    Returns
    -------
    train, validation : int arrays
        Positions of the trials, sorted.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1, lengths differ, or a mouse cannot be split.
    """
    images = _codes(image_ids)
    mouse_ids = np.full(len(images), "all") if mouse_ids is None else np.asarray(mouse_ids)
    if len(mouse_ids) != len(images):
        raise ValueError(f"image_ids has {len(images)} trials, mouse_ids has {len(mouse_ids)}.")
    if not 0 < fraction < 1:
        raise ValueError(f"the validation fraction is {fraction}, expected between 0 and 1.")
    if len(images) == 0:
        raise ValueError("there are no trials to split.")
    mice = _codes(mouse_ids)
    shape = (images.max() + 1, mice.max() + 1)
    cells = np.ravel_multi_index((images, mice), shape)
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    for mouse in np.flatnonzero((counts > 0).sum(axis=0) < 2):
        name = mouse_ids[np.argmax(mice == mouse)]
        raise ValueError(
            f"mouse {str(name)!r}: all {int(counts[:, mouse].sum())} trials show one image, so "
            "they cannot be split by image. Give a validation set instead, or train on "
            "everything with validation_fraction=0."
        )
    rng = np.random.default_rng(draw_seed(random_state))
    orders = [rng.permutation(len(counts)) for _ in range(_ATTEMPTS)]
    for at_least in (2, 1):
        for order in orders:
            chosen = _choose_images(counts, order, fraction, at_least)
            short = _short(counts, chosen, at_least)
            if not short.any():
                validation = chosen[images]
                return np.flatnonzero(~validation), np.flatnonzero(validation)
    name = mouse_ids[np.argmax(mice == np.argmax(short))]
    raise ValueError(
        f"mouse {str(name)!r}: found no split of the images that leaves it trials on both sides; "
        f"it saw {int((counts[:, np.argmax(short)] > 0).sum())} images. Give a validation set "
        "instead, or train on everything with validation_fraction=0."
    )


def _choose_images(
    counts: np.ndarray, order: np.ndarray, fraction: float, at_least: int
) -> np.ndarray:
    """Greedy choice over (images, mice) counts -> bool (images,), True for validation."""
    totals = counts.sum(axis=0)
    target = np.clip(fraction * totals, at_least, np.maximum(totals - at_least, 1))
    weight = 1 / totals**2
    seen_by = [np.flatnonzero(row) for row in counts]
    chosen = np.zeros(len(counts), dtype=bool)
    taken = np.zeros_like(totals)
    for image in order:
        who = seen_by[image]
        n = counts[image, who]
        if (weight[who] * n * (2 * (target[who] - taken[who]) - n)).sum() > 0:
            chosen[image] = True
            taken[who] += n
    for mouse in range(len(totals)):  # images with many repeats can overshoot from zero
        for image in order:
            if taken[mouse] >= at_least:
                break
            fits = (taken + counts[image] <= totals - at_least) | (counts[image] == 0)
            if counts[image, mouse] and not chosen[image] and fits.all():
                chosen[image] = True
                taken += counts[image]
    return chosen


def _short(counts: np.ndarray, chosen: np.ndarray, at_least: int) -> np.ndarray:
    """Which mice have too few trials on either side, bool (mice,)."""
    validation = counts[chosen].sum(axis=0)
    return np.minimum(validation, counts.sum(axis=0) - validation) < at_least


def _codes(labels: Any) -> np.ndarray:
    """Labels as numbers 0, 1, ... in order of first appearance."""
    _, first, codes = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]
