"""The neurons of an alignment: which of them tell what was seen, how many, and who with whom.

Functions of a fitted `DINAAligner` and of `Trials`, each with its control.
"""

from v1tlearn.inspection.neurons.dimensions import neurons_per_dimension
from v1tlearn.inspection.neurons.importance import neuron_importance
from v1tlearn.inspection.neurons.interactions import functional_interactions
from v1tlearn.inspection.neurons.masking import PUBLISHED_THRESHOLDS, attention_masking
from v1tlearn.inspection.neurons.masking_display import MaskingDisplay
from v1tlearn.inspection.neurons.performance import neurons_for_performance

__all__ = [
    "PUBLISHED_THRESHOLDS",
    "MaskingDisplay",
    "attention_masking",
    "functional_interactions",
    "neuron_importance",
    "neurons_for_performance",
    "neurons_per_dimension",
]
