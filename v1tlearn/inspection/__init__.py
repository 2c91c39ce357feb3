"""Looking at data and fitted models: displays, receptive fields, and the colours of every figure.

Displays draw with matplotlib, the extra `plot`, which is imported when something is drawn.
"""

from v1tlearn.inspection.alignment import (
    AlignmentDisplay,
    ManipulationDisplay,
    RetrievalDisplay,
    alignment_map,
    class_confusions,
    class_decoding,
    class_galleries,
    cutoff_of,
    gradient_saliency,
    manipulation_curve,
    occlusion_saliency,
    representational_similarity,
)
from v1tlearn.inspection.colors import MODEL_COLORS, model_color
from v1tlearn.inspection.fields import receptive_fields
from v1tlearn.inspection.gaussians import fit_gaussians
from v1tlearn.inspection.images import ImageDisplay
from v1tlearn.inspection.neurons import (
    PUBLISHED_THRESHOLDS,
    MaskingDisplay,
    attention_masking,
    functional_interactions,
    neuron_importance,
    neurons_for_performance,
    neurons_per_dimension,
)
from v1tlearn.inspection.pooling import pooling_sizes
from v1tlearn.inspection.responses import PredictionDisplay
from v1tlearn.inspection.scores import ScoreDisplay
from v1tlearn.inspection.training import TrainingDisplay

__all__ = [
    "ImageDisplay",
    "PredictionDisplay",
    "ScoreDisplay",
    "TrainingDisplay",
    "RetrievalDisplay",
    "AlignmentDisplay",
    "ManipulationDisplay",
    "receptive_fields",
    "fit_gaussians",
    "pooling_sizes",
    "manipulation_curve",
    "cutoff_of",
    "class_confusions",
    "class_galleries",
    "class_decoding",
    "representational_similarity",
    "alignment_map",
    "occlusion_saliency",
    "gradient_saliency",
    "neuron_importance",
    "attention_masking",
    "PUBLISHED_THRESHOLDS",
    "MaskingDisplay",
    "neurons_for_performance",
    "neurons_per_dimension",
    "functional_interactions",
    "MODEL_COLORS",
    "model_color",
]
