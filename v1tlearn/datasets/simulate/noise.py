"""Noise of simulated responses: gamma distributed around the rate, its variance set per neuron."""

from __future__ import annotations

import numpy as np

_BLOCK = 2**21  # responses drawn at once
_TRIAL_TO_TRIAL = 0.1  # squared coefficient of variation of the multiplicative noise


def noise_terms(rates: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the mean variance of the noise of each neuron into a linear and a quadratic term.

    Parameters
    ----------
    rates : ndarray of shape (images, neurons)
        Rates over which the mean is taken.
    variance : ndarray of shape (neurons,)
        Mean variance of the noise.

    Returns
    -------
    linear, quadratic : ndarray of shape (neurons,)
        The noise of a neuron with rate m has the variance linear m + quadratic m^2.
    """
    mean, mean_square = rates.mean(axis=0), (rates**2).mean(axis=0)
    quadratic = np.minimum(_TRIAL_TO_TRIAL, 0.5 * variance / mean_square)
    return (variance - quadratic * mean_square) / mean, quadratic


def draw_responses(
    seed: np.random.SeedSequence, rates: np.ndarray, noise: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Gamma noise of mean `rates` and variance linear * rate + quadratic * rate^2, in blocks."""
    linear, quadratic = noise
    responses = np.empty_like(rates)
    step = max(1, _BLOCK // rates.shape[1])
    starts = range(0, len(rates), step)
    # A generator per block: a draw that takes one number more does not change the blocks after it.
    for start, block_seed in zip(starts, seed.spawn(len(starts)), strict=True):
        rate = rates[start : start + step].astype(np.float64)
        spread = linear + quadratic * rate  # variance over mean
        gamma = np.random.default_rng(block_seed).standard_gamma(rate / spread)
        responses[start : start + step] = gamma * spread
    return responses
