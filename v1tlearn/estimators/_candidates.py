"""Candidates of an ensemble: trained one by one or in processes, and compared."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from v1tlearn._warn import warn
from v1tlearn.estimators._checkpoints import Checkpoints, as_told
from v1tlearn.estimators._like_fit import told_apart
from v1tlearn.estimators._progress import placed, shown_log
from v1tlearn.estimators._runs import Part
from v1tlearn.estimators._telling import Numbered, OnEpoch
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.estimators.mixing import learn_weights
from v1tlearn.nn import Head
from v1tlearn.training import NonFiniteLossError, draw_seed, is_first, join, resolve_device
from v1tlearn.trials import Responses, Trials

logger = logging.getLogger("v1tlearn")


class Candidate(NamedTuple):
    """A trained model with its validation score, or why there is none."""

    seed: int
    estimator: BaseEncodingRegressor | None
    score: float = np.nan
    failure: str = ""


def draw_seeds(seed: int, n: int) -> list[int]:
    """Draw the seeds of candidates; the first ones stay where more are asked for."""
    return np.random.default_rng(seed).integers(2**32, size=n, dtype=np.int64).tolist()


def noted_seed(folder: Path, owner: str, parameters: dict[str, Any], seed: int) -> int:
    """Seed of the fit whose states are in a folder, noted there when it begins."""
    checkpoints = Checkpoints(folder, owner)
    own = as_told(parameters)
    checkpoints.check({"parameter": own}, {})
    if checkpoints.found is not None:
        return checkpoints.found["seed"]
    checkpoints.write(0, {"marks": {"parameter": own}, "seed": seed})
    return seed


def run(
    named: Sequence[tuple[str, Callable[[], Candidate]]], n_jobs: int | None, verbose: int
) -> list[Candidate]:
    """Train candidates in processes of joblib, and report those that failed.

    Where joblib would take threads they are trained one by one: threads would draw from torch's one
    generator in turn. So they are by processes that train together, of which each would start as
    many, for the same candidates.
    """
    backend, _ = get_active_backend(prefer="processes")
    one_by_one = getattr(backend, "supports_sharedmem", False) or join().size > 1
    n_jobs = 1 if one_by_one else n_jobs
    logger.info("training %d models, n_jobs=%s: %s ...", len(named), n_jobs, named[0][0])
    parallel = Parallel(n_jobs=n_jobs, prefer="processes", return_as="generator")
    trained = parallel(delayed(_placed_and_shown)(task, name, verbose) for name, task in named)
    candidates: list[Candidate] = []
    owner = named[0][0].partition(" ")[0]
    shown = verbose and is_first()
    with tqdm(total=len(named), desc=owner, unit="model", disable=not shown) as bar:
        for candidate in trained:
            bar.update()
            logger.info("%s: score %.4f", named[len(candidates)][0], candidate.score)
            if candidate.estimator is None:
                warn(
                    f"candidate {len(candidates)} (random_state={candidate.seed}) is left "
                    f"out: {candidate.failure}",
                )
            candidates.append(candidate)
    return candidates


def _placed_and_shown(task: Callable[[], Candidate], place: str, verbose: int) -> Candidate:
    """Run one task under its name, showing the log in whatever process this is."""
    with placed(place), shown_log(verbose):
        return task()


def best(candidates: Sequence[Candidate], n: int) -> list[int]:
    """Choose the numbers of the best candidates, best first."""
    usable = [i for i, c in enumerate(candidates) if c.estimator is not None]
    if len(usable) < n:
        failure = next(c.failure for c in candidates if c.estimator is None)
        raise FloatingPointError(
            f"{len(usable)} of {len(candidates)} candidates could be trained, {n} are needed. The "
            f"first failure: {failure}"
        )
    rank = np.nan_to_num([c.score for c in candidates], nan=-np.inf)
    return sorted(usable, key=lambda i: -rank[i])[:n]  # ties stay in order


def numbered(on_epoch: OnEpoch | None, number: int) -> OnEpoch | None:
    """Tell the records of one candidate from those of others."""
    return None if on_epoch is None else Numbered(on_epoch, number)


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
    """Check that fitted models can be combined."""
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
            scale, other = (e.statistics_[mouse]["response_scale"] for e in (first, member))
            if not np.allclose(scale, other, rtol=1e-6, atol=0):
                raise ValueError(
                    f"mouse {mouse!r}: estimators[{number}] scales responses otherwise than the "
                    "first: fit all of them to the same training trials."
                )


def shared_head(members: Sequence[BaseEncodingRegressor], mouse: str) -> Head:
    """Output non-linearity that all members have for a mouse."""
    head = members[0].module_.head(mouse)
    if next(head.parameters(), None) is not None:
        raise ValueError(
            f"combine='outputs' and learned weights need members with one output non-linearity, "
            f"but that of a {type(head).__name__} is learned: set combine='rates'."
        )
    return head


def mix(
    members: Sequence[BaseEncodingRegressor],
    trials: Trials,
    target: Responses,
    seed: int,
    *,
    per_mouse: bool,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Learn weights of members, which were fitted to the same trials, on others."""
    first = members[0]
    without = [mouse for mouse in first.mice_ if mouse not in trials.mice]
    if per_mouse and without:
        raise ValueError(
            f"the mice {without} have no validation trials to learn weights on: give them "
            "some, or set combine='learned' or 'outputs'."
        )
    per_member = [member._predict(trials, activate=False) for member in members]
    scales = {mouse: first.statistics_[mouse]["response_scale"] for mouse in trials.mice}
    weights, intercepts = learn_weights(
        {m: np.stack([out[m] for out in per_member], axis=-1) for m in trials.mice},
        {m: (target.get(m) / scale).astype(np.float32) for m, scale in scales.items()},
        {m: shared_head(members, m) for m in trials.mice},
        seed,
        per_mouse=per_mouse,
        device=resolve_device(first.device),
        deterministic=first.deterministic,
    )
    if not per_mouse:  # mice without validation trials, too
        some = trials.mice[0]
        weights = {mouse: weights[some].copy() for mouse in first.mice_}
        intercepts = dict.fromkeys(first.mice_, intercepts[some])
    return weights, intercepts


def check_model(estimator: Any) -> None:
    """Check that candidates can be copies of an estimator."""
    if not isinstance(estimator, BaseEncodingRegressor):
        kind = estimator if isinstance(estimator, type) else type(estimator)
        what = f"the class {kind.__name__}" if kind is estimator else f"a {kind.__name__}"
        hint = ": ensembles of ensembles are not supported" * hasattr(estimator, "n_candidates")
        raise TypeError(
            f"estimator is {what}{hint}: expected an instance of V1TRegressor, ViTRegressor, "
            "CNNRegressor, LNRegressor or EncodingRegressor (a Pipeline goes around the ensemble)."
        )
