"""How alike images and their reconstructions are, image by image.

Plain arrays in and out; galleries and what is found in them are in `retrieval`.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch

from v1tlearn._values import as_array, as_dims, as_flag, shape_of
from v1tlearn.nn import structural_similarity

_DIMS = {4: ("trial", "channel", "height", "width"), 3: ("trial", "height", "width")}
_AT_ONCE = 8  # images, whose maps stay in the caches of a processor
_ROUNDING = 1e-6  # of the largest value, below which a deviation is none


def pixel_correlation(images: Any, reconstructions: Any) -> np.ndarray:
    """Correlation over pixels and channels of each image with its reconstruction.

    Parameters
    ----------
    images : ndarray of shape (n, channels, height, width), or any (n, ...)
        What was seen, in any unit.
    reconstructions : ndarray of this shape
        In any unit. Dimensions of DataArrays go by name, here as in `ssim`.

    Returns
    -------
    ndarray of shape (n,)
        From -1 to 1. A reconstruction without contrast counts 0; of an image without contrast
        there is nothing to reconstruct: NaN, to be left out of means.

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.

    Notes
    -----
    Values that differ by rounding only, at most 1e-6 of the largest one, are no contrast.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.metrics import pixel_correlation
    >>> images = np.arange(8.0).reshape(2, 1, 2, 2)
    >>> pixel_correlation(images, [[[[1, 2], [3, 4]]], [[[0, 0], [0, 0]]]])
    array([1., 0.])
    """
    images, reconstructions = _pair(images, reconstructions)
    (first, seen), (second, told) = unit_contrast(images), unit_contrast(reconstructions)
    correlation = np.einsum("ij,ij->i", first, second).clip(-1, 1)
    return np.where(seen, np.where(told, correlation, 0.0), np.nan)


def ssim(
    images: Any, reconstructions: Any, *, low: float = 0.0, high: float = 1.0, clip: bool = True
) -> np.ndarray:
    """Structural similarity of each image and its reconstruction, in the form of Wang et al. 2026.

    Means, variances and covariance are over 3 x 3 pixels, with zeros outside the image and always
    divided by 9; the constants are 0.01 and 0.03 of the range of grey levels, squared (Wang et al.
    2004).

    Parameters
    ----------
    images : ndarray of shape (n, height, width) or (n, channels, height, width)
    reconstructions : ndarray of this shape
        In the same units.
    low, high : float, default=0.0, 1.0
        Grey levels that become 0 and 1 before. Values beyond them stay beyond.
    clip : bool, default=True
        Cut the similarity around every pixel to [0, 1], as published, before the mean is taken.

    Returns
    -------
    ndarray of shape (n,)
        Mean over pixels and channels; 1 where both are the same.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or `low` is not below `high`.

    See Also
    --------
    v1tlearn.nn.structural_similarity : Around every pixel, on tensors.

    References
    ----------
    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
    Wang et al., arXiv 2605.04309, 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.metrics import ssim
    >>> images = np.random.default_rng(0).random((2, 1, 8, 8))
    >>> ssim(images, images)
    array([1., 1.])
    """
    images, reconstructions = _pair(images, reconstructions)
    if images.ndim not in (3, 4):
        raise ValueError(
            f"images have the shape {images.shape}: expected (images, height, width) or (images, "
            "channels, height, width)."
        )
    if not (isinstance(low, Real) and isinstance(high, Real) and -np.inf < low < high < np.inf):
        raise ValueError(f"low={low!r} and high={high!r}: expected finite numbers, low below high.")
    clip = as_flag(clip, "clip")
    maps = [v.reshape(len(v), -1, *v.shape[-2:]) for v in (images, reconstructions)]
    scaled = [torch.from_numpy((v - low) / (high - low)) for v in maps]
    out = []
    for one, two in zip(*(v.split(_AT_ONCE) for v in scaled), strict=True):
        similarity = structural_similarity(one, two)
        out.append((similarity.clamp(0, 1) if clip else similarity).flatten(1).mean(1))
    return torch.cat(out).numpy()


def unit_contrast(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring images to mean 0 and length 1, so that their products are correlations.

    Parameters
    ----------
    values : ndarray of shape (n, ...)

    Returns
    -------
    vectors : ndarray of shape (n, pixels)
        float64; zeros for an image without contrast.
    contrast : ndarray of bool of shape (n,)
        Whether an image has contrast.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    # by powers of 2, so that squares are in range, and nothing is rounded
    flat = np.ldexp(flat, -np.frexp(np.abs(flat).max(axis=1, keepdims=True))[1])
    largest = np.abs(flat).max(axis=1)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1)
    contrast = length > _ROUNDING * largest * np.sqrt(flat.shape[1])
    return np.where(contrast[:, None], flat / np.where(contrast, length, 1)[:, None], 0), contrast


def _pair(images: Any, reconstructions: Any) -> tuple[np.ndarray, np.ndarray]:
    pair = []
    for name, values in (("images", images), ("reconstructions", reconstructions)):
        dims = _DIMS.get(len(shape_of(values) or ()))
        turned = values if dims is None else as_dims(values, dims, name)
        pair.append(as_array(turned, name, of="image").astype(np.float64))
    for name, values in zip(("images", "reconstructions"), pair, strict=True):
        if values.ndim < 2 or not values.size:
            raise ValueError(
                f"{name} have the shape {values.shape}: expected (images, channels, height, width)."
            )
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{name}: {len(bad)} of {len(values)}, the first number {bad[0]}, hold values "
                "that are not finite."
            )
    if pair[0].shape != pair[1].shape:
        raise ValueError(
            f"images have the shape {pair[0].shape}, reconstructions {pair[1].shape}: expected the "
            "same images in the same order."
        )
    return pair[0], pair[1]
