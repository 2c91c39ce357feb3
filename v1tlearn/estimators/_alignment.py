"""From trials to what an alignment knows of them, its run, and the maps that it gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from v1tlearn.estimators._alike import check_images
from v1tlearn.estimators._describe import describe
from v1tlearn.estimators._features import DataOf, features_for
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._populations import check_recorded
from v1tlearn.estimators._runs import Part, Start
from v1tlearn.estimators.moments import response_blocks
from v1tlearn.estimators.mouse_data import bring
from v1tlearn.estimators.placement import scale_responses
from v1tlearn.nn import (
    AlignmentModel,
    FeatureAlignment,
    PretrainedTower,
    check_towers,
)
from v1tlearn.training import (
    ConstantSchedule,
    ContrastiveObjective,
    MouseData,
    Run,
    StagnationSchedule,
    TrainingSettings,
    join,
    make_optimizers,
    resolve_device,
    resolve_precision,
    resolve_settings,
    update_groups,
)
from v1tlearn.training.devices import autocast
from v1tlearn.training.memory import prediction_batch_size
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials.whole import blocks_of_recording

# What other models do with behaviour; nothing of it enters an alignment.
NO_BEHAVIOR = {
    "behavior_mode": "none",
    "behavior_columns": "non_pupil",
    "shift": "none",
    "shift_columns": "pupil",
}


def describe_alignment(
    parameters: Mapping[str, Any], trials: Trials, target: Responses, seed: int
) -> Fitted:
    """Learn of training trials what an alignment has to know of its mice.

    Images of all mice are standardised alike, since one gallery serves all; of responses the range
    is kept, too, over the trials or, where the parameters say so, over the whole recordings.
    """
    fitted = describe(parameters, trials, target, published_mode="none", seed=seed, rates=False)
    check_images(trials)
    counts = {mouse: len(trials.rows(mouse)[0]) for mouse in fitted.mice}
    shares = {mouse: n / sum(counts.values()) for mouse, n in counts.items()}
    own = {m: mouse.statistics for m, mouse in fitted.mice.items()}
    mean = sum(shares[m] * one["image_mean"] for m, one in own.items())
    square = sum(  # of deviations, which a large mean does not swallow
        shares[m] * (one["image_std"] ** 2 + (one["image_mean"] - mean) ** 2)
        for m, one in own.items()
    )
    pooled = {"image_mean": float(mean), "image_std": float(np.sqrt(square))}
    ranges = {m: _range(response_blocks(target, m)) for m in fitted.mice}
    if parameters["range_over"] == "recording":
        ranges = {
            m: _of_recording(m, ranges[m], _range(blocks_of_recording(trials, m))) for m in ranges
        }
    mice = {
        m: replace(mouse, statistics={**mouse.statistics, **pooled, **ranges[m]})
        for m, mouse in fitted.mice.items()
    }
    return replace(fitted, mice=mice)


def _range(blocks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Lowest and highest response of each neuron; both 0 where none was recorded."""
    low, high = np.inf, -np.inf
    for block in blocks:
        low = np.fmin(low, np.fmin.reduce(block, axis=0))
        high = np.fmax(high, np.fmax.reduce(block, axis=0))
    return {
        name: np.where(np.isfinite(values), values, 0).astype(np.float32)
        for name, values in (("response_low", low), ("response_high", high))
    }


