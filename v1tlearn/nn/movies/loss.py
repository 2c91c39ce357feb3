"""The loss of Vi-ST: errors, negative responses, and alignment in time at two scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from v1tlearn.nn import sharing
from v1tlearn.nn.contrastive import root_mean_square_error
from v1tlearn.nn.soft_dtw import soft_dtw_divergence


def window_starts(n_frames: int, window: int) -> range:
    """First frames of the windows of an alignment: every half window, the last one left out.

    Parameters
    ----------
    n_frames : int
    window : int
        Frames of a window, at least 2.

    Returns
    -------
    range
        Strictly below ``n_frames - window``, as published.

    Raises
    ------
    ValueError
        If a window is shorter than two frames, or not shorter than the movie.
    """
    if window < 2 or n_frames <= window:
        raise ValueError(
            f"windows of {window} frames in movies of {n_frames}: expected windows of at least 2 "
            "frames, and of fewer than the movies have; the scales 20 and 10 need movies, or "
            "training windows, of at least 40 frames."
        )
    return range(0, n_frames - window, window // 2)


def vist_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    error_weight: float = 0.1,
    negative_weight: float = 0.5,
    alignment_weight: float = 5e-6,
    scales: Sequence[int] = (20, 10),
    gamma: float = 0.1,
) -> Tensor:
    """Weighted sum of error, negative responses, and soft-DTW of short windows (Wu et al. 2024).

    The error is the root of the mean squared difference; where it is 0 so is its gradient, which
    the published code does not have there. Negative responses count with their mean size over all
    values. Per scale s, windows of ``n_frames // s`` frames begin every half window; the mean over
    all windows of all items of `soft_dtw_divergence` is added, which counts a response at the wrong
    frame less than one that is missing unless the window ends between. A term without weight is
    not computed.

    Parameters
    ----------
    prediction : Tensor of shape (n_items, n_frames, n_neurons)
        Predicted responses.
    target : Tensor of this shape
        Recorded responses, all of them: the loss is NaN where one is.
    error_weight, negative_weight, alignment_weight : float, default=0.1, 0.5, 5e-6
        The last one for each scale.
    scales : sequence of int, default=(20, 10)
        Windows in a movie. The published loss changes with the length of what it sees: values of
        training windows and of whole movies do not compare.
    gamma : float, default=0.1
        See `soft_dtw`.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    ValueError
        If shapes differ, or movies are too short for the windows of a scale.
    """
    if prediction.shape != target.shape or prediction.ndim != 3:
        raise ValueError(
            f"prediction and target have the shapes {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}: expected one shape (items, frames, neurons)."
        )
    total = prediction.new_zeros(())
    if error_weight:
        total = total + error_weight * root_mean_square_error(prediction, target)
    if negative_weight:
        negative = (-prediction).relu()
        total = total + negative_weight * sharing.mean(negative.mean(), negative.numel())
    n_frames = prediction.shape[1]
    for scale in scales if alignment_weight else ():
        window = n_frames // scale
        starts = window_starts(n_frames, window)
        pair = (
            torch.cat([responses[:, start : start + window] for start in starts])
            for responses in (prediction, target)
        )
        apart = soft_dtw_divergence(*pair, gamma=gamma)
        total = total + alignment_weight * sharing.mean(apart.mean(), apart.numel())
    return total
