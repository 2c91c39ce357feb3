"""Which parts and properties of images an alignment of images and responses rests on."""

from v1tlearn.inspection.alignment.manipulations import cutoff_of, manipulation_curve

__all__ = ["cutoff_of", "manipulation_curve"]
