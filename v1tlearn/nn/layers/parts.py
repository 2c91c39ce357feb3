"""Parts of images around points of a feature map: what a cell sees, and no more."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Seen(NamedTuple):
    """What cells of a feature map see, of a core that is the same at every place.

    A part of an image, ``side`` pixels from pixel p on, gives the ``side - kernel + 1`` cells from
    cell p on. Those that are `margin` cells or more away from the ends of the part are those of the
    whole image; where an end of the part is one of the image, all there are.

    Attributes
    ----------
    kernel : (int, int)
        Height and width of what a cell sees before it sees others.
    margin : (int, int)
        Cells above and below, left and right, that it sees.
    """

    kernel: tuple[int, int]
    margin: tuple[int, int]


def parts_around(
    images: Tensor, points: Tensor, map_size: tuple[int, int], seen: Seen
) -> tuple[Tensor, Tensor]:
    """Cut from each image the part on which the map at a point depends.

    Parameters
    ----------
    images : Tensor of shape (n_images, n_channels, height, width)
    points : Tensor of shape (n_images, 2)
        As (x, y); -1 and 1 are the centres of the outermost cells of the map.
    map_size : (int, int)
        Height and width of the map of a whole image.
    seen : Seen

    Returns
    -------
    parts : Tensor of shape (n_images, n_channels, part height, part width)
    points : Tensor of shape (n_images, 2)
        The same places on the maps of the parts.
    """
    indices, moved = [], []
    for axis, (n_cells, kernel, margin) in enumerate(zip(map_size, *seen, strict=True)):
        along = points[:, 1 - axis]
        n_seen = min(n_cells, 2 * margin + 2)  # the two cells between which a point lies
        at = (along + 1) * ((n_cells - 1) / 2)  # in cells
        start = (at.floor().clamp(0, n_cells - 1).long() - margin).clamp(0, n_cells - n_seen)
        pixels = torch.arange(n_seen + kernel - 1, device=images.device)
        indices.append(start[:, None] + pixels)
        moved.append(2 * (at - start) / max(n_seen - 1, 1) - 1)
    rows, columns = indices
    each = torch.arange(len(images), device=images.device)[:, None, None]
    parts = images[each, :, rows[:, :, None], columns[:, None]]  # (B, h, w, c)
    return parts.movedim(-1, 1), torch.stack(moved[::-1], -1)
