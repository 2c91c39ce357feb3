"""scikit-learn transformers of stimuli and behaviour, for `Trials` and for plain arrays."""

from v1tlearn.preprocessing.standardize import TrialStandardizer
from v1tlearn.preprocessing.stimuli import CenterCrop, Grayscale, ResizeStimuli

__all__ = ["CenterCrop", "Grayscale", "ResizeStimuli", "TrialStandardizer"]
