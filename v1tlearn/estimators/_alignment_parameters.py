"""What the parameters of an alignment may be, alone and together, and those of the paper."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from v1tlearn.estimators._backbones import OF_BACKBONES, check_backbone
from v1tlearn.estimators._parameters import DEPTH, WIDTH, TrainingParameters

_PAIR = [tuple, list, np.ndarray]
_AS_ELSEWHERE = [
    *("batch_size", "max_epochs", "lr_patience", "lr_factor", "validation_fraction", "device"),
    *("precision", "low_memory", "deterministic", "random_state", "warm_start", "verbose"),
]

PRESETS: dict[str, dict[str, Any]] = {
    "dina2026": {
        "image_tower": "dsnet",
        "neural_tower": "attention",
        "train_image_tower": "projection",
        "map_size": (16, 64),
        "map_channels": 1,
        "map_scale": "minmax",
        "cross_attention": "published",
        "grid": (8, 32),
        "hidden_units": (2048, 512),
        "embed_dim": 512,
        "standardize": False,
        "temperature": 0.01,
        "learn_temperature": False,
        "image_lr": 3e-4,
        "neural_lr": 5e-5,
        "batch_size": 128,
        "max_epochs": 5000,
        "selection": "loss",
        "keep": "last",
        "lr_patience": 50,
        "patience": None,
        "precision": "float32",
    }
}

CONSTRAINTS: dict[str, list[Any]] = {
    **{name: TrainingParameters._parameter_constraints[name] for name in _AS_ELSEWHERE},
    **OF_BACKBONES,
    "image_tower": [StrOptions({"cnn", "dsnet", "pretrained"}), callable],
    "neural_tower": [StrOptions({"mlp", "attention"}), callable],
    "train_image_tower": ["boolean", StrOptions({"projection", "auto"})],
    "backbone": [str, os.PathLike, dict, nn.Module, None],
    "tokens": [StrOptions({"patch", "both"})],
    "fine_tune": [StrOptions({"all"}), WIDTH],
    "crop_columns": [StrOptions({"left_half"}), tuple, list, np.ndarray, None],
    "core_lr": [Interval(Real, 0, None, closed="neither")],
    "map_size": _PAIR,
    "map_channels": [WIDTH],
    "map_scale": [StrOptions({"center", "minmax", "none"})],
    "hidden_channels": [WIDTH],
    "n_layers": [DEPTH],
    "input_kernel": [WIDTH],
    "hidden_kernel": [WIDTH],
    "stage_dims": _PAIR,
    "stage_depths": _PAIR,
    "stage_heads": _PAIR,
    "stage_reductions": _PAIR,
    "cross_attention": [StrOptions({"stated", "published"})],
    "grid": [StrOptions({"auto"}), *_PAIR],
    "hidden_units": _PAIR,
    "neural_channels": [WIDTH],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "embed_dim": [WIDTH],
    "n_heads": [WIDTH],
    "response_scale": [StrOptions({"minmax", "std"})],
    "range_over": [StrOptions({"train", "recording"})],
    "crop_scale": [Interval(Real, 0, 1, closed="right")],
    "image_size": [StrOptions({"auto"}), *_PAIR],
    "standardize": ["boolean"],
    "temperature": [Interval(Real, 0, None, closed="neither")],
    "learn_temperature": ["boolean"],
    "loss_weights": _PAIR,
    "image_lr": [Interval(Real, 0, None, closed="neither")],
    "image_weight_decay": [Interval(Real, 0, None, closed="left")],
    "neural_lr": [Interval(Real, 0, None, closed="neither")],
    "neural_smoothing": [Interval(Real, 0, 1, closed="left")],
    "selection": [StrOptions({"top1", "loss"})],
    "keep": [StrOptions({"best", "last"})],
    "patience": [Interval(Integral, 1, None, closed="left"), None],
    "micro_batch_size": [WIDTH, None],
}


def check_together(parameters: Mapping[str, Any]) -> None:
    """Check values that are right alone, but not beside others, or not in their number."""
    check_backbone(parameters, "image_tower", "facebook/dinov2-small")
    weights = parameters["loss_weights"]
    if len(weights) != 3 or not all(_is_weight(w) for w in weights) or not any(weights):
        raise ValueError(
            f"loss_weights={weights!r}: expected three finite numbers from 0 on, not all 0, of the "
            "contrastive loss, the difference and the structural similarity."
        )
    if parameters["batch_size"] == 1 and weights[0]:
        raise ValueError(
            "batch_size=1: the contrastive loss compares the trials of a batch, and is 0 for one: "
            "expected 2 at least, and better many; micro_batch_size saves memory."
        )
    names = ["map_size", *([] if isinstance(parameters["grid"], str) else ["grid"])]
    for name in (*names, "stage_dims", "stage_depths", "stage_heads", "stage_reductions"):
        pair, least = parameters[name], 0 if name == "stage_depths" else 1
        if len(pair) != 2 or not all(isinstance(n, Integral) and int(n) >= least for n in pair):
            raise ValueError(f"{name}={pair!r}: expected two whole numbers from {least} on.")
    if tuple(parameters["map_size"]) == (1, 1) and parameters["map_scale"] != "none":
        raise ValueError(
            f"map_size=(1, 1) with map_scale={parameters['map_scale']!r}, which makes 0 of each "
            "channel of one cell: use larger maps, or map_scale='none'."
        )


def _is_weight(value: Any) -> bool:
    """Tell whether this is a finite number from 0 on."""
    return isinstance(value, Real) and 0 <= float(value) < np.inf
