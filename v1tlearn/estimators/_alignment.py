"""From parameters and trials to the model of an alignment, its run, and the maps that it gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v1tlearn._values import plain
from v1tlearn.estimators._build import output_size, takes
from v1tlearn.estimators._describe import describe
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._runs import Part, Start
from v1tlearn.estimators.moments import response_blocks
from v1tlearn.estimators.mouse_data import bring
from v1tlearn.estimators.placement import scale_responses
from v1tlearn.nn import (
    AlignmentModel,
    AttentionTower,
    CNNTower,
    Core,
    DSNetTower,
    ImageCropper,
    MLPTower,
    NeuralTower,
    ResponseScaler,
    unit_length,
)
from v1tlearn.training import (
    ConstantSchedule,
    ContrastiveObjective,
    MouseData,
    Run,
    StagnationSchedule,
    TrainingSettings,
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
    square = sum(
        shares[m] * (one["image_std"] ** 2 + one["image_mean"] ** 2) for m, one in own.items()
    )
    pooled = {"image_mean": float(mean), "image_std": float(np.sqrt(square - mean**2))}
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


def check_images(trials: Trials, whose: str = "all") -> None:
    """Check that there is something to tell apart."""
    for mouse in trials.mice:
        n = len(np.unique(trials.image_ids[trials.rows(mouse)[0]]))
        if n < 2:
            raise ValueError(
                f"mouse {mouse!r}: {whose} trials show one image: an alignment tells images "
                "apart, give trials of at least 2"
                + (", or set validation_fraction=0." if whose != "all" else ".")
            )


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


def build_alignment(parameters: Mapping[str, Any], fitted: Fitted) -> AlignmentModel:
    """Build the model that the parameters and the recordings ask for."""
    size = fitted.image_shape[1:]
    cropper = ImageCropper(
        size,
        crop_scale=parameters["crop_scale"],
        image_size=output_size(parameters["image_size"], size),
    )
    map_shape = (parameters["map_channels"], *map(plain, parameters["map_size"]))
    core = _image_tower(parameters, (fitted.image_shape[0], *cropper.output_size), map_shape)
    model = AlignmentModel(
        core,
        {
            name: _neural_tower(parameters, mouse.n_neurons, core.output_shape)
            for name, mouse in fitted.mice.items()
        },
        cropper=cropper,
        scalers={
            name: _scaler(parameters["response_scale"], mouse.statistics)
            for name, mouse in fitted.mice.items()
        },
        map_scale=parameters["map_scale"],
        temperature=parameters["temperature"],
        learn_temperature=parameters["learn_temperature"],
    )
    if parameters["train_image_tower"] is False:
        model.core.freeze()
    return model.float()  # whatever torch's default dtype is


def _image_tower(
    parameters: Mapping[str, Any], input_shape: tuple[int, ...], map_shape: tuple[int, ...]
) -> Core:
    kind, trained = parameters["image_tower"], parameters["train_image_tower"]
    if trained == "projection" and kind != "dsnet":
        raise ValueError(
            f"train_image_tower='projection' with image_tower={kind!r}: only 'dsnet' has a "
            "projection apart, use True or False."
        )
    if kind == "cnn":
        names = ("hidden_channels", "n_layers", "input_kernel", "hidden_kernel")
        return CNNTower(input_shape, map_shape, **{name: parameters[name] for name in names})
    if kind == "dsnet":
        return DSNetTower(
            input_shape,
            map_shape,
            dims=parameters["stage_dims"],
            depths=parameters["stage_depths"],
            n_heads=parameters["stage_heads"],
            reductions=parameters["stage_reductions"],
            cross_attention=parameters["cross_attention"],
            backbone_trained=trained != "projection",
        )
    core = kind(input_shape, map_shape=map_shape) if takes(kind, "map_shape") else kind(input_shape)
    if not isinstance(core, Core):
        raise TypeError(
            f"image_tower gave a {type(core).__name__}: expected a v1tlearn.nn.Core: derive the "
            "class from it and call super().__init__(input_shape)."
        )
    return core


def _neural_tower(
    parameters: Mapping[str, Any], n_neurons: int, map_shape: tuple[int, ...]
) -> NeuralTower:
    kind, grid = parameters["neural_tower"], parameters["grid"]
    if isinstance(grid, str):
        grid = tuple(max(1, side // 2) for side in map_shape[1:])
    common = {"grid": grid, "hidden_units": tuple(parameters["hidden_units"])}
    if kind == "mlp":
        names = ("neural_channels", "dropout")
        channels, dropout = (parameters[name] for name in names)
        return MLPTower(n_neurons, map_shape, **common, hidden_channels=channels, dropout=dropout)
    if kind == "attention":
        embed_dim, n_heads = parameters["embed_dim"], parameters["n_heads"]
        return AttentionTower(n_neurons, map_shape, **common, embed_dim=embed_dim, n_heads=n_heads)
    tower = kind(n_neurons, map_shape)
    if not isinstance(tower, NeuralTower):
        raise TypeError(
            f"neural_tower gave a {type(tower).__name__}: expected a v1tlearn.nn.NeuralTower: "
            "derive the class from it and call super().__init__(n_neurons, map_shape)."
        )
    return tower


def _scaler(how: str, statistics: Mapping[str, Any]) -> ResponseScaler:
    """Scaler of responses that are over their scale already."""
    scale = statistics["response_scale"]
    mean = np.nan_to_num(statistics["response_mean"]) / scale
    if how == "std":
        low, high = mean, mean + 1
    else:
        low, high = statistics["response_low"] / scale, statistics["response_high"] / scale
    return ResponseScaler(*map(torch.from_numpy, (low, high, mean)), clip=how == "minmax")


def make_alignment_run(
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
    stream = parameters["low_memory"]

    def to_device(trials: Trials, target: Responses) -> dict[str, MouseData]:
        """Bring trials, and which image each shows."""
        data = bring(fitted, trials, target, device, stream=stream, count_recording=False)
        for mouse, own in data.items():
            shown = trials.image_ids[trials.rows(mouse)[0]]
            labels = np.unique(shown, return_inverse=True)[1]
            own.labels = torch.from_numpy(labels.astype(np.int64)).to(device)
        return data

    data, validation = to_device(*training), None
    if held_out is not None:
        check_like_fit(fitted, model, held_out[0], whose="validation")
        check_images(held_out[0], "the validation")
        validation = to_device(*held_out)
    objective = ContrastiveObjective(
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
    schedule = StagnationSchedule(
        parameters["lr_patience"],
        parameters["lr_factor"],
        parameters["patience"],
        keep_last=parameters["keep"] == "last",
    )
    return Run(
        model,
        objective,
        optimizers,
        schedule if validation is not None else ConstantSchedule(),
        data,
        resolve_settings(model, objective, data, settings),
        state,
        validation=validation,
        name=name,
    )


@torch.inference_mode()
def image_maps(model: AlignmentModel, data: MouseData, precision: str) -> Iterator[Tensor]:
    """Maps (n, C, H, W) of the images of a mouse, some at a time, on the device."""
    device = data.device
    size = prediction_batch_size(model, device)
    model.eval()
    with autocast(resolve_precision(precision, device, training=False), device):
        for start in range(0, len(data), size):
            yield model.encode_images(data.batch(slice(start, start + size)).images).float()


@torch.inference_mode()
def response_maps(
    model: AlignmentModel, fitted: Fitted, mouse: str, responses: np.ndarray, device: torch.device
) -> Iterator[Tensor]:
    """Maps (n, C, H, W) of the responses of a mouse, in their units, some at a time."""
    scale = fitted.mice[mouse].statistics["response_scale"]
    size = prediction_batch_size(model, device)
    model.eval()
    for start in range(0, len(responses), size):
        rows = np.arange(start, min(start + size, len(responses)))
        scaled = torch.from_numpy(scale_responses(responses[rows], mouse, scale, rows)).to(device)
        recorded = ~scaled.isnan()
        yield model.encode_responses(mouse, torch.where(recorded, scaled, 0), recorded).float()


def closest(queries: Tensor, gallery: Iterator[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Places and cosines (n, k) of what is most similar in a gallery that comes in parts.

    Of equally similar ones the first come first, in whatever parts they came.
    """
    queries = unit_length(queries)
    best = queries.new_empty(len(queries), 0)
    places = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    seen = 0
    for part in gallery:
        similarity = queries @ unit_length(part).T
        here = torch.arange(seen, seen + len(part), device=queries.device)
        seen += len(part)
        best = torch.cat((best, similarity), 1)
        places = torch.cat((places, here.expand(len(queries), -1)), 1)
        order = torch.argsort(best, dim=1, descending=True, stable=True)[:, :k]
        best, places = best.gather(1, order), places.gather(1, order)
    return places, best
