"""Modules of the encoding models, in torch alone."""

from .attention import Attention
from .cores.cnn import Stacked2dCore
from .cores.core import Core
from .cores.vit import BehaviorMLP, ViTCore
from .geometry import most_square_grid, patch_grid
from .heads import EluHead, Head, SoftplusHead
from .images import ImageCropper, center_crop, crop_size, resize
from .losses import (
    elu_plus_one,
    inverse_elu_plus_one,
    l1_penalty,
    laplace_penalty,
    poisson_loss,
)
from .model import EncodingModel, MouseBatch
from .readouts.gaussian import GaussianReadout, sample_features
from .readouts.readout import Readout
from .rollout import attention_rollout, attention_weights
from .shifter import Shifter, StimulusShifter
from .tokenizers import make_tokenizer, sinusoidal_positions

__all__ = [
    "EncodingModel",
    "MouseBatch",
    "Core",
    "Stacked2dCore",
    "ViTCore",
    "Attention",
    "BehaviorMLP",
    "make_tokenizer",
    "sinusoidal_positions",
    "Readout",
    "GaussianReadout",
    "Head",
    "EluHead",
    "SoftplusHead",
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
