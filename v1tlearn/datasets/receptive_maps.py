"""Maps of receptive fields in recordings: what they have to be, and their averages over areas."""

from __future__ import annotations

import numpy as np
import xarray as xr

FIELD = "receptive_field"
FIELD_DIMS = ("neuron", "row", "column")


def check_receptive_field(mouse: str, dataset: xr.Dataset) -> None:
    """Check the receptive fields of a recording, where it has some.

    Parameters
    ----------
    mouse : str
        Mouse id, for errors.
    dataset : Dataset

    Raises
    ------
    ValueError
        If they have other dimensions, or are no finite numbers.
    """
    if FIELD not in dataset:
        return
    maps = dataset.variables[FIELD]
    if maps.dims != FIELD_DIMS or 0 in maps.shape:
        raise ValueError(
            f"mouse {mouse!r}, {FIELD}: dims are {maps.dims} with shape {maps.shape}, expected "
            f"{FIELD_DIMS}, a map for each of {dataset.sizes.get('neuron', 0)} neurons: "
            "transpose or rename them"
        )
    if maps.dtype.kind not in "uif":
        raise ValueError(f"mouse {mouse!r}, {FIELD}: dtype is {maps.dtype}, expected numbers")
    if not np.isfinite(maps.values).all():
        at = int(np.argmax(~np.isfinite(maps.values).all(axis=(1, 2))))
        raise ValueError(
            f"mouse {mouse!r}, {FIELD}: that of neuron {at} (by place) holds NaN or Inf, expected "
            "finite maps: zero where nothing is known"
        )


def average_over_areas(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Average maps over the areas of another grid that covers the same image.

    Parameters
    ----------
    maps : ndarray of shape (..., rows, columns)
    grid : (int, int)
        Rows and columns of the result.

    Returns
    -------
    ndarray of shape (..., *grid), float64
        Each cell the mean of what it covers, parts of cells by their area.
    """
    down, right = (_weights(n, m) for n, m in zip(maps.shape[-2:], grid, strict=True))
    return down @ maps.astype(np.float64) @ right.T


def _weights(n: int, m: int) -> np.ndarray:
    """Share (m, n) of each new cell that each of `n` old ones takes, along one side."""
    old, new = np.linspace(0, 1, n + 1), np.linspace(0, 1, m + 1)
    overlap = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    return np.maximum(overlap, 0) * m
