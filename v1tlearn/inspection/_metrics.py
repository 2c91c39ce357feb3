"""Metrics of displays: by name or as functions, their labels, ceilings and intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from v1tlearn import metrics
from v1tlearn._options import as_word
from v1tlearn.metrics._arrays import arrays_by_mouse
from v1tlearn.metrics._draws import Draws
from v1tlearn.metrics._intervals import ends_of

LABELS = {
    "single_trial_correlation": "single-trial correlation",
    "average_correlation": "correlation to average",
    "feve": "FEVE",
    "normalized_correlation": "normalised correlation",
}
_CEILINGS = {
    "single_trial_correlation": "single_trial_ceiling",
    "average_correlation": "average_ceiling",
}


def metric_of(metric: str | Callable[..., Any]) -> Callable[..., Any]:
    """Take a metric by its name, or as it is."""
    if callable(metric):
        return metric
    return getattr(metrics, as_word(metric, list(LABELS), "metric", ", or a function"))


def jackknife(y_true: Any, labels: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """Jackknifed oracle of every mouse; None where images are not known, or not repeated."""
    out = {}
    try:
        for one in arrays_by_mouse(y_true, **labels, needs_images=True):
            values = metrics.oracle_correlation(
                one.true, image_ids=one.image_ids, multioutput="raw_values"
            )
            out[one.mouse] = np.asarray(values, dtype=float)
    except ValueError:
        return None
    return out


def estimated_ceiling(name: str, y_true: Any, labels: dict[str, Any]) -> dict[str, np.ndarray]:
    """Ceiling of a correlation for every mouse, from the repeats of images."""
    if name not in _CEILINGS:
        raise ValueError(
            f"ceiling='estimated' is known of {list(_CEILINGS)}, not of metric={name!r}: give true "
            "rates, or None."
        )
    found = metrics.noise_ceiling(y_true, **labels, n_bootstrap=0)[_CEILINGS[name]]
    values = found.sel(estimate="value")
    mice = values["mouse"].values
    return {str(mouse): values.values[mice == mouse] for mouse in pd.unique(mice)}


def intervals_of(
    name: Any, y_true: Any, y_pred: Any, labels: dict[str, Any], draws: Draws
) -> np.ndarray:
    """Ends of the intervals of every mouse and of the mean over mice, (2, n_mice + 1)."""
    if name not in LABELS:
        raise ValueError(
            f"n_bootstrap: there are intervals of the metrics {list(LABELS)} by name, not of "
            f"metric={name!r}: set n_bootstrap=0."
        )
    kinds: tuple[Any, Any] = ("mice", "uniform_average")
    ends = [ends_of(name, y_true, y_pred, draws, kind, **labels) for kind in kinds]
    return np.concatenate(ends, axis=1)


def mean_known(values: Any) -> float:
    """Mean of what is not NaN; NaN where all is."""
    values = np.asarray(values, dtype=float)
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan
