"""Several fitted models by name, as tables and figures take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from v1tlearn._values import as_names


def by_text(name: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Entries under the text of their keys."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is a {type(values).__name__}: expected a dict by name.")
    out: dict[str, Any] = {}
    for key, value in zip(as_names(values, name, of="entry"), values.values(), strict=True):
        if key in out:
            raise ValueError(
                f"{name}: two are called {key!r}, keys being taken as text: give each its own name."
            )
        out[key] = value
    return out


def named_models(estimators: Any) -> dict[str, Any]:
    """Name fitted models that predict: by the keys of a dict, or after their class."""
    models = named(estimators)
    for name, estimator in models.items():
        _check(name, estimator)
    return models


def named(estimators: Any) -> dict[str, Any]:
    """Name whatever came: by the keys of a dict, or after their class."""
    if isinstance(estimators, Mapping):
        models = by_text("estimators", estimators)
    else:
        models = {}
        for estimator in _listed(estimators):
            name = short_name(estimator)
            number = sum(other == name or other.startswith(f"{name} (") for other in models) + 1
            models[name if number == 1 else f"{name} ({number})"] = estimator
    if not models:
        raise ValueError("estimators is empty: give at least one.")
    return models


def short_name(estimator: Any) -> str:
    """Name of a model as figures have it: "V1T", "ensemble", or that of another class."""
    kind = estimator if isinstance(estimator, type) else type(last_step(estimator))
    name = kind.__name__.removesuffix("Regressor")
    return "ensemble" if name == "Ensemble" else name


def as_ever(kind: type) -> dict[str, Any]:
    """Give what estimators of a class did before a parameter was there, for all with a default."""
    known = signature(kind).parameters.items()
    defaults = {name: p.default for name, p in known if p.default is not p.empty}
    return defaults | getattr(kind, "_as_ever", {})


def last_step(estimator: Any) -> Any:
    """Give the model of a Pipeline, the best one of a search; any other estimator as it is."""
    if hasattr(estimator, "best_estimator_"):
        return last_step(estimator.best_estimator_)
    if hasattr(estimator, "steps"):
        return last_step(estimator.steps[-1][1])
    return estimator


def ahead(estimator: Any, trials: Any) -> Any:
    """Pass trials through the steps of a Pipeline, or of a search's best one, ahead of `last_step`.

    Any other estimator has none, and gives back the trials as they are.
    """
    if hasattr(estimator, "best_estimator_"):
        return ahead(estimator.best_estimator_, trials)
    if not hasattr(estimator, "steps"):
        return trials
    if len(estimator.steps) > 1:
        trials = estimator[:-1].transform(trials)
    return ahead(estimator.steps[-1][1], trials)


def _listed(estimators: Any) -> Sequence[Any]:
    """A sequence as it is, anything else as one: a Pipeline is a sequence for Python."""
    several = isinstance(estimators, Sequence) and not isinstance(estimators, str)
    return estimators if several and not hasattr(estimators, "fit") else [estimators]


def check_predicts(name: str, estimator: Any, expected: str = "an estimator") -> None:
    """Refuse what predicts nothing, fitted or not."""
    if isinstance(estimator, type) or not hasattr(estimator, "predict"):
        came = repr(estimator) if isinstance(estimator, type) else f"a {type(estimator).__name__}"
        raise TypeError(
            f"estimators: {came} came as {name!r}: expected {expected}, such as "
            "CNNRegressor().fit(trials), several in a list, or a dict of them by name."
        )


def _check(name: str, estimator: Any) -> None:
    check_predicts(name, estimator, "a fitted estimator")
    model = last_step(estimator)
    if hasattr(model, "__sklearn_tags__"):  # what is no estimator of scikit-learn cannot tell
        try:
            check_is_fitted(model)
        except NotFittedError as error:
            raise NotFittedError(
                f"{name!r}, a {type(model).__name__}, is not fitted: call fit(trials) first."
            ) from error
