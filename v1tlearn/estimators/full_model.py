"""The full models of Du et al. (2025): a core of few layers that all neurons share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from v1tlearn.estimators._architectures import FULL_MODEL
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._docs import document
from v1tlearn.estimators._parameters import ReadoutParameters, readout_maker
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import TwoLayerCore

_OF_CORE = (
    "channels",
    "kernels",
    "pooling",
    "depth_separable",
    "pointwise_output",
    "activation",
    "batch_norm_momentum",
)

# The training of Du et al. (2025), of full models and, but for two weights, of minimodels.
MINIMODEL_2025: dict[str, Any] = {
    "behavior_mode": "none",
    "shift": "none",
    "batch_norm_momentum": 0.9,
    "core_weight_decay": 0.1,
    "readout": "factorized",
    "rank": 1,
    "space_init": 0.01,
    "channel_init": 0.01,
    "space_weight_decay": 1.0,
    "channel_weight_decay": 0.1,
    "core_pass": "per_mouse",
    "optimizer": "adamw",
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "batch_size": 100,
    "max_epochs": 190,
    "loss_scale": "per_neuron",
    "penalty_scale": "absolute",
    "loss_epsilon": 1e-12,
    "schedule": "periods",
    "period_epochs": (100, 30, 30, 30),
    "lr_patience": 5,
    "lr_factor": 1 / 3,
    "carry_patience": True,
    "selection": "variance_explained",
    "precision": "tf32",
}


@document(architecture=FULL_MODEL)
@dataclass(eq=False, repr=False, kw_only=True)
class FullModelRegressor(ReadoutParameters, BaseEncodingRegressor):
    """Two layers of large filters, or any number, with a factorised readout per mouse.

    The full models of Du et al. (2025), which explain about as much of mouse V1 as far deeper ones:
    a convolution with 16 filters of 25 x 25 pixels, and a depth-separable one with 320 channels.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    CNNRegressor, LNRegressor

    References
    ----------
    Du et al., "Towards a simplified model of primary visual cortex", 2025.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.FullModelRegressor(
    ...     channels=(4, 8), kernels=(9, 5), max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["B"].shape
    (12, 5)
    """

    channels: Sequence[int] = (16, 320)
    kernels: Sequence[int] = (25, 9, 5)
    pooling: str = "max"
    depth_separable: bool = True
    pointwise_output: bool = True
    activation: str = "elu"
    batch_norm_momentum: float = 0.1
    core_weight_decay: float | None = 0.1
    readout: str = "factorized"
    space_weight_decay: float | None = 1.0
    channel_weight_decay: float | None = 0.1
    lr: float = 1e-3
    batch_size: int = 100
    max_epochs: int = 190
    loss_scale: str | float = "per_neuron"
    schedule: str = "periods"
    lr_patience: int = 5
    lr_factor: float = 1 / 3

    _presets: ClassVar[dict[str, dict[str, Any]]] = {"minimodel2025": MINIMODEL_2025}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **ReadoutParameters._parameter_constraints,
        "channels": [tuple, list, np.ndarray],
        "kernels": [tuple, list, np.ndarray],
        "pooling": [StrOptions({"max", "mean", "stride"})],
        "depth_separable": ["boolean"],
        "pointwise_output": ["boolean"],
        "activation": [StrOptions({"elu", "relu", "none"})],
        "batch_norm_momentum": [Interval(Real, 0, 1, closed="right")],
        "core_weight_decay": [Interval(Real, 0, None, closed="left"), None],
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        core = partial(
            TwoLayerCore,
            weight_decay=parameters["core_weight_decay"],
            **{name: parameters[name] for name in _OF_CORE},
        )
        return Recipe(core, readout_maker(parameters))
