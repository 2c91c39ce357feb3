"""Scores of several models on the same trials as one table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.exceptions import UndefinedMetricWarning

from v1tlearn._models import by_text, named_models
from v1tlearn._values import as_flag, shape_of
from v1tlearn._warn import warn
from v1tlearn.metrics._draws import Draws
from v1tlearn.metrics._evaluate import Multioutput
from v1tlearn.metrics._intervals import ceilings_of, ends_of, ends_of_share
from v1tlearn.metrics._weighted import METRICS as DRAWN
from v1tlearn.metrics.categories import fecv
from v1tlearn.metrics.correlation import (
    average_correlation,
    fraction_oracle,
    single_trial_correlation,
)
from v1tlearn.metrics.variance import feve, normalized_correlation
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._arithmetic import labels_of

ORACLE = "oracle"
_SHARE = "share_of_oracle"
_METRICS = {
    metric.__name__: metric
    for metric in (
        single_trial_correlation,
        average_correlation,
        feve,
        fraction_oracle,
        normalized_correlation,
    )
}
_Metric = Callable[..., Any]  # f(y_true, y_pred, multioutput=...)
_OF_REPEATS = ("feve", "fraction_oracle", "normalized_correlation")


def score_table(
    estimators: Any,
    trials: Trials,
    *,
    metrics: str | Sequence[str] | Mapping[str, Callable[..., Any]] | None = None,
    multioutput: Multioutput = "mice",
    oracle: bool | Literal["auto"] = "auto",
    ceilings: bool = False,
    n_bootstrap: int = 0,
    level: float = 0.95,
    block_frames: int | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Score fitted models on the same trials, with all metrics, in a tidy table.

    Every model predicts once. There is one row per model, mouse and metric, and none for the mean
    over mice, which `multioutput` or a pivot makes where it is wanted (see the examples).

    Parameters
    ----------
    estimators : estimator, dict of str to estimator, or sequence of estimators
        Fitted; Pipelines, searches and ensembles, too. Without names they are called after the
        model they end with, as in figures: "CNN" for `CNNRegressor`; the second of a name is
        "CNN (2)".
    trials : Trials
        What to predict, with the responses to compare with.
    metrics : str, sequence of str, or dict of str to callable, optional
        Names of metrics, or functions ``f(y_true, y_pred, multioutput=...)`` with names of your
        own. By default `single_trial_correlation`, `average_correlation`, `feve`,
        `fraction_oracle`, `normalized_correlation` and, for simulated recordings,
        "share_of_oracle": the single-trial correlation over that of the true rates. By name also
        "feve_strict", which is `feve` with ``strict=True``, and "fecv" and "fecv_pairwise", the
        category variance of the predictions themselves, as published, where recordings have the
        coordinate `category`. Those that need repeated images are NaN, with a warning, for mice
        without; asked for by name they are an error.
    multioutput : {"mice", "uniform_average", "raw_values"}, default="mice"
        A row per mouse, one for all mice, or one per neuron. The "share_of_oracle" of all mice is
        the share of the mean correlations, which is not the mean of the shares of the mice.
    oracle : bool or "auto", default="auto"
        Whether the true rates of simulated recordings are scored, too, as the model "oracle": the
        noise ceiling. "auto" does so where `trials` have them.
    ceilings : bool, default=False
        Whether each score has beside it what the repeats of images leave possible, as
        `noise_ceiling` has it. 1 for metrics that are relative to what can be explained, NaN where
        no ceiling is known: of "fraction_oracle", your own metrics, and mice without repeats.
    n_bootstrap : int, default=0
        Draws of images, all their trials together, for intervals; 0 for none. Some 1000 make 95 %
        intervals steady. For metrics by name, but "fecv".
    level : float, default=0.95
        Of the intervals.
    block_frames : int, optional
        Of movies, how many successive frames are drawn together, see `noise_ceiling`; by default
        whole movies are drawn.
    random_state : int, RandomState, Generator or None, default=0
        Of the draws.

    Returns
    -------
    DataFrame
        Columns ``model``, ``mouse`` (not for "uniform_average"), ``neuron`` and what is known of it
        (for "raw_values"), ``metric`` and ``value``; in the order of the models, metrics, mice and
        neurons. With `n_bootstrap` also ``low`` and ``high``, the ends of the intervals; with
        `ceilings` also ``ceiling``.

    Raises
    ------
    TypeError
        If an estimator cannot predict, or `trials` are no `Trials`.
    NotFittedError
        If an estimator is not fitted; it is named.
    ValueError
        If a metric is unknown or needs repeated images that are not there, if trials have no
        responses, or a model has the name of the oracle or of another, such as 1 and "1"; if an
        interval is asked for of a metric that has none.

    See Also
    --------
    v1tlearn.metrics : What the metrics are.
    compare_scores : Whether one model is better than another.

    Notes
    -----
    Intervals are percentiles of the bootstrap over images, of this mouse and these neurons, moved
    so that the median draw is the value. Every draw is scored as a whole: neurons below the
    threshold of `feve` in a draw are left out of it.

    Intervals of the `normalized_correlation` of single neurons are bias-corrected and accelerated
    (Efron 1987): its denominator comes near 0 where little is explainable. A draw without a value
    counts as beyond all others, and an end there is 1, or the value where that is higher. At a
    level of 0.95 they held the truth for 92 to 98 % of simulated neurons of 20 images with 3
    repeats, and of 60 images with 3, 5 and 10. Those of its mean over 40 neurons, not so corrected,
    held it in 80 to 95 % of simulations, since means vary less than such ratios are biased.

    Two models whose intervals overlap may well differ, since both are scored on the same images:
    `compare_scores` says.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.CNNRegressor(n_layers=2, hidden_channels=4, max_epochs=2, random_state=0)
    >>> model.fit(trials.sel(tier="train"))
    CNNRegressor(...)
    >>> table = v1.score_table({"CNN": model}, trials.sel(tier="test"))
    >>> table.columns.tolist()
    ['model', 'mouse', 'metric', 'value']

    The table of a paper has means over mice, and a row per model:

    >>> means = v1.score_table(
    ...     {"CNN": model}, trials.sel(tier="test"), multioutput="uniform_average")
    >>> means.pivot_table("value", "model", "metric", sort=False).index.tolist()
    ['CNN', 'oracle']

    Intervals and ceilings come beside the scores:

    >>> table = v1.score_table(
    ...     {"CNN": model}, trials.sel(tier="test"), ceilings=True, n_bootstrap=200)
    >>> table.columns.tolist()
    ['model', 'mouse', 'metric', 'value', 'low', 'high', 'ceiling']
    """
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials is a {type(trials).__name__}: expected Trials, such as v1.Trials(recordings) "
            'or trials.sel(tier="test").'
        )
    models = named_models(estimators)
    target = trials.responses
    rates = _true_rates(trials, oracle)
    if rates is not None and ORACLE in models:
        raise ValueError(
            f"a model is called {ORACLE!r}, as the row of the true rates is: give it another name, "
            "or set oracle=False."
        )
    chosen = _chosen(metrics, trials, multioutput)
    draws = Draws.checked(n_bootstrap, level, random_state, block_frames)
    if draws.n:
        _check_intervals(metrics, chosen)
    limits: dict[str, Any] = {}
    if as_flag(ceilings, "ceilings"):
        own = isinstance(metrics, Mapping)  # of which nothing is known, whatever they are called
        limits = {m: np.nan if own else ceilings_of(m, target, multioutput) for m in chosen}
    parts = []
    for name in [*models, *([ORACLE] if rates is not None else [])]:
        predicted = models[name].predict(trials) if name in models else rates
        for metric, function in chosen.items():
            rows = _rows(name, metric, function(target, predicted, multioutput=multioutput))
            if draws.n:
                rows["low"], rows["high"] = (
                    ends_of_share(target, predicted, trials.expected_responses, draws, multioutput)
                    if metric == _SHARE
                    else ends_of(metric, target, predicted, draws, multioutput)
                )
            if metric in limits:
                rows["ceiling"] = limits[metric]
            parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def _check_intervals(metrics: Any, chosen: Mapping[str, _Metric]) -> None:
    known = [*DRAWN, _SHARE]
    without = (
        list(chosen) if isinstance(metrics, Mapping) else [m for m in chosen if m not in known]
    )
    if without:
        raise ValueError(
            f"n_bootstrap: there are no intervals of the metrics {without}, only of {known} by "
            "name: leave the others out, or set n_bootstrap=0."
        )


