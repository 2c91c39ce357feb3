"""What an ensemble does beside being an estimator: train candidates, learn weights, outlive.

An ensemble on disk is a directory with ``model.json`` and, in a directory that it names, one
sub-directory per member, which the member itself wrote. It counts from one rename on.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from v1tlearn._paths import MODEL_FILE
from v1tlearn.estimators import _persistence
from v1tlearn.estimators._inputs import told_apart
from v1tlearn.estimators._prediction import mean_correlation
from v1tlearn.estimators._progress import placed, shown_log
from v1tlearn.estimators.base import EncodingRegressor
from v1tlearn.nn import elu_plus_one, poisson_loss
from v1tlearn.training import (
    NonFiniteLossError,
    draw_seed,
    initial_rng,
    isolated_rng,
    numerics,
    resolve_device,
)
from v1tlearn.training.data import epoch_batches
from v1tlearn.trials import Responses, Trials

if TYPE_CHECKING:
    from v1tlearn.estimators.ensemble import EnsembleRegressor

FORMAT = 1

# Of the published mixing layers (bryanlimy/V1T, ensemble.py).
EPOCHS, BATCH_SIZE = 200, 4
OPTIMIZER = {"lr": 0.001, "betas": (0.9, 0.9999), "eps": 1e-8, "weight_decay": 0.01}

Part = tuple[Trials, Responses]


# ------------------------------------------------------------------------------------- candidates


class Candidate(NamedTuple):
    """A trained model with its validation score, or why there is none."""

    seed: int
    estimator: EncodingRegressor | None
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


def train(model: EncodingRegressor, training: Part, held_out: Part | None) -> Candidate:
    """Train one candidate on trials that are split already."""
    seed = draw_seed(model.random_state)
    begin = partial(model._begin, *training, seed, go_on=False)
    return _judged(
        seed, lambda: model._train(*training, held_out, model.max_epochs, begin), held_out
    )


def transfer(
    member: EncodingRegressor,
    trials: Trials,
    held_out: Part | None,
    freeze_core: bool,
    params: dict[str, Any],
) -> Candidate:
    """Transfer one member to the animals of trials that are split already."""
    validation = None if held_out is None else held_out[0]

    def make() -> EncodingRegressor:
        with warnings.catch_warnings():  # the ensemble warned of tiers, once for all members
            warnings.filterwarnings("ignore", "fit was given trials of the tiers")
            return member.transfer(trials, freeze_core, validation=validation, **params)

    return _judged(params["random_state"], make, held_out)


def _judged(seed: int, make: Callable[[], EncodingRegressor], held_out: Part | None) -> Candidate:
    try:
        estimator = make()
    except NonFiniteLossError as error:
        return Candidate(seed, None, failure=str(error))
    score = np.nan if held_out is None else mean_correlation(estimator, *held_out)
    return Candidate(seed, estimator, score)


def check_members(estimators: Sequence[EncodingRegressor]) -> None:
    """Check that fitted models can be combined.

    Raises
    ------
    TypeError, ValueError
        Saying which one differs from the first, and in what.
    """
    for number, member in enumerate(estimators):
        if not isinstance(member, EncodingRegressor):
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


# ---------------------------------------------------------------------------------------- weights


@torch.inference_mode(False)  # whatever the caller's mode is
@torch.enable_grad()
def learn_weights(
    members: Sequence[EncodingRegressor],
    trials: Trials,
    target: Responses,
    seed: int,
    *,
    per_mouse: bool,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Learn how to weight the outputs of members ahead of the non-linearity.

    Parameters
    ----------
    members : sequence of EncodingRegressor
        Fitted to the same trials, so that their units are the same; they stay as they are.
    trials : Trials
        Not those the members were trained on.
    target : Responses
        Of these trials.
    seed : int
        Of the order of the batches.
    per_mouse : bool
        Weights for each mouse of the members, otherwise the same for all.

    Returns
    -------
    weights : dict of str to ndarray of shape (n_members,)
        Per mouse of the members.
    intercepts : dict of str to float

    Raises
    ------
    ValueError
        If a mouse that needs weights of its own has no trials.
    """
    first = members[0]
    mice = first.mice_
    if per_mouse and (without := [m for m in mice if m not in trials.mice]):
        raise ValueError(
            f"the mice {without} have no validation trials to learn weights on: give them some, "
            "or set combine='learned' or 'outputs'."
        )
    device = resolve_device(first.device)
    outputs = _outputs(members, trials, device)
    responses = {m: _scaled(first, target, m, device) for m in trials.mice}
    row = {m: k * per_mouse for k, m in enumerate(mice)}
    n_rows = len(mice) if per_mouse else 1
    weights = torch.full((n_rows, len(members)), 1 / len(members), device=device)
    intercepts = torch.zeros(n_rows, device=device)
    parameters = [weights.requires_grad_(), intercepts.requires_grad_()]
    optimizer = torch.optim.AdamW(parameters, **OPTIMIZER)
    lengths = {m: len(values) for m, values in outputs.items()}
    with (
        isolated_rng(initial_rng(seed), device),
        numerics("float32", device, deterministic=first.deterministic),
    ):
        for _ in range(EPOCHS):
            for rows in epoch_batches(lengths, BATCH_SIZE, device):
                loss = 0.0
                for mouse, where in rows.items():
                    k = row[mouse]
                    mixed = outputs[mouse][where] @ weights[k] + intercepts[k]  # (B, neurons)
                    values = responses[mouse][where]
                    loss = loss + poisson_loss(elu_plus_one(mixed), values, ~values.isnan())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    table = weights.detach().cpu().numpy().astype(np.float64)
    added = intercepts.detach().cpu().tolist()
    return {m: table[row[m]].copy() for m in mice}, {m: added[row[m]] for m in mice}


