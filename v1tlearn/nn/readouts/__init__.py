"""Readouts: what each animal has for itself, from feature maps to neurons."""
