"""The published numbers of Vi-ST, and how they are compared; see tests/reference."""

from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parents[2] / "reference" / "vist"


def load(name):
    with np.load(REFERENCE / f"{name}.npz") as file:
        return dict(file)


def under(arrays, prefix):
    """Arrays whose names begin so, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def relative_error(value, reference):
    """Largest difference over the largest reference."""
    value = value.detach().double().numpy() if hasattr(value, "detach") else np.asarray(value)
    reference = np.asarray(reference, dtype=np.float64)
    assert value.shape == reference.shape
    return np.abs(value - reference).max() / np.abs(reference).max()
