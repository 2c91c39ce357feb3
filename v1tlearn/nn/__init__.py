"""Modules of the encoding models, in torch alone."""

from v1tlearn.nn import fast
from v1tlearn.nn.alignment import AlignmentModel, FeatureAlignment, ResponseScaler
from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.contrastive import (
    alignment_loss,
    cosine_similarity,
    info_nce,
    ranks_of_seen,
    root_mean_square_error,
    scale_maps,
    steady_cosines,
    structural_similarity,
    unit_length,
)
from v1tlearn.nn.cores.backbone import Backbone, BackboneError
from v1tlearn.nn.cores.cnn import Stacked2dCore
from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.cores.first_convolution import FirstConvolution
from v1tlearn.nn.cores.movie import FramesCore, MovieCNNCore
from v1tlearn.nn.cores.pretrained import PretrainedViTCore
from v1tlearn.nn.cores.two_layer import TwoLayerCore, two_layer_map
from v1tlearn.nn.cores.vit import ViTCore
from v1tlearn.nn.fast import plain
from v1tlearn.nn.feature_model import FeatureModel
from v1tlearn.nn.gallery import closest
from v1tlearn.nn.heads import EluHead, Head, IdentityHead, SoftplusHead
from v1tlearn.nn.layers.attention import Attention
from v1tlearn.nn.layers.behavior import BehaviorMLP
from v1tlearn.nn.layers.geometry import most_square_grid, patch_grid
from v1tlearn.nn.layers.images import ImageCropper, center_crop, crop_size, resize
from v1tlearn.nn.layers.mixing import MixBlock
from v1tlearn.nn.layers.parts import Seen
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.layers.pixels import Pixels
from v1tlearn.nn.layers.shifter import Shifter, StimulusShifter
from v1tlearn.nn.layers.time import ConvGRU, TemporalConvolution
from v1tlearn.nn.layers.tokenizers import make_tokenizer, sinusoidal_positions
from v1tlearn.nn.layers.windows import WindowCropper
from v1tlearn.nn.losses import (
    elu_plus_one,
    hoyer_square,
    inverse_elu_plus_one,
    l1_penalty,
    laplace_penalty,
    poisson_loss,
    squared_loss,
)
from v1tlearn.nn.model import EncodingModel
from v1tlearn.nn.movies.dilated import DilatedLayer
from v1tlearn.nn.movies.encoding import CallableCore, PatchCore, ViSTReadout
from v1tlearn.nn.movies.loss import vist_loss
from v1tlearn.nn.movies.modulation import ReceptiveFieldModulation
from v1tlearn.nn.movies.multiscale import MultiscaleBlock
from v1tlearn.nn.movies.patches import frame_patches
from v1tlearn.nn.movies.published import vist_from_published
from v1tlearn.nn.movies.vist import ViST
from v1tlearn.nn.readouts.factorized import FactorizedReadout
from v1tlearn.nn.readouts.gaussian import GaussianReadout, sample_features
from v1tlearn.nn.readouts.in_time import KernelReadout, TemporalReadout
from v1tlearn.nn.readouts.minimodel import MinimodelReadout, PooledMaps, pool_maps
from v1tlearn.nn.readouts.readout import Moments, Readout
from v1tlearn.nn.rollout import attention_rollout, attention_weights
from v1tlearn.nn.soft_dtw import soft_dtw, soft_dtw_divergence
from v1tlearn.nn.towers.image import CNNTower, DSNetTower
from v1tlearn.nn.towers.missing import (
    MissingImageTower,
    MissingNeuralTower,
    MissingTowerError,
    check_towers,
)
from v1tlearn.nn.towers.neural import AttentionTower, MLPTower, NeuralTower
from v1tlearn.nn.towers.pretrained import PretrainedTower

__all__ = [
    "plain",
    "fast",
    "EncodingModel",
    "FeatureModel",
    "MouseBatch",
    "Core",
    "Stacked2dCore",
    "TwoLayerCore",
    "FirstConvolution",
    "two_layer_map",
    "ViTCore",
    "MovieCNNCore",
    "FramesCore",
    "ConvGRU",
    "TemporalConvolution",
    "KernelReadout",
    "TemporalReadout",
    "PretrainedViTCore",
    "Backbone",
    "BackboneError",
    "Attention",
    "BehaviorMLP",
    "make_tokenizer",
    "sinusoidal_positions",
    "Readout",
    "Moments",
    "Seen",
    "GaussianReadout",
    "FactorizedReadout",
    "MinimodelReadout",
    "PooledMaps",
    "pool_maps",
    "Head",
    "EluHead",
    "SoftplusHead",
    "sample_features",
    "attention_rollout",
    "attention_weights",
    "Shifter",
    "StimulusShifter",
    "ImageCropper",
    "WindowCropper",
    "Pixels",
    "center_crop",
    "crop_size",
    "ranks_of_seen",
    "resize",
    "patch_grid",
    "most_square_grid",
    "elu_plus_one",
    "inverse_elu_plus_one",
    "poisson_loss",
    "squared_loss",
    "l1_penalty",
    "hoyer_square",
    "laplace_penalty",
    "AlignmentModel",
    "FeatureAlignment",
    "ResponseScaler",
    "CNNTower",
    "DSNetTower",
    "PretrainedTower",
    "MixBlock",
    "NeuralTower",
    "AttentionTower",
    "MLPTower",
    "MissingImageTower",
    "MissingNeuralTower",
    "MissingTowerError",
    "check_towers",
    "alignment_loss",
    "cosine_similarity",
    "info_nce",
    "root_mean_square_error",
    "scale_maps",
    "steady_cosines",
    "closest",
    "structural_similarity",
    "unit_length",
    "ViST",
    "DilatedLayer",
    "ReceptiveFieldModulation",
    "MultiscaleBlock",
    "Past",
    "CallableCore",
    "IdentityHead",
    "PatchCore",
    "ViSTReadout",
    "vist_loss",
    "frame_patches",
    "vist_from_published",
    "soft_dtw",
    "soft_dtw_divergence",
]
