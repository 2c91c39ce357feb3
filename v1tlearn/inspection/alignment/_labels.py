"""Categories of images, from trials or from the caller, one per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._values import as_ids
from v1tlearn.datasets.schema import are_known
from v1tlearn.inspection._controls import generator
from v1tlearn.inspection.alignment._pairs import Pairs, some_images
from v1tlearn.trials import Trials
from v1tlearn.trials._arithmetic import labels_of

_COORDINATE = "category"


def with_categories(
    trials: Trials, pairs: Sequence[Pairs], labels: Any = None, among: Any = None
) -> tuple[list[Pairs], list[np.ndarray]]:
    """Give the images whose categories count, with all their trials, and the category of each.

    Parameters
    ----------
    trials : Trials
    pairs : sequence of Pairs
        Of these trials.
    labels : array of shape (n_trials,), optional
        By default the coordinate `category` of the trials.
    among : sequence, optional
        The categories that count; by default all but "unknown".

    Returns
    -------
    list of Pairs
    list of ndarray of int of shape (n_images,)
        Per mouse, numbered from 0 without gaps.

    Raises
    ------
    ValueError
        If there are none, not as many as trials, one is missing, repeats of an image differ, there
        is one category only, or none of one that is to count.
    """
    given = None if labels is None else _given(labels, len(trials))
    wanted = None if among is None else as_ids(among, "among", of="category").astype(str)
    chosen, kinds = [], []
    for own in pairs:
        found = labels_of(trials[own.rows], _COORDINATE) if given is None else given[own.rows]
        if found is None:
            raise ValueError(
                f"mouse {own.mouse!r}: there are no categories: the trials have no coordinate "
                f"{_COORDINATE!r}, and no labels came: give labels=, one per trial."
            )
        some, of_image = _chosen(own, _of_images(own, np.asarray(found)), wanted)
        chosen.append(some)
        kinds.append(of_image)
    return chosen, kinds


def has_classes(trials: Trials, pairs: Sequence[Pairs]) -> bool:
    """Tell whether the trials of all mice have the coordinate `category`.

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
            "category: leave its trials out, or call it 'unknown'."
        )
    found = found.astype(str)
    of_image = np.empty(len(own.image_ids), dtype=found.dtype)
    of_image[own.shown] = found
    if (of_image[own.shown] != found).any():
        at = int(np.argmax(of_image[own.shown] != found))
        several = [str(name) for name in (of_image[own.shown[at]], found[at])]
        raise ValueError(
            f"mouse {own.mouse!r}: trials of the image {str(own.image_ids[own.shown[at]])!r} have "
            f"several categories, {several}: expected one."
        )
    return of_image


def _chosen(own: Pairs, of_image: np.ndarray, among: np.ndarray | None) -> tuple[Pairs, np.ndarray]:
    """Pairs of the categories that count, and the numbers of these."""
    absent = [] if among is None else sorted(set(among.tolist()) - set(of_image.tolist()))
    if absent:
        raise ValueError(
            f"mouse {own.mouse!r}: no image is of the categories {absent} of among, only of "
            f"{np.unique(of_image).tolist()}."
        )
    counts = are_known(of_image) if among is None else np.isin(of_image, among)
    names, kinds = np.unique(of_image[counts], return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"mouse {own.mouse!r}: all images that count are of the categories {names.tolist()}: "
            "expected at least 2 categories."
        )
    return some_images(own, counts), kinds


def generators(random_state: Any) -> tuple[np.random.Generator, np.random.Generator]:
    """Of the draws of images, and of the shuffles."""
    seeds = generator(random_state).integers(2**63, size=2)
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
