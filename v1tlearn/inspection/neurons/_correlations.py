"""Signal and noise correlations of pairs of neurons, and how far apart they lie."""

from __future__ import annotations

import numpy as np

from v1tlearn.inspection._repeats import mean_by_image, mean_recorded


def signal_correlations(responses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Correlation of the mean responses to images, over images.

    Parameters
    ----------
    responses : ndarray of shape (n_trials, n_neurons)
        NaN where not recorded.
    labels : ndarray of int of shape (n_trials,)
        Which image each trial shows.

    Returns
    -------
    ndarray of shape (n_neurons, n_neurons)
        NaN where a neuron has the same mean to all images, and on the diagonal.
    """
    means, _ = mean_by_image(responses, labels)
    return _correlations(means)


def noise_correlations(responses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Correlation over trials of the deviations from the mean response to the image.

    Parameters
    ----------
    responses, labels
        As in `signal_correlations`; images shown once, to this neuron, do not count.

    Returns
    -------
    ndarray of shape (n_neurons, n_neurons)
        NaN where there are no repeats, where a neuron does not vary, and on the diagonal.
    """
    means, counts = mean_by_image(responses, labels)
    rest = responses - means[labels]
    return _correlations(np.where(counts[labels] > 1, rest, np.nan))


def distances(positions: np.ndarray) -> np.ndarray:
    """Distance of pairs of neurons, in the unit of their positions.

    Parameters
    ----------
    positions : ndarray of shape (n_neurons, 2 or 3)

    Returns
    -------
    ndarray of shape (n_neurons, n_neurons)
    """
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)


def _correlations(values: np.ndarray) -> np.ndarray:
    """Pearson's correlation of columns, of the rows in which both are known."""
    known = (~np.isnan(values)).astype(float)
    filled = np.nan_to_num(values - mean_recorded(values))
    n = known.T @ known
    with np.errstate(invalid="ignore", divide="ignore"):
        sums, squares = filled.T @ known, filled.T**2 @ known
        covariance = filled.T @ filled / n - sums * sums.T / n**2
        variance = squares / n - (sums / n) ** 2
        # what is left of a constant column is rounding
        scale = np.nan_to_num(values, nan=0.0).__abs__().max(0, initial=0.0)[:, None]
        variance = np.where(variance > 1e-12 * scale**2, variance, np.nan)
        out = covariance / np.sqrt(variance * variance.T)
    np.fill_diagonal(out, np.nan)
    return np.clip(out, -1, 1)
