"""Opening what analyses of encoding models are given: Pipelines, searches, trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._models import ahead, last_step
from v1tlearn.estimators import EnsembleRegressor
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators.base_encoding import ModelRegressor
from v1tlearn.nn import EncodingModel
from v1tlearn.trials import Trials


@dataclass(frozen=True)
class Opened:
    """A fitted model, and trials as it takes them.

    Attributes
    ----------
    fitted : Fitted
    model : EncodingModel
        In evaluation mode, on the device.
    device : device
    deterministic : bool
    trials : Trials
        With the preprocessing of a Pipeline.
    """

    fitted: Fitted
    model: EncodingModel
    device: torch.device
    deterministic: bool
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


def opened(estimator: Any, trials: Any, what: str) -> Opened:
    """Open one fitted encoding model, alone, at the end of a Pipeline or found by a search.

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
    trials, estimator = ahead(estimator, trials), last_step(estimator)
    if not isinstance(estimator, ModelRegressor):
        kind = estimator if isinstance(estimator, type) else type(estimator)
        came = f"the class {kind.__name__}" if isinstance(estimator, type) else f"a {kind.__name__}"
        members = " Of an ensemble take the members, estimators_."
        raise TypeError(
            f"{what} is that of one fitted encoding model, and {came} came: expected one such as "
            f"V1TRegressor().fit(trials).{members if kind is EnsembleRegressor else ''}"
        )
    check_is_fitted(estimator)
    fitted, model = estimator._knows()
    model.eval()
    check_like_fit(fitted, model, trials)
    return Opened(fitted, model, estimator.device_, bool(estimator.deterministic), trials)


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
    wanted = [mice] if isinstance(mice, str) else [str(mouse) for mouse in mice]
    unknown = [mouse for mouse in wanted if mouse not in fitted.mice]
    if unknown or not wanted:
        found = [name for mouse in unknown for name in guess(mouse, fitted.mice)]
        raise ValueError(
            f"mice: {unknown or wanted} came, this model has {list(fitted.mice)}"
            f"{did_you_mean(list(map(repr, found)))}"
        )
    return list(dict.fromkeys(wanted))
