"""What a fitted model has learned: receptive fields of its neurons."""

from v1tlearn.inspection.fields import receptive_fields
from v1tlearn.inspection.gaussians import fit_gaussians

__all__ = ["fit_gaussians", "receptive_fields"]
