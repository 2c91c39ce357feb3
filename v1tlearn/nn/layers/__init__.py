"""Layers: each states its mathematics, and asks `nn.fast` for a quicker way to compute it."""
