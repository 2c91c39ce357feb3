"""Groups of parameters that models share: names, defaults, allowed values, presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from v1tlearn._by_name import public_kinds
from v1tlearn._guesses import guess, in_words
from v1tlearn._values import plain
from v1tlearn._warn import warn
from v1tlearn.nn import (
    EluHead,
    FactorizedReadout,
    GaussianReadout,
    Head,
    Readout,
    SoftplusHead,
    TemporalReadout,
)
from v1tlearn.nn.losses import FLOAT32_EPSILON

_POSITIVE = Interval(Real, 0, None, closed="neither")
_SPREAD = Interval(Real, 0, 1e30, closed="neither")  # of initial weights, in float32
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_NATURAL = Interval(Integral, 0, None, closed="left")
WIDTH = Interval(Integral, 1, 2**31 - 1, closed="both")  # channels, units: what torch can count
HEADS: dict[Any, Callable[..., Head]] = {"elu": EluHead, "softplus": SoftplusHead}
DEPTH = Interval(Integral, 1, 1000, closed="both")  # layers, which are built one by one


# The training of Li et al. (2023), whatever the model.
V1T_TRAINING: dict[str, Any] = {
    "core_pass": "per_mouse",
    "optimizer": "adamw",
    "betas": (0.9, 0.9999),
    "weight_decay": 0.0,
    "batch_size": 16,
    "max_epochs": 400,
    "loss_scale": "sqrt",
    "penalty_scale": "absolute",
    "loss_epsilon": FLOAT32_EPSILON,
    "schedule": "plateau",
    "lr_patience": 10,
    "lr_factor": 0.3,
    "max_lr_drops": 2,
    "precision": "tf32",
    "beyond_map": "zeros",
}


@dataclass(eq=False, repr=False, kw_only=True)
class InputParameters:
    """What comes in, and in which form; described with the models themselves."""

    behavior_mode: str = "auto"
    behavior_columns: str | Sequence[str] = "non_pupil"
    shift: str = "readout"
    shift_columns: str | Sequence[str] = "pupil"
    crop_scale: float = 1.0
    image_size: str | tuple[int, int] = "auto"
    standardize: bool = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "behavior_mode": [StrOptions({"auto", "none", "channels"})],
        "behavior_columns": [StrOptions({"all", "non_pupil"}), list, tuple, np.ndarray],
        "shift": [StrOptions({"none", "readout", "stimulus", "both", "both_behavior"})],
        "shift_columns": [StrOptions({"pupil"}), list, tuple, np.ndarray],
        "crop_scale": [Interval(Real, 0, 1, closed="right")],
        "image_size": [StrOptions({"auto"}), tuple, list, np.ndarray],
        "standardize": ["boolean"],
    }


@dataclass(eq=False, repr=False, kw_only=True)
class GaussianReadoutParameters:
    """The Gaussian readout of each mouse."""

    position_network: bool = True
    position_dims: int = 2
    position_hidden_layers: int = 1
    position_hidden_units: int = 30
    gaussian: str = "full"
    init_sigma: float = 0.1
    init_mu_range: float = 0.3
    beyond_map: str = "edge"
    readout_bias: str = "zero"
    readout_l1: float = 0.0076

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "position_network": ["boolean"],
        "position_dims": [Interval(Integral, 2, 3, closed="both")],
        "position_hidden_layers": [Interval(Integral, 0, 1000, closed="both")],
        "position_hidden_units": [WIDTH],
        "gaussian": [StrOptions({"full", "uncorrelated", "isotropic"})],
        "init_sigma": [_SPREAD],
        "init_mu_range": [Interval(Real, 0, 1, closed="right")],
        "beyond_map": [StrOptions({"edge", "zeros"})],
        "readout_bias": [StrOptions({"zero", "mean", "published_mean", "published_mean_over_std"})],
        "readout_l1": [_NOT_NEGATIVE],
    }


@dataclass(eq=False, repr=False, kw_only=True)
class FactorizedReadoutParameters:
    """The factorised readout of each mouse."""

    rank: int = 1
    space_init: float = 0.01
    channel_init: float = 0.01
    space_l1: float = 0.0
    space_l2: float = 0.0
    space_hoyer: float = 0.0
    channel_l1: float = 0.0
    channel_l2: float = 0.0
    channel_hoyer: float = 0.0
    space_weight_decay: float | None = None
    channel_weight_decay: float | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "rank": [WIDTH],
        "space_init": [_SPREAD],
        "channel_init": [_SPREAD],
        "space_l1": [_NOT_NEGATIVE],
        "space_l2": [_NOT_NEGATIVE],
        "space_hoyer": [_NOT_NEGATIVE],
        "channel_l1": [_NOT_NEGATIVE],
        "channel_l2": [_NOT_NEGATIVE],
        "channel_hoyer": [_NOT_NEGATIVE],
        "space_weight_decay": [_NOT_NEGATIVE, None],
        "channel_weight_decay": [_NOT_NEGATIVE, None],
    }


@dataclass(eq=False, repr=False, kw_only=True)
class ReadoutParameters(GaussianReadoutParameters, FactorizedReadoutParameters):
    """The readout of each mouse, of either kind."""

    readout: str = "gaussian"

    _presets: ClassVar[dict[str, dict[str, Any]]]
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **GaussianReadoutParameters._parameter_constraints,
        **FactorizedReadoutParameters._parameter_constraints,
        "readout": [StrOptions({"gaussian", "factorized"})],
    }

    def _validate_params(self) -> None:
        """Check all parameters, and warn of those that the chosen readout leaves unused."""
        super()._validate_params()  # type: ignore[misc]  # of `ByName`, which comes after
        names = _OF_OTHER.get(self.readout, ()) if isinstance(self.readout, str) else ()
        usual = {f.name: [f.default] for f in fields(self) if f.name in names}
        for preset in self._presets.values():
            for name in usual.keys() & preset.keys():
                usual[name].append(preset[name])
        unused = [n for n in usual if plain(getattr(self, n)) not in usual[n]]
        if unused:
            told = ", ".join(f"{name}={getattr(self, name)!r}" for name in unused)
            warn(
                f"readout={self.readout!r} has no use for {told}: of the other readout. Choose "
                "that one, or leave these at their defaults."
            )


_OF_OTHER = {
    "gaussian": set(FactorizedReadoutParameters._parameter_constraints),
    "factorized": set(GaussianReadoutParameters._parameter_constraints) - {"readout_bias"},
}


def readout_maker(parameters: Mapping[str, Any]) -> Callable[..., Readout]:
    """Give what makes the readouts that these parameters ask for."""
    if parameters["readout"] == "factorized":
        names = FactorizedReadoutParameters._parameter_constraints
        return partial(FactorizedReadout, **{name: parameters[name] for name in names})
    return partial(
        GaussianReadout,
        gaussian=parameters["gaussian"],
        init_sigma=parameters["init_sigma"],
        init_mu_range=parameters["init_mu_range"],
        hidden_layers=parameters["position_hidden_layers"],
        hidden_units=parameters["position_hidden_units"],
        l1=parameters["readout_l1"],
        beyond_map=parameters.get("beyond_map", "zeros"),  # as ever, of models saved before
    )


@dataclass(eq=False, repr=False, kw_only=True)
class TimeParameters:
    """How movies are cut for a model that sees time."""

    window_frames: int = 32

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"window_frames": [WIDTH]}


def filtered_in_time(make: Callable[..., Readout], n_lags: int) -> Callable[..., Readout]:
    """Give what makes such readouts with a filter in time of `n_lags` frames behind them."""
    if n_lags == 1:
        return make

    @wraps(make)  # what it takes is what is offered
    def readout(core_shape: tuple[int, int, int], n_neurons: int, **known: Any) -> Readout:
        return TemporalReadout(make(core_shape, n_neurons, **known), n_lags)

    return readout


class Presets:
    """Parameters under the name of a publication."""

    _presets: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Make an estimator that trains as published."""
        if name not in cls._presets:
            others = [k.__name__ for k in public_kinds() if name in getattr(k, "_presets", ())]
            found = [] if others else guess(str(name), cls._presets)
            raise ValueError(
                f"{cls.__name__} has no preset {name!r}: expected one of {sorted(cls._presets)}."
                + (f" Did you mean {' or '.join(map(repr, found))}?" if found else "")
                + (f" {name!r} is a preset of {in_words(others)}." if others else "")
            )
        return cls(**{**cls._presets[name], **overrides})


