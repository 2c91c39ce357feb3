"""Maps of receptive fields from their outlines: filled, and averaged over the areas of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from v1tlearn._values import as_number, as_sides, first_few
from v1tlearn._warn import warn

_CROSSED = 1e-6  # of a cell's area, by which rounding may leave its bounds


def receptive_fields_from_outlines(
    outlines: Any,
    image_shape: tuple[int, int],
    grid: tuple[int, int] = (16, 16),
    *,
    first_pixel: float = 0.0,
) -> np.ndarray:
    """Fill outlines of receptive fields, and average over the areas of a grid that covers images.

    Parameters
    ----------
    outlines : sequence of n_neurons arrays of shape (2, n_points)
        Of each neuron the corners of its receptive field, in order and with no gap: along the rows
        of the images (x, the column), then down (y, the row), in pixels. First and last are joined.
    image_shape : tuple of int
        Height and width of the images in pixels.
    grid : tuple of int, default=(16, 16)
        Rows and columns of the maps; they need not divide the image.
    first_pixel : float, default=0
        Place of the centre of the first pixel: 0, or 1 for coordinates of MATLAB's. The first pixel
        reaches half a pixel to either side of it.

    Returns
    -------
    ndarray of shape (n_neurons, rows, columns), float32
        Share of each cell of the grid that lies within the outline, 0 to 1. What of an outline lies
        beyond the image is left out.

    Raises
    ------
    ValueError
        Naming the neuron: an outline of another shape, of less than three points, with NaN, or one
        that crosses itself so that what lies inside is not defined.

    Warns
    -----
    UserWarning
        If outlines lie beyond the image as a whole: their maps are zero.

    Notes
    -----
    Areas are exact. By Green's theorem the area of a polygon to the left of X and above Y is the
    integral of min(x, X) dy along the part of its edge that lies above Y; differences of these
    along both sides of the grid are the areas in its cells.

    Examples
    --------
    >>> from v1tlearn import receptive_fields_from_outlines
    >>> square = [[-0.5, 2.5, 2.5, -0.5], [-0.5, -0.5, 1.5, 1.5]]  # 3 columns of 2 rows of pixels
    >>> receptive_fields_from_outlines([square], (4, 4), grid=(2, 2))
    array([[[1. , 0.5],
            [0. , 0. ]]], dtype=float32)
    """
    grid, first_pixel = as_sides(grid, "grid"), as_number(first_pixel, "first_pixel")
    sides = zip(as_sides(image_shape, "image_shape"), grid, strict=True)
    down, right = (first_pixel - 0.5 + np.linspace(0, n, cells + 1) for n, cells in sides)
    if not isinstance(outlines, Sequence | np.ndarray) or getattr(outlines, "ndim", 1) == 0:
        raise TypeError(f"outlines are a {type(outlines).__name__}: expected one array per neuron.")
    maps = np.empty((len(outlines), *grid), np.float32)
    for neuron, outline in enumerate(outlines):
        areas = np.diff(np.diff(_areas_above(_points(outline, neuron), down, right), axis=0))
        shares = areas / (down[1] - down[0]) / (right[1] - right[0])
        shares = shares * (-1 if shares.sum() < 0 else 1)  # whichever way round it goes
        if shares.min() < -_CROSSED or shares.max() > 1 + _CROSSED:
            raise ValueError(
                f"outlines: that of neuron {neuron} crosses itself, expected a simple line around "
                "the field: draw it anew, as the hull of its points"
            )
        maps[neuron] = np.clip(shares, 0, 1)
    beyond = np.flatnonzero(~maps.any(axis=(1, 2)))
    if len(beyond):
        warn(
            f"receptive fields of {first_few(beyond, 'neuron')} lie beyond the image of "
            f"{image_shape[0]} x {image_shape[1]} pixels, their maps are zero: drop them, or check "
            "the unit and the origin of the outlines."
        )
    return maps


def _points(outline: Any, neuron: int) -> np.ndarray:
    """Corners (2, points), the last not the first again."""
    try:
        points = np.asarray(outline, np.float64)
    except (TypeError, ValueError, RuntimeError):  # of a tensor with gradients
        raise ValueError(
            f"outlines: that of neuron {neuron} holds no numbers (2, points)"
        ) from None
    if points.ndim != 2 or points.shape[0] != 2 or points.shape[1] < 3:
        turned = points.ndim == 2 and points.shape[1] == 2
        raise ValueError(
            f"outlines: that of neuron {neuron} has shape {points.shape}, expected (2, points), x "
            "then y, of three points or more" + (": transpose it" if turned else "")
        )
    if not np.isfinite(points).all():
        raise ValueError(
            f"outlines: that of neuron {neuron} holds NaN or Inf, expected one closed line: give "
            "each part as a field of its own, or the outer one alone"
        )
    return points


def _areas_above(points: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Signed area of a polygon above each of `down` and to the left of each of `right`."""
    x, y = points[:, :, None, None]
    dx, dy = np.roll(x, -1, axis=0) - x, np.roll(y, -1, axis=0) - y
    level, side = down[:, None], right[None, :]
    # The part of each edge, from 0 to 1 along it, that lies above the level.
    steep = np.where(dy == 0, 1.0, dy)
    crossing = np.clip((level - y) / steep, 0.0, 1.0)
    start = np.where(dy < 0, crossing, 0.0)
    stop = np.where(dy > 0, crossing, 1.0)
    # dy is 0 along level edges, whose integral is 0 whatever their part.
    one, other = x + start * dx, x + stop * dx
    return (_mean_of_smaller(one, other, side) * (stop - start) * dy).sum(axis=0)


def _mean_of_smaller(one: np.ndarray, other: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Mean of min(x, bound) while x goes evenly from one value to another."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    span = np.where(high > low, high - low, 1.0)
    below = np.clip((bound - low) / span, 0.0, 1.0)  # share of the way that is below the bound
    below = np.where(high > low, below, (low < bound).astype(float))
    mean_below = 0.5 * (low + np.minimum(high, np.maximum(bound, low)))
    return below * mean_below + (1 - below) * bound
