"""What the parameters of Vi-ST may be, alone and together, and those of the paper."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from v1tlearn.estimators._backbones import OF_BACKBONES, check_backbone
from v1tlearn.estimators._parameters import WIDTH, TrainingParameters

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_LEAST_WINDOW = 40  # frames, of which the smaller scale of the alignment makes 2

# What all models that are trained have, but this one is trained in its own way.
_AS_ELSEWHERE = [
    *("lr", "weight_decay", "batch_size", "max_epochs", "min_lr", "validation_fraction", "device"),
    *("precision", "low_memory", "deterministic", "random_state", "warm_start", "verbose"),
]
_OF_BACKBONES = [
    *("weights", "block", "normalize", "patch_stride", "pixel_scaling"),
    *("feature_cache", "cache_gigabytes"),
]

PRESETS: dict[str, dict[str, Any]] = {
    "vist2024": {
        "prior": "pretrained",
        "backbone": "facebook/dinov2-large",
        "block": 23,
        "normalize": "final",
        "image_size": (224, 224),
        "scale_responses": False,
        "selection": "absolute_correlation",
        "validation_fraction": 0.0,
    }
}

CONSTRAINTS: dict[str, list[Any]] = {
    **{name: TrainingParameters._parameter_constraints[name] for name in _AS_ELSEWHERE},
    **{name: OF_BACKBONES[name] for name in _OF_BACKBONES},
    "prior": [StrOptions({"patches", "features", "pretrained"}), callable],
    "grid": [WIDTH],
    "backbone": [str, os.PathLike, dict, nn.Module, None],
    "extractor": [StrOptions({"dilated", "none"})],
    "n_layers": [WIDTH],
    "channels": [WIDTH],
    "condition": [StrOptions({"receptive_fields", "per_cell", "video", "none"})],
    "kernels": [tuple, list],
    "causal": ["boolean", tuple, list],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "image_size": [StrOptions({"auto"}), tuple, list, np.ndarray],
    "standardize": ["boolean"],
    "scale_responses": ["boolean"],
    "loss": [StrOptions({"vist", "rmse", "poisson"})],
    "window_frames": [WIDTH],
    "steps_per_epoch": [WIDTH],
    "warmup_epochs": [Interval(Integral, 0, None, closed="left")],
    "start_lr": [_POSITIVE],
    "average_from": [Interval(Integral, 1, None, closed="left"), None],
    "average_lr": [_POSITIVE],
    "selection": [StrOptions({"correlation", "absolute_correlation"})],
}

# Of the inputs and of cores with a backbone, what this model has no choice of.
FIXED: dict[str, Any] = {
    "behavior_mode": "none",
    "behavior_columns": "non_pupil",
    "shift": "none",
    "shift_columns": "pupil",
    "crop_scale": 1.0,
    "tokens": "patch",
    "augment_positions": False,
    "core_weight_decay": None,
    "upsample": 1,
}


def check_together(parameters: Mapping[str, Any]) -> None:
    """Check values that are right alone, but not beside others, or not in their number."""
    check_backbone(parameters, "prior", "facebook/dinov2-large")
    if parameters["loss"] == "vist" and parameters["window_frames"] < _LEAST_WINDOW:
        raise ValueError(
            f"window_frames={parameters['window_frames']}: loss='vist' compares twentieths of a "
            f"window, of two frames at least: expected window_frames from {_LEAST_WINDOW} on, or "
            "loss='rmse'."
        )
    kernels = parameters["kernels"]
    if not all(
        isinstance(block, tuple | list) and block and all(_is_count(k) for k in block)
        for block in kernels
    ):
        raise ValueError(
            f"kernels={kernels!r}: expected the frames of the branches of each block, such as "
            "((1, 25), (1, 13, 21)), whole numbers from 1 on."
        )
    causal = parameters["causal"]
    if isinstance(causal, tuple | list) and (
        len(causal) != 2 or not all(isinstance(c, bool | np.bool_) for c in causal)
    ):
        raise ValueError(
            f"causal={causal!r}: expected True, False, or two of them: of the dilated layers, and "
            "of the blocks."
        )
    n_epochs, warmup = parameters["max_epochs"], parameters["warmup_epochs"]
    if n_epochs and warmup >= n_epochs:
        raise ValueError(
            f"warmup_epochs={warmup} of max_epochs={n_epochs}: expected fewer for the warm-up than "
            f"in all: set warmup_epochs={n_epochs - 1} or less."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
