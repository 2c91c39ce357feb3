"""Takes the first repeats of every image only, as many as each neuron has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from v1tlearn._models import by_text
from v1tlearn.metrics._arrays import MouseArrays, there


def keep_first_repeats(arrays: MouseArrays, first_repeats: Any) -> MouseArrays:
    """The trials of a mouse with later repeats "not recorded", neuron by neuron.

    `first_repeats` is one number, one per neuron, or such a one for each mouse by its name.
    """
    most = _of_mouse(arrays, first_repeats)
    rank = _rank_of_repeats(there(arrays.image_ids))
    late = rank[:, None] >= most  # (n, neurons)
    true = arrays.true if arrays.true.dtype.kind == "f" else arrays.true.astype(np.float64)
    return replace(arrays, true=np.where(late, np.asarray(np.nan, true.dtype), true))


def _of_mouse(arrays: MouseArrays, first_repeats: Any) -> np.ndarray:
    where = f"mouse {arrays.mouse!r}: first_repeats"
    if isinstance(first_repeats, Mapping):
        given = by_text("first_repeats", first_repeats)
        if arrays.mouse not in given:
            raise ValueError(f"{where} has no entry, only {list(given)}: give one for every mouse.")
        first_repeats = given[arrays.mouse]
    most, n_neurons = np.asarray(first_repeats), arrays.true.shape[1]
    if most.shape not in ((), (n_neurons,)):
        raise ValueError(
            f"{where} has shape {most.shape}, expected one number, or one for each of {n_neurons} "
            "neurons; of several mice a dict {mouse: numbers}."
        )
    if most.dtype.kind not in "iu" or (most < 1).any():
        raise ValueError(f"{where} is {first_repeats!r}: expected whole numbers from 1 on.")
    return most


def _rank_of_repeats(image_ids: np.ndarray) -> np.ndarray:
    """How often the image of each trial was shown before."""
    _, codes, counts = np.unique(image_ids, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