def _true_rates(trials: Trials, oracle: bool | str) -> Responses | None:
    if not isinstance(oracle, bool | np.bool_) and oracle != "auto":
        raise ValueError(f"oracle is {oracle!r}: expected True, False or 'auto'.")
    if oracle == "auto":
        oracle = _is_simulated(trials)
    return trials.expected_responses if oracle else None


def _is_simulated(trials: Trials) -> bool:
    return all(trials.has("expected_responses", mouse) for mouse in trials.mice)


def _chosen(metrics: Any, trials: Trials, multioutput: Multioutput) -> dict[str, _Metric]:
    """Metrics by name."""
    share = {_SHARE: _Share(trials, multioutput)} if _is_simulated(trials) else {}
    known = _METRICS | share
    if isinstance(metrics, Mapping) and metrics:
        return by_text("metrics", metrics)
    if metrics is None:
        return known | _limited_to_repeats(trials)
    known |= _BY_NAME
    one = isinstance(metrics, str) or not isinstance(metrics, Iterable) or shape_of(metrics) == ()
    names = [metrics] if one else [*metrics]
    unknown = [name for name in names if not isinstance(name, str) or name not in known]
    if unknown or not names:
        raise ValueError(
            f"metrics is {metrics!r}: expected names among {list(known)}"
            + ("" if share else f" ({_SHARE!r} for simulated recordings only)")
            + ", or a dict of functions."
        )
    return {name: known[name] for name in names}


