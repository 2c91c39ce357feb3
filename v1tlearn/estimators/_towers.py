"""The towers that the parameters of an alignment ask for, and the model around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from v1tlearn._rounding import ROUNDING_FLOAT32
from v1tlearn._values import plain
from v1tlearn.estimators._backbones import pretrained_core
from v1tlearn.estimators._build import output_size, takes
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.nn import (
    AlignmentModel,
    AttentionTower,
    CNNTower,
    Core,
    DSNetTower,
    MLPTower,
    NeuralTower,
    PretrainedTower,
    ResponseScaler,
    WindowCropper,
)


def trained_part(parameters: Mapping[str, Any]) -> bool | str:
    """Decide what of the image tower is trained: "auto" leaves pretrained weights as they are."""
    wanted = parameters["train_image_tower"]
    if not isinstance(wanted, str) or wanted != "auto":
        return wanted
    return "projection" if parameters["image_tower"] == "pretrained" else True


def build_alignment(parameters: Mapping[str, Any], fitted: Fitted) -> AlignmentModel:
    """Build the model that the parameters and the recordings ask for."""
    size = fitted.image_shape[1:]
    cropper = WindowCropper(
        size,
        mice=tuple(fitted.mice),
        columns=parameters["crop_columns"],
        upsample=parameters["upsample"],
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
    if trained_part(parameters) is False or fitted.core_frozen:
        model.core.freeze()
    return model.float()  # whatever torch's default dtype is


def _image_tower(
    parameters: Mapping[str, Any], input_shape: tuple[int, int, int], map_shape: tuple[int, ...]
) -> Core:
    kind, trained = parameters["image_tower"], trained_part(parameters)
    if trained == "projection" and kind not in ("dsnet", "pretrained"):
        raise ValueError(
            f"train_image_tower='projection' with image_tower={kind!r}: only 'dsnet' and "
            "'pretrained' have a projection apart, use True or False."
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
    if kind == "pretrained":
        fine_tune = parameters["fine_tune"] if trained is True else "none"
        core = pretrained_core(parameters, input_shape, fine_tune)
        return PretrainedTower(core, map_shape, backbone_lr=parameters["core_lr"])
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
    low, high = statistics["response_low"] / scale, statistics["response_high"] / scale
    flat = high - low <= ROUNDING_FLOAT32 * np.maximum(np.abs(low), np.abs(high))
    high = np.where(flat, low, high)
    if how == "std":  # of a neuron that never varied no weight was trained: it stays out
        low, high = mean, np.where(low < high, mean + 1, mean)
    return ResponseScaler(*map(torch.from_numpy, (low, high, mean)), clip=how == "minmax")
