"""What a search found: a table of its trials, and how much each parameter matters.

Imported only with Optuna, as `_optuna` is, which notes REASON and ATTEMPT.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from v1tlearn.search import _distributions as distributions

REASON = "v1tlearn_reason"  # notes why a trial could not be trained
ATTEMPT = "v1tlearn_attempt"  # and how often its parameters were tried
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def problem(trial: FrozenTrial, space: Mapping[str, distributions.Parameter]) -> str | None:
    """What of a stored trial no search with this space makes; None where all is as it should be."""
    for name, value in trial.params.items():
        if name not in space or not distributions.holds(space[name], value):
            return f"has {name}={value!r}, which is not in the space"
    attempt = trial.user_attrs.get(ATTEMPT, 1)
    if type(attempt) is not int:
        return f"was tried {attempt!r} times"
    if trial.state not in FINISHED or REASON in trial.user_attrs:
        return None
    if missing := [name for name in space if name not in trial.params]:
        return f"lacks {missing}"
    scores = [*trial.intermediate_values.values()]
    told = (trial.values or [None]) if trial.state == TrialState.COMPLETE else []
    if wrong := [v for v in (*scores, *told) if not isinstance(v, float) or np.isinf(v)]:
        return f"has the score {wrong[0]!r}"
    if np.isnan(scores).all() or np.isnan(told).any():
        return "has no score"
    return None


def table(study: optuna.Study, space: Mapping[str, distributions.Parameter]) -> pd.DataFrame:
    """One row per trial that was begun."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            continue
        reason = trial.user_attrs.get(REASON)
        reported = list(trial.intermediate_values.values())
        state = {
            TrialState.COMPLETE: "complete",
            TrialState.PRUNED: "pruned" if reason is None else "failed",
            TrialState.FAIL: "interrupted",
            TrialState.RUNNING: "running",
        }[trial.state]
        scored = state in ("complete", "pruned")
        params = distributions.decode(trial.params, space)
        rows.append(
            {
                "trial": trial.number,
                "state": state,
                "score": np.nanmax(reported) if scored else np.nan,
                "epochs": len(reported),
                "seconds": trial.duration.total_seconds() if trial.duration else np.nan,
                "reason": reason or "",
                **{f"param_{name}": params.get(name) for name in space},
            }
        )
    columns = ["trial", "state", "score", "epochs", "seconds", "reason"]
    return pd.DataFrame(rows, columns=[*columns, *(f"param_{name}" for name in space)])


def importances(
    study: optuna.Study, space: Mapping[str, distributions.Parameter], method: str, seed: int
) -> dict[str, float]:
    """Importance of every parameter, from the trials trained to the end.

    Parameters with a limit are seen in their widest range, since Optuna leaves out those whose
    distribution changes from trial to trial.
    """
    widest: dict[str, BaseDistribution] = {
        name: parameter.distribution for name, parameter in space.items()
    }
    trials = [
        create_trial(params=trial.params, distributions=widest, value=trial.value)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]
    fixed = optuna.create_study(direction="maximize")
    fixed.add_trials(trials)
    evaluator = (
        FanovaImportanceEvaluator(seed=seed % 2**32)
        if method == "fanova"
        else PedAnovaImportanceEvaluator()
    )
    return optuna.importance.get_param_importances(fixed, evaluator=evaluator)
