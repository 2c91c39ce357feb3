"""How well the category of an image is read off its maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from v1tlearn._values import as_whole
from v1tlearn.inspection._controls import check_counts
from v1tlearn.inspection.alignment._labels import by_mouse, generators, with_categories
from v1tlearn.inspection.alignment._pairs import SPACES, read_pairs
from v1tlearn.metrics._chance import p_value, shuffle_images
from v1tlearn.trials import Trials

_ALPHAS = np.logspace(-2, 6, 9)


def class_decoding(
    aligner: Any,
    trials: Trials,
    labels: Any = None,
    *,
    among: Any = None,
    n_folds: int = 5,
    n_permutations: int = 20,
    random_state: Any = 0,
) -> xr.Dataset:
    """Tell how well categories are read off the maps of images, and of responses, linearly.

    A ridge classifier with standardised features, its strength chosen inside the training part, is
    cross-validated over images; an image's responses count as the mean of their maps.

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
    n_folds : int, default=5
        At most the number of images of the smallest category.
    n_permutations : int, default=20
        Shuffles of the categories among images, for the control; each is a cross-validation.
    random_state : int, RandomState, Generator or None, default=0
        Of folds and shuffles.

    Returns
    -------
    Dataset
        Over ``mouse`` and ``space``, "images" and "responses": ``accuracy``, the share of images
        whose category is right; ``control``, its mean over shuffles, and ``p_value``, the share of
        shuffles that do as well. Over ``mouse`` ``chance``, the share of the largest category, and
        ``n_images``.

    Raises
    ------
    TypeError, ValueError
        As `class_confusions`; or if a category has fewer images than there are folds.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import class_decoding
    >>> trials = v1.Trials(v1.make_coarse_recordings(
    ...     n_neurons=20, n_trials=60, n_test_images=20, image_shape=(16, 24), n_categories=2,
    ...     random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> found = class_decoding(est, trials.sel(tier="test"), n_permutations=5)
    >>> dict(found["accuracy"].sizes), float(found["chance"][0])
    ({'mouse': 1, 'space': 2}, 0.5)
    """
    check_counts(n_permutations=n_permutations)
    n_folds = as_whole(n_folds, "n_folds", 2)
    pairs, classes = with_categories(trials, read_pairs(aligner, trials), labels, among)
    rng, orders = generators(random_state)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
    found = []
    for own, kinds in zip(pairs, classes, strict=True):
        smallest = np.bincount(kinds).min()
        if smallest < n_folds:
            raise ValueError(
                f"mouse {own.mouse!r}: n_folds={n_folds}, but a category has {smallest} images: "
                "lower n_folds, or leave small categories out by among=."
            )
        shuffles = kinds[shuffle_images(len(kinds), n_permutations, orders)]
        row: dict[str, Any] = {"n_images": len(kinds), "chance": np.bincount(kinds).max()}
        row["chance"] /= len(kinds)
        for space, maps in zip(
            SPACES, (own.image_maps.values, own.mean_response_maps), strict=True
        ):
            features = maps.reshape(len(maps), -1)
            accuracy = _accuracy(features, kinds, folds)
            control = np.array([_accuracy(features, other, folds) for other in shuffles])
            row[space] = accuracy, control.mean(), p_value(accuracy, control)
        found.append(row)
    numbers = np.array([[row[space] for space in SPACES] for row in found])
    names = ("accuracy", "control", "p_value")
    return (
        by_mouse(pairs, found, ("chance", "n_images"), {"n_folds": n_folds})
        .assign(
            {name: (("mouse", "space"), numbers[..., i]) for i, name in enumerate(names)},
        )
        .assign_coords(space=list(SPACES))
    )


def _accuracy(features: np.ndarray, kinds: np.ndarray, folds: StratifiedKFold) -> float:
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(_ALPHAS))
    return float((cross_val_predict(model, features, kinds, cv=folds) == kinds).mean())
