"""The grid of positions that a sliding window visits on an image.

Every module that turns pixels into a feature map takes its output shape from here.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def patch_grid(
    image_size: Sequence[int], patch_size: int, stride: int = 1, padding: int = 0
) -> tuple[int, int]:
    """Number of window positions along each side of an image.

    Parameters
    ----------
    image_size : tuple of int
        Height and width of the image, in pixels.
    patch_size : int
        Side of the square window, in pixels.
    stride : int, default=1
        Step between neighbouring windows, in pixels.
    padding : int, default=0
        Pixels added on each of the four sides.

    Returns
    -------
    tuple of int
        Rows and columns of the grid. Windows that would reach over the lower or right edge are
        left out.

    Raises
    ------
    ValueError
        If a size or step is not positive, or the window is larger than the padded image.
    """
    if patch_size < 1 or stride < 1 or padding < 0:
        raise ValueError(
            f"patch size and stride must be at least 1 and padding at least 0, got patch size "
            f"{patch_size}, stride {stride}, padding {padding}."
        )
    height, width = image_size
    if patch_size > min(height, width) + 2 * padding:
        padded = f" with {padding} pixels of padding" if padding else ""
        raise ValueError(
            f"a patch of {patch_size} x {patch_size} pixels does not fit into images of "
            f"{height} x {width} pixels{padded}; choose a smaller patch or kernel, or larger "
            f"images."
        )
    rows, columns = ((side + 2 * padding - patch_size) // stride + 1 for side in (height, width))
    return rows, columns


def window_centers(n_positions: int, *windows: tuple[int, int, int]) -> Tensor:
    """Centres of sliding windows along one side of an image, or of windows of windows.

    Parameters
    ----------
    n_positions : int
        Positions of the last window.
    *windows : (int, int, int)
        Side, step and padding of each, the one that sees the image first.

    Returns
    -------
    Tensor of shape (n_positions,)
        Float64, in pixels from the centre of the first one. With padding windows may be centred
        beyond the image.
    """
    start, step = 0.0, 1
    for side, stride, padding in windows:
        start += step * ((side - 1) / 2 - padding)
        step *= stride
    return start + step * torch.arange(n_positions, dtype=torch.float64)


def most_square_grid(n_positions: int) -> tuple[int, int]:
    """Grid that the published V1T code takes for a number of tokens, whatever the image.

    It divides the number by the smallest integer at or above its square root, or the largest
    divisor below. For many patch sizes and strides that is not the grid of `patch_grid`, and
    tokens then land at wrong places of the feature map.

    Parameters
    ----------
    n_positions : int
        Number of tokens.

    Returns
    -------
    tuple of int
        Rows and columns, whose product is `n_positions`.
    """
    rows = math.isqrt(n_positions - 1) + 1
    while n_positions % rows:
        rows -= 1
    return rows, n_positions // rows
