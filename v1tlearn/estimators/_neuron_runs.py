"""From parameters and trials to a run of the training of minimodels, and what it cannot train."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from v1tlearn._values import first_few
from v1tlearn._warn import warn
from v1tlearn.estimators._describe import recorded_moments
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._runs import Part, Start, drawing, make_schedule
from v1tlearn.estimators.mouse_data import bring
from v1tlearn.metrics.tensors import correlation, variance_explained
from v1tlearn.nn import EncodingModel, poisson_loss
from v1tlearn.training import (
    NeuronObjective,
    NeuronOptions,
    NeuronRun,
    NeuronSchedule,
    TrainingSettings,
    join,
    resolve_device,
    resolve_precision,
)
from v1tlearn.training.neuron_steps import minimodels
from v1tlearn.trials import Responses

_SCORES = {
    "variance_explained": ("validation_variance_explained", variance_explained),
    "correlation": ("validation_correlation", correlation),
}


def make_neuron_run(
    parameters: Mapping[str, Any],
    start: Start,
    training: Part,
    held_out: Part | None,
    max_epochs: int,
    name: str,
) -> NeuronRun:
    """Bring model and data to the device, and make the run that the parameters ask for."""
    fitted, model, state = start
    device = resolve_device(parameters["device"])
    model.to(device)
    to_device = partial(
        bring, fitted, device=device, stream=parameters["low_memory"], count_recording=False
    )
    data, validation = to_device(*training), None
    if held_out is not None:
        check_like_fit(fitted, model, held_out[0], whose="validation")
        _check_constant(held_out[1], parameters["selection"])
        validation = to_device(*held_out)
    precision = parameters["precision"]
    if precision == "auto":
        precision = "tf32" if device.type == "cuda" else "float32"
    settings = TrainingSettings(
        batch_size=parameters["batch_size"],
        max_epochs=max_epochs,
        precision=resolve_precision(precision, device, training=True),
        deterministic=parameters["deterministic"],
        checkpoint_activations=parameters["low_memory"],
    )
    options = NeuronOptions(
        parameters["lr"],
        tuple(parameters["betas"]),
        parameters["weight_decay"],
        decoupled=parameters["optimizer"] == "adamw",
    )
    draw, drawn = drawing(parameters, data)
    make = partial(make_schedule, parameters, judged=validation is not None)
    trained = {mouse: responding(fitted, mouse) for mouse in data}
    return NeuronRun(
        model,
        _objective(parameters),
        options,
        NeuronSchedule(make, trained),
        drawn,
        settings,
        state,
        join(),
        validation=validation,
        neurons_at_once=parameters["neurons_at_once"],
        draw=draw,
        name=name,
    )


def _objective(parameters: Mapping[str, Any]) -> NeuronObjective:
    judge = parameters["selection"]
    scores = dict([_SCORES[judge], *(s for name, s in _SCORES.items() if name != judge)])
    loss = partial(poisson_loss, eps=parameters["loss_epsilon"])
    return NeuronObjective(loss, scores, parameters["loss_scale"] == "per_recorded")


def responding(fitted: Fitted, mouse: str) -> np.ndarray:
    """Tell which neurons of a mouse responded in any trial at `fit`, and so can be trained."""
    return np.nan_to_num(fitted.mice[mouse].statistics["response_mean"]) != 0


def silence(model: EncodingModel, fitted: Fitted) -> None:
    """Let neurons that were silent at `fit`, of which there was a warning, stay so."""
    for mouse in fitted.mice:
        silent = np.flatnonzero(~responding(fitted, mouse))
        if len(silent):
            minimodels(model, mouse).silence_(torch.from_numpy(silent))


def warn_of_awoken(fitted: Fitted, target: Responses) -> None:
    """Warn of neurons that were silent at `fit`, and respond in the trials to go on with."""
    for mouse in target.mice:
        responds = np.nan_to_num(recorded_moments(target, mouse).mean) != 0
        awoken = np.flatnonzero(responds & ~responding(fitted, mouse))
        if len(awoken):
            warn(
                f"mouse {mouse!r}: {len(awoken)} of {len(responds)} neurons never responded in the "
                f"trials of the first fit and do now, {first_few(awoken, 'neuron')}: they are not "
                "trained all the same, and predicted to stay silent. To train them, fit anew on "
                "all trials, with warm_start=False."
            )


def _check_constant(target: Responses, selection: str) -> None:
    """Warn of neurons whose validation responses tell no share of variance; refuse them alone."""
    every = True
    for mouse in target.mice:
        moments = recorded_moments(target, mouse)
        constant = np.flatnonzero(~(np.nan_to_num(moments.std) > 0))
        every = every and len(constant) == len(moments.std)
        if len(constant):
            warn(
                f"mouse {mouse!r}: the responses of {len(constant)} of {len(moments.std)} neurons "
                f"do not vary over the validation trials, {first_few(constant, 'neuron')}: their "
                "epochs are judged by the squared error, and without any response the last epoch "
                "is kept. Give more validation trials, or leave these neurons out."
            )
    if every and selection == "variance_explained":
        raise ValueError(
            f"no neuron's responses vary over the validation trials of the mice {target.mice}, so "
            "that there is no variance to explain: give other trials, or use "
            "selection='correlation'."
        )


def warn_of_lost(state: Mapping[str, Any]) -> None:
    """Warn of neurons whose loss was not finite at some epoch."""
    for mouse, entries in (state["schedule"] or {}).get("neurons", {}).items():
        lost = np.flatnonzero(entries["lost"])
        if len(lost):
            warn(
                f"mouse {mouse!r}: the loss or predictions of {len(lost)} of "
                f"{len(entries['lost'])} neurons were not finite after some epoch, "
                f"{first_few(lost, 'neuron')}: they keep the best weights of before, or the first. "
                "Lower lr (a tenth is a good start), or look for extreme values."
            )
