"""The part of the search that speaks to Optuna: studies and their trials.

Imported only when a search is fitted, so that the package works without Optuna.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.exceptions import (
    DuplicatedStudyError,
    ExperimentalWarning,
    UpdateFinishedTrialError,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from sklearn.base import clone
from sqlalchemy import URL, make_url
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool
from tqdm.auto import tqdm

from v1tlearn._opening import first_line
from v1tlearn._values import plain
from v1tlearn.estimators._progress import placed, shown_log
from v1tlearn.estimators._telling import Numbered, OnEpoch, end
from v1tlearn.search import _distributions as distributions
from v1tlearn.search import _results as results
from v1tlearn.training import NonFiniteLossError
from v1tlearn.trials import Responses, Trials

logger = logging.getLogger("v1tlearn")

_HEARTBEAT = 10  # seconds between the signs of life of a trial in a database
_GRACE = 60  # seconds without one after which its process is taken to be dead
_POLL = 1.0  # seconds between looks at the trials of other processes
_OPENINGS = 10  # times that a database is opened which others are making
_PATIENCE = 60  # seconds to wait for the settings of a study that another process begins
_ATTEMPTS = 3  # times that parameters are tried whose process was killed

_SETTINGS = "v1tlearn_settings"
_STARTED = "v1tlearn_started"

_UNTRAINABLE = (ValueError, NonFiniteLossError, MemoryError, torch.OutOfMemoryError)


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
    on_epoch : callable or None
        Told the records of all trials, with the number of the "candidate".
    """

    estimator: Any
    trials: Trials
    target: Responses
    validation: Trials | None
    space: dict[str, distributions.Parameter]
    n_trials: int | None
    timeout: float | None
    min_epochs: int
    reduction_factor: int
    seed: int
    verbose: int
    on_epoch: OnEpoch | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log and its warnings about experimental functions from the user."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            # of trials with bad parameters: that of the best one is told when it is fitted again
            warnings.filterwarnings("ignore", "mouse .* cannot follow their images")
            yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def open_storage(storage: str | Path | None) -> Iterator[optuna.storages.BaseStorage]:
    """Open a database, or memory where None is given."""
    with database_named(storage), _open(storage) as opened:
        yield opened


def _is_url(storage: str | Path | None) -> bool:
    """Whether it is the URL of a database; all else is the path of a file."""
    return isinstance(storage, str) and "://" in storage


@contextmanager
def _open(storage: str | Path | None) -> Iterator[optuna.storages.BaseStorage]:
    if storage is None:
        yield optuna.storages.InMemoryStorage()
        return
    url = str(storage)
    if not _is_url(storage):
        file = str(Path(storage).resolve())  # in which "?" and "%" mean nothing
        url = URL.create("sqlite", database=file).render_as_string(hide_password=False)
    engine: dict[str, Any] = {}
    if url.startswith("sqlite:"):
        engine["connect_args"] = {"timeout": 60}  # seconds to wait while others write
        if make_url(url).database not in (None, "", ":memory:"):
            engine["poolclass"] = NullPool  # leaves no file open, of what is no database either
    for attempt in range(_OPENINGS):
        try:
            found = optuna.storages.RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=_HEARTBEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=_try_again,
            )
            break
        except (OperationalError, IntegrityError):  # others make the same tables at this moment
            if attempt == _OPENINGS - 1:
                raise
            time.sleep(0.5)
    try:
        yield found
    finally:
        found.remove_session()
        found.engine.dispose()  # opens again when the study is asked for something


def _is_of_database(error: Exception) -> bool:
    """Whether what reads tables and makes sense of them raised it, or what it called."""
    frames = traceback.walk_tb(error.__traceback__)
    modules = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in frames]
    known = [name for name in modules if name in ("sqlalchemy", "optuna", "v1tlearn")]
    return bool(known) and known[-1] != "v1tlearn"


@contextmanager
def database_named(storage: str | Path | None) -> Iterator[None]:
    """Name the database in what goes wrong with it, damaged or out of reach."""
    try:
        yield
    except Exception as error:
        if storage is None or not _is_of_database(error):  # but of what is trained meanwhile
            raise
        raise ValueError(
            f"the studies in {_in_words(storage)} cannot be read or written "
            f"({_causes_in_words(error)}); make the folder, restore the file from a copy, or give "
            "another storage."
        ) from error


