"""What a fitted model has learned: receptive fields of its neurons."""

from v1tlearn.inspection.fields import receptive_fields

__all__ = ["receptive_fields"]
