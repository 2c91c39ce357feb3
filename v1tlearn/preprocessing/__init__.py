"""scikit-learn transformers of stimuli, behaviour and responses."""

from v1tlearn.preprocessing.spontaneous import SpontaneousProjector
from v1tlearn.preprocessing.standardize import TrialStandardizer
from v1tlearn.preprocessing.stimuli import CenterCrop, Grayscale, ResizeStimuli

__all__ = [
    "CenterCrop",
    "Grayscale",
    "ResizeStimuli",
    "SpontaneousProjector",
    "TrialStandardizer",
]
