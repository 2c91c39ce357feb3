"""Scores of neurons by mouse, from any metric of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn import metrics
from v1tlearn._options import as_word
from v1tlearn.trials import Responses

METRICS = (
    "single_trial_correlation",
    "average_correlation",
    "feve",
    "fraction_oracle",
    "normalized_correlation",
)


def metric_of(metric: str | Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    """Find a metric that compares predictions with responses.

    Parameters
    ----------
    metric : str or callable

    Returns
    -------
    name : str
    metric : callable

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if callable(metric):
        return getattr(metric, "__name__", "score"), metric
    own = ', or a function f(y_true, y_pred, multioutput="raw_values") such as those'
    name = as_word(metric, METRICS, "metric", own)
    return name, getattr(metrics, name)


def neuron_scores(
    metric: Callable[..., Any], y_true: Responses, y_pred: Responses
) -> dict[str, np.ndarray]:
    """Score the neurons of each mouse.

    Parameters
    ----------
    metric : callable
    y_true, y_pred : Responses
        Of the same trials.

    Returns
    -------
    dict of str to ndarray of shape (n_neurons,)
    """
    values = metric(y_true, y_pred, multioutput="raw_values")
    if not isinstance(values, xr.DataArray) or "mouse" not in values.coords:
        raise TypeError(
            "the metric gave no DataArray with a value per neuron and the coordinate `mouse` for "
            'multioutput="raw_values": expected one like those of v1tlearn.metrics.'
        )
    mice = np.asarray(values["mouse"].values).astype(str)
    return {mouse: values.values[mice == mouse].astype(float) for mouse in y_true.mice}


def neuron_coords(y_true: Responses, mouse: str) -> dict[str, Any]:
    """What is known of the neurons of a mouse, as coordinates.

    Parameters
    ----------
    y_true : Responses
    mouse : str

    Returns
    -------
    dict
    """
    return {name: ("neuron", values) for name, values in y_true.neuron_labels(mouse).items()}
