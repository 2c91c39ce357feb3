"""What is said where a method of an estimator is called with arguments that it does not have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sklearn.base import BaseEstimator

from v1tlearn._guesses import PARAMETER_HABITS, did_you_mean, guess
from v1tlearn.estimators._telling import outside
from v1tlearn.training.devices import default_errors

P = ParamSpec("P")
R = TypeVar("R")

# What other packages call our arguments.
_HABITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("x", "images", "inputs", "trials", "recordings"), ("stimuli",)),
    **dict.fromkeys(("targets", "labels", "spikes", "activity", "neurons"), ("responses",)),
    **dict.fromkeys(("mice", "mouse", "sessions", "animals"), ("mouse_ids",)),
    **dict.fromkeys(("callback", "callbacks"), ("on_epoch",)),
    **dict.fromkeys(
        ("validation_data", "validation_set", "val", "val_data", "valid", "eval_set", "x_val"),
        ("validation",),
    ),
}

_REMARKS = {
    "X": "The data come first, without a name: {method}(trials).",
    "y": "After Trials the second argument is scikit-learn's y, {method}(trials, y); arrays are "
    "given as {method}(stimuli, behaviors, responses).",
    "groups": "Groups go to scikit-learn's tools, as in GridSearchCV(...).fit(trials, "
    "groups=trials.image_ids); the validation split of a model goes by image anyway.",
    "sample_weight": "All trials count alike in {method}; score(trials, sample_weight=...) takes "
    "weights.",
    "metric": "Other metrics take predictions: v1tlearn.metrics.feve(trials.responses, "
    "model.predict(trials)).",
    "tier": "Select before: {method}(trials.sel(tier=...)).",
    "mouse_id": "Select before: {method}(trials.sel(mouse_id=...)).",
    "tiers": "Tiers are labels of trials: Trials.from_arrays(..., tiers=...).",
}
_REMARKS |= {"scoring": _REMARKS["metric"], "metrics": _REMARKS["metric"]}


def explained(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method explain, in a `TypeError`, a call that does not fit its signature."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if args and not isinstance(args[0], BaseEstimator):
            raise TypeError(
                f"{method.__name__} was called on a class: make a model of it first, as in "
                f"model = CNNRegressor(), then model.{method.__name__}(trials)."
            )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(_explain(method.__name__, signature, args, kwargs, error)) from None
        if isinstance(told := kwargs.get("on_epoch"), list | tuple):
            kwargs["on_epoch"] = [outside(one) for one in told]
        elif told is not None:
            kwargs["on_epoch"] = outside(told)
        with default_errors():
            return method(*args, **kwargs)

    return call


def _explain(
    name: str,
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: TypeError,
) -> str:
    names = [n for n, p in signature.parameters.items() if n != "self" and p.kind != p.VAR_KEYWORD]
    owner = type(args[0]).__name__ if args else ""
    takes = f" {name} takes {', '.join(names)}."
    unknown = [word for word in kwargs if word not in names]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())
    if not unknown or takes_any:
        by_position = sum(p.kind != p.KEYWORD_ONLY for p in signature.parameters.values())
        if len(args) > by_position - takes_any:
            keywords = [
                n for n in names if signature.parameters[n].kind == inspect.Parameter.KEYWORD_ONLY
            ]
            said = f"{len(args) - 1} arguments came by position"
            return f"{owner}.{name}: {said}; {', '.join(keywords) or 'others'} go by name.{takes}"
        return f"{owner}.{name}: {error}.{takes}"
    word = unknown[0]
    said = f"{owner}.{name} has no argument {word!r}"
    if word in _REMARKS:
        return f"{said}. {_REMARKS[word].format(method=name)}{takes}"
    parameter = _parameter(args[0], word) if args else ""
    found = [] if parameter and word.lower() not in _HABITS else guess(word, names, _HABITS)
    if parameter and not found:
        return f"{said}: {parameter} is a parameter of the model, {owner}({parameter}=...).{takes}"
    return f"{said}{did_you_mean(found)}{takes}"


def _parameter(estimator: Any, word: str) -> str:
    """The parameter of the constructor that was meant, where there is one."""
    known = estimator.get_params(deep=False)
    meant = [name for name in (word, *PARAMETER_HABITS.get(word, ())) if name in known]
    return next(iter(meant), "")
