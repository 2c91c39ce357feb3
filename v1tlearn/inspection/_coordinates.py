"""Places on a grid of pixels in the coordinates of these pixels, and ellipses there."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from numbers import Real

import numpy as np
import xarray as xr

from v1tlearn._values import plain, shape_of


def step_of(positions: np.ndarray) -> float:
    """Mean distance of neighbours.

    Parameters
    ----------
    positions : ndarray of shape (n_pixels,)

    Returns
    -------
    float
        1 of a single pixel.
    """
    if len(positions) < 2:
        return 1.0
    return float((positions[-1] - positions[0]) / (len(positions) - 1))


def at(positions: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Positions at places between pixels and beyond the outermost.

    Parameters
    ----------
    positions : ndarray of shape (n_pixels,)
        Of the pixels.
    places : ndarray
        In pixels from the first one; NaN stays NaN.

    Returns
    -------
    ndarray
        Of the shape of `places`.
    """
    if len(positions) < 2:
        return positions[0] + places
    left = np.clip(np.nan_to_num(np.floor(places)), 0, len(positions) - 2).astype(np.int64)
    return positions[left] + (places - left) * (positions[left + 1] - positions[left])


def folded(angle: float | np.ndarray) -> float | np.ndarray:
    """The direction of an axis, from -pi/2 to below pi/2.

    Parameters
    ----------
    angle : float or ndarray
        In radians.

    Returns
    -------
    float or ndarray
    """
    return (angle + np.pi / 2) % np.pi - np.pi / 2


def ellipses(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard deviations along the two axes of Gaussians, and where the first one points.

    Parameters
    ----------
    covariance : ndarray of shape (n, 2, 2)
        Of (x, y).

    Returns
    -------
    sigma_x : ndarray of shape (n,)
        Along the axis that is nearer to that of x.
    sigma_y : ndarray of shape (n,)
    angle : ndarray of shape (n,)
        From the x axis to that of `sigma_x`, from -pi/4 to pi/4 but for rounding.
    """
    sigmas = np.full((len(covariance), 2), np.nan)
    angle = np.full(len(covariance), np.nan)
    known = np.isfinite(covariance).all((1, 2))
    squares, axes = np.linalg.eigh(covariance[known])  # axes in columns
    first = np.abs(axes[:, 0]).argmax(1)  # the one with the larger part along x
    rows = np.arange(len(first))
    widths = np.sqrt(np.maximum(squares, 0))
    sigmas[known] = np.stack((widths[rows, first], widths[rows, 1 - first]), 1)
    angle[known] = folded(np.arctan2(axes[rows, 1, first], axes[rows, 0, first]))
    return sigmas[:, 0], sigmas[:, 1], angle


def pixel_scale(degrees_per_pixel: Sequence[float] | None) -> tuple[Sequence[float], str]:
    """What a pixel counts as, high and wide, and in which unit.

    Parameters
    ----------
    degrees_per_pixel : (float, float), optional
        Height and width of a pixel.

    Returns
    -------
    (float, float)
        1 where nothing is told.
    str
        "degree" or "pixel".

    Raises
    ------
    ValueError
        If these are not two positive numbers.
    """
    if degrees_per_pixel is None:
        return (1.0, 1.0), "pixel"
    shape = shape_of(degrees_per_pixel)
    values = tuple(plain(v) for v in degrees_per_pixel) if shape == (2,) else ()
    positive = [
        isinstance(v, Real) and not isinstance(v, bool) and 0 < float(v) < inf for v in values
    ]
    if len(values) != 2 or not all(positive):
        raise ValueError(
            f"degrees_per_pixel={degrees_per_pixel!r}: expected two positive numbers, for the "
            "height and the width of a pixel."
        )
    return values, "degree"


def edges_of(fields: xr.DataArray, name: str) -> tuple[float, float]:
    """Where the first pixel of one side begins, and the last one ends.

    Parameters
    ----------
    fields : DataArray
    name : str
        Dimension; without coordinates pixels are counted from 0.

    Returns
    -------
    (float, float)
    """
    n = fields.sizes[name]
    if name not in fields.coords:
        return -0.5, n - 0.5
    centres = fields[name].values.astype(float)
    half = (centres[-1] - centres[0]) / (n - 1) / 2 if n > 1 else 0.5
    return float(centres[0] - half), float(centres[-1] + half)