def _causes_in_words(error: BaseException) -> str:
    """What went wrong, and, where Optuna tells of another error only, what that was."""
    told = first_line(error)
    return told if error.__cause__ is None else f"{told}: {first_line(error.__cause__)}"


def _in_words(storage: str | Path | None) -> str:
    """Where a database is, without a password."""
    return str(storage).rpartition("@")[2] if _is_url(storage) else str(storage)


def _kept_in(storage: str | Path | None) -> str:
    return "" if storage is None else f" It is kept in {_in_words(storage)}."


def open_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    min_epochs: int,
    max_epochs: int,
    reduction_factor: int,
) -> optuna.Study:
    """Open a study, or begin it; one of several processes begins it, and notes the settings."""
    pruner = optuna.pruners.HyperbandPruner(min_epochs, max_epochs, reduction_factor)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=pruner
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        start = time.monotonic()
        while (
            _SETTINGS not in study.user_attrs
            and not study.get_trials(deepcopy=False)  # of a study that others begin there is none
            and time.monotonic() - start < _PATIENCE
        ):
            time.sleep(0.1)
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


def check_settings(
    study: optuna.Study,
    settings: dict[str, Any],
    storage: str | Path | None,
    as_ever: dict[str, dict[str, Any]],
) -> None:
    """Note the settings of a search in its study, or check that they are those noted there.

    What an earlier version did not have, and so not note, counts as what it has always been.
    """
    settings = json.loads(json.dumps(settings))
    noted = _noted(study, storage)
    if noted is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_SETTINGS, settings)
        return
    noted = noted or {}
    for name, known in as_ever.items():
        if isinstance(noted.get(name), dict):
            noted = noted | {name: known | noted[name]}
    differing = _differences(noted, settings)
    if differing:
        raise ValueError(
            f"the study {study.study_name!r} was begun with other settings: "
            f"{'; '.join(differing)}. Scores of the two cannot be compared: set them back, or give "
            f"another study_name.{_kept_in(storage)}"
        )


def _differences(was: Any, now: Any, name: str = "") -> list[str]:
    """Differing entries of nested dicts, each as "name was -> now"."""
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [*now, *(key for key in was if key not in now)]
        inner = {key: f"{name}, {key}" if name else key for key in keys}
        return [d for key in keys for d in _differences(was.get(key), now.get(key), inner[key])]
    return [] if was == now else [f"{name}: {was} -> {now}"]


def noted_recordings(study: optuna.Study, storage: str | Path | None) -> dict[str, Any]:
    """How the search that began a study described its recordings."""
    noted = (_noted(study, storage) or {}).get("recording")
    return noted if isinstance(noted, dict) else {}


def noted_seed(study: optuna.Study, storage: str | Path | None) -> int | None:
    """Seed of the search that began a study."""
    seed = (_noted(study, storage) or {}).get("random_state")
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**32):
        raise ValueError(
            f"the study {study.study_name!r} notes the seed {seed!r}: it is damaged; give another "
            f"study_name.{_kept_in(storage)}"
        )
    return seed


def _noted(study: optuna.Study, storage: str | Path | None) -> dict[str, Any] | None:
    noted = study.user_attrs.get(_SETTINGS)
    if noted is not None and not isinstance(noted, dict):
        raise ValueError(
            f"the study {study.study_name!r} notes a {type(noted).__name__} for its settings, "
            f"expected a dict: it is damaged; give another study_name.{_kept_in(storage)}"
        )
    return noted


# ------------------------------------------------------------------------------------------ trials


def check_trials(
    study: optuna.Study, space: dict[str, distributions.Parameter], storage: str | Path | None
) -> None:
    """Check that trials of a study that goes on are such as a search with this space makes."""
    for trial in study.get_trials(deepcopy=False):
        problem = results.problem(trial, space)
        if problem:
            raise ValueError(
                f"trial {trial.number} of the study {study.study_name!r} {problem}: it is damaged; "
                f"give another study_name.{_kept_in(storage)}"
            )


