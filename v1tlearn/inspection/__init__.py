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
from v1tlearn.inspection.attention import (
    AttentionRolloutDisplay,
    attention_center_of_mass,
    attention_pupil_correlation,
    attention_rollout,
)
from v1tlearn.inspection.behavior import (
    BehaviorActivationDisplay,
    BehaviorPerformanceDisplay,
    behavior_ablation,
    behavior_activations,
    behavior_gain,
    performance_by_behavior,
    readout_shifts,
    with_behavior,
)
from v1tlearn.inspection.colors import MODEL_COLORS, model_color
from v1tlearn.inspection.field_display import ReceptiveFieldDisplay
from v1tlearn.inspection.field_distributions import FieldDistributionDisplay
from v1tlearn.inspection.fields import receptive_fields
from v1tlearn.inspection.gaussians import fit_gaussians
from v1tlearn.inspection.images import ImageDisplay
from v1tlearn.inspection.in_silico import (
    MostExcitingImagesDisplay,
    TuningCurveDisplay,
    gabors,
    gratings,
    most_exciting_images,
    plaids,
    surround,
    tuning_curves,
    tuning_properties,
)
from v1tlearn.inspection.kernels import KernelDisplay
from v1tlearn.inspection.learning import LearningCurveDisplay
from v1tlearn.inspection.movies import MoviePredictionDisplay
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
from v1tlearn.inspection.positions import readout_positions
from v1tlearn.inspection.responses import PredictionDisplay
from v1tlearn.inspection.retinotopy import retinotopy_smoothness
from v1tlearn.inspection.retinotopy_display import RetinotopyDisplay
from v1tlearn.inspection.scores import ScoreDisplay
from v1tlearn.inspection.training import TrainingDisplay
from v1tlearn.inspection.triggered_averages import space_time_components, spike_triggered_average

__all__ = [
    "ImageDisplay",
    "MoviePredictionDisplay",
    "KernelDisplay",
    "ReceptiveFieldDisplay",
    "FieldDistributionDisplay",
    "RetinotopyDisplay",
    "PredictionDisplay",
    "ScoreDisplay",
    "LearningCurveDisplay",
    "TrainingDisplay",
    "RetrievalDisplay",
    "AlignmentDisplay",
    "ManipulationDisplay",
    "receptive_fields",
    "spike_triggered_average",
    "space_time_components",
    "fit_gaussians",
    "readout_positions",
    "retinotopy_smoothness",
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
    "attention_rollout",
    "attention_center_of_mass",
    "attention_pupil_correlation",
    "AttentionRolloutDisplay",
    "with_behavior",
    "behavior_gain",
    "behavior_ablation",
    "behavior_activations",
    "BehaviorActivationDisplay",
    "performance_by_behavior",
    "BehaviorPerformanceDisplay",
    "readout_shifts",
    "most_exciting_images",
    "tuning_curves",
    "tuning_properties",
    "surround",
    "gratings",
    "gabors",
    "plaids",
    "MostExcitingImagesDisplay",
    "TuningCurveDisplay",
    "MODEL_COLORS",
    "model_color",
]
