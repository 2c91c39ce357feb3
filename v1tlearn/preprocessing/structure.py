"""Images without part of their structure: coarser, in pieces, or of shapes without texture.

Plain functions of arrays, which keep the size of the images.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from v1tlearn._values import plain
from v1tlearn.preprocessing.stimuli import check_images, float_dtype
from v1tlearn.training import draw_seed

_IN_PLANE = (0, 0, 1, 1)  # axes of an image that filters go along


def downsample(images: Any, factor: int) -> np.ndarray:
    """Make pixels coarser: squares of pixels have their mean.

    Parameters
    ----------
    images : array (n, channels, height, width)
    factor : int
        Side of the squares, in pixels, from the upper left corner on; at the right and lower edge
        they are cut off where `factor` does not divide the side. At most the longer side.

    Returns
    -------
    ndarray (n, channels, height, width)
        float32, or float64 where they were; of the same size, so that a model takes them.

    Raises
    ------
    ValueError
        If these are no images, values are not finite, or the factor is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import downsample
    >>> downsample(np.arange(6.0).reshape(1, 1, 1, 6), 4)[0, 0, 0]
    array([1.5, 1.5, 1.5, 1.5, 4.5, 4.5])
    """
    images = check_images(images, "downsample")
    factor = plain(factor, "downsample: factor")
    most = max(images.shape[2:])
    if not isinstance(factor, Integral) or isinstance(factor, bool) or not 1 <= factor <= most:
        raise ValueError(
            f"downsample: factor={factor!r}: expected a whole number from 1 to {most}."
        )
    out = images.astype(float_dtype(images.dtype))
    for axis in (2, 3):
        starts = np.arange(0, out.shape[axis], factor)
        counts = np.diff([*starts, out.shape[axis]])
        shape = [-1 if i == axis else 1 for i in range(4)]
        sums = np.add.reduceat(out, starts, axis=axis)
        out = np.repeat(sums / counts.reshape(shape).astype(out.dtype), counts, axis=axis)
    return out


def shuffle_patches(
    images: Any, patch_size: int | tuple[int, int], *, random_state: Any = None
) -> np.ndarray:
    """Cut images into patches and put these elsewhere: texture stays, larger shapes go.

    Parameters
    ----------
    images : array (n, channels, height, width)
    patch_size : int or (int, int)
        Side, or height and width, of the patches, in pixels, from the upper left corner on. What
        is left at the right and lower edge, less than a patch, stays where it is.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the order, of which each image has its own.

    Returns
    -------
    ndarray (n, channels, height, width)
        In their own dtype: values are moved only.

    Raises
    ------
    ValueError
        If these are no images, values are not finite, or fewer than two patches fit in.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import shuffle_patches
    >>> shuffle_patches(np.arange(7).reshape(1, 1, 1, 7), (1, 2), random_state=0)[0, 0, 0]
    array([4, 5, 0, 1, 2, 3, 6])
    """
    images = check_images(images, "shuffle_patches")
    height, width = patch_sides(patch_size, images.shape[2:], "patch_size")
    n, channels = images.shape[:2]
    rows, columns = images.shape[2] // height, images.shape[3] // width
    if rows * columns < 2:
        raise ValueError(
            f"shuffle_patches: patches of {height} x {width} pixels fit into images of "
            f"{images.shape[2]} x {images.shape[3]} once: expected smaller ones."
        )
    rng = np.random.default_rng(draw_seed(plain(random_state)))
    out = images.copy()
    whole = out[..., : rows * height, : columns * width]
    grid = whole.reshape(n, channels, rows, height, columns, width).transpose(0, 2, 4, 1, 3, 5)
    patches = grid.reshape(n, rows * columns, channels, height, width)
    for own in patches:
        own[:] = own[rng.permutation(len(own))]
    moved = patches.reshape(n, rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2, 5)
    out[..., : rows * height, : columns * width] = moved.reshape(whole.shape)
    return out


def edges(images: Any, sigma: float = 1.0) -> np.ndarray:
    """Lines where the grey level changes: shapes without the texture that is finer.

    The size of the gradient of the image after a Gaussian blur, brought to the mean and standard
    deviation of the image, so that brightness and contrast are no cue.

    Parameters
    ----------
    images : array (n, channels, height, width)
        Each channel by itself.
    sigma : float, default=1.0
        Standard deviation of the blur, in pixels, above 0: what is finer is no edge.

    Returns
    -------
    ndarray (n, channels, height, width)
        float32, or float64 where they were; not clipped. An image without edges has its mean
        everywhere.

    Raises
    ------
    ValueError
        If these are no images, values are not finite, or sigma is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import edges
    >>> step = np.repeat([0.0, 100.0], 4) + np.zeros((1, 1, 8, 1))
    >>> found = edges(step)[0, 0, 0]
    >>> found.argmax() in (3, 4), round(float(found.mean())), round(float(found.std()))
    (True, 50, 50)
    """
    images = check_images(images, "edges")
    sigma = _sigma(sigma, "edges", above=True)
    dtype = float_dtype(images.dtype)
    out = np.empty(images.shape, dtype)
    for i, channel in np.ndindex(images.shape[:2]):
        image = images[i, channel].astype(np.float64)
        lines = gaussian_gradient_magnitude(image, sigma, mode="nearest")
        spread = lines.std()
        flat = spread <= 1e-9 * np.abs(image).max()
        scaled = 0.0 if flat else (lines - lines.mean()) * (image.std() / spread)
        out[i, channel] = image.mean() + scaled
    return out


def silhouettes(images: Any, sigma: float = 2.0) -> np.ndarray:
    """Reduce images to two levels: shapes without texture.

    Images are blurred, and cut at the level that leaves the two sides as uniform as can be (Otsu
    1979): no other image of two levels is nearer to the blurred one in least squares. Each side
    gets the mean of the unblurred image over it.

    Parameters
    ----------
    images : array (n, channels, height, width)
        The mean over channels is cut; all channels have the same two sides.
    sigma : float, default=2.0
        Standard deviation of the blur, in pixels; 0 for none.

    Returns
    -------
    ndarray (n, channels, height, width)
        float32, or float64 where they were. Means stay; a flat image remains what it is.

    Raises
    ------
    ValueError
        If these are no images, values are not finite, or sigma is below 0.

    References
    ----------
    Otsu, "A threshold selection method from gray-level histograms", 1979.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import silhouettes
    >>> silhouettes(np.array([1.0, 2.0, 8.0, 10.0]).reshape(1, 1, 1, 4), sigma=0)[0, 0, 0]
    array([1.5, 1.5, 9. , 9. ])
    """
    images = check_images(images, "silhouettes")
    sigma = _sigma(sigma, "silhouettes", above=False)
    values = images.astype(np.float64)
    grey = values.mean(1, keepdims=True)
    blurred = gaussian_filter(grey, [sigma * along for along in _IN_PLANE], mode="nearest")
    above = blurred > _best_cut(blurred)[:, None, None, None]
    out = np.empty_like(values)
    for side in (above, ~above):
        counts = np.maximum(side.sum((2, 3), keepdims=True), 1)
        means = np.where(side, values, 0).sum((2, 3), keepdims=True) / counts
        np.copyto(out, means, where=side)
    return out.astype(float_dtype(images.dtype))


def patch_sides(
    sides: Any, size: tuple[int, int], name: str, *, of: str = "the image"
) -> tuple[int, int]:
    """Height and width of a part of an image.

    Parameters
    ----------
    sides : int or (int, int)
    size : (int, int)
        The largest that there may be.
    name : str
        Of the option, for the error.
    of : str, default="the image"
        What has this size.

    Returns
    -------
    (int, int)

    Raises
    ------
    ValueError
        If they are no whole numbers from 1 to `size`.
    """
    given = plain(sides, name)
    both = tuple(given) if isinstance(given, list | tuple) else (given, given)
    if len(both) != 2 or not all(
        isinstance(side, Integral) and not isinstance(side, bool) and 1 <= int(side) <= most
        for side, most in zip(both, size, strict=True)
    ):
        raise ValueError(
            f"{name}={sides!r}: expected a whole number, or height and width, from 1 to those of "
            f"{of}, {size[0]} x {size[1]} pixels."
        )
    return int(both[0]), int(both[1])


def _sigma(sigma: Any, who: str, *, above: bool) -> float:
    value = plain(sigma, f"{who}: sigma")
    if (
        not isinstance(value, Real)
        or isinstance(value, bool)
        or not (0 < float(value) < np.inf if above else 0 <= float(value) < np.inf)
    ):
        wanted = "above 0" if above else "from 0 on"
        raise ValueError(f"{who}: sigma={sigma!r}: expected a number {wanted}, in pixels.")
    return float(value)


def _best_cut(images: np.ndarray) -> np.ndarray:
    """Value of each image up to which pixels are on the lower side, (n,)."""
    n = int(np.prod(images.shape[1:]))
    ordered = np.sort(images.reshape(len(images), n), axis=1)
    if n < 2:
        return ordered[:, 0]
    lower = np.arange(1, n)
    sums = ordered.cumsum(1)
    total = sums[:, -1:]
    below, beyond = sums[:, :-1] / lower, (total - sums[:, :-1]) / (n - lower)
    between = lower * (n - lower) * (beyond - below) ** 2  # variance between the sides
    best = between.argmax(1)
    return ordered[np.arange(len(ordered)), best]
