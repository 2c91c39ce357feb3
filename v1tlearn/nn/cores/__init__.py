"""Cores: what the animals of a model share, from images to feature maps."""
