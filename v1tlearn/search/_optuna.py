"""The part of the search that speaks to Optuna: spaces, studies, one trial, results.

Imported only when a search is fitted, so that the package works without Optuna.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial
from sklearn.base import clone
from tqdm.auto import tqdm

from v1tlearn.search.spaces import IntegerUpTo, LogInteger
from v1tlearn.training import NonFiniteLossError
from v1tlearn.trials import Responses, Trials

logger = logging.getLogger("v1tlearn")

_HEARTBEAT = 10  # seconds between the signs of life of a trial in a database
_GRACE = 60  # seconds without one after which its process is taken to be dead
_POLL = 1.0  # seconds between looks at the trials of other processes
_ATTEMPTS = 3  # times that parameters are tried whose process was killed

_SETTINGS = "v1tlearn_settings"
_REASON = "v1tlearn_reason"
_STARTED = "v1tlearn_started"
_ATTEMPT = "v1tlearn_attempt"

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_UNTRAINABLE = (ValueError, NonFiniteLossError, MemoryError, torch.OutOfMemoryError)


# ------------------------------------------------------------------------------------------ spaces


@dataclass(frozen=True)
class Parameter:
    """A parameter as Optuna knows it, and what its labels stand for.

    Attributes
    ----------
    distribution : BaseDistribution
        For a parameter with a `limit` the widest that it can be.
    values : dict or None
        The choices by the label under which Optuna stores them.
    limit : str or None
        The parameter whose value is the upper limit.
    """

    distribution: BaseDistribution
    values: dict[Any, Any] | None = None
    limit: str | None = None


def read_space(space: Mapping[str, Any], estimator: Any) -> dict[str, Parameter]:
    """Translate distributions of scipy, of this package, and lists; limits before what they limit.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter.
    """
    known = estimator.get_params(deep=False)
    unknown = sorted(set(space) - set(known))
    if unknown:
        raise ValueError(f"{type(estimator).__name__} has no parameters {unknown} to search over.")
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
            parameters[name] = Parameter(IntDistribution(found.low, high), limit=found.parameter)
    return parameters


def _parameter(name: str, found: Any) -> Parameter:
    if isinstance(found, LogInteger):
        return Parameter(IntDistribution(found.low, found.high, log=True))
    if isinstance(found, list | tuple | np.ndarray) and len(found):
        values = [value.item() if isinstance(value, np.generic) else value for value in found]
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
        parameter = parameters[limit]
        found = max(parameter.values) if parameter.values else parameter.distribution.high
    if not isinstance(found, int):
        raise ValueError(
            f"{name} goes up to {limit!r}, which is {found!r}: expected a parameter of integers "
            "that has no such limit itself."
        )
    return found


def _suggest(trial: optuna.Trial, space: Mapping[str, Parameter], estimator: Any) -> dict[str, Any]:
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


# ----------------------------------------------------------------------------------------- studies


@dataclass(frozen=True)
class Job:
    """All that a process needs to run trials of a search.

    Attributes
    ----------
    estimator : EncodingRegressor
        Not fitted, with the seed and the validation fraction of the search.
    trials, target, validation
        What `fit` of the estimator takes.
    space : dict of str to Parameter
    n_trials : int or None
    timeout : float or None
        In seconds.
    min_epochs, reduction_factor : int
    seed : int
    verbose : int
    """

    estimator: Any
    trials: Trials
    target: Responses
    validation: Trials | None
    space: dict[str, Parameter]
    n_trials: int | None
    timeout: float | None
    min_epochs: int
    reduction_factor: int
    seed: int
    verbose: int


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log and its warnings about experimental functions from the user."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def open_storage(storage: str | Path | None) -> Iterator[optuna.storages.BaseStorage]:
    """Open a database, or memory where None is given."""
    if storage is None:
        yield optuna.storages.InMemoryStorage()
        return
    url = str(storage) if "://" in str(storage) else f"sqlite:///{Path(storage).resolve()}"
    engine: dict[str, Any] = {}
    if url.startswith("sqlite:"):
        engine = {"connect_args": {"timeout": 60}}  # seconds to wait while others write
    found = optuna.storages.RDBStorage(
        url,
        engine_kwargs=engine,
        heartbeat_interval=_HEARTBEAT,
        grace_period=_GRACE,
        heartbeat_stale_trial_callback=_try_again,
    )
    try:
        yield found
    finally:
        found.remove_session()
        found.engine.dispose()  # opens again when the study is asked for something


def open_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    min_epochs: int,
    max_epochs: int,
    reduction_factor: int,
) -> optuna.Study:
    """Open a study, or begin it."""
    pruner = optuna.pruners.HyperbandPruner(min_epochs, max_epochs, reduction_factor)
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
    )
    # The pruner lays out its brackets when it first judges a trial; a sampler that goes on with a
    # study needs them before that.
    pruner.prune(study, create_trial(value=0.0))
    return study


def in_memory(study: optuna.Study, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """Copy a study to memory from a database that is to be deleted."""
    if isinstance(storage, optuna.storages.InMemoryStorage):
        return study
    memory = optuna.storages.InMemoryStorage()
    name = study.study_name
    optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=memory)
    return optuna.load_study(study_name=name, storage=memory)


def check_settings(study: optuna.Study, settings: dict[str, Any]) -> None:
    """Note the settings of a search in its study, or check that they are those noted there.

    Raises
    ------
    ValueError
        If the study is of a search with other settings, naming them.
    """
    settings = json.loads(json.dumps(settings))
    noted = study.user_attrs.get(_SETTINGS)
    if noted is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_SETTINGS, settings)
        return
    noted = noted or {}
    differing = [name for name in settings if settings[name] != noted.get(name)]
    if differing:
        was = {name: noted.get(name) for name in differing}
        now = {name: settings[name] for name in differing}
        raise ValueError(
            f"the study {study.study_name!r} was begun with {was}, now it is {now}: scores of the "
            "two cannot be compared. Set them back, or give another study_name."
        )


def noted_seed(study: optuna.Study) -> int | None:
    """Seed of the search that began a study."""
    return study.user_attrs.get(_SETTINGS, {}).get("random_state")


def describe_space(space: Mapping[str, Parameter]) -> dict[str, str]:
    """Describe a space for `check_settings`."""
    return {
        name: distribution_to_json(p.distribution) + (f" up to {p.limit}" if p.limit else "")
        for name, p in space.items()
    }


# ------------------------------------------------------------------------------------------ trials


def work(job: Job, study: optuna.Study) -> None:
    """Run trials until the study, with those of other processes, has enough of them."""
    start = time.monotonic()
    with tqdm(total=job.n_trials, desc="search", unit="trial", disable=not job.verbose) as bar:
        while job.timeout is None or time.monotonic() - start < job.timeout:
            optuna.storages.fail_stale_trials(study)
            _give_up_unborn(study)
            states = Counter(t.state for t in study.get_trials(deepcopy=False))
            finished = sum(states[state] for state in _FINISHED)
            running = states[TrialState.RUNNING]
            bar.update(finished - bar.n)
            if job.n_trials is not None and finished >= job.n_trials:
                return
            if job.n_trials is not None and finished + running >= job.n_trials:
                time.sleep(_POLL)  # others may die and leave their trials to us
                continue
            entropy = [job.seed, sum(states.values()), *([os.getpid()] if running else [])]
            seed = np.random.SeedSequence(entropy).generate_state(1)[0]
            study.sampler = optuna.samplers.TPESampler(seed=int(seed))
            _run(job, study)


def work_in_process(job: Job, storage: str | Path, name: str) -> None:
    """`work` of a process of its own."""
    with quiet(), open_storage(storage) as opened:
        epochs = (job.min_epochs, job.estimator.max_epochs, job.reduction_factor)
        work(job, open_study(opened, name, *epochs))


def _run(job: Job, study: optuna.Study) -> None:
    """Run one trial."""
    lost = False

    def objective(trial: optuna.Trial) -> float:
        nonlocal lost
        try:
            return _train(job, trial)
        except UpdateFinishedTrialError:
            lost = True
            raise
        except KeyboardInterrupt:
            _try_again(study, study.get_trials(deepcopy=False)[trial.number])
            raise

    try:
        study.optimize(objective, n_trials=1)
    except (UpdateFinishedTrialError, ValueError):
        if not lost:
            raise
        logger.warning(
            "another process took a trial for dead, because this one stood still for more than "
            "%d s; the trial is left to it.",
            _GRACE,
        )


def _train(job: Job, trial: optuna.Trial) -> float:
    """Train one model, reporting after every epoch; the best validation correlation."""
    trial.set_user_attr(_STARTED, True)
    params = _suggest(trial, job.space, job.estimator)
    estimator = clone(job.estimator).set_params(**params)
    best = -np.inf

    def on_epoch(record: dict[str, float]) -> None:
        nonlocal best
        best = np.fmax(best, record["validation_correlation"])
        trial.report(float(best) if np.isfinite(best) else np.nan, record["epoch"])
        if record["epoch"] < estimator.max_epochs and trial.should_prune():
            raise optuna.TrialPruned

    reason = None
    try:
        estimator.fit(job.trials, job.target, validation=job.validation, on_epoch=on_epoch)
    except optuna.TrialPruned:
        if np.isfinite(best):
            raise
    except _UNTRAINABLE as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is None and not np.isfinite(best):
        reason = "the validation correlation was never a number"
    if reason is not None:
        # pruned, not failed, in the eyes of Optuna: so its sampler learns to avoid the like
        trial.set_user_attr(_REASON, reason)
        logger.info("trial %d cannot be trained with %s: %s", trial.number, params, reason)
        raise optuna.TrialPruned
    logger.info("trial %d: %.4f with %s", trial.number, best, params)
    return float(best)


def _try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the parameters of a trial whose process ended."""
    attempt = trial.user_attrs.get(_ATTEMPT, 1)
    if trial.params and attempt < _ATTEMPTS:
        study.enqueue_trial(trial.params, user_attrs={_ATTEMPT: attempt + 1})


