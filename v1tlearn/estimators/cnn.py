"""The convolutional model of Sensorium 2022."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval

from v1tlearn.estimators._architectures import CONVOLUTIONAL
from v1tlearn.estimators._build import Recipe
from v1tlearn.estimators._docs import document
from v1tlearn.estimators._parameters import (
    DEPTH,
    V1T_TRAINING,
    WIDTH,
    ReadoutParameters,
    readout_maker,
)
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.nn import Stacked2dCore

_OF_CORE = (
    "n_layers",
    "hidden_channels",
    "input_kernel",
    "hidden_kernel",
    "depth_separable",
    "bias",
    "batch_norm_momentum",
    "laplace",
)

SENSORIUM_2022: dict[str, Any] = {
    "batch_norm_momentum": 0.9,
    "core_pass": "per_mouse",
    "optimizer": "adam",
    "lr": 0.009,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "batch_size": 128,
    "loss_scale": "sqrt_recording",
    "penalty_scale": "absolute",
    "loss_epsilon": 1e-8,
    "schedule": "rounds",
    "lr_patience": 5,
    "lr_factor": 0.3,
    "max_lr_drops": 3,
    "max_epochs": 200,
    "precision": "tf32",
    "beyond_map": "zeros",
}
V1T_2023: dict[str, Any] = {**V1T_TRAINING, "batch_norm_momentum": 0.9, "lr": 0.009}


@document(architecture=CONVOLUTIONAL)
@dataclass(eq=False, repr=False, kw_only=True)
class CNNRegressor(ReadoutParameters, BaseEncodingRegressor):
    """Stacked convolutional core with a Gaussian readout per mouse.

    {groups}

    Parameters
    ----------
    {parameters}

    {attributes}

    See Also
    --------
    V1TRegressor, ViTRegressor, LNRegressor

    References
    ----------
    Lurz et al., "Generalization in data-driven models of primary visual cortex", ICLR, 2021.
    Willeke et al., "The Sensorium competition on predicting large-scale mouse primary visual
    cortex activity", arXiv:2206.08666, 2022.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=2, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.CNNRegressor(n_layers=2, hidden_channels=4, max_epochs=2, random_state=0)
    >>> est.fit(trials.sel(tier="train")).predict(trials.sel(tier="test"))["B"].shape
    (12, 5)
    """

    n_layers: int = 4
    hidden_channels: int = 64
    input_kernel: int = 9
    hidden_kernel: int = 7
    depth_separable: bool = True
    bias: bool = True
    batch_norm_momentum: float = 0.1
    laplace: float = 6.3831
    optimizer: str = "adam"
    lr: float = 0.009
    batch_size: int = 128
    max_epochs: int = 200

    _linear: ClassVar[bool] = False
    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "sensorium2022": SENSORIUM_2022,
        "v1t2023": V1T_2023,
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseEncodingRegressor._parameter_constraints,
        **ReadoutParameters._parameter_constraints,
        "n_layers": [DEPTH],
        "hidden_channels": [WIDTH],
        "input_kernel": [WIDTH],
        "hidden_kernel": [WIDTH],
        "depth_separable": ["boolean"],
        "bias": ["boolean"],
        "batch_norm_momentum": [Interval(Real, 0, 1, closed="right")],
        "laplace": [Interval(Real, 0, None, closed="left")],
    }

    @classmethod
    def _recipe(cls, parameters: Mapping[str, Any]) -> Recipe:
        core = partial(
            Stacked2dCore, linear=cls._linear, **{name: parameters[name] for name in _OF_CORE}
        )
        return Recipe(core, readout_maker(parameters))
