"""Modules of the encoding models, in torch alone."""

from .attention import Attention
from .cnn import Stacked2dCore
from .geometry import most_square_grid, patch_grid
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
from .rollout import attention_rollout, attention_weights
from .shifter import Shifter, StimulusShifter
from .tokenizers import make_tokenizer, sinusoidal_positions
from .vit import BehaviorMLP, ViTCore

__all__ = [
    "EncodingModel",
    "MouseBatch",
    "Stacked2dCore",
    "ViTCore",
    "Attention",
    "BehaviorMLP",
    "make_tokenizer",
    "sinusoidal_positions",
    "GaussianReadout",
    "sample_features",
    "attention_rollout",
    "attention_weights",
    "Shifter",
    "StimulusShifter",
    "ImageCropper",
    "center_crop",
    "crop_size",
    "resize",
    "patch_grid",
    "most_square_grid",
    "elu_plus_one",
    "inverse_elu_plus_one",
    "poisson_loss",
    "l1_penalty",
    "laplace_penalty",
]
