"""From parameters and trials to a run of the training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from v1tlearn._warn import warn
from v1tlearn.estimators._describe import check_validation
from v1tlearn.estimators._features import DataOf, features_for
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._movies import movie_lengths, rate_of_movies, rates_differ
from v1tlearn.estimators.moments import response_blocks
from v1tlearn.estimators.mouse_data import bring
from v1tlearn.metrics.tensors import CorrelationSums, VarianceSums
from v1tlearn.nn import EncodingModel, FeatureModel, squared_loss
from v1tlearn.training import (
    ConstantSchedule,
    CosineSchedule,
    MouseData,
    MovieData,
    NonFiniteLossError,
    PeriodsSchedule,
    PlateauSchedule,
    PoissonObjective,
    RateObjective,
    ReduceSchedule,
    RoundsSchedule,
    Run,
    Schedule,
    TrainingSettings,
    cut_into_windows,
    join,
    make_optimizer,
    resolve_device,
    resolve_precision,
    resolve_settings,
    update_groups,
)
from v1tlearn.training.data import Draw, epoch_batches
from v1tlearn.training.judging import SummedScore
from v1tlearn.training.objectives import Record
from v1tlearn.training.shuffling import block_batches, steps_of_window
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._places import movies_and_frames

Part = tuple[Trials, Responses]

# By which epochs may be judged, and what it is called in the history.
_SCORES = {
    "correlation": "validation_correlation",
    "variance_explained": "validation_variance_explained",
    "absolute_correlation": "validation_absolute_correlation",
}
_JUDGED = (*_SCORES.values(), "validation_top1")

MEAN_CORRELATION = SummedScore(CorrelationSums)  # of the neurons that were recorded

_LEAST_SQUARES = 1e-8  # of the scaled validation responses of a neuron, as published


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
    data: DataOf = to_device(*training)
    validation: DataOf | None = None
    if held_out is not None:
        check_like_fit(fitted, model, held_out[0], whose="validation")
        check_validation(held_out[1], parameters["selection"])
        validation = to_device(*held_out)
    trained, features = model, features_for(parameters, model.core, model.cropper, data, validation)
    if features is not None:
        trained, (data, validation) = FeatureModel(model), features
    if model.context_frames is not None:
        _refuse_movies_without_responses(*training)
        window = parameters["window_frames"]
        data = windows_of(training[0], data, model.context_frames, window)
        if held_out is not None and validation is not None:
            validation = windows_of(held_out[0], validation, model.context_frames, window)
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
        clip_norm=parameters["clip_norm"],
    )
    objective, ranks = _objective(parameters), join()
    optimizer = make_optimizer(
        model,
        parameters["optimizer"],
        lr=parameters["lr"],
        core_lr=parameters["core_lr"],
        betas=parameters["betas"],
        weight_decay=parameters["weight_decay"],
    )
    draw, data = drawing(parameters, data)
    if state["optimizer"] is not None:
        state["optimizer"] = update_groups(state["optimizer"], optimizer)
    return Run(
        trained,
        objective,
        optimizer,
        make_schedule(parameters, judged=validation is not None),
        data,
        resolve_settings(trained, objective, data, settings, ranks),
        state,
        ranks,
        validation=validation,
        draw=draw,
        name=name,
    )


def drawing(parameters: Mapping[str, Any], data: DataOf) -> tuple[Draw, DataOf]:
    """Give what draws the batches, and the data that tell how these are read."""
    block, batch_size = parameters["shuffle_block"], parameters["batch_size"]
    if block == 1:
        return epoch_batches, data
    steps = steps_of_window(batch_size, block)
    in_blocks = {mouse: replace(own, read_steps=steps) for mouse, own in data.items()}
    return partial(block_batches, block=block), in_blocks


def windows_of(
    frames: Trials, data: Mapping[str, MouseData], context: tuple[int, int], window: int
) -> dict[str, MovieData]:
    """Cut the movies of trials that are frames into windows, for a model that sees time."""
    check_one_rate(frames, data)
    lengths = {mouse: movie_lengths(frames, mouse) for mouse in data}
    return cut_into_windows(data, lengths, context, window)


def _refuse_movies_without_responses(frames: Trials, target: Responses) -> None:
    """Refuse movies of which nothing was recorded, and a model that sees time learns nothing."""
    for mouse in target.mice:
        blocks = response_blocks(target, mouse)
        recorded = np.concatenate([~np.isnan(block).all(axis=1) for block in blocks])
        begin = 0
        for n in movie_lengths(frames, mouse):
            if not recorded[begin : begin + n].any():
                row = frames.rows(mouse)[1][begin : begin + 1]
                (trial,), _ = cast(tuple, movies_and_frames(frames, mouse, row))
                raise ValueError(
                    f"mouse {mouse!r}: responses of trial {trial} are NaN in all of its {n} frames "
                    "and neurons: expected some in each movie to train on. Leave this one out."
                )
            begin += n


def check_one_rate(frames: Trials, mice: Iterable[str]) -> None:
    """Refuse movies of different frame rates, for a model that sees time."""
    rates = {mouse: rate_of_movies(frames, mouse) for mouse in mice}
    if rates_differ(rates.values()):
        raise ValueError(
            f"the movies of the mice have different frame rates, {rates} per second, and a model "
            "that sees time counts frames: bring stimuli and responses to one rate."
        )


def is_good(record: Record) -> bool:
    """Whether an epoch gave numbers, of the validation trials, too, where there are any."""
    return all(math.isfinite(record.get(name, 0.0)) for name in ("loss", *_JUDGED))


def check_good(history: Sequence[Record]) -> None:
    """Refuse a training, if there was one, without a good epoch; warn of others in between."""
    lost = [record for record in history if not is_good(record)]
    if not lost:
        return
    if len(lost) < len(history):
        warn(
            "the loss or predictions of the validation trials were not finite after the epochs "
            f"{[record['epoch'] for record in lost]} of {len(history)}, which were not kept: "
            "lower lr (a tenth is a good start), or look for extreme values."
        )
        return
    mouse = next(
        name.removeprefix(f"{score}_")
        for score in _JUDGED
        for name, value in lost[0].items()
        if name.startswith(f"{score}_") and not math.isfinite(value)
    )
    raise NonFiniteLossError(mouse, int(lost[0]["epoch"]))


def _objective(parameters: Mapping[str, Any]) -> RateObjective:
    loss, scale = parameters.get("loss", "poisson"), parameters["loss_scale"]
    judge, score, also = parameters["selection"], MEAN_CORRELATION, {}
    if judge == "variance_explained":
        also = {_SCORES["correlation"]: score}
        score = SummedScore(partial(VarianceSums, _LEAST_SQUARES))  # of the neurons that vary
    options = {"loss_scale": scale, "penalty_scale": parameters["penalty_scale"]}
    options |= {"score_name": _SCORES[judge], "also": also}
    if loss == "poisson":
        return PoissonObjective(score, loss_epsilon=parameters["loss_epsilon"], **options)
    if scale == "per_recorded" and loss != "squared":
        raise ValueError(
            "loss_scale='per_recorded' needs the loss of each neuron, which a loss of your own "
            "does not give: use loss='poisson' or 'squared', or loss_scale='per_neuron'."
        )
    return RateObjective(squared_loss if loss == "squared" else loss, score, **options)


def make_schedule(parameters: Mapping[str, Any], *, judged: bool = True) -> Schedule:
    """Make the schedule that the parameters ask for, as far as it can do without scores."""
    if not judged and parameters["schedule"] != "cosine":
        return ConstantSchedule()
    patience, factor = parameters["lr_patience"], parameters["lr_factor"]
    drops, min_lr = parameters["max_lr_drops"], parameters["min_lr"]
    match parameters["schedule"]:
        case "constant":
            return ConstantSchedule()
        case "rounds":
            return RoundsSchedule(patience, factor, drops + 1)
        case "periods":
            epochs, carry = parameters["period_epochs"], parameters["carry_patience"]
            return PeriodsSchedule(epochs, patience, factor, carry)
        case "cosine":
            if parameters["lr"] <= min_lr:
                raise ValueError(
                    f"schedule='cosine' lets lr fall to min_lr, but lr is {parameters['lr']} and "
                    f"min_lr {min_lr}: expected a min_lr below lr; 0 is one."
                )
            return CosineSchedule(max(1, parameters["max_epochs"]), patience, min_lr)
        case "reduce":
            return ReduceSchedule(parameters["lr"], patience, factor, min_lr)
    return PlateauSchedule(patience, factor, drops)
