"""Experiments on fitted models: most exciting images, tuning curves, what surrounds a field."""

from v1tlearn.inspection.in_silico.curve_display import TuningCurveDisplay
from v1tlearn.inspection.in_silico.curves import tuning_curves
from v1tlearn.inspection.in_silico.exciting import most_exciting_images
from v1tlearn.inspection.in_silico.images_display import MostExcitingImagesDisplay
from v1tlearn.inspection.in_silico.properties import tuning_properties
from v1tlearn.inspection.in_silico.stimuli import gabors, gratings, plaids
from v1tlearn.inspection.in_silico.surround import surround

__all__ = [
    "MostExcitingImagesDisplay",
    "TuningCurveDisplay",
    "gabors",
    "gratings",
    "most_exciting_images",
    "plaids",
    "surround",
    "tuning_curves",
    "tuning_properties",
]
