"""Modules of the encoding models, in torch alone."""

from .cnn import Stacked2dCore
from .geometry import patch_grid
from .images import ImageCropper, center_crop, crop_size, resize
from .losses import (
    elu_plus_one,
    inverse_elu_plus_one,
    l1_penalty,
    laplace_penalty,
    poisson_loss,
)
from .model import EncodingModel, MouseBatch
from .readout import GaussianReadout, sample_features
from .shifter import Shifter, StimulusShifter

__all__ = [
    "EncodingModel",
    "MouseBatch",
    "Stacked2dCore",
    "GaussianReadout",
    "sample_features",
    "Shifter",
    "StimulusShifter",
    "ImageCropper",
    "center_crop",
    "crop_size",
    "resize",
    "patch_grid",
    "elu_plus_one",
    "inverse_elu_plus_one",
    "poisson_loss",
    "l1_penalty",
    "laplace_penalty",
]
