"""Candidates of an ensemble: trained one by one or in processes, and compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from v1tlearn.estimators._checkpoints import Checkpoints
from v1tlearn.estimators._like_fit import told_apart
from v1tlearn.estimators._progress import placed, shown_log
from v1tlearn.estimators._runs import Part
from v1tlearn.estimators.base import OnEpoch, Record
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.training import NonFiniteLossError, draw_seed
from v1tlearn.trials import Trials


class Candidate(NamedTuple):
    """A trained model with its validation score, or why there is none."""

    seed: int
    estimator: BaseEncodingRegressor | None
    score: float = np.nan
    failure: str = ""


def draw_seeds(seed: int, n: int) -> list[int]:
    """Draw the seeds of candidates; the first ones stay where more are asked for."""
    return np.random.default_rng(seed).integers(2**32, size=n, dtype=np.int64).tolist()


def run(tasks: Sequence[Callable[[], Candidate]], n_jobs: int | None) -> Iterator[Candidate]:
    """Train candidates in processes of joblib; where that would take threads, one by one.

    Threads would draw from torch's one generator in turn.
    """
    backend, _ = get_active_backend(prefer="processes")
    n_jobs = 1 if getattr(backend, "supports_sharedmem", False) else n_jobs
    parallel = Parallel(n_jobs=n_jobs, prefer="processes", return_as="generator")
    return parallel(delayed(task)() for task in tasks)


def placed_and_shown(task: Callable[[], Candidate], place: str, verbose: int) -> Candidate:
    """Run one task under its name, showing the log in whatever process this is."""
    with placed(place), shown_log(verbose):
        return task()


def numbered(on_epoch: OnEpoch | None, number: int) -> OnEpoch | None:
    """Tell the records of one candidate from those of others."""
    return None if on_epoch is None else _Numbered(on_epoch, number)


class _Numbered(NamedTuple):
    """A callback that processes can be sent."""

    on_epoch: OnEpoch
    number: int

    def __call__(self, record: Record) -> None:
        self.on_epoch({**record, "candidate": self.number})


def train(
    model: BaseEncodingRegressor,
    training: Part,
    held_out: Part | None,
    on_epoch: OnEpoch | None,
    folder: Path | None,
) -> Candidate:
    """Train one candidate on trials that are split already."""
    seed = draw_seed(model.random_state)
    checkpoints = None if folder is None else Checkpoints(folder, type(model).__name__)

    def make() -> BaseEncodingRegressor:
        return model._train(training, held_out, seed, on_epoch=on_epoch, checkpoints=checkpoints)

    return _judged(seed, make, held_out)


def transfer(
    member: BaseEncodingRegressor,
    trials: Trials,
    held_out: Part | None,
    freeze_core: bool,
    params: dict[str, Any],
) -> Candidate:
    """Transfer one member to the animals of trials that are split already."""
    validation = None if held_out is None else held_out[0]

    def make() -> BaseEncodingRegressor:
        with warnings.catch_warnings():  # the ensemble warned of tiers, once for all members
            warnings.filterwarnings("ignore", "fit was given trials of the tiers")
            return member.transfer(trials, freeze_core, validation=validation, **params)

    return _judged(params["random_state"], make, held_out)


def _judged(
    seed: int, make: Callable[[], BaseEncodingRegressor], held_out: Part | None
) -> Candidate:
    try:
        estimator = make()
    except NonFiniteLossError as error:
        return Candidate(seed, None, failure=str(error))
    score = np.nan if held_out is None else estimator.score(*held_out)
    return Candidate(seed, estimator, score)


def check_members(estimators: Sequence[BaseEncodingRegressor]) -> None:
    """Check that fitted models can be combined.

    Raises
    ------
    TypeError, ValueError
        Saying which one differs from the first, and in what.
    """
    for number, member in enumerate(estimators):
        if not isinstance(member, BaseEncodingRegressor):
            raise TypeError(f"estimators[{number}] is a {type(member).__name__}: expected a model.")
        check_is_fitted(member)
        first = estimators[0]
        if type(member) is not type(first) or member.n_neurons_ != first.n_neurons_:
            raise ValueError(
                f"estimators[{number}] is a {type(member).__name__} with the neurons "
                f"{member.n_neurons_}, the first a {type(first).__name__} with {first.n_neurons_}: "
                "expected models of one kind, of the same mice."
            )
        if member.used_columns_ != first.used_columns_:
            raise ValueError(
                f"estimators[{number}] uses the behaviour {member.used_columns_}, the first "
                f"{first.used_columns_}: expected models that use the same."
            )
        for mouse in first.mice_:
            own, others = (e.neurons_[mouse].get("neuron") for e in (first, member))
            if difference := told_apart(own, others):
                raise ValueError(
                    f"mouse {mouse!r}: the neurons of estimators[{number}] are not those of the "
                    f"first: {difference}. Fit all of them to the same neurons in one order."
                )
            scales = [e.statistics_[mouse]["response_scale"] for e in (first, member)]
            if not np.allclose(*scales, rtol=1e-6):
                raise ValueError(
                    f"mouse {mouse!r}: estimators[{number}] scales responses otherwise than the "
                    "first: fit all of them to the same training trials."
                )
