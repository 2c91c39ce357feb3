"""The metrics as scorers, for `scoring=` of any scikit-learn tool, by object or by name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from sklearn.metrics import _scorer
from sklearn.utils._param_validation import Options

from v1tlearn._instead import refuse_no_trials
from v1tlearn.metrics.correlation import (
    average_correlation,
    fraction_oracle,
    single_trial_correlation,
)
from v1tlearn.metrics.variance import feve, normalized_correlation
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._targets import target_of

logger = logging.getLogger("v1tlearn")


@dataclass(frozen=True, repr=False)
class MetricScorer:
    """Scores the predictions of an estimator, or a Pipeline, with one of the metrics.

    scikit-learn's `make_scorer` insists on `y`; here the truth is `X.responses` where `y` is
    None, so that `cross_val_score(est, trials, scoring=...)` works.
    """

    metric: Callable[..., Any]  # a number, unless asked for more
    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

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
        last = estimator[-1] if hasattr(estimator, "steps") else estimator
        if hasattr(X, "mouse_ids") and hasattr(last, "_warn_of_seen_images"):
            last._warn_of_seen_images(X)
        labels = {}
        if isinstance(y, Responses) and isinstance(X, Trials):
            truth = target_of(X, y, "scorer")  # permuted within mice they bear the labels of X
        elif not hasattr(truth, "mouse_ids") and hasattr(X, "mouse_ids"):
            labels = {"mouse_ids": X.mouse_ids, "image_ids": X.image_ids}
        return self.metric(truth, estimator.predict(X), **labels, **self.options)

    def __repr__(self) -> str:
        return f"v1tlearn.metrics.scorers[{self.name!r}]"


scorers: dict[str, MetricScorer] = {
    metric.__name__: MetricScorer(metric, metric.__name__)
    for metric in (
        single_trial_correlation,
        average_correlation,
        feve,
        fraction_oracle,
        normalized_correlation,
    )
}
scorers["feve_strict"] = MetricScorer(feve, "feve_strict", {"strict": True})


def register() -> None:
    """Make the scorers known to scikit-learn by name, as ``scoring="average_correlation"``.

    scikit-learn has no public way to do so: its names are the keys of one dict, of which every tool
    that takes `scoring` keeps the names it accepts since it was imported. Both are completed, for
    tools that are imported later the dict is enough. A name that is taken stays with its owner, and
    where scikit-learn keeps its names otherwise nothing happens; `scorers` holds the same objects.
    """
    known = getattr(_scorer, "_SCORERS", None)
    if not isinstance(known, dict):
        logger.info("scikit-learn keeps no table of scorers here: use v1tlearn.metrics.scorers.")
        return
    for name, scorer in scorers.items():
        if known.setdefault(name, scorer) != scorer:
            logger.warning(
                "scoring=%r is a scorer of another package: use scorers[%r].", name, name
            )
    for accepted in _accepted_names():
        if {"accuracy", "r2"} <= accepted:  # the names of all scorers, not of a few
            accepted.update(scorers)


def _accepted_names() -> Iterator[set[str]]:
    """Sets of names that the tools of scikit-learn that are imported take for `scoring`."""
    modules = [m for name, m in list(sys.modules.items()) if name.split(".")[0] == "sklearn"]
    tools = {id(t): t for m in modules for t in list(vars(m).values())}
    for tool in tools.values():
        if not isinstance(tool, type | FunctionType):
            continue
        for attribute in ("_parameter_constraints", "_skl_parameter_constraints"):
            constraints = vars(tool).get(attribute)
            allowed = constraints.get("scoring") if isinstance(constraints, dict) else None
            for one in allowed if isinstance(allowed, list) else ():
                if isinstance(one, Options) and isinstance(one.options, set):
                    yield one.options


register()
