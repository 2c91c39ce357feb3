"""Correlation of responses with their predictions over the frames of movies."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from v1tlearn.metrics._sequences import joined
from v1tlearn.metrics.correlation import single_trial_correlation

Summary = Literal["signed", "absolute", "positive"]


def correlation_over_time(
    y_true: Any,
    y_pred: Any,
    *,
    summary: Summary = "signed",
    multioutput: Literal["uniform_average", "raw_values"] = "uniform_average",
) -> float | np.ndarray:
    """Correlation of responses over the frames of movies with their predictions.

    Pearson's correlation over all frames of each neuron, of several movies joined one after the
    other; then a mean over neurons. Wu et al. (2024) choose and report models by the mean absolute
    value, to which a prediction of the wrong sign contributes as one of the right sign does.

    Parameters
    ----------
    y_true : array (frames, neurons), or list of them or array (movies, frames, neurons)
        Recorded responses; NaN where not recorded, such as at the end of shorter movies.
    y_pred : same form as `y_true`
        Predicted responses; finite wherever a response was recorded.
    summary : {"signed", "absolute", "positive"}, default="signed"
        What the mean is over: the correlations, their absolute values, or those above 0 only.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        The mean; or one correlation per neuron, with its sign, whatever the summary is.

    Returns
    -------
    float or ndarray of shape (neurons,)
        A neuron whose responses or predictions are constant up to rounding counts 0, also in the
        mean of absolute values; a neuron with fewer than two recorded frames is NaN and left out
        of means. NaN with "positive" where no correlation is above 0.

    Raises
    ------
    ValueError
        If shapes differ, predictions are not finite, or an option is unknown.

    Examples
    --------
    >>> from v1tlearn.metrics import correlation_over_time
    >>> responses = [[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]]
    >>> predictions = [[0.0, -1.0], [2.0, 0.0], [6.0, -2.0]]
    >>> correlation_over_time(responses, predictions, multioutput="raw_values").round(2)
    array([ 1., -1.])
    >>> round(correlation_over_time(responses, predictions, summary="absolute"), 2)
    1.0
    """
    if not isinstance(summary, str) or summary not in ("signed", "absolute", "positive"):
        raise ValueError(f"summary={summary!r}: expected 'signed', 'absolute' or 'positive'.")
    if not isinstance(multioutput, str) or multioutput not in ("uniform_average", "raw_values"):
        raise ValueError(
            f"multioutput={multioutput!r}: expected 'uniform_average' or 'raw_values'."
        )
    true, pred = joined(y_true, y_pred)
    found = np.asarray(single_trial_correlation(true, pred, multioutput="raw_values"))
    if multioutput == "raw_values":
        return found
    known = found[~np.isnan(found)]
    if summary == "absolute":
        known = np.abs(known)
    elif summary == "positive":
        known = known[known > 0]
    return float(known.mean()) if len(known) else float("nan")