class _SeededByTrial(optuna.samplers.BaseSampler):
    """TPE with a seed for every trial, of the search's seed and the number of the trial.

    So a study that goes on is as one that was never stopped, and processes that begin trials at the
    same moment draw different parameters.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        _give_first_sign_of_life(study, trial)
        seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
        self._tpe = optuna.samplers.TPESampler(seed=int(seed))
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Any:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> Any:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def work(job: Job, study: optuna.Study) -> None:
    """Run trials until the study, with those of other processes, has enough of them."""
    start = time.monotonic()
    study.sampler = _SeededByTrial(job.seed)
    with tqdm(total=job.n_trials, desc="search", unit="trial", disable=not job.verbose) as bar:
        while job.timeout is None or time.monotonic() - start < job.timeout:
            optuna.storages.fail_stale_trials(study)
            _give_up_unborn(study)
            states = Counter(t.state for t in study.get_trials(deepcopy=False))
            finished = sum(states[state] for state in results.FINISHED)
            running = states[TrialState.RUNNING]
            bar.update(finished - bar.n)
            if job.n_trials is not None and finished >= job.n_trials:
                return
            if job.n_trials is not None and finished + running >= job.n_trials:
                time.sleep(_POLL)  # others may die and leave their trials to us
                continue
            _run(job, study)


def work_in_process(job: Job, storage: str | Path, name: str) -> None:
    """`work` of a process of its own."""
    with quiet(), shown_log(job.verbose), open_storage(storage) as opened:
        epochs = (job.min_epochs, plain(job.estimator.max_epochs), job.reduction_factor)
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
    except UpdateFinishedTrialError:
        lost = True
    except ValueError:
        if not lost:
            raise
    if lost:
        logger.warning(
            "another process took a trial for dead, because this one stood still for more than "
            "%d s; the trial is left to it.",
            _GRACE,
        )


def _train(job: Job, trial: optuna.Trial) -> float:
    """Train one model, reporting after every epoch; the best validation correlation."""
    trial.set_user_attr(_STARTED, True)
    params = distributions.suggest(trial, job.space, job.estimator)
    estimator = clone(job.estimator).set_params(**params)
    best = -np.inf
    of = f" of {job.n_trials}" if job.n_trials else ""

    told = None if job.on_epoch is None else Numbered(job.on_epoch, trial.number)

    def on_epoch(record: dict[str, float]) -> Any:
        nonlocal best
        answer = None if told is None else told(record)
        best = np.fmax(best, record["validation_correlation"])
        trial.report(float(best) if np.isfinite(best) else np.nan, int(record["epoch"]))
        if record["epoch"] < estimator.max_epochs and trial.should_prune():
            raise optuna.TrialPruned
        return answer

    reason = None
    try:
        with placed(f"HyperbandSearch trial {trial.number}{of}"):
            estimator.fit(job.trials, job.target, validation=job.validation, on_epoch=on_epoch)
    except optuna.TrialPruned:
        if np.isfinite(best):
            raise
    except _UNTRAINABLE as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        end(told)
    if reason is None and not np.isfinite(best):
        reason = "the validation correlation was never a number"
    if reason is not None:
        # pruned, not failed, in the eyes of Optuna: so its sampler learns to avoid the like
        trial.set_user_attr(results.REASON, reason)
        logger.info("trial %d cannot be trained with %s: %s", trial.number, params, reason)
        raise optuna.TrialPruned
    logger.info("trial %d: %.4f with %s", trial.number, best, params)
    return float(best)


def _try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the parameters of a trial whose process ended."""
    attempt = trial.user_attrs.get(results.ATTEMPT, 1)
    if trial.params and attempt < _ATTEMPTS:
        study.enqueue_trial(trial.params, user_attrs={results.ATTEMPT: attempt + 1})


def _give_first_sign_of_life(study: optuna.Study, trial: FrozenTrial) -> None:
    """Write it before the trial says that it started, and before the thread that writes the others.

    That thread may come late. Nobody would ever take the trial of a process that is killed in
    between for dead, and every later search would wait for it.
    """
    storage = study._storage  # which optuna gives out in no other way
    if hasattr(storage, "record_heartbeat"):  # not of one in memory
        storage.record_heartbeat(trial._trial_id)


def _give_up_unborn(study: optuna.Study) -> None:
    """Fail trials whose process was killed before their first sign of life."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        assert trial.datetime_start is not None  # it is running
        age = (datetime.now() - trial.datetime_start).total_seconds()
        if _STARTED not in trial.user_attrs and age > _GRACE:
            with suppress(UpdateFinishedTrialError):  # another process was first
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
