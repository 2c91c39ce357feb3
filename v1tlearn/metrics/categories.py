"""Variance of responses between categories of stimuli, as against that within them.

Every function takes the argument forms described in `v1tlearn.metrics`.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from v1tlearn._values import as_flag, as_ids, as_number
from v1tlearn.datasets.schema import are_known
from v1tlearn.metrics._arrays import MouseArrays, there
from v1tlearn.metrics._evaluate import Block, Multioutput, evaluate

_SMALL_OF_PAIRS = 1e-4  # of the variance over all stimuli, as published


def fecv(
    y_true: Any,
    *,
    categories: Any = None,
    image_ids: Any = None,
    mouse_ids: Any = None,
    pairwise: bool = False,
    small_difference: float | None = None,
    among: Any = None,
    multioutput: Multioutput = "uniform_average",
) -> float | xr.DataArray:
    r"""Fraction of the variance over stimuli that lies between their categories.

    Per neuron :math:`(V - V_c) / V` with :math:`V` the variance over all stimuli and :math:`V_c`
    the mean over categories of the variance between the stimuli of one, both unbiased (ddof 1) (Du
    et al. 2025). Where categories tell nothing it is about 0, and can be negative.

    Parameters
    ----------
    y_true : array (n, neurons), object array (n,), Responses, or dict or list per mouse
        Responses, recorded or predicted, in any unit; NaN where not recorded.
    categories : array (n,), optional
        Category of each trial, such as the texture; needed unless `y_true` brings them in the
        coordinate `category`.
    image_ids : array (n,), optional
        Image of each trial, whose repeats are averaged first. Where neither they nor `y_true` tell,
        every trial is a stimulus of its own.
    mouse_ids : array (n,), optional
        Mouse of each trial.
    pairwise : bool, default=False
        Take the fraction for each pair of categories, on their stimuli alone, and then the mean
        over pairs; a pair over whose stimuli the neuron is silent does not count.
    small_difference : float, optional
        Differences :math:`V - V_c` below it in size count as 0, in units of the neuron's variance
        over all stimuli (ddof 0). Without it 1e-4 for pairs, as Du et al. 2025 do, and 0 otherwise.
    among : sequence, optional
        Take these categories only, by default all but "unknown"; all stimuli still make the unit of
        `small_difference`.
    multioutput : {"uniform_average", "mice", "raw_values"}
        Mean over neurons, then mice; one value per mouse; or one per neuron.

    Returns
    -------
    float or DataArray (mouse,) or (unit,)
        A silent neuron is NaN and left out of means. Of categories of which a neuron was recorded
        for fewer than two stimuli nothing is known, and where fewer than two others are left it is
        NaN, too.

    Raises
    ------
    TypeError
        If `small_difference` is no number, or `pairwise` no truth value.
    ValueError
        If categories are missing, an image has two, a mouse saw fewer than two categories or one of
        them in a single stimulus, or saw none of `among`; if `small_difference` is negative or NaN.
    """
    chosen = None if among is None else as_ids(among, "among", of="category")
    pairwise = as_flag(pairwise, "pairwise")
    if small_difference is None:
        small_difference = _SMALL_OF_PAIRS if pairwise else 0.0
    return evaluate(
        "fecv",
        partial(
            _fecv,
            among=chosen,
            pairwise=pairwise,
            small_difference=as_number(small_difference, "small_difference", minimum=0),
        ),
        y_true,
        image_ids=image_ids,
        mouse_ids=mouse_ids,
        categories=categories,
        needs=("categories",),
        prepare=partial(_checked, among=chosen),
        multioutput=multioutput,
        trials="stimuli",
    )


def _checked(arrays: MouseArrays, among: np.ndarray | None) -> MouseArrays:
    """The trials of a mouse, which saw some stimuli of each of some categories."""
    categories = _of_stimuli(arrays)
    present, counts = np.unique(categories, return_counts=True)
    if among is None:
        chosen = are_known(present)
    else:
        absent = among[~np.isin(among, present)]
        if len(absent):
            raise ValueError(
                f"mouse {arrays.mouse!r}: saw no stimulus of the categories {absent.tolist()} of "
                f"among, only of {present.tolist()}."
            )
        chosen = np.isin(present, among)
    present, counts = present[chosen], counts[chosen]
    if len(present) < 2 or counts.min() < 2:
        raise ValueError(
            f"mouse {arrays.mouse!r}: the variance within categories needs at least 2 of these, "
            "and of each at least 2 stimuli; stimuli per category are "
            f"{dict(zip(present.tolist(), counts.tolist(), strict=True))}. Leave out categories by "
            "among=."
        )
    return arrays


def _of_stimuli(arrays: MouseArrays) -> np.ndarray:
    """Category of each image, or of each trial where images are not known."""
    of_trials = there(arrays.categories)
    if arrays.image_ids is None:
        return of_trials
    images, first, codes = np.unique(arrays.image_ids, return_index=True, return_inverse=True)
    categories = of_trials[first]
    other = np.flatnonzero(categories[codes] != of_trials)
    if len(other):
        image = codes[other[0]]
        both = [categories[image].item(), of_trials[other[0]].item()]
        raise ValueError(
            f"mouse {arrays.mouse!r}: image {images[image].item()!r} is in the categories {both}: "
            "expected one category per image. Are categories and image_ids in one order?"
        )
    return categories


class _Classes(NamedTuple):
    """Categories of the stimuli of a block: their sizes, means and sums of squares about these."""

    counts: np.ndarray  # (categories,)
    means: np.ndarray  # (categories, neurons)
    squares: np.ndarray  # (categories, neurons)


def _classes(values: np.ndarray, categories: np.ndarray) -> _Classes:
    """Categories of two stimuli and more; sums are relative to the first stimulus of each."""
    _, codes, counts = np.unique(categories, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    order, counts = order[counts[codes[order]] > 1], counts[counts > 1]
    if len(counts) == 0:
        none = np.empty((0, values.shape[1]))
        return _Classes(counts, none, none)
    starts = np.cumsum(counts) - counts
    first = values[order[starts]]
    shifted = values[order] - np.repeat(first, counts, axis=0)
    means = np.add.reduceat(shifted, starts, axis=0) / counts[:, None]
    squares = np.add.reduceat((shifted - np.repeat(means, counts, axis=0)) ** 2, starts, axis=0)
    return _Classes(counts, first + means, squares)


def _fecv(
    block: Block, among: np.ndarray | None, pairwise: bool, small_difference: float
) -> np.ndarray:
    values, categories = block.true, there(block.categories)
    if block.repeats is not None:
        values, categories = block.repeats.averages(values), categories[block.repeats.starts]
    values = values / values.std(axis=0)
    chosen = are_known(categories) if among is None else np.isin(categories, among)
    values, categories = values[chosen], categories[chosen]
    classes = _classes(values, categories)
    if len(classes.counts) < 2:
        return np.full(values.shape[1], np.nan)
    if not pairwise:
        return _fraction(classes, small_difference)
    pairs = combinations(range(len(classes.counts)), 2)
    fractions = np.array(
        [_fraction(_Classes(*(c[list(pair)] for c in classes)), small_difference) for pair in pairs]
    )
    defined = ~np.isnan(fractions)
    return np.where(defined, fractions, 0).sum(axis=0) / defined.sum(axis=0)


def _fraction(classes: _Classes, small_difference: float) -> np.ndarray:
    counts = classes.counts[:, None]
    n = counts.sum()
    centred = classes.means - classes.means[0]
    centred = centred - (counts * centred).sum(axis=0) / n
    total = (classes.squares.sum(axis=0) + (counts * centred**2).sum(axis=0)) / (n - 1.0)
    difference = total - (classes.squares / (counts - 1.0)).mean(axis=0)
    difference = np.where(np.abs(difference) < small_difference, 0.0, difference)
    return np.where(total > 0, difference / total, np.nan)