def _give_up_unborn(study: optuna.Study) -> None:
    """Fail trials whose process was killed before their first sign of life."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        age = (datetime.now() - trial.datetime_start).total_seconds()
        if _STARTED not in trial.user_attrs and age > _GRACE:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


# ----------------------------------------------------------------------------------------- results


def results(study: optuna.Study, space: Mapping[str, Parameter]) -> pd.DataFrame:
    """One row per trial that was begun."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            continue
        reason = trial.user_attrs.get(_REASON)
        reported = list(trial.intermediate_values.values())
        state = {
            TrialState.COMPLETE: "complete",
            TrialState.PRUNED: "pruned" if reason is None else "failed",
            TrialState.FAIL: "interrupted",
            TrialState.RUNNING: "running",
        }[trial.state]
        scored = state in ("complete", "pruned")
        params = decode(trial.params, space)
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
    study: optuna.Study, space: Mapping[str, Parameter], method: str, seed: int
) -> dict[str, float]:
    """Importance of every parameter, from the trials trained to the end.

    Parameters with a limit are seen in their widest range, since Optuna leaves out those whose
    distribution changes from trial to trial.
    """
    distributions = {name: parameter.distribution for name, parameter in space.items()}
    trials = [
        create_trial(params=trial.params, distributions=distributions, value=trial.value)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]
    with quiet():
        fixed = optuna.create_study(direction="maximize")
        fixed.add_trials(trials)
        evaluator = (
            FanovaImportanceEvaluator(seed=seed % 2**32)
            if method == "fanova"
            else PedAnovaImportanceEvaluator()
        )
        return optuna.importance.get_param_importances(fixed, evaluator=evaluator)
