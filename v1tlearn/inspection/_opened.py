"""Opening what analyses of encoding models are given: Pipelines, searches, trials, behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._models import ahead, last_step
from v1tlearn._options import as_words
from v1tlearn._values import plain
from v1tlearn.estimators import EnsembleRegressor
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators.base_encoding import ModelRegressor
from v1tlearn.nn import EncodingModel
from v1tlearn.trials import Trials


@dataclass(frozen=True)
class OneModel:
    """A fitted encoding model.

    Attributes
    ----------
    fitted : Fitted
    model : EncodingModel
        In evaluation mode, on the device.
    device : device
    deterministic : bool
    precision : str
        That was asked for.
    """

    fitted: Fitted
    model: EncodingModel
    device: torch.device
    deterministic: bool
    precision: str


@dataclass(frozen=True)
class Opened(OneModel):
    """A fitted encoding model, and trials as it takes them.

    Attributes
    ----------
    fitted, model, device, deterministic, precision
        Of `OneModel`.
    trials : Trials
        With the preprocessing of a Pipeline.
    """

    trials: Trials


def check_trials(trials: Any, needed: str = "at least one trial") -> None:
    """Check that these are trials, and that there are some.

    Parameters
    ----------
    trials : object
    needed : str, default="at least one trial"
        What is expected, for the error.

    Raises
    ------
    TypeError, ValueError
        If they are something else, or none.
    """
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials is a {type(trials).__name__}: expected Trials; arrays go through "
            "Trials.from_arrays."
        )
    if not len(trials):
        raise ValueError(f"trials is empty: expected {needed}.")


def one_model(estimator: Any, what: str) -> OneModel:
    """Open one fitted encoding model, alone, at the end of a Pipeline or found by a search.

    Parameters
    ----------
    estimator : estimator
    what : str
        What is asked for, such as "attention", for errors.

    Returns
    -------
    OneModel

    Raises
    ------
    TypeError
        If this is no single model.
    NotFittedError
        Before `fit`.
    """
    one = last_step(estimator)
    if isinstance(one, type) or not isinstance(one, ModelRegressor):
        kind = one if isinstance(one, type) else type(one)
        came = f"the class {kind.__name__}" if isinstance(one, type) else f"a {kind.__name__}"
        members = " Of an ensemble take the members, estimators_."
        raise TypeError(
            f"{what}: {came} came: expected one fitted encoding model, such as "
            "V1TRegressor().fit(trials), alone, at the end of a Pipeline or found by a search."
            f"{members if kind is EnsembleRegressor else ''}"
        )
    check_is_fitted(one)
    fitted, model = one._knows()
    deterministic, precision = plain((one.deterministic, one.precision))
    return OneModel(fitted, model.eval(), one.device_, bool(deterministic), precision)


def with_trials(found: OneModel, estimator: Any, trials: Any) -> Opened:
    """Bring trials through the steps of a Pipeline to the model at its end.

    Parameters
    ----------
    found : OneModel
        Of the estimator.
    estimator : estimator
    trials : Trials

    Returns
    -------
    Opened

    Raises
    ------
    TypeError
        If these are no trials.
    ValueError
        If they are not like those at `fit`.
    """
    check_trials(trials)
    trials = ahead(estimator, trials)
    check_like_fit(found.fitted, found.model, trials)
    return Opened(**vars(found), trials=trials)


def opened(estimator: Any, trials: Any, what: str) -> Opened:
    """Open one fitted encoding model, and bring trials to it.

    Parameters
    ----------
    estimator : estimator
    trials : Trials
    what : str
        What is asked for, such as "attention", for errors.

    Returns
    -------
    Opened

    Raises
    ------
    TypeError
        If this is no single model, or these are no trials.
    ValueError
        If trials are not like those at `fit`.
    NotFittedError
        Before `fit`.
    """
    check_trials(trials)
    return with_trials(one_model(estimator, what), estimator, trials)


def behavior_at_model(
    estimator: Any, fitted: Fitted, mouse: str, named: Mapping[str, float]
) -> dict[str, float]:
    """Bring some behaviour through the steps of a Pipeline to the model at its end.

    Parameters
    ----------
    estimator : estimator
    fitted : Fitted
        Of the model.
    mouse : str
    named : mapping of str to float
        By column of this mouse, in the units of the recordings.

    Returns
    -------
    dict of str to float
        The same columns, as the model takes them.
    """
    if not named or last_step(estimator) is estimator:
        return dict(named)
    names = list(fitted.mice[mouse].behavior_names or [])
    image = np.zeros((1, *fitted.image_shape), np.float32)
    row = np.array([[float(named.get(name, 0)) for name in names]])
    recording = xr.Dataset(
        {
            "stimuli": (("trial", "channel", "height", "width"), image),
            "behaviors": (("trial", "behavior"), row),
        },
        {"image_id": ("trial", [0]), "behavior": names},
    )
    passed = np.asarray(ahead(estimator, Trials({mouse: recording})).get("behaviors", mouse))[0]
    return {name: float(passed[names.index(name)]) for name in named}


def known_mice(fitted: Fitted, mice: str | Sequence[str] | None) -> list[str]:
    """Mice that are asked for, each once; all by default.

    Parameters
    ----------
    fitted : Fitted
    mice : str or sequence of str, optional

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If one is unknown, or none are asked for.
    """
    if mice is None:
        return list(fitted.mice)
    wanted = as_words(mice, "mice", of="A")
    unknown = [mouse for mouse in wanted if mouse not in fitted.mice]
    if unknown or not wanted:
        found = [name for mouse in unknown for name in guess(mouse, fitted.mice)]
        raise ValueError(
            f"mice: {unknown or wanted} came, this model has {list(fitted.mice)}"
            f"{did_you_mean(list(map(repr, found)))}"
        )
    return list(dict.fromkeys(wanted))
