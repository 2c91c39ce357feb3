"""Categories of images, from trials or from the caller, one per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._values import as_ids, plain
from v1tlearn.inspection.alignment._pairs import Pairs
from v1tlearn.training import draw_seed
from v1tlearn.trials import Trials
from v1tlearn.trials._arithmetic import labels_of

_COORDINATE = "image_class"


def image_classes(trials: Trials, pairs: Sequence[Pairs], labels: Any = None) -> list[np.ndarray]:
    """Give the category of each image, as numbers.

    Parameters
    ----------
    trials : Trials
    pairs : sequence of Pairs
        Of these trials.
    labels : array of shape (n_trials,), optional
        By default the coordinate `image_class` of the trials.

    Returns
    -------
    list of ndarray of int of shape (n_images,)
        Per mouse, numbered from 0 without gaps.

    Raises
    ------
    ValueError
        If there are none, not as many as trials, one is missing, repeats of an image differ, or
        there is one category only.
    """
    given = None if labels is None else _given(labels, len(trials))
    out = []
    for own in pairs:
        found = labels_of(trials[own.rows], _COORDINATE) if given is None else given[own.rows]
        if found is None:
            raise ValueError(
                f"mouse {own.mouse!r}: there are no categories: the trials have no coordinate "
                f"{_COORDINATE!r}, and no labels came: give labels=, one per trial."
            )
        out.append(_of_images(own, np.asarray(found)))
    return out


def has_classes(trials: Trials, pairs: Sequence[Pairs]) -> bool:
    """Tell whether the trials of all mice have the coordinate `image_class`.

    Parameters
    ----------
    trials : Trials
    pairs : sequence of Pairs
        Of these trials.

    Returns
    -------
    bool
    """
    return all(labels_of(trials[own.rows], _COORDINATE) is not None for own in pairs)


def _given(labels: Any, n_trials: int) -> np.ndarray:
    values = np.asarray(as_ids(labels, "labels"))
    if values.shape != (n_trials,):
        raise ValueError(
            f"labels have the shape {values.shape} for {n_trials} trials: expected one category "
            "per trial, in their order."
        )
    return values


def _of_images(own: Pairs, found: np.ndarray) -> np.ndarray:
    missing = pd.isna(found) | (found.astype(str) == "")
    if missing.any():
        raise ValueError(
            f"mouse {own.mouse!r}: the image {str(own.image_ids[own.shown[missing][0]])!r} has no "
            "category: leave its trials out."
        )
    names, kinds = np.unique(found.astype(str), return_inverse=True)
    of_image = np.empty(len(own.image_ids), dtype=int)
    of_image[own.shown] = kinds
    if (of_image[own.shown] != kinds).any():
        at = int(np.argmax(of_image[own.shown] != kinds))
        image, found = own.shown[at], [str(names[k]) for k in (of_image[own.shown[at]], kinds[at])]
        raise ValueError(
            f"mouse {own.mouse!r}: trials of the image {str(own.image_ids[image])!r} have several "
            f"categories, {found}: expected one."
        )
    if len(names) < 2:
        raise ValueError(
            f"mouse {own.mouse!r}: all images are of the category {str(names[0])!r}: expected at "
            "least 2 categories."
        )
    return of_image


def generators(random_state: Any) -> tuple[np.random.Generator, np.random.Generator]:
    """Of the draws of images, and of the shuffles."""
    seeds = np.random.default_rng(draw_seed(plain(random_state))).integers(2**63, size=2)
    first, second = map(np.random.default_rng, seeds)
    return first, second


def by_mouse(
    pairs: Sequence[Pairs],
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Numbers of each mouse by their names, NaN where a mouse has none."""
    values = {n: ("mouse", np.array([row.get(n, np.nan) for row in rows])) for n in names}
    return xr.Dataset(values, coords={"mouse": [own.mouse for own in pairs]}, attrs=attrs)
