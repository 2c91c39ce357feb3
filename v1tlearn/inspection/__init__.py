"""Looking at data and fitted models: receptive fields, and the colours of every figure."""

from v1tlearn.inspection.colors import MODEL_COLORS, model_color
from v1tlearn.inspection.fields import receptive_fields
from v1tlearn.inspection.gaussians import fit_gaussians

__all__ = ["MODEL_COLORS", "fit_gaussians", "model_color", "receptive_fields"]
