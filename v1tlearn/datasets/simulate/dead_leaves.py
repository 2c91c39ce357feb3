"""Dead-leaves images: opaque, shaded ellipses that hide one another, with natural 1/f^2 spectra.

Only the pictures live here; who sees which of them, and when, is decided in `simulate`.
"""

from __future__ import annotations

import math

import numpy as np

_MIN_RADIUS = 1.0  # pixels; the finest detail an image shows
_DEPTH = 2.5  # leaves over a pixel, on average; bare pixels show one background
_CLUTTER_RANGE = 0.9  # log of the largest over the smallest radius at which images begin
_CLASS_RATIO = 1.3  # leaves are stamped in classes of similar radius
_ELONGATED = 0.5  # width of leaves of one direction, relative to those of all
_SPREAD = 0.125  # and how much of a half turn their directions fill
_BLOCK_ELEMENTS = 2_000_000  # stamped pixels held at once


def dead_leaves(
    rng: np.random.Generator,
    n_images: int,
    image_shape: tuple[int, int],
    n_channels: int = 1,
    orientation: np.ndarray | None = None,
) -> np.ndarray:
    """Draw independent dead-leaves images.

    Radii follow a density proportional to r^-3, which makes the image scale invariant and its
    power fall as 1/f^2 (Lee, Mumford & Huang, 2001, Int. J. Comput. Vis. 41, 35-59). Leaves are
    ellipses with a brightness of their own and a linear shading; mean luminance and contrast
    vary from image to image.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; advanced.
    n_images : int
        Number of images.
    image_shape : tuple of int
        Height and width in pixels.
    n_channels : int, default=1
        Colour channels, strongly correlated with one another, as in natural scenes.
    orientation : ndarray of shape (n_images,), optional
        Texture of each image: its leaves are two to four times as long as wide and lie within 11
        degrees of this direction, in radians from the rows, turning down. Without it leaves are
        rounder and lie in all directions.

    Returns
    -------
    ndarray of shape (n_images, n_channels, height, width), uint8
        Grey levels, 0 to 255.
    """
    images = np.empty((n_images, n_channels, *image_shape), np.uint8)
    per_image = 2.5 * _DEPTH * math.prod(_tile_shape(image_shape))
    block = int(max(1, min(256, _BLOCK_ELEMENTS // per_image)))
    for start in range(0, n_images, block):
        stop = min(start + block, n_images)
        direction = None if orientation is None else orientation[start:stop]
        images[start:stop] = _paint(rng, stop - start, image_shape, n_channels, direction)
    return images


def _tile_shape(image_shape: tuple[int, int]) -> tuple[int, int]:
    """Shape of the torus the leaves lie on; the image is a window of it, so it does not wrap."""
    margin = max(3, min(image_shape) // 4)
    return image_shape[0] + margin, image_shape[1] + margin


def _paint(rng, n_images, image_shape, n_channels, orientation):
    """One block of images: which leaf is on top of each pixel, then the leaf's grey level there."""
    height, width = image_shape
    tile = _tile_shape(image_shape)
    radius_max = max(2.0 * _MIN_RADIUS, 0.5 * min(image_shape))
    inverse_min, inverse_max = _MIN_RADIUS**-2, radius_max**-2
    roundness = 1.0 if orientation is None else _ELONGATED
    mean_area = (
        roundness
        * 0.75
        * math.pi
        * math.log(inverse_min / inverse_max)
        / (inverse_min - inverse_max)
    )
    n_leaves = math.ceil(_DEPTH * math.prod(tile) / mean_area)

    shape = (n_images, n_leaves)
    radius = rng.uniform(inverse_max, inverse_min, shape) ** -0.5  # density ~ r^-3
    # From clutter to a few large objects before a bare background: some images lack small leaves.
    smallest = _MIN_RADIUS * np.exp(rng.uniform(0.0, _CLUTTER_RANGE, n_images))
    aspect = roundness * rng.uniform(0.5, 1.0, shape)
    angle = rng.uniform(0.0, math.pi, shape)
    if orientation is not None:
        angle = orientation[:, None] + _SPREAD * (angle - 0.5 * math.pi)
    y, x = rng.uniform(0.0, tile[0], shape), rng.uniform(0.0, tile[1], shape)
    top = _top_leaf(tile, x, y, radius, aspect, angle, radius >= smallest[:, None])
    top = top[:, :height, :width]

    # Index 0 is the background: mid grey, not shaded.
    leaf = np.where(top > 0, np.arange(n_images)[:, None, None] * n_leaves + top, 0)
    shade = rng.normal(0.0, 0.35, (2, *shape)) / radius
    flat = [a.astype(np.float32).ravel() for a in (y, x, *shade)]
    flat = [np.concatenate([np.zeros(1, np.float32), a]) for a in flat]
    row = np.arange(height, dtype=np.float32)[:, None]
    column = np.arange(width, dtype=np.float32)
    dy, dx = row - flat[0][leaf], column - flat[1][leaf]
    dy -= tile[0] * np.rint(dy / tile[0])  # nearest copy on the torus
    dx -= tile[1] * np.rint(dx / tile[1])
    shading = dy * flat[2][leaf] + dx * flat[3][leaf]
    shading[leaf == 0] = 0.0

    common = rng.standard_normal(shape)
    mean = rng.normal(112.0, 22.0, n_images)
    contrast = np.clip(44.0 * np.exp(0.35 * rng.standard_normal(n_images)), 15.0, 90.0)
    images = np.empty((n_images, n_channels, height, width), np.uint8)
    for channel in range(n_channels):
        own = common
        if n_channels > 1:
            own = 0.85 * common + math.sqrt(1 - 0.85**2) * rng.standard_normal(shape)
        # A rounded distribution: fewer extreme leaves than a normal one, so little is clipped.
        level = 1.8 * np.tanh(own / 1.5)
        level = np.concatenate([np.zeros(1), level.ravel()]).astype(np.float32)
        grey = level[leaf] + shading
        grey = grey * contrast[:, None, None] + mean[:, None, None]
        images[:, channel] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return images


def _top_leaf(tile, x, y, radius, aspect, angle, present):
    """Number (from 1, 0 for none) of the leaf on top at each pixel; later leaves hide earlier ones.

    Size classes are stamped in one go each: within a class the last of repeated indices wins,
    between classes the larger number does, so no loop over leaves is needed.
    """
    n_images, n_leaves = x.shape
    n_pixels = math.prod(tile)
    top = np.zeros(n_images * n_pixels, np.int32)
    number = np.broadcast_to(np.arange(1, n_leaves + 1, dtype=np.int32), x.shape)
    image = np.broadcast_to(np.arange(n_images, dtype=np.int64)[:, None], x.shape)
    size_class = np.ceil(np.log(radius / _MIN_RADIUS) / math.log(_CLASS_RATIO)).astype(int)
    for k in np.unique(size_class[present]):
        # C order, so numbers ascend within an image.
        chosen = np.nonzero(present & (size_class == k))
        reach = math.ceil(_MIN_RADIUS * _CLASS_RATIO ** float(k)) + 1
        offset = np.arange(-reach, reach + 1)
        chunk = max(1, _BLOCK_ELEMENTS // offset.size**2)
        for start in range(0, chosen[0].size, chunk):
            part = tuple(c[start : start + chunk] for c in chosen)
            layer_index, layer_number = _stamp(
                tile, offset, *(a[part] for a in (x, y, radius, aspect, angle, image, number))
            )
            layer = np.zeros(top.size, np.int32)
            layer[layer_index] = layer_number
            np.maximum(top, layer, out=top)
    return top.reshape(n_images, *tile)


def _stamp(tile, offset, x, y, radius, aspect, angle, image, number):
    """Flat pixel indices under a set of leaves, and the number of the leaf at each."""
    centre_x, centre_y = np.rint(x).astype(int), np.rint(y).astype(int)
    dx = (centre_x[:, None] + offset - x[:, None]).astype(np.float32)[:, None, :]
    dy = (centre_y[:, None] + offset - y[:, None]).astype(np.float32)[:, :, None]
    cosine, sine = np.cos(angle), np.sin(angle)
    long, short = radius**-2, (aspect * radius) ** -2
    xx = (long * cosine**2 + short * sine**2).astype(np.float32)[:, None, None]
    yy = (long * sine**2 + short * cosine**2).astype(np.float32)[:, None, None]
    xy = (2 * (long - short) * cosine * sine).astype(np.float32)[:, None, None]
    inside = xx * dx**2 + yy * dy**2 + (xy * dx) * dy <= 1.0  # (leaf, row, column)
    rows = (centre_y[:, None] + offset) % tile[0] * tile[1] + image[:, None] * math.prod(tile)
    columns = (centre_x[:, None] + offset) % tile[1]
    index = (rows[:, :, None] + columns[:, None, :])[inside]
    return index, np.repeat(number, inside.sum(axis=(1, 2)))
