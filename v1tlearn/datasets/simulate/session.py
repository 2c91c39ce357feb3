"""The session of a simulated mouse: which image is shown in which trial, and when."""

from __future__ import annotations

import numpy as np


def show(
    rng: np.random.Generator, tiers: np.ndarray, n_repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """Show every image once, those of the test tier `n_repeats` times, spread over the session.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.
    tiers : ndarray of shape (images,)
        Tier of each image.
    n_repeats : int
        Repeats of the test images.

    Returns
    -------
    shown : ndarray of shape (trials,)
        Number of the image of each trial. Trials are in random order, as those of files.
    trial_id : ndarray of shape (trials,)
        Their order in time, from 0.
    """
    shown = np.arange(len(tiers))
    test = shown[tiers == "test"]
    shown = np.concatenate([shown[tiers != "test"], np.tile(test, n_repeats)])
    # Each repeat has a stretch of the session of its own, so that repeats sample all its states.
    moment = rng.random(len(shown))
    repeat = np.repeat(np.arange(n_repeats), len(test))
    moment[len(shown) - len(repeat) :] += repeat
    moment[len(shown) - len(repeat) :] /= n_repeats
    trial_id = np.argsort(np.argsort(moment))
    order = rng.permutation(len(shown))  # files are not in time order either
    return shown[order], trial_id[order]
