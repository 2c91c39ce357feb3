"""From parameters and trials to a run of the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from v1tlearn._warn import warn
from v1tlearn.estimators._describe import check_validation
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators.mouse_data import bring
from v1tlearn.metrics.tensors import correlation
from v1tlearn.nn import EncodingModel, squared_loss
from v1tlearn.training import (
    ConstantSchedule,
    NonFiniteLossError,
    PlateauSchedule,
    PoissonObjective,
    RateObjective,
    RoundsSchedule,
    Run,
    TrainingSettings,
    make_optimizer,
    resolve_device,
    resolve_precision,
    resolve_settings,
    update_groups,
)
from v1tlearn.training.objectives import Record
from v1tlearn.trials import Responses, Trials

Part = tuple[Trials, Responses]


class Start(NamedTuple):
    """What a training goes on from."""

    fitted: Fitted
    model: EncodingModel
    state: dict[str, Any]


def make_run(
    parameters: Mapping[str, Any],
    start: Start,
    training: Part,
    held_out: Part | None,
    max_epochs: int,
    name: str,
) -> Run:
    """Bring model and data to the device, and make the run that the parameters ask for."""
    fitted, model, state = start
    device = resolve_device(parameters["device"])
    model.to(device)
    to_device = partial(
        bring,
        fitted,
        device=device,
        stream=parameters["low_memory"],
        count_recording=parameters["loss_scale"] == "sqrt_recording",
    )
    data, validation = to_device(*training), None
    if held_out is not None:
        check_like_fit(fitted, model, held_out[0], whose="validation")
        check_validation(held_out[1])
        validation = to_device(*held_out)
    settings = TrainingSettings(
        batch_size=parameters["batch_size"],
        max_epochs=max_epochs,
        joint=parameters["core_pass"] == "joint",
        precision=resolve_precision(parameters["precision"], device, training=True),
        deterministic=parameters["deterministic"],
        compile=parameters["compile"],
        micro_batch_size=parameters["micro_batch_size"],
        checkpoint_activations=parameters["low_memory"],
        ema_decay=parameters["ema_decay"],
    )
    objective = _objective(parameters)
    optimizer = make_optimizer(
        model,
        parameters["optimizer"],
        lr=parameters["lr"],
        core_lr=parameters["core_lr"],
        betas=parameters["betas"],
        weight_decay=parameters["weight_decay"],
    )
    if state["optimizer"] is not None:
        state["optimizer"] = update_groups(state["optimizer"], optimizer)
    return Run(
        model,
        objective,
        optimizer,
        _schedule(parameters) if validation is not None else ConstantSchedule(),
        data,
        resolve_settings(model, objective, data, settings),
        state,
        validation=validation,
        name=name,
    )


def is_good(record: Record) -> bool:
    """Whether after an epoch the validation trials, where there are any, were predicted."""
    return math.isfinite(record.get(RateObjective.score_name, 0.0))


def check_good(history: Sequence[Record]) -> None:
    """Refuse a training, if there was one, without a good epoch; warn of others in between."""
    lost = [record for record in history if not is_good(record)]
    if not lost:
        return
    if len(lost) < len(history):
        warn(
            f"predictions of the validation trials were not finite after the epochs "
            f"{[record['epoch'] for record in lost]} of {len(history)}, which were not kept: "
            "lower lr (a tenth is a good start), or look for extreme values."
        )
        return
    own = RateObjective.score_of("")
    values = {name.removeprefix(own): v for name, v in lost[0].items() if name.startswith(own)}
    mouse = next(mouse for mouse, value in values.items() if not math.isfinite(value))
    raise NonFiniteLossError(mouse, lost[0]["epoch"])


def _objective(parameters: Mapping[str, Any]) -> RateObjective:
    loss = parameters.get("loss", "poisson")
    scales = {name: parameters[name] for name in ("loss_scale", "penalty_scale")}
    if loss == "poisson":
        return PoissonObjective(
            _mean_correlation, loss_epsilon=parameters["loss_epsilon"], **scales
        )
    loss = squared_loss if loss == "squared" else loss
    return RateObjective(loss, _mean_correlation, **scales)


def _schedule(parameters: Mapping[str, Any]) -> ConstantSchedule | PlateauSchedule | RoundsSchedule:
    if parameters["schedule"] == "constant":
        return ConstantSchedule()
    if parameters["schedule"] == "rounds":
        return RoundsSchedule(
            parameters["lr_patience"], parameters["lr_factor"], parameters["max_lr_drops"] + 1
        )
    return PlateauSchedule(
        parameters["lr_patience"], parameters["lr_factor"], parameters["max_lr_drops"]
    )


def _mean_correlation(
    predictions: torch.Tensor, responses: torch.Tensor, recorded: torch.Tensor | None
) -> torch.Tensor:
    """Validation score of one mouse: mean correlation of the neurons that were recorded."""
    return correlation(predictions, responses, recorded).nanmean()
