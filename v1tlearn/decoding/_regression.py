"""Ridge and reduced-rank ridge regression to many targets, and the choice of their penalty.

Plain float64 arrays; no mice and no images. Features and targets are rotated to as few coordinates
as there are trials before, which changes neither fit nor error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh, qr, svd
from scipy.sparse.linalg import svds
from sklearn.model_selection import GroupKFold

_STEPS = np.logspace(-4, 4, 17)  # of "auto" penalties, in mean squares of a coordinate
_FEW = 0.2  # share of all singular vectors up to which they are computed one by one


class Coordinates(NamedTuple):
    """Values without their mean, in coordinates of which there are no more than trials.

    Attributes
    ----------
    mean : ndarray of shape (n_columns,)
    scores : ndarray of shape (n_trials, n_coordinates)
    axes : ndarray of shape (n_coordinates, n_columns) or None
        Orthonormal, ``values = mean + scores @ axes``; None where the columns are the axes.
    """

    mean: np.ndarray
    scores: np.ndarray
    axes: np.ndarray | None


class LinearMap(NamedTuple):
    """What gives targets of features, without the matrix of the coefficients of all with all.

    Attributes
    ----------
    offset : ndarray of shape (n_targets,)
    weights : ndarray of shape (n_features, n_coordinates)
    axes : ndarray of shape (n_coordinates, n_targets) or None
        None where the targets are the coordinates.
    """

    offset: np.ndarray
    weights: np.ndarray
    axes: np.ndarray | None

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Give the targets (n_trials, n_targets)."""
        along = features @ self.weights
        return self.offset + (along if self.axes is None else along @ self.axes)


class Choice(NamedTuple):
    """A penalty, and the errors by which it was chosen.

    Attributes
    ----------
    alpha : float
    alphas : ndarray of shape (n_alphas,)
    errors : ndarray of shape (n_alphas,)
        Mean squared error of all targets, in trials that were left out; NaN where there was
        nothing to choose.
    """

    alpha: float
    alphas: np.ndarray
    errors: np.ndarray


def coordinates(values: np.ndarray) -> Coordinates:
    """Rotate values such that there are no more columns than trials; nothing is lost.

    Parameters
    ----------
    values : ndarray of shape (n_trials, n_columns)

    Returns
    -------
    Coordinates
    """
    mean = values.mean(axis=0)
    centred = values - mean
    if centred.shape[1] <= centred.shape[0]:
        return Coordinates(mean, centred, None)
    axes, scores = qr(centred.T, mode="economic", overwrite_a=True, check_finite=False)
    return Coordinates(mean, scores.T, axes.T)


def fit_ridge(
    features: np.ndarray, targets: np.ndarray, alpha: float, rank: int | None = None
) -> np.ndarray:
    r"""Coefficients that minimise :math:`\|Y - X B\|^2 + \alpha \|B\|^2`, of a rank or of any.

    Parameters
    ----------
    features : ndarray of shape (n_trials, n_features)
        X, without its mean.
    targets : ndarray of shape (n_trials, n_targets)
        Y, without its mean.
    alpha : float
        Positive.
    rank : int, optional
        The largest rank of B; none where None.

    Returns
    -------
    ndarray of shape (n_features, n_targets)

    Notes
    -----
    With the ridge solution :math:`B_0` the best B of a rank is :math:`B_0 V V^T`, where V are the
    first right singular vectors of :math:`(X^T X + \alpha)^{1/2} B_0`: reduced-rank regression
    (Izenman 1975) of X and Y with the rows of the penalty appended (Mukherjee and Zhu 2011).
    """
    return _Path(features, targets).coefficients(alpha, rank)


def fit_map(
    features: Coordinates, targets: Coordinates, alpha: float, rank: int | None = None
) -> LinearMap:
    """Fit ridge regression with an offset, and keep no more numbers than it takes.

    Parameters
    ----------
    features, targets : Coordinates
        Of the same trials.
    alpha : float
        Positive.
    rank : int, optional
        As in `fit_ridge`.

    Returns
    -------
    LinearMap
        With as many coordinates as there are trials at most.
    """
    weights, axes = fit_ridge(features.scores, targets.scores, alpha, rank), targets.axes
    if features.axes is not None:
        weights = features.axes.T @ weights
    if axes is not None and len(weights) < len(axes):  # then all with all are fewer
        weights, axes = weights @ axes, None
    offset = features.mean @ weights
    return LinearMap(targets.mean - (offset if axes is None else offset @ axes), weights, axes)


def choose_alpha(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    alpha: Any,
    n_folds: int,
    rank: int | None = None,
) -> Choice:
    """Choose the penalty whose error is least in trials of groups that were left out.

    Parameters
    ----------
    features : ndarray of shape (n_trials, n_features)
    targets : ndarray of shape (n_trials, n_targets)
    groups : ndarray of shape (n_trials,)
        Trials of one group are on one side of every split.
    alpha : "auto", float or sequence of float
        One alone is taken as it is. "auto" are 17 from 1e-4 to 1e4 times the mean square of the
        coordinates of the features.
    n_folds : int
        At most as many as there are groups.
    rank : int, optional

    Returns
    -------
    Choice
        Of equal errors the larger penalty is chosen.

    Raises
    ------
    ValueError
        If there is something to choose, and one group only.
    """
    if isinstance(alpha, str):
        centred = features - features.mean(axis=0)
        alphas = _STEPS * np.square(centred).sum() / min(centred.shape)
    else:
        alphas = np.sort(np.atleast_1d(np.asarray(alpha, dtype=np.float64)))
    if len(alphas) == 1:
        return Choice(float(alphas[0]), alphas, np.full(1, np.nan))
    folds = GroupKFold(min(n_folds, len(np.unique(groups))))
    errors = np.zeros(len(alphas))
    for train, held in folds.split(features, groups=groups):
        middle, goal = features[train].mean(axis=0), targets[train].mean(axis=0)
        path = _Path(features[train] - middle, targets[train] - goal)
        inputs, wanted = features[held] - middle, targets[held] - goal
        errors += [np.square(wanted - path.predict(inputs, a, rank)).sum() for a in alphas]
    errors /= targets.size
    best = len(alphas) - 1 - int(errors[::-1].argmin())
    return Choice(float(alphas[best]), alphas, errors)


class _Path:
    """Ridge regression for any penalty, after one decomposition."""

    def __init__(self, features: np.ndarray, targets: np.ndarray) -> None:
        values, self.vectors = eigh(features.T @ features, driver="evd", check_finite=False)
        self.values = values.clip(min=0)
        self.products = self.vectors.T @ (features.T @ targets)

    def _along_vectors(self, alpha: float, rank: int | None) -> np.ndarray:
        along = self.products / (self.values + alpha)[:, None]
        if rank is None or rank >= min(along.shape):
            return along
        axes = _first_axes(along * np.sqrt(self.values + alpha)[:, None], rank)
        return along @ axes.T @ axes

    def coefficients(self, alpha: float, rank: int | None) -> np.ndarray:
        return self.vectors @ self._along_vectors(alpha, rank)

    def predict(self, features: np.ndarray, alpha: float, rank: int | None) -> np.ndarray:
        return (features @ self.vectors) @ self._along_vectors(alpha, rank)


def _first_axes(values: np.ndarray, rank: int) -> np.ndarray:
    """First right singular vectors (rank, columns)."""
    if rank < _FEW * min(values.shape) and values.any():
        start = np.ones(min(values.shape))
        return svds(values, k=rank, v0=start, return_singular_vectors="vh")[2]
    return svd(values, full_matrices=False, check_finite=False)[2][:rank]