def _outputs(
    members: Sequence[EncodingRegressor], trials: Trials, device: torch.device
) -> dict[str, Tensor]:
    """Outputs ahead of the non-linearity per mouse, (trials, neurons, members)."""
    per_member = [member._predict(trials, activate=False) for member in members]
    return {
        m: torch.from_numpy(np.stack([out[m] for out in per_member], axis=-1)).float().to(device)
        for m in trials.mice
    }


def _scaled(
    member: EncodingRegressor, target: Responses, mouse: str, device: torch.device
) -> Tensor:
    """Responses in the units of the outputs, NaN where not recorded."""
    scaled = target.get(mouse) / member.statistics_[mouse]["response_scale"]
    return torch.as_tensor(scaled.astype(np.float32), device=device)


# ------------------------------------------------------------------------------------ persistence


def save(ensemble: EnsembleRegressor, path: Path) -> None:
    """Write a fitted ensemble into a directory; an earlier model stays whole until the end.

    A generator as `random_state` is written as the seed that was drawn from it.

    Parameters
    ----------
    ensemble : EnsembleRegressor
    path : Path

    Raises
    ------
    TypeError
        If a parameter cannot be written as JSON.
    FileExistsError
        If something that is no saved model is in the way.
    """
    if path.exists() and not _is_free(path):
        raise FileExistsError(
            f"{path} exists and is no saved model: choose another path, or remove it first."
        )
    mark = secrets.token_hex(8)
    members, beside = path / f"members-{mark}", path / f".{MODEL_FILE}-{mark}"
    content = {
        "format": FORMAT,
        "class": type(ensemble).__name__,
        "model": type(ensemble.estimator).__name__,
        "members": [f"{members.name}/{i}" for i in range(len(ensemble.estimators_))],
        "attributes": _attributes(ensemble),
    }
    path.mkdir(parents=True, exist_ok=True)
    try:
        for name, member in zip(content["members"], ensemble.estimators_, strict=True):
            member.save(path / name)
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(beside, path / MODEL_FILE)
    except BaseException:
        shutil.rmtree(members, ignore_errors=True)
        beside.unlink(missing_ok=True)
        raise
    for file in path.iterdir():
        if _is_remains(file) and file != members:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)