def _of_recording(
    mouse: str, own: dict[str, np.ndarray], whole: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The range over a recording, if that over the training is within."""
    beyond = own["response_low"] < whole["response_low"]
    beyond |= own["response_high"] > whole["response_high"]
    if beyond.any():
        raise ValueError(
            f"mouse {mouse!r}: y holds responses beyond those of the recording, over which "
            "range_over='recording' takes their range: use trials.responses, or "
            "range_over='train'."
        )
    return whole


def make_alignment_run(
    parameters: Mapping[str, Any],
    start: Start,
    training: Part,
    held_out: Part | None,
    max_epochs: int,
    name: str,
) -> Run:
    """Bring model and data to the device, and make the run that the parameters ask for."""
    fitted, _, state = start
    model = cast(AlignmentModel, start.model)
    check_towers(model.core, *model.readouts)
    device = resolve_device(parameters["device"])
    model.to(device)
    stream = parameters["low_memory"]

    def to_device(trials: Trials, target: Responses) -> dict[str, MouseData]:
        """Bring trials, and which image each shows."""
        for mouse in target.mice:
            _check_recorded(target, mouse)
        data = bring(fitted, trials, target, device, stream=stream, count_recording=False)
        for mouse, own in data.items():
            shown = trials.image_ids[trials.rows(mouse)[0]]
            labels = np.unique(shown, return_inverse=True)[1]
            own.labels = torch.from_numpy(labels.astype(np.int64)).to(device)
        return data

    data: DataOf = to_device(*training)
    validation: DataOf | None = None
    if held_out is not None:
        check_like_fit(fitted, model, held_out[0], whose="validation")
        check_images(held_out[0], "the validation")
        validation = to_device(*held_out)
    # What a run asks of a model and of an objective is here, too; its types name encoding models.
    trained: Any = model
    if isinstance(model.core, PretrainedTower):
        features = features_for(parameters, model.core.features, model.cropper, data, validation)
        if features is not None:
            trained, (data, validation) = FeatureAlignment(model), features
    objective: Any = ContrastiveObjective(
        tuple(parameters["loss_weights"]),
        at_once=parameters["micro_batch_size"],
        selection=parameters["selection"],
    )
    optimizers = make_optimizers(
        model,
        **{n: parameters[n] for n in ("image_lr", "image_weight_decay")},
        **{n: parameters[n] for n in ("neural_lr", "neural_smoothing")},
    )
    if state["optimizer"] is not None:
        saved = state["optimizer"]
        saved = [saved] if isinstance(saved, dict) else saved
        state["optimizer"] = [
            update_groups(one, now) for one, now in zip(saved, optimizers, strict=True)
        ]
    settings = TrainingSettings(
        batch_size=parameters["batch_size"],
        max_epochs=max_epochs,
        precision=resolve_precision(parameters["precision"], device, training=True),
        deterministic=parameters["deterministic"],
        compile=False,
        checkpoint_activations=parameters["low_memory"],
    )
    ranks = join()
    schedule = StagnationSchedule(
        parameters["lr_patience"],
        parameters["lr_factor"],
        parameters["patience"],
        keep_last=parameters["keep"] == "last",
    )
    return Run(
        trained,
        objective,
        optimizers,
        schedule if validation is not None else ConstantSchedule(),
        data,
        resolve_settings(trained, objective, data, settings, ranks),
        state,
        ranks,
        validation=validation,
        name=name,
    )


def _check_recorded(target: Responses, mouse: str) -> None:
    """Refuse trials of which no response was recorded."""
    start, rows = 0, target.rows(mouse)[1]
    for block in response_blocks(target, mouse):
        check_recorded(block, mouse, rows[start : start + len(block)])
        start += len(block)


@torch.inference_mode()
def image_maps(model: AlignmentModel, data: MouseData, precision: str) -> Iterator[Tensor]:
    """Maps (n, C, H, W) of the images of a mouse, some at a time, on the device."""
    device = data.device
    size = prediction_batch_size(model, device)
    model.eval()
    precision = resolve_precision(precision, device, training=False)
    for start in range(0, len(data), size):
        with autocast(precision, device):  # and not over what is done with the maps
            maps = model.encode_images(data.batch(slice(start, start + size)).images)
        yield maps.float()


@torch.inference_mode()
def response_maps(
    model: AlignmentModel,
    fitted: Fitted,
    mouse: str,
    responses: np.ndarray,
    device: torch.device,
    precision: str,
) -> Iterator[Tensor]:
    """Maps (n, C, H, W) of the responses of a mouse, in their units, some at a time."""
    scale = fitted.mice[mouse].statistics["response_scale"]
    size = prediction_batch_size(model, device)
    model.eval()
    precision = resolve_precision(precision, device, training=False)
    for start in range(0, len(responses), size):
        rows = np.arange(start, min(start + size, len(responses)))
        scaled = torch.from_numpy(scale_responses(responses[rows], mouse, scale, rows)).to(device)
        recorded = ~scaled.isnan()
        with autocast(precision, device):
            maps = model.encode_responses(mouse, torch.where(recorded, scaled, 0), recorded)
        yield maps.float()
