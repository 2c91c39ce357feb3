"""What a model predicts for trials, in the one form that analyses and files take."""

from __future__ import annotations

from typing import Any

from v1tlearn._models import check_predicts, short_name
from v1tlearn.trials.responses import Responses
from v1tlearn.trials.trials import Trials


def predict_responses(estimator: Any, trials: Trials) -> Responses:
    """Predict responses to trials.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    trials : Trials

    Returns
    -------
    Responses

    Raises
    ------
    TypeError
        If it predicts nothing, or images, as decoders do.
    """
    check_predicts(short_name(estimator), estimator, "a fitted estimator")
    found = estimator.predict(trials)
    if not isinstance(found, Responses):
        raise TypeError(
            f"{type(estimator).__name__} predicts a {type(found).__name__} for Trials: expected a "
            "model that predicts Responses."
        )
    return found