def load(kind: type[EnsembleRegressor], path: Path, device: str) -> EnsembleRegressor:
    """Read what `save` wrote.

    Parameters
    ----------
    kind : type
        Class of the ensemble.
    path : Path
    device : str

    Returns
    -------
    EnsembleRegressor
    """
    content = _persistence.read_content(kind, path, FORMAT)
    try:
        model = _model_class(content["model"])
        names = [_member_path(name) for name in content["members"]]
        attributes = _persistence.decode(content["attributes"], {})
        parameters = attributes.pop("parameters")
        estimator = model(**{**attributes.pop("estimator"), "device": device})
        ensemble = kind(estimator, **parameters)
        for name in ("members_", "validation_scores_"):
            attributes[name] = np.asarray(attributes[name])
        if "weights_" in attributes:
            attributes["weights_"] = {m: np.array(w) for m, w in attributes["weights_"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _persistence.damaged(path, error) from error
    ensemble.__dict__.update(attributes)
    ensemble._adopt([model.load(path / name, device) for name in names])
    return ensemble


def _attributes(ensemble: EnsembleRegressor) -> dict[str, Any]:
    """Everything but the members as plain JSON."""
    parameters = ensemble.get_params(deep=False)
    estimator = parameters.pop("estimator").get_params(deep=False)
    if not _is_plain(parameters["random_state"]):
        parameters["random_state"] = ensemble.seed_
    if not _is_plain(estimator["random_state"]):
        estimator["random_state"] = None  # never used
    fitted = {
        name: ensemble.__dict__[name]
        for name in ("seed_", "seeds_", "combine_", "weights_", "intercepts_")
        if name in ensemble.__dict__
    }
    for name in ("members_", "validation_scores_"):
        fitted[name] = getattr(ensemble, name).tolist()
    if "weights_" in fitted:
        fitted["weights_"] = {m: w.tolist() for m, w in fitted["weights_"].items()}
    arrays: dict[str, Tensor] = {}
    out = _persistence.encode(
        {"parameters": parameters, "estimator": estimator, **fitted}, arrays, ""
    )
    if arrays:
        raise TypeError(f"{sorted(arrays)} are arrays of numbers: give plain numbers or lists.")
    return out


def _is_plain(random_state: Any) -> bool:
    return not isinstance(random_state, np.random.RandomState | np.random.Generator)


def _model_class(name: str) -> type[EncodingRegressor]:
    kinds = {kind.__name__: kind for kind in subclasses(EncodingRegressor)}
    if name not in kinds:
        raise ValueError(f"its members are of the unknown class {name}")
    return kinds[name]


def _member_path(name: str) -> Path:
    """Place of a member within the ensemble's directory; nothing outside is read."""
    if not re.fullmatch(r"members-[0-9a-f]{16}/[0-9]+", name):
        raise ValueError(f"{name!r} is no member of an ensemble")
    return Path(name)


def subclasses(kind: type) -> list[type]:
    """All classes that derive from one, directly or not."""
    return [k for child in kind.__subclasses__() for k in (child, *subclasses(child))]


def _is_free(path: Path) -> bool:
    """Whether an ensemble may be written there: over an earlier model, or where nothing is."""
    if path.is_dir() and not (path / MODEL_FILE).exists():
        return all(_is_remains(file) for file in path.iterdir())
    return _persistence.is_free(path)


def _is_remains(file: Path) -> bool:
    """Whether a file or directory is of an earlier `save`, finished or not."""
    if file.is_dir():
        return re.fullmatch("members-[0-9a-f]{16}", file.name) is not None
    return _persistence.is_remains(file)
