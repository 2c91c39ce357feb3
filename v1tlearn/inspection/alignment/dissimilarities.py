"""Dissimilarities of images in the space, beside those of their pixels and categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from v1tlearn.inspection._controls import check_counts, generator
from v1tlearn.inspection.alignment._labels import has_classes, with_categories
from v1tlearn.inspection.alignment._pairs import SPACES, read_pairs, similarity
from v1tlearn.metrics._chance import p_value, shuffle_images
from v1tlearn.preprocessing import low_pass
from v1tlearn.trials import Trials


def representational_similarity(
    aligner: Any,
    trials: Trials,
    labels: Any = None,
    *,
    among: Any = None,
    cutoff: float = 2.0,
    n_permutations: int = 1000,
    random_state: Any = 0,
) -> xr.Dataset:
    """Correlate how images differ in the space with how their pixels, or categories, differ.

    Of all pairs of images the dissimilarity is taken in either way, and these are correlated by
    ranks (Kriegeskorte et al. 2008): one minus the cosine of maps, those of an image's responses
    averaged; one minus the correlation of pixels, as they are and low-passed; and 1 or 0 for images
    of different categories or of one.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        Of images that were not trained on.
    labels : array of shape (n_trials,), optional
        Category of the image of each trial; by default the coordinate `category`. Without
        either there is no model "classes".
    among : sequence, optional
        Where there are categories, take the images of these only, for all models; by default all
        but "unknown".
    cutoff : float, default=2.0
        Of `v1tlearn.preprocessing.low_pass`, in cycles per image height.
    n_permutations : int, default=1000
        Shuffles of the images of one of the two, for the control.
    random_state : int, RandomState, Generator or None, default=0

    Returns
    -------
    Dataset
        Over ``mouse``, ``space``, "images" and "responses", and ``model``, "pixels", "low_passed",
        "classes" and "other", which is the other space: ``correlation``, Spearman's, from -1 to 1;
        ``control_high``, which 95 % of the shuffles stay below; and ``p_value``, the share of
        shuffles that reach it. NaN where all dissimilarities of one kind are equal. And
        ``n_images`` per mouse.

    Raises
    ------
    TypeError, ValueError
        If this is no alignment, a mouse saw fewer than 4 images or all alike, or categories are
        not as many as trials, missing for some, contradict each other, or are one, or there is
        none of `among`.
    NotFittedError
        Before `fit`.

    References
    ----------
    Kriegeskorte et al., "Representational similarity analysis: connecting the branches of systems
    neuroscience", 2008.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import representational_similarity
    >>> trials = v1.Trials(v1.make_coarse_recordings(
    ...     n_neurons=20, n_trials=60, n_test_images=12, image_shape=(16, 24), n_categories=3,
    ...     random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> found = representational_similarity(
    ...     est.fit(trials.sel(tier="train")), trials.sel(tier="test"), n_permutations=100)
    >>> found["model"].values.tolist()
    ['pixels', 'low_passed', 'classes', 'other']
    """
    check_counts(n_permutations=n_permutations)
    pairs = read_pairs(aligner, trials)
    known = labels is not None or has_classes(trials, pairs)
    classes: Sequence[np.ndarray | None] = [None] * len(pairs)
    if known:
        pairs, classes = with_categories(trials, pairs, labels, among)
    elif among is not None:
        raise ValueError("among was given, but no categories: give labels=, one per trial.")
    models = ["pixels", "low_passed", *(["classes"] if known else []), "other"]
    rng = generator(random_state)
    found = np.empty((3, len(pairs), len(SPACES), len(models)))
    for i, (own, kinds) in enumerate(zip(pairs, classes, strict=True)):
        n = len(own.image_ids)
        if n < 4:
            raise ValueError(
                f"mouse {own.mouse!r}: {n} images came: expected at least 4, whose pairs can be "
                "ranked."
            )
        spaces = [_from_maps(maps) for maps in (own.image_maps.values, own.mean_response_maps)]
        others = [_from_pixels(own.images), _from_pixels(low_pass(own.images, cutoff))]
        others += [] if kinds is None else [(kinds[:, None] != kinds).astype(float)]
        orders = shuffle_images(n, n_permutations, rng)
        for j, space in enumerate(spaces):
            found[:, i, j] = _compared(space, [*others, spaces[1 - j]], orders)
    dims = ("mouse", "space", "model")
    return xr.Dataset(
        {
            **{
                name: (dims, values)
                for name, values in zip(
                    ("correlation", "control_high", "p_value"), found, strict=True
                )
            },
            "n_images": ("mouse", [len(own.image_ids) for own in pairs]),
        },
        coords={"mouse": [own.mouse for own in pairs], "space": list(SPACES), "model": models},
        attrs={"cutoff": cutoff},
    )


def _from_maps(maps: np.ndarray) -> np.ndarray:
    return 1 - similarity(maps, maps)


def _from_pixels(images: np.ndarray) -> np.ndarray:
    pixels = images.reshape(len(images), -1).astype(np.float64)
    pixels = pixels - pixels.mean(1, keepdims=True)
    return 1 - similarity(pixels, pixels)


def _compared(space: np.ndarray, others: list[np.ndarray], orders: np.ndarray) -> np.ndarray:
    """Rank correlations with other dissimilarities, their controls and p values, (3, n_others)."""
    above = np.triu_indices(len(space), 1)
    first, seconds = _scaled(space[above]), [_scaled(other[above]) for other in others]
    found = np.full((3, len(others)), np.nan)
    known = {k: second for k, second in enumerate(seconds) if second is not None}
    if first is None or not known:
        return found
    square = np.zeros(space.shape)
    square[above] = first
    square += square.T
    ranked = np.stack(list(known.values()))
    control = np.array([ranked @ square[np.ix_(order, order)][above] for order in orders])
    correlation = ranked @ first
    highest = np.quantile(control, 0.95, axis=0)
    found[:, list(known)] = correlation, highest, p_value(correlation, control)
    return found


def _scaled(values: np.ndarray) -> np.ndarray | None:
    """Ranks of mean 0 and length 1, None where all are equal."""
    if values.max() - values.min() <= 1e-12:  # rounding errors are no order
        return None
    ranked = rankdata(values) - (len(values) + 1) / 2
    return ranked / np.linalg.norm(ranked)
