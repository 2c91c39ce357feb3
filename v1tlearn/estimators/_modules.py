"""From the parameters and fitted attributes of an estimator to its modules and schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from v1tlearn.nn import (
    Core,
    EncodingModel,
    GaussianReadout,
    ImageCropper,
    Shifter,
    StimulusShifter,
    inverse_elu_plus_one,
)
from v1tlearn.training import ConstantSchedule, PlateauSchedule, RoundsSchedule

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor

PUPIL = ("pupil_x", "pupil_y")


def make_model(estimator: EncodingRegressor) -> EncodingModel:
    """Build the model that the parameters at the time of `fit` and the recordings ask for.

    Parameters
    ----------
    estimator : EncodingRegressor
        With its fitted attributes, the module excepted.

    Returns
    -------
    EncodingModel
        On the CPU, with initial weights drawn from torch's default generator.
    """
    # parameters may have been changed after fit; the weights belong to those at fit
    est = type(estimator)(**estimator.parameters_)
    channels, height, width = estimator.image_shape_
    moving = shift_columns(est.shift_columns)
    moving_mice = [m for m in estimator.mice_ if set(moving) <= set(_names(estimator, m))]
    cropper = ImageCropper(
        (height, width),
        crop_scale=est.crop_scale,
        image_size=output_size(est.image_size, (height, width)),
        shifters=_stimulus_shifters(est, estimator, moving_mice),
    )
    n_behaviors = len(estimator.core_columns_)
    as_channels = estimator.behavior_mode_ == "channels"
    input_shape = (channels + n_behaviors * as_channels, *cropper.output_size)
    est.mice_ = estimator.mice_
    core = est._make_core(input_shape, 0 if as_channels else n_behaviors, estimator.behavior_mode_)
    _check_core(core, type(est).__name__)
    readouts = {m: _readout(est, estimator, core.output_shape, m) for m in estimator.mice_}
    moves_readout = est.shift in ("readout", "both", "both_behavior")
    shifters = {m: Shifter(len(moving)) for m in moving_mice} if moves_readout else {}
    model = EncodingModel(
        core, readouts, cropper=cropper, shifters=shifters, behavior_channels=as_channels
    )
    if estimator.core_frozen_:
        model.core.freeze()
    return model.float()  # whatever torch's default dtype is


def _check_core(core: Any, owner: str) -> None:
    """Check that a core, perhaps a user's own, keeps to the contract."""
    if not isinstance(core, Core):
        raise TypeError(
            f"{owner} has a {type(core).__name__} as core: expected a v1tlearn.nn.Core: derive the "
            "class from it, call super().__init__(input_shape), and set output_shape to (channels, "
            "height, width) of the feature maps."
        )
    if not hasattr(core, "output_shape"):
        raise TypeError(
            f"{type(core).__name__} sets no output_shape: expected (channels, height, width) of "
            "its feature maps."
        )
    shape = core.output_shape
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(
            f"the output_shape of {type(core).__name__} is {shape!r}: expected the channels, "
            "height and width of its feature maps, each at least 1."
        )


def shift_columns(wanted: Any) -> tuple[str, ...]:
    """Decide on the behaviour that moves readout or stimulus: "pupil" is its two coordinates."""
    return PUPIL if isinstance(wanted, str) else tuple(str(c) for c in wanted)


def output_size(image_size: Any, size: tuple[int, int]) -> tuple[int, int] | None:
    """Decide on the size after resizing: "auto" makes 144 x 256 into 36 x 64."""
    if isinstance(image_size, str):
        return (36, 64) if tuple(size) == (144, 256) else None
    if len(image_size) != 2:
        raise ValueError(f"image_size={image_size!r}: expected 'auto' or (height, width).")
    return int(image_size[0]), int(image_size[1])


def _names(estimator: EncodingRegressor, mouse: str) -> list[str]:
    return estimator.behavior_names_[mouse] or []


def _stimulus_shifters(
    est: EncodingRegressor, estimator: EncodingRegressor, moving_mice: list[str]
) -> dict[str, StimulusShifter]:
    if est.shift not in ("stimulus", "both", "both_behavior"):
        return {}
    columns = shift_columns(est.shift_columns)
    without = [m for m in estimator.mice_ if m not in moving_mice]
    if without:
        raise ValueError(
            f"shift={est.shift!r} moves the image with the eye, but the mice {without} have no "
            f"columns {list(columns)}: use shift='readout' or 'none'."
        )
    with_behavior = est.shift == "both_behavior"
    return {
        m: StimulusShifter(
            len(_names(estimator, m)) if with_behavior else len(columns),
            max_shift=1 - est.crop_scale,
        )
        for m in moving_mice
    }


def _readout(
    est: EncodingRegressor,
    estimator: EncodingRegressor,
    core_shape: tuple[int, int, int],
    mouse: str,
) -> GaussianReadout:
    positions = estimator.positions_[mouse] if est.position_network else None
    if positions is not None:
        if positions.shape[1] < est.position_dims:
            raise ValueError(
                f"mouse {mouse!r}: position has {positions.shape[1]} axes, but "
                f"position_dims={est.position_dims}."
            )
        positions = positions[:, : est.position_dims]
        if not np.isfinite(positions).all():
            raise ValueError(
                f"mouse {mouse!r}: position holds NaN or infinite values: leave these neurons "
                "out, or set position_network=False."
            )
    return GaussianReadout(
        core_shape,
        estimator.n_neurons_[mouse],
        positions=positions,
        gaussian=est.gaussian,
        init_sigma=est.init_sigma,
        init_mu_range=est.init_mu_range,
        hidden_layers=est.position_hidden_layers,
        hidden_units=est.position_hidden_units,
        l1=est.readout_l1,
        bias_init=_bias(est.readout_bias, estimator.statistics_[mouse]),
    )


def _bias(kind: str, statistics: dict[str, Any]) -> np.ndarray | None:
    if kind == "zero":
        return None
    mean = np.nan_to_num(statistics["response_mean"])
    scaled = mean / statistics["response_scale"]
    if kind == "published_mean":
        return mean
    if kind == "published_mean_over_std":
        return scaled
    return inverse_elu_plus_one(torch.as_tensor(scaled, dtype=torch.float32)).numpy()


def make_schedule(est: EncodingRegressor) -> PlateauSchedule | RoundsSchedule | ConstantSchedule:
    """Build the learning-rate schedule.

    Parameters
    ----------
    est : EncodingRegressor

    Returns
    -------
    schedule
    """
    if est.schedule == "constant":
        return ConstantSchedule()
    if est.schedule == "rounds":
        return RoundsSchedule(est.lr_patience, est.lr_factor, est.max_lr_drops + 1)
    return PlateauSchedule(est.lr_patience, est.lr_factor, est.max_lr_drops)
