"""Which parts and properties of images an alignment of images and responses rests on."""

from v1tlearn.inspection.alignment.alignment_display import AlignmentDisplay
from v1tlearn.inspection.alignment.class_decoding import class_decoding
from v1tlearn.inspection.alignment.confusions import class_confusions, class_galleries
from v1tlearn.inspection.alignment.cutoffs import cutoff_of
from v1tlearn.inspection.alignment.dissimilarities import representational_similarity
from v1tlearn.inspection.alignment.gradients import gradient_saliency
from v1tlearn.inspection.alignment.locations import alignment_map
from v1tlearn.inspection.alignment.manipulation_display import ManipulationDisplay
from v1tlearn.inspection.alignment.manipulations import manipulation_curve
from v1tlearn.inspection.alignment.occlusion import occlusion_saliency
from v1tlearn.inspection.alignment.retrieval_display import RetrievalDisplay

__all__ = [
    "AlignmentDisplay",
    "ManipulationDisplay",
    "RetrievalDisplay",
    "alignment_map",
    "class_confusions",
    "class_decoding",
    "class_galleries",
    "cutoff_of",
    "gradient_saliency",
    "manipulation_curve",
    "occlusion_saliency",
    "representational_similarity",
]
