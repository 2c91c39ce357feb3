"""Pretrained vision transformers as cores (2026)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions
from torch import nn

from v1tlearn.estimators._architectures import PRETRAINED
from v1tlearn.estimators._backbones import OF_BACKBONES, pretrained_core, whole_path
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._docs import NO_BEHAVIOR, document
from v1tlearn.estimators._parameters import WIDTH, ReadoutParameters, readout_maker
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import PretrainedViTCore, WindowCropper

VIT_ENCODING_2026: dict[str, Any] = {
    "backbone": "facebook/dinov3-vits16-pretrain-lvd1689m",
    "block": 4,
    "tokens": "patch",
    "normalize": "none",
    "pixel_scaling": "per_image",
    "crop_columns": "left_half",
    "image_size": (64, 128),
    "readout": "factorized",
    "behavior_mode": "none",
    "shift": "none",
    "optimizer": "adamw",
    "lr": 1e-3,
    "clip_norm": 1.0,
    "loss_scale": "per_neuron",
    "penalty_scale": "absolute",
    "loss_epsilon": 1e-12,
    "selection": "variance_explained",
    "precision": "float32",
}
FROZEN: dict[str, Any] = {
    **VIT_ENCODING_2026,
    "fine_tune": "none",
    "space_l2": 0.1,
    "channel_l2": 0.1,
    "space_weight_decay": 1.0,
    "channel_weight_decay": 0.1,
    "weight_decay": 0.0,
    "batch_size": 64,
    "max_epochs": 200,
    "schedule": "reduce",
    "lr_factor": 0.5,
    "lr_patience": 5,
    "min_lr": 1e-5,
}
FINE_TUNED: dict[str, Any] = {
    **VIT_ENCODING_2026,
    "fine_tune": 4,
    "augment_positions": True,
    "core_lr": 1e-5,
    "core_weight_decay": 1e-2,
    "space_l2": 1e-4,
    "channel_l2": 1e-4,
    "weight_decay": 1e-5,
    "batch_size": 32,
    "max_epochs": 100,
    "schedule": "cosine",
    "lr_patience": 5,
    "min_lr": 1e-7,
    "warm_start": True,
}


@document(architecture=PRETRAINED, behavior_mode=NO_BEHAVIOR)
@dataclass(eq=False, repr=False)
class PretrainedViTRegressor(ReadoutParameters, BaseEncodingRegressor):
    """A vision transformer that was trained without labels, frozen or fine-tuned, as core.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    CNNRegressor, V1TRegressor
    v1tlearn.nn.PretrainedViTCore : The core.

    Notes
    -----
    `save` keeps weights that were fine-tuned. Those that stayed as they came are kept by the name
    of the backbone and a checksum, also of its configuration: `load` reads them from the same
    folder, whose whole path is remembered at `fit`, or the cache of Hugging Face again, and refuses
    others. Backbones that are modules can be pickled, not saved, nor trained with checkpoints.

    Weights of DINOv3 are given to those who accept its licence, and log in; those of DINOv2
    (``"facebook/dinov2-small"``, patches of 14 pixels) to everybody.

    References
    ----------
    "Encoding Mouse V1 with Vision Transformers", 2026.
    Oquab et al., "DINOv2: learning robust visual features without supervision", TMLR, 2024.
    Simeoni et al., "DINOv3", arXiv:2508.10104, 2025.

    Examples
    --------
    A transformer with random weights, which need no file; ``backbone="facebook/dinov2-small"``
    takes trained ones.

    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(28, 42), random_state=0))
    >>> backbone = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 2,
    ...             "num_attention_heads": 2, "patch_size": 14, "image_size": 70}
    >>> est = v1.PretrainedViTRegressor(
    ...     backbone, weights=None, block=1, max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["A"].shape
    (12, 5)
    """

    backbone: str | os.PathLike | dict[str, Any] | nn.Module
    _: KW_ONLY
    weights: str | None = "pretrained"
    block: int | Sequence[int] = 4
    tokens: str = "patch"
    normalize: str = "none"
    upsample: int = 1
    patch_stride: int | None = None
    pixel_scaling: str = "per_image"
    crop_columns: Any = None
    fine_tune: str | int = "none"
    augment_positions: bool = False
    core_weight_decay: float | None = None
    feature_cache: str | os.PathLike | None = "auto"
    cache_gigabytes: float = 4.0
    readout: str = "factorized"
    optimizer: str = "adamw"
    lr: float = 1e-3
    core_lr: float | None = 1e-5
    batch_size: int = 64
    max_epochs: int = 200

    _published_behavior_mode: ClassVar[str] = "none"
    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "vit_encoding2026_frozen": FROZEN,
        "vit_encoding2026_fine_tuned": FINE_TUNED,
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **ReadoutParameters._parameter_constraints,
        "behavior_mode": [StrOptions({"auto", "none"})],
        "backbone": [str, os.PathLike, dict, nn.Module],
        **OF_BACKBONES,
        "tokens": [StrOptions({"patch", "cls", "both"})],
        "crop_columns": [StrOptions({"left_half"}), tuple, list, np.ndarray, dict, None],
        "fine_tune": [StrOptions({"none", "all"}), WIDTH],
    }

    def _plain_params(self) -> dict[str, Any]:
        """Parameters, with the whole path of a folder, which is found from anywhere."""
        parameters = super()._plain_params()
        return parameters | {"backbone": whole_path(parameters["backbone"])}

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        def core(input_shape: tuple[int, int, int]) -> PretrainedViTCore:
            return pretrained_core(parameters, input_shape, parameters["fine_tune"])

        cropper = partial(
            WindowCropper, columns=parameters["crop_columns"], upsample=parameters["upsample"]
        )
        return Recipe(core, readout_maker(parameters), cropper=cropper)
