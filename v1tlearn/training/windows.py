"""Windows of successive frames, for models that see time: none straddles a cut.

Frames stand on one axis, trial after trial; the end of a trial is a cut, and so is a frame that is
not to be seen.
"""

from __future__ import annotations

import numpy as np


def window_starts(n_frames: np.ndarray, length: int, valid: np.ndarray | None = None) -> np.ndarray:
    """Find where windows may begin.

    Parameters
    ----------
    n_frames : ndarray of int, of shape (n_trials,)
        Frames of each trial.
    length : int
        Frames of a window.
    valid : ndarray of bool, of shape (n_frames.sum(),), optional
        Frames that windows may hold; all without it.

    Returns
    -------
    ndarray of int
        First frames of windows, on the axis of all frames, in rising order.

    Raises
    ------
    ValueError
        If the length is none, no window fits into any trial, or `valid` is of other frames.
    """
    n_frames = np.asarray(n_frames)
    total = int(n_frames.sum())
    if length < 1:
        raise ValueError(f"windows of {length} frames: expected at least 1.")
    if valid is not None and valid.shape != (total,):
        raise ValueError(f"valid has shape {valid.shape}, expected one value per frame, {total}.")
    ends = np.repeat(np.cumsum(n_frames), n_frames)  # of the trial of each frame
    frames = np.arange(total)
    fits = frames + length <= ends
    if valid is not None:
        invalid_before = np.concatenate([[0], np.cumsum(~valid)])
        last = np.minimum(frames + length, total)
        fits &= invalid_before[last] == invalid_before[frames]
    if not fits.any():
        raise ValueError(
            f"no window of {length} frames fits: the longest of {len(n_frames)} trials has "
            f"{int(n_frames.max(initial=0))} frames"
            + ("" if valid is None else ", of which some are not valid")
            + ". Choose shorter windows, or give longer movies."
        )
    return np.flatnonzero(fits)
