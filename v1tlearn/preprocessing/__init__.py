"""scikit-learn transformers of stimuli, behaviour and responses, and functions of images."""

from v1tlearn.preprocessing.spectrum import (
    high_pass,
    low_pass,
    scramble_phases,
    spatial_frequencies,
)
from v1tlearn.preprocessing.spontaneous import SpontaneousProjector
from v1tlearn.preprocessing.standardize import TrialStandardizer
from v1tlearn.preprocessing.stimuli import CenterCrop, Grayscale, ResizeStimuli
from v1tlearn.preprocessing.structure import downsample, edges, shuffle_patches, silhouettes

__all__ = [
    "CenterCrop",
    "Grayscale",
    "ResizeStimuli",
    "SpontaneousProjector",
    "TrialStandardizer",
    "downsample",
    "edges",
    "high_pass",
    "low_pass",
    "scramble_phases",
    "shuffle_patches",
    "silhouettes",
    "spatial_frequencies",
]
