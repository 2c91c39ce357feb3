"""How well neurons are predicted in trials with much and with little of some behaviour."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import wilcoxon

from v1tlearn._models import named_models
from v1tlearn._values import as_whole
from v1tlearn._warn import warn
from v1tlearn.inspection._controls import generator
from v1tlearn.inspection._opened import check_trials
from v1tlearn.inspection.behavior._columns import check_columns, one_per_trial
from v1tlearn.inspection.behavior._scores import metric_of, neuron_coords, neuron_scores
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials.predicted import predict_responses


def performance_by_behavior(
    estimator: Any,
    trials: Trials,
    column: str = "pupil_dilation",
    *,
    metric: str | Callable[..., Any] = "single_trial_correlation",
    n_groups: int = 3,
    n_shuffles: int = 20,
    random_state: Any = 0,
) -> dict[str, xr.Dataset]:
    """Score neurons in trials with small and with large values of some behaviour.

    The trials of each mouse are ranked by the column and cut into groups of equally many; the model
    predicts once, as ever, and each group is scored on its own. The control divides trials at
    random.

    Parameters
    ----------
    estimator : estimator
        Fitted; any that predicts trials, a Pipeline, search or ensemble, too.
    trials : Trials
        With responses and behaviour, not those of the training.
    column : str, default="pupil_dilation"
        Of the behaviour, as recorded; of movies its mean over time.
    metric : str or callable, default="single_trial_correlation"
        "single_trial_correlation", "average_correlation", "feve", "fraction_oracle" or
        "normalized_correlation" of `v1tlearn.metrics`, or a function called as ``f(y_true, y_pred,
        multioutput="raw_values")``. All but the first need repeats in every group.
    n_groups : int, default=3
        Thirds are published.
    n_shuffles : int, default=20
        Divisions at random.
    random_state : int, RandomState, Generator or None, default=0
        Of these.

    Returns
    -------
    dict of str to Dataset
        Per mouse: ``score`` (group, neuron), groups from the smallest values on;
        ``difference`` (neuron), the last minus the first; ``improvement``, the mean score of the
        last over that of the first, minus 1; ``p_value`` of Wilcoxon's signed-rank test of the
        differences, which pairs neurons, two-sided; ``share_improved`` of the neurons;
        ``difference_shuffled`` (shuffle), means over neurons with random groups; ``n_trials``,
        ``lowest`` and ``highest`` (group), of the column. ``neuron`` bears the unit ids.

    Raises
    ------
    TypeError
        If the estimator cannot predict, or these are no trials.
    ValueError
        If a mouse lacks the column or has fewer than two trials per group, or an option is out of
        its range.
    NotFittedError
        Before `fit`.

    Warns
    -----
    UserWarning
        If trials with the same value fall into two groups: the order of the trials divides them.

    See Also
    --------
    BehaviorPerformanceDisplay : Draws the first group against the last.

    Notes
    -----
    Neurons of one mouse share their trials and are not independent, which Wilcoxon's test takes
    them to be: ``difference_shuffled`` is what differences there are without any reason.

    Correlations also depend on how much responses vary within a group, not on the model alone: the
    same figure of a model without behaviour tells.

    References
    ----------
    Li et al., 2023, Fig. A.4.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import performance_by_behavior
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=10, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> model = model.fit(trials.sel(tier="train"))
    >>> found = performance_by_behavior(model, trials.sel(tier="test"))
    >>> found["A"]["score"].sizes["group"], found["A"]["n_trials"].values.tolist()
    (3, [10, 10, 10])
    """
    check_trials(trials)
    (model,) = named_models({"estimator": estimator}).values()
    name, score = metric_of(metric)
    n_groups = as_whole(n_groups, "n_groups", 2)
    n_shuffles = as_whole(n_shuffles, "n_shuffles", 0)
    check_columns(trials, [column], "column")
    rng = generator(random_state)
    values = {mouse: one_per_trial(trials, mouse, column) for mouse in trials.mice}
    groups = {
        mouse: _groups(own, n_groups, mouse, column, tell=True) for mouse, own in values.items()
    }
    target, predictions = trials.responses, predict_responses(model, trials)
    scores = _scores(score, target, predictions, groups)
    shuffled = []
    for _ in range(n_shuffles):
        mixed = {
            mouse: _groups(rng.random(len(own)), n_groups, mouse, column)
            for mouse, own in values.items()
        }
        found = _scores(score, target, predictions, mixed)
        shuffled.append({mouse: _mean(own[-1] - own[0]) for mouse, own in found.items()})
    out = {}
    for mouse, own in scores.items():
        control = np.array([one[mouse] for one in shuffled])
        out[mouse] = _summary(own, values[mouse], groups[mouse], control).assign_coords(
            neuron_coords(target, mouse)
        )
        out[mouse].attrs = {"mouse_id": mouse, "column": column, "metric": name}
    return out


def _groups(
    values: np.ndarray, n_groups: int, mouse: str, column: str, *, tell: bool = False
) -> list[np.ndarray]:
    """Places of the trials of each group, in their order."""
    if len(values) < 2 * n_groups:
        raise ValueError(
            f"mouse {mouse!r} has {len(values)} trials: expected at least {2 * n_groups}, two for "
            f"each of {n_groups} groups."
        )
    order = np.argsort(values, kind="stable")
    parts = np.array_split(order, n_groups)
    tied = {
        float(values[one[-1]]) for one, two in pairwise(parts) if values[one[-1]] == values[two[0]]
    }
    if tell and tied:
        share = np.isin(values, list(tied)).mean()
        warn(
            f"mouse {mouse!r}: {share:.0%} of the trials have the value {sorted(tied)} of "
            f"{column!r}, at which groups are cut: the order of the trials divides them. Choose "
            "another n_groups, or another column."
        )
    return [np.sort(part) for part in parts]


def _scores(
    score: Callable[..., Any],
    target: Responses,
    predictions: Responses,
    groups: dict[str, list[np.ndarray]],
) -> dict[str, np.ndarray]:
    """Scores (groups, neurons) of each mouse."""
    parts = []
    for number in range(len(next(iter(groups.values())))):
        places = np.sort(
            np.concatenate([target.rows(m)[0][own[number]] for m, own in groups.items()])
        )
        parts.append(neuron_scores(score, target[places], predictions[places]))
    return {mouse: np.stack([part[mouse] for part in parts]) for mouse in groups}


def _summary(
    scores: np.ndarray, values: np.ndarray, groups: list[np.ndarray], control: np.ndarray
) -> xr.Dataset:
    difference = scores[-1] - scores[0]
    known = difference[np.isfinite(difference)]
    both = np.isfinite(difference)
    first, last = (_mean(one[both]) for one in (scores[0], scores[-1]))
    p_value = wilcoxon(known).pvalue if np.any(known) else np.nan
    return xr.Dataset(
        {
            "score": (("group", "neuron"), scores),
            "difference": ("neuron", difference),
            "improvement": last / first - 1 if first else np.nan,
            "p_value": p_value,
            "share_improved": _mean(known > 0),
            "difference_shuffled": ("shuffle", control),
            "n_trials": ("group", [len(group) for group in groups]),
            "lowest": ("group", [values[group].min() for group in groups]),
            "highest": ("group", [values[group].max() for group in groups]),
        }
    )


def _mean(values: np.ndarray) -> float:
    """Mean of what is known; NaN of nothing."""
    values = np.asarray(values, dtype=float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
