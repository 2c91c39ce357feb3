"""Frames cut into patches: features of movies without a pretrained model."""

from __future__ import annotations

from torch import Tensor


def frame_patches(movies: Tensor, grid: int) -> Tensor:
    """Cut each frame into a grid of patches, whose pixels are its features.

    What stands for the features of a vision transformer where the network is to do without one.

    Parameters
    ----------
    movies : Tensor of shape (n_items, n_frames, n_channels, height, width)
    grid : int
        Patches along either side.

    Returns
    -------
    Tensor of shape (n_items, n_frames, grid * grid, n_channels * patch_height * patch_width)
        Patches row by row; of each the pixels of one channel after the other, row by row.

    Raises
    ------
    ValueError
        If movies have other axes, or the sides of frames are no multiples of the grid.
    """
    if movies.ndim != 5 or movies.shape[3] % grid or movies.shape[4] % grid:
        raise ValueError(
            f"movies have the shape {tuple(movies.shape)}: expected (items, frames, channels, "
            f"height, width), with a height and width that {grid} patches can share; resize or "
            "crop the frames before."
        )
    rows = movies.unflatten(4, (grid, -1)).unflatten(3, (grid, -1))  # (B, T, c, g, h, g, w)
    return rows.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
