"""How differently the peaks of recorded and predicted responses last."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from scipy.signal import find_peaks, peak_widths
from scipy.stats import gaussian_kde

from v1tlearn._options import as_word
from v1tlearn._values import as_array, as_number, as_whole
from v1tlearn.metrics._sequences import joined

WORST = 1000.0  # where densities cannot be compared


def sd_kl(
    y_true: Any,
    y_pred: Any,
    *,
    variant: Literal["stated", "published", "supplement"] = "stated",
    direction: Literal["pred_true", "true_pred"] | None = None,
    bandwidth: float = 0.3,
    ceiling: float = 1.0,
    grid_points: int = 200,
    floor: float = 0.0,
    distance: Literal["kl", "tvd"] = "kl",
    multioutput: Literal["uniform_average", "raw_values"] = "uniform_average",
) -> float | np.ndarray:
    """Divergence between the durations of peaks in recorded and in predicted responses (SD-KL).

    Negative responses count as 0, and responses above the `ceiling` as this in the widths of the
    peaks, which are taken at their base. Durations of either kind become a Gaussian density on a
    common grid; the score of a neuron is ``sum p log(p / q)`` over the grid (Wu et al. 2024,
    supplement, algorithm 1). The measure reacts strongly to noise: most of its range is passed at
    10 % of noise.

    Parameters
    ----------
    y_true : array (frames, neurons), or list of them or array (movies, frames, neurons)
        Recorded responses, all of them. Movies are joined one after the other.
    y_pred : same form as `y_true`
        Predicted responses.
    variant : {"stated", "published", "supplement"}, default="stated"
        "stated" is the text of the paper as it can be meant. "published" is what the released
        code gives: densities of the squared bandwidth, on a grid of the bandwidth once; widths at
        a height relative to the ceiling; equal sets of durations without spread are the worst.
        "supplement" is its algorithm to the letter: the grid reaches as far as the variance tells,
        in squared frames, and scores end at 1000, as most do.
    direction : {"pred_true", "true_pred"}, optional
        D(prediction || target) or D(target || prediction); by default the first, as the paper
        has it, but the second with "published".
    bandwidth : float, default=0.3
        Of the densities, in standard deviations of the durations.
    ceiling : float, default=1.0
        In the unit of the responses.
    grid_points : int, default=200
    floor : float, default=0.0
        Least value of the second density, once it has the sum 1; a small one keeps scores finite.
    distance : {"kl", "tvd"}, default="kl"
        "tvd" is the published alternative, half the sum of absolute differences of densities that
        are not normalised.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Mean over neurons, or one value per neuron.

    Returns
    -------
    float or ndarray of shape (neurons,)
        From 0. It is 1000 where densities cannot be compared: with fewer than two peaks, durations
        that are all equal, or where only the first density is above 0. Equal sets of durations give
        0, unless published.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, or an option is unknown.
    """
    for name, value, known in (
        ("variant", variant, ("stated", "published", "supplement")),
        ("distance", distance, ("kl", "tvd")),
        ("multioutput", multioutput, ("uniform_average", "raw_values")),
    ):
        as_word(value, known, name)
    if direction is not None:
        as_word(direction, ("pred_true", "true_pred"), "direction", ", or None")
    bandwidth, ceiling = as_number(bandwidth, "bandwidth"), as_number(ceiling, "ceiling")
    floor = as_number(floor, "floor")
    grid_points = as_whole(grid_points, "grid_points", 2)
    if not (bandwidth > 0 and ceiling > 0 and grid_points >= 2 and floor >= 0):
        raise ValueError(
            f"bandwidth={bandwidth}, ceiling={ceiling}, grid_points={grid_points}, floor={floor}: "
            "expected a positive bandwidth and ceiling, at least two points, and no negative floor."
        )
    true, pred = joined(y_true, y_pred)
    _check_finite(true, "y_true")
    _check_finite(pred, "y_pred")
    first_is_true = (direction or ("true_pred" if variant == "published" else "pred_true")) == (
        "true_pred"
    )
    height = ceiling if variant == "published" else 1.0
    scores = np.empty(true.shape[1])
    for neuron in range(len(scores)):
        first, second = (_durations(y[:, neuron], ceiling, height) for y in (pred, true))
        if first_is_true:
            first, second = second, first
        scores[neuron] = _score(first, second, variant, bandwidth, grid_points, floor, distance)
    return scores if multioutput == "raw_values" else float(scores.mean())


def spike_durations(trace: Any, *, ceiling: float = 1.0) -> np.ndarray:
    """Durations of the peaks of a trace, as `sd_kl` takes them (Wu et al. 2024, algorithm 1).

    Parameters
    ----------
    trace : array (frames,)
        Responses of one neuron.
    ceiling : float, default=1.0
        Responses above count as this one.

    Returns
    -------
    ndarray of shape (peaks,)
        Widths at the base, in frames.

    Raises
    ------
    ValueError
        If the trace has another shape, a value is not finite, or the ceiling is not positive.
    """
    values = as_array(trace, "trace", of="frame")
    if values.ndim != 1:
        raise ValueError(f"trace has the shape {values.shape}: expected (frames,), of one neuron.")
    if not as_number(ceiling, "ceiling") > 0:
        raise ValueError(f"ceiling={ceiling}: expected a positive number.")
    _check_finite(values, "trace")
    return _durations(values, ceiling, 1.0)


def _check_finite(values: np.ndarray, name: str) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} is not finite at {int((~np.isfinite(values)).sum())} places: durations need "
            "every frame; leave out the frames that were not recorded."
        )


def _durations(trace: np.ndarray, ceiling: float, relative_height: float) -> np.ndarray:
    positive = np.maximum(trace.astype(np.float64), 0.0)
    peaks, _ = find_peaks(positive, height=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peaks on a plateau at the ceiling, which have no width
        return peak_widths(np.minimum(positive, ceiling), peaks, rel_height=relative_height)[0]


def _score(
    first: np.ndarray,
    second: np.ndarray,
    variant: str,
    bandwidth: float,
    grid_points: int,
    floor: float,
    distance: str,
) -> float:
    """Score of one neuron, from the durations that the two densities are of."""
    if min(len(first), len(second)) < 2:
        return WORST
    if variant != "published" and np.array_equal(np.sort(first), np.sort(second)):
        return 0.0
    if not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return WORST
    union = np.concatenate((first, second))
    if variant == "supplement":
        reach = 3 * bandwidth * union.var()
    else:
        reach = 3 * bandwidth * len(union) ** -0.2 * union.std(ddof=1)
    grid = np.linspace(union.min() - reach, union.max() + reach, grid_points)
    factor = bandwidth**2 if variant == "published" else bandwidth
    try:
        p, q = (gaussian_kde(durations, factor)(grid) for durations in (first, second))
    except np.linalg.LinAlgError:  # durations that differ by rounding
        return WORST
    if distance == "tvd":
        score = np.abs(p - q).sum() / 2
    else:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            p, q = p / p.sum(), np.maximum(q / q.sum(), floor)
            score = np.where(p > 0, p * np.log(p / q), 0.0).sum()
    if not np.isfinite(score):
        return WORST
    return float(min(score, WORST)) if variant == "supplement" else float(score)
