"""How predicted responses change with one behavioural variable, all else as recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._models import named_models
from v1tlearn._options import as_finite
from v1tlearn.inspection._opened import check_trials
from v1tlearn.inspection.behavior._columns import check_columns, recorded
from v1tlearn.inspection.behavior._scores import neuron_coords
from v1tlearn.inspection.behavior.constant import with_behavior
from v1tlearn.trials import Trials
from v1tlearn.trials.predicted import predict_responses


def behavior_gain(
    estimator: Any,
    trials: Trials,
    column: str = "pupil_dilation",
    *,
    low: float | Mapping[str, float] | None = None,
    high: float | Mapping[str, float] | None = None,
) -> dict[str, xr.Dataset]:
    r"""Compare what a model predicts for a small and for a large value of one behaviour.

    The same trials are predicted twice, with the column constant at `low` and at `high` and
    everything else as recorded. :math:`\log(\bar r_{high} / \bar r_{low})`, of the means over
    trials, is the logarithm of the gain: 0.1 are 10 % more activity.

    Parameters
    ----------
    estimator : estimator
        Fitted; any that predicts trials, a Pipeline, search or ensemble, too.
    trials : Trials
        With behaviour. Responses are not looked at.
    column : str, default="pupil_dilation"
        Of the behaviour.
    low, high : float, or dict of str to float by mouse, optional
        In the units of the recordings; by default one standard deviation, over these trials of each
        mouse, below and above the mean.

    Returns
    -------
    dict of str to Dataset (neuron)
        Per mouse: ``low`` and ``high``, mean predicted responses in their units; ``log_gain``, see
        above, NaN where a mean is not positive; and ``at_low`` and ``at_high``, the values of the
        column. ``neuron`` bears the unit ids.

    Raises
    ------
    TypeError
        If the estimator cannot predict, or these are no trials.
    ValueError
        If a mouse lacks the column, it does not vary, or a value is no finite number.
    NotFittedError
        Before `fit`.

    See Also
    --------
    behavior_ablation : What a variable explains.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import behavior_gain
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.CNNRegressor(n_layers=2, hidden_channels=4, max_epochs=2, random_state=0)
    >>> gain = behavior_gain(model.fit(trials.sel(tier="train")), trials.sel(tier="test"))
    >>> gain["A"]["log_gain"].shape
    (5,)
    """
    check_trials(trials)
    (model,) = named_models({"estimator": estimator}).values()
    check_columns(trials, [column], "column")
    limits: dict[str, dict[str, Any]] = {"low": {}, "high": {}}
    for mouse in trials.mice:
        values = recorded(trials, mouse, [column])
        values = values[np.isfinite(values)]
        spread = float(values.std()) if values.size else 0.0
        for name, given, sign in (("low", low, -1), ("high", high, 1)):
            value = given
            if isinstance(given, Mapping):
                by_mouse = {str(key): one for key, one in given.items()}
                if mouse not in by_mouse:
                    raise ValueError(f"{name} has no value of mouse {mouse!r}: it has {by_mouse}.")
                value = by_mouse[mouse]
            if value is None:
                if not spread > 0:
                    raise ValueError(
                        f"mouse {mouse!r}: {column!r} does not vary in these trials: give low= and "
                        "high=."
                    )
                value = float(values.mean()) + sign * spread
            limits[name][mouse] = as_finite(value, name)
    rates: dict[str, dict[str, np.ndarray]] = {}
    for name, at in limits.items():
        predicted = predict_responses(model, with_behavior(trials, {column: at}))
        rates[name] = {mouse: _mean_rates(predicted.get(mouse)) for mouse in trials.mice}
    out = {}
    for mouse in trials.mice:
        small, large = rates["low"][mouse], rates["high"][mouse]
        positive = (small > 0) & (large > 0)
        log_gain = np.full(len(small), np.nan)
        log_gain[positive] = np.log(large[positive] / small[positive])
        out[mouse] = xr.Dataset(
            {
                "low": ("neuron", small),
                "high": ("neuron", large),
                "log_gain": ("neuron", log_gain),
                "at_low": float(limits["low"][mouse]),
                "at_high": float(limits["high"][mouse]),
            },
            coords=neuron_coords(predicted, mouse),
            attrs={"mouse_id": mouse, "column": column},
        )
    return out


def _mean_rates(values: np.ndarray) -> np.ndarray:
    """Means over trials, and frames of movies, (neurons,)."""
    return np.nanmean(values.reshape(-1, values.shape[-1]).astype(np.float64), axis=0)
