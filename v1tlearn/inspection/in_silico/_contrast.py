"""How responses grow with contrast: the hyperbolic ratio of Naka and Rushton."""

from __future__ import annotations

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

_EXPLAINED = 0.9  # share of the variance from which on a fit counts


def naka_rushton(contrasts: np.ndarray, responses: np.ndarray) -> tuple[float, float, float, bool]:
    """Fit ``R0 + Rmax c^n / (c^n + c50^n)`` by least squares.

    Parameters
    ----------
    contrasts, responses : ndarray of shape (n,)

    Returns
    -------
    c50, exponent, r2 : float
        NaN where nothing was found.
    fits : bool
        Whether the fit explains 0.9 of the variance, with c50 within the contrasts.
    """
    failed = (np.nan, np.nan, np.nan, False)
    contrasts = np.asarray(contrasts, dtype=np.float64)
    span = np.ptp(responses)
    if len(np.unique(contrasts)) < 5 or not span > 0 or not contrasts.max() > 0:
        return failed  # four parameters need more contrasts than that

    def curve(c: np.ndarray, base: float, most: float, half: float, power: float) -> np.ndarray:
        raised = c**power
        return base + most * raised / (raised + half**power)

    top = contrasts.max()
    lowest = [-np.inf, 0.0, 1e-3 * top, 0.3]
    start = [float(responses.min()), float(span), 0.4 * top, 2.0]
    try:
        with np.errstate(all="ignore"):
            found, _ = curve_fit(
                curve,
                contrasts,
                responses,
                start,
                bounds=(lowest, [np.inf, np.inf, 10 * top, 10.0]),
            )
    except (RuntimeError, ValueError, OptimizeWarning):
        return failed
    rest = responses - curve(contrasts, *found)
    r2 = float(1 - (rest @ rest) / np.square(responses - responses.mean()).sum())
    inside = contrasts[contrasts > 0].min() <= found[2] <= top
    return float(found[2]), float(found[3]), r2, bool(r2 >= _EXPLAINED and inside)