@dataclass(eq=False, repr=False, kw_only=True)
class TrainingParameters(Presets):
    """How a model is trained, and on which machine."""

    optimizer: str = "adamw"
    lr: float = 0.001647
    core_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    batch_size: int = 16
    shuffle_block: int = 1
    max_epochs: int = 400
    loss_scale: str | float = "sqrt"
    penalty_scale: str = "relative"
    loss_epsilon: float = FLOAT32_EPSILON
    core_pass: str = "joint"
    schedule: str = "plateau"
    lr_patience: int = 10
    lr_factor: float = 0.3
    max_lr_drops: int = 2
    min_lr: float = 1e-5
    period_epochs: Sequence[int] = (100, 30, 30, 30)
    carry_patience: bool = False
    selection: str = "correlation"
    clip_norm: float | None = None
    ema_decay: float | None = None
    validation_fraction: float = 0.1
    device: str = "auto"
    precision: str = "auto"
    compile: str | bool = "auto"
    micro_batch_size: str | int = "auto"
    low_memory: str | bool = "auto"
    deterministic: bool = False
    random_state: Any = None
    warm_start: bool = False
    verbose: int = 0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "optimizer": [StrOptions({"adam", "adamw"})],
        "lr": [_POSITIVE],
        "core_lr": [_POSITIVE, None],
        "betas": [tuple, list, np.ndarray],
        "weight_decay": [_NOT_NEGATIVE],
        "batch_size": [WIDTH],
        "shuffle_block": [WIDTH],
        "max_epochs": [_NATURAL],
        "loss_scale": [
            StrOptions({"sqrt", "sqrt_recording", "per_neuron", "per_recorded"}),
            _POSITIVE,
        ],
        "penalty_scale": [StrOptions({"relative", "absolute"})],
        "loss_epsilon": [_NOT_NEGATIVE],
        "core_pass": [StrOptions({"joint", "per_mouse"})],
        "schedule": [StrOptions({"plateau", "rounds", "periods", "cosine", "reduce", "constant"})],
        "lr_patience": [_NATURAL],
        "lr_factor": [Interval(Real, 0, 1, closed="right")],
        "max_lr_drops": [_NATURAL],
        "min_lr": [_NOT_NEGATIVE],
        "period_epochs": [tuple, list, np.ndarray],
        "carry_patience": ["boolean"],
        "selection": [StrOptions({"correlation", "variance_explained"})],
        "clip_norm": [_POSITIVE, None],
        "ema_decay": [Interval(Real, 0, 1, closed="neither"), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "tf32", "bfloat16"})],
        "compile": [StrOptions({"auto", "reduce-overhead"}), "boolean"],
        "micro_batch_size": [StrOptions({"auto"}), WIDTH],
        "low_memory": [StrOptions({"auto"}), "boolean"],
        "deterministic": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }
