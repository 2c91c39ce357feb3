"""From the parameters of Vi-ST and movies to a run of its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from v1tlearn._warn import warn
from v1tlearn.estimators._describe import check_validation
from v1tlearn.estimators._features import features_for
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._movies import movie_lengths
from v1tlearn.estimators._runs import MEAN_CORRELATION, Part, Start, check_one_rate, windows_of
from v1tlearn.estimators.moments import response_blocks
from v1tlearn.estimators.mouse_data import bring
from v1tlearn.metrics.tensors import CorrelationSums
from v1tlearn.nn import FeatureModel, sharing, squared_loss, vist_loss
from v1tlearn.nn.contrastive import root_mean_square_error
from v1tlearn.nn.losses import poisson_loss
from v1tlearn.training import (
    ConstantSchedule,
    EpochAverage,
    MouseData,
    RandomWindows,
    Run,
    Schedule,
    SequenceObjective,
    TrainingSettings,
    WarmupSchedule,
    all_windows,
    join,
    make_optimizer,
    resolve_device,
    resolve_precision,
    resolve_settings,
    update_groups,
)
from v1tlearn.training.judging import SummedScore
from v1tlearn.training.sequences import longest_runs
from v1tlearn.trials import Responses, Trials


def make_vist_run(
    parameters: Mapping[str, Any],
    start: Start,
    training: Part,
    held_out: Part | None,
    max_epochs: int,
    name: str,
) -> Run:
    """Bring model and movies to the device, and make the run that the parameters ask for."""
    fitted, model, state = start
    device = resolve_device(parameters["device"])
    model.to(device)
    stream = parameters["low_memory"]
    to_device = partial(bring, fitted, device=device, stream=stream, count_recording=False)
    frames: Mapping[str, MouseData] = to_device(*training)
    judged: Mapping[str, MouseData] | None = None
    if held_out is not None:
        check_like_fit(fitted, model, held_out[0], whose="validation")
        check_validation(held_out[1], parameters["selection"])
        judged = to_device(*held_out)
    trained, features = model, features_for(parameters, model.core, model.cropper, frames, judged)
    if features is not None:
        trained, (frames, judged) = FeatureModel(model), features
    check_one_rate(training[0], frames)
    lengths = {mouse: movie_lengths(training[0], mouse) for mouse in frames}
    recorded = {mouse: _recorded(training[1], mouse) for mouse in frames}
    data = all_windows(frames, lengths, recorded, parameters["window_frames"])
    for mouse in frames:
        runs = longest_runs(lengths[mouse], recorded[mouse])
        _warn_of_short_movies(mouse, runs, parameters["window_frames"])
    validation = None
    if held_out is not None and judged is not None:
        context = model.context_frames
        assert context is not None  # every Vi-ST says what it sees
        window = _validation_window(held_out[0], context, parameters["window_frames"])
        validation = windows_of(held_out[0], judged, context, window)
    settings = TrainingSettings(
        batch_size=parameters["batch_size"],
        max_epochs=max_epochs,
        precision=resolve_precision(parameters["precision"], device, training=True),
        deterministic=parameters["deterministic"],
        compile=False,
        prediction_batch_size=parameters["window_frames"],  # whole movies are judged, in parts
        checkpoint_activations=False,
    )
    optimizer = make_optimizer(
        model,
        "adamw",
        lr=parameters["lr"],
        core_lr=None,
        betas=(0.9, 0.999),
        weight_decay=parameters["weight_decay"],
    )
    if state["optimizer"] is not None:
        state["optimizer"] = update_groups(state["optimizer"], optimizer)
    objective, ranks = _objective(parameters), join()
    return Run(
        trained,
        objective,
        optimizer,
        _schedule(parameters),
        data,
        resolve_settings(trained, objective, data, settings, ranks),
        state,
        ranks,
        validation=validation,
        draw=RandomWindows(parameters["steps_per_epoch"]),
        average=_average(parameters),
        name=name,
    )


def _recorded(target: Responses, mouse: str) -> np.ndarray:
    """Frames in which all neurons were recorded."""
    blocks = response_blocks(target, mouse)
    return np.concatenate([~np.isnan(np.asarray(block)).any(axis=1) for block in blocks])


def _warn_of_short_movies(mouse: str, runs: np.ndarray, window: int) -> None:
    """Warn of movies that no window fits into, by the frames in a row that it may hold."""
    short = runs < window
    if short.any():
        warn(
            f"mouse {mouse!r}: {short.sum()} of {len(runs)} movies have no {window} frames in a "
            f"row with responses of all neurons, one of them {runs.min()}, and are not trained on: "
            f"set window_frames={runs.min()} or less, or leave them out."
        )


def _validation_window(frames: Trials, context: tuple[int, int], window: int) -> int:
    """Frames that are judged at once: as many as their context, within the movies there are."""
    lengths = [movie_lengths(frames, mouse) for mouse in frames.mice]
    wanted = min(max(window, sum(context)), *(int(own.max()) for own in lengths))
    if context[1]:  # then no movie may end within a window
        wanted = min(wanted, *(int(own.min()) - sum(context) for own in lengths))
    return max(1, wanted)


def _objective(parameters: Mapping[str, Any]) -> SequenceObjective:
    judges = {
        "correlation": ("validation_correlation", MEAN_CORRELATION),
        "absolute_correlation": (
            "validation_absolute_correlation",
            SummedScore(CorrelationSums, _mean_of_absolutes),
        ),
    }
    name, score = judges.pop(parameters["selection"])
    also = dict(judges.values())
    loss, of_frames = _LOSSES[parameters["loss"]]
    return SequenceObjective(loss, of_frames, score, score_name=name, also=also)


def _poisson(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean Poisson loss of a response."""
    n = prediction.shape[-1]
    own = poisson_loss(prediction.reshape(-1, n), target.reshape(-1, n)) / target.numel()
    return sharing.mean(own, target.numel())


_Loss = Callable[..., Tensor]
_LOSSES: dict[str, tuple[_Loss, _Loss]] = {
    "vist": (vist_loss, squared_loss),
    "rmse": (root_mean_square_error, squared_loss),
    "poisson": (_poisson, poisson_loss),
}


def _schedule(parameters: Mapping[str, Any]) -> Schedule:
    n_epochs, first = parameters["max_epochs"], parameters["average_from"]
    if not n_epochs:
        return ConstantSchedule()
    return WarmupSchedule(
        n_epochs,
        parameters["warmup_epochs"],
        parameters["start_lr"],
        parameters["min_lr"],
        average_from=None if first is None or first >= n_epochs else first,
        average_lr=parameters["average_lr"],
    )


def _average(parameters: Mapping[str, Any]) -> EpochAverage | None:
    first = parameters["average_from"]
    epochs = range(0 if first is None else first, parameters["max_epochs"])
    if first is None or not len(epochs):
        return None
    return EpochAverage(epochs, parameters["steps_per_epoch"])


def _mean_of_absolutes(correlations: Tensor) -> Tensor:
    """As published: a correlation of the wrong sign counts as one of the right sign."""
    return correlations.abs().nanmean()
