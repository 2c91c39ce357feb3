"""The published numbers of Vi-ST, and how they are compared; see tests/reference."""

from pathlib import Path

import numpy as np
import torch

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


def tensors(arrays, dtype):
    return {k: torch.from_numpy(np.array(v)).to(dtype) for k, v in arrays.items()}


def assert_gradients_agree(found, known, dtype, zero=()):
    """Relative to the largest gradient in single precision, else to that of the array."""
    assert set(found) == set(known)
    largest = max(np.abs(g).max() for g in known.values())
    for name, reference in known.items():
        difference = np.abs(found[name].double().numpy() - reference).max()
        if dtype == torch.float32 or name in zero:
            assert difference < 1e-5 * largest, name
        else:
            assert difference < 1e-6 * np.abs(reference).max(), name