def _fecv_of_predictions(
    target: Responses, predicted: Any, *, multioutput: Multioutput, **options: Any
) -> Any:
    """Category variance of the predictions, under the labels of the trials."""
    categories = {m: labels_of(target[target.rows(m)[0]], "category") for m in target.mice}
    without = [mouse for mouse, labels in categories.items() if labels is None]
    if without:
        raise ValueError(
            f"the recordings of the mice {without} have no coordinate `category`, which fecv "
            'needs: recording.assign_coords(category=("trial", ...)).'
        )
    if not isinstance(predicted, Responses):
        options |= {"mouse_ids": target.mouse_ids, "image_ids": target.image_ids}
    return fecv(predicted, categories=categories, multioutput=multioutput, **options)


# Scored where they are named: beside those of _METRICS, and of the predictions alone.
_BY_NAME: dict[str, _Metric] = {
    "feve_strict": partial(feve, strict=True),
    "fecv": _fecv_of_predictions,
    "fecv_pairwise": partial(_fecv_of_predictions, pairwise=True),
}
NAMES = (*_METRICS, *_BY_NAME, _SHARE)  # the last one of simulated recordings only


class _Share:
    """Single-trial correlation over that of the true rates."""

    def __init__(self, trials: Trials, multioutput: Multioutput) -> None:
        self._trials = trials
        self._multioutput = multioutput

    @cached_property
    def _best(self) -> xr.DataArray:
        """That of the true rates, the same for all models."""
        target, rates = self._trials.responses, self._trials.expected_responses
        return xr.DataArray(single_trial_correlation(target, rates, multioutput=self._multioutput))

    def __call__(self, target: Responses, predicted: Any, *, multioutput: Multioutput) -> Any:
        best = self._best
        share = single_trial_correlation(target, predicted, multioutput=multioutput)
        share = share / best.where(best != 0)
        return share if best.ndim else float(share)


def _limited_to_repeats(trials: Trials) -> dict[str, _Metric]:
    """The metrics that need repeated images, of the mice that saw such; NaN for others."""
    images = trials.image_ids
    mice = [m for m in trials.mice if _any_twice(images[trials.rows(m)[0]])]
    without = [m for m in trials.mice if m not in mice]
    if not without:
        return {}
    warn(
        f"no image is repeated for the mice {without}: {', '.join(_OF_REPEATS)} are NaN for them, "
        "and left out of means. Score trials with repeated images, such as the test tier.",
        UndefinedMetricWarning,
    )
    limited = {name: partial(_of_some, _METRICS[name], mice) for name in _OF_REPEATS}
    return limited | {"average_correlation": _told_already}


def _told_already(*args: Any, **options: Any) -> Any:
    """Correlation to averages, without one more warning that there is nothing to average."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no image is repeated")
        return average_correlation(*args, **options)


def _any_twice(images: np.ndarray) -> bool:
    return len(np.unique(images)) < len(images)


def _of_some(
    metric: _Metric, mice: list[str], target: Responses, predicted: Any, *, multioutput: Multioutput
) -> Any:
    at = np.flatnonzero(np.isin(target.mouse_ids, mice))
    values = metric(target[at], predicted[at], multioutput=multioutput) if mice else np.nan
    if multioutput == "uniform_average":
        return values
    out = single_trial_correlation(target, predicted, multioutput=multioutput)
    assert isinstance(out, xr.DataArray)
    out[:] = np.nan
    out[np.isin(out["mouse"].values, mice)] = np.asarray(values)
    return out


def _rows(model: str, metric: str, values: Any) -> pd.DataFrame:
    if isinstance(values, xr.DataArray):
        rows = values.to_dataframe(name="value").reset_index()
    else:
        rows = pd.DataFrame({"value": [values]})
    rows.insert(0, "model", model)
    value = rows.pop("value")
    return rows.assign(metric=metric, value=value)
