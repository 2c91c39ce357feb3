"""Means of responses over trials, of what was recorded."""

from __future__ import annotations

import numpy as np


def mean_recorded(values: np.ndarray) -> np.ndarray:
    """Mean over trials of what was recorded.

    Parameters
    ----------
    values : ndarray of shape (n_trials, ...)
        NaN where not recorded.

    Returns
    -------
    ndarray of shape (...)
        float64; NaN where nothing was recorded.
    """
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=0, dtype=np.float64), known.sum(axis=0))


def mean_by_image(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the trials of each image of what was recorded.

    Parameters
    ----------
    values : ndarray of shape (n_trials, n_neurons)
        NaN where not recorded.
    labels : ndarray of int of shape (n_trials,)
        Which image each trial shows, from 0.

    Returns
    -------
    means, counts : ndarray of shape (n_images, n_neurons)
        NaN where nothing was recorded; and how many trials these are means of.
    """
    known = ~np.isnan(values)
    shape = (labels.max() + 1, *values.shape[1:])
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, labels, np.where(known, values, 0))
    np.add.at(counts, labels, known)
    return _ratio(sums, counts), counts


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, where=counts > 0, out=np.full(sums.shape, np.nan))
