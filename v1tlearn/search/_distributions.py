"""Spaces as Optuna knows them: distributions, draws, and values read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from v1tlearn._guesses import PARAMETER_HABITS, did_you_mean, guess
from v1tlearn._values import plain
from v1tlearn.search.spaces import IntegerUpTo, LogInteger

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


@dataclass(frozen=True)
class Parameter:
    """A parameter as Optuna knows it, and what its labels stand for.

    Attributes
    ----------
    distribution : CategoricalDistribution, FloatDistribution or IntDistribution
        For a parameter with a `limit` the widest that it can be.
    values : dict
        The choices by the label under which Optuna stores them; empty for numbers.
    limit : str or None
        The parameter whose value is the upper limit.
    """

    distribution: Distribution
    values: Mapping[Any, Any] = field(default_factory=dict)
    limit: str | None = None


def read_space(space: Mapping[str, Any], estimator: Any) -> dict[str, Parameter]:
    """Translate distributions and lists; those that limit others come before these."""
    known = estimator._plain_params()
    unknown = sorted(set(space) - set(known))
    if unknown:
        found = [name for word in unknown for name in guess(word, known, PARAMETER_HABITS)]
        raise ValueError(
            f"{type(estimator).__name__} has no parameters {unknown} to search over"
            f"{did_you_mean(list(dict.fromkeys(found)))}"
        )
    taken = sorted(set(space) & {"max_epochs", "random_state", "validation_fraction"})
    if taken:
        raise ValueError(
            f"{taken} cannot be searched over: all trials have the same validation set, and epochs "
            "are what the search saves."
        )
    parameters = {
        name: _parameter(name, found)
        for name, found in space.items()
        if not isinstance(found, IntegerUpTo)
    }
    for name, found in space.items():
        if isinstance(found, IntegerUpTo):
            high = _highest(found.parameter, parameters, known, name)
            parameters[name] = Parameter(
                IntDistribution(plain(found.low), high), limit=found.parameter
            )
    return parameters


def _parameter(name: str, found: Any) -> Parameter:
    if isinstance(found, LogInteger):
        return Parameter(IntDistribution(plain(found.low), plain(found.high), log=True))
    if isinstance(found, list | tuple | np.ndarray) and len(found):
        values = [plain(value) for value in found]
        labelled = {_label(value): value for value in values}
        return Parameter(CategoricalDistribution(list(labelled)), values=labelled)
    kind = getattr(getattr(found, "dist", None), "name", None)
    if kind in ("uniform", "loguniform", "randint"):
        low, high = (value.item() for value in found.support())
        if kind == "randint":
            return Parameter(IntDistribution(low, high))
        return Parameter(FloatDistribution(low, high, log=kind == "loguniform"))
    raise TypeError(
        f"{name}: {found!r} is nothing to search over: expected a list of values, uniform, "
        "loguniform or randint of scipy.stats, LogInteger or IntegerUpTo."
    )


def _label(value: Any) -> Any:
    """What Optuna can store in a database for a choice."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _highest(
    limit: str, parameters: Mapping[str, Parameter], known: Mapping[str, Any], name: str
) -> int:
    found = known.get(limit)
    if limit in parameters:
        of = parameters[limit].distribution
        found = (
            max(parameters[limit].values) if isinstance(of, CategoricalDistribution) else of.high
        )
    if not isinstance(found, int):
        raise ValueError(
            f"{name} goes up to {limit!r}, which is {found!r}: expected a parameter of integers "
            "that has no such limit itself."
        )
    return found


def suggest(trial: optuna.Trial, space: Mapping[str, Parameter], estimator: Any) -> dict[str, Any]:
    """Draw parameters: from the sampler, or those of a trial that is tried again."""
    params: dict[str, Any] = {}
    for name, parameter in space.items():
        distribution = parameter.distribution
        if isinstance(distribution, CategoricalDistribution):
            params[name] = parameter.values[trial.suggest_categorical(name, distribution.choices)]
        elif isinstance(distribution, FloatDistribution):
            params[name] = trial.suggest_float(
                name, distribution.low, distribution.high, log=distribution.log
            )
        else:
            high = distribution.high
            if parameter.limit is not None:
                high = params.get(parameter.limit, getattr(estimator, parameter.limit))
            params[name] = trial.suggest_int(name, distribution.low, high, log=distribution.log)
    return params


def decode(params: Mapping[str, Any], space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Parameters as stored by Optuna -> parameters of the estimator."""
    return {
        name: space[name].values[params[name]] if space[name].values else params[name]
        for name in space
        if name in params
    }


def holds(parameter: Parameter, value: Any) -> bool:
    """Whether a value, as stored by Optuna, can have been drawn."""
    distribution = parameter.distribution
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return isinstance(value, int | float) and distribution.low <= value <= distribution.high


def describe_space(space: Mapping[str, Parameter]) -> dict[str, str]:
    """Describe a space for `check_settings`."""
    return {
        name: distribution_to_json(p.distribution) + (f" up to {p.limit}" if p.limit else "")
        for name, p in space.items()
    }
