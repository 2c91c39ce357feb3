"""Experiments on fitted models: most exciting images, tuning curves, what surrounds a field."""

from v1tlearn.inspection.in_silico.exciting import most_exciting_images

__all__ = ["most_exciting_images"]
