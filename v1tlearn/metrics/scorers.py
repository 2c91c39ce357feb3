"""The metrics as scorers, for `scoring=` of any scikit-learn tool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from v1tlearn._instead import refuse_no_trials
from v1tlearn.metrics.correlation import (
    average_correlation,
    fraction_oracle,
    single_trial_correlation,
)
from v1tlearn.metrics.variance import feve, normalized_correlation


@dataclass(frozen=True, repr=False)
class MetricScorer:
    """Scores the predictions of an estimator, or a Pipeline, with one of the metrics.

    scikit-learn's `make_scorer` insists on `y`; here the truth is `X.responses` where `y` is
    None, so that `cross_val_score(est, trials, scoring=...)` works.
    """

    metric: Callable[..., float]

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score of `estimator.predict(X)` against `y`, or else `X.responses`. Larger is better."""
        if not hasattr(estimator, "predict"):
            raise TypeError(
                f"{self!r} was given a {type(estimator).__name__} as estimator: call it as "
                "scorer(model, trials). Predictions are compared by the function "
                f"v1tlearn.metrics.{self.metric.__name__}(trials.responses, predictions)."
            )
        if not hasattr(type(X), "responses"):
            refuse_no_trials(X, "scorer(model, {})")
        truth = getattr(X, "responses", None) if y is None else y
        if truth is None:
            raise ValueError(
                f"{self!r} needs responses to compare with: pass y, or trials that hold responses."
            )
        labels = {}
        if not hasattr(truth, "mouse_ids") and hasattr(X, "mouse_ids"):
            labels = {"mouse_ids": X.mouse_ids, "image_ids": X.image_ids}
        return self.metric(truth, estimator.predict(X), **labels)

    def __repr__(self) -> str:
        return f"v1tlearn.metrics.scorers[{self.metric.__name__!r}]"


scorers: dict[str, MetricScorer] = {
    metric.__name__: MetricScorer(metric)
    for metric in (
        single_trial_correlation,
        average_correlation,
        feve,
        fraction_oracle,
        normalized_correlation,
    )
}
