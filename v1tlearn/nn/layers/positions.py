"""Where the patches of an image are, for a transformer that learned them at another stride.

Rotary tables (DINOv3) and resampled tables of learned positions (DINOv2), both at the true centres
of the patches, so that patches that overlap lie between those that do not.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def patch_centres(side: int, patch_size: int, stride: int) -> Tensor:
    """Centres of the patches along one side of an image.

    Parameters
    ----------
    side : int
        Of the image, in pixels.
    patch_size, stride : int
        In pixels.

    Returns
    -------
    Tensor of shape (n_patches,)
        Float64, in sides: 0 is one edge, 1 the other.
    """
    n = (side - patch_size) // stride + 1
    return (torch.arange(n, dtype=torch.float64) * stride + patch_size / 2) / side


class RotaryPositions(nn.Module):
    """Cosines and sines by which DINOv3 turns queries and keys of patches.

    The centre (y, x) of a patch, from -1 to 1, gives the angles ``2 pi y f`` and ``2 pi x f`` for
    all frequencies f, twice over (Simeoni et al. 2025, section 3.2). In training mode the
    coordinates of all patches may be shifted, stretched along the axes, and scaled at random, once
    per forward pass.

    Parameters
    ----------
    frequencies : Tensor of shape (head width / 4,)
    patch_size, stride : int
        In pixels.
    shift : float, optional
        Shifts are drawn uniformly from -shift to shift.
    jitter, rescale : float, optional
        Factors for each axis, and for both, are log-uniform from 1 / jitter to jitter.

    References
    ----------
    Simeoni et al., "DINOv3", arXiv:2508.10104, 2025.
    """

    frequencies: Tensor

    def __init__(
        self,
        frequencies: Tensor,
        patch_size: int,
        stride: int,
        *,
        shift: float | None = None,
        jitter: float | None = None,
        rescale: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies.detach().clone(), persistent=False)
        self.patch_size, self.stride = patch_size, stride
        self.shift, self.jitter, self.rescale = shift, jitter, rescale

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (n_patches, head width) for images (B, c, h, w), row by row."""
        centres = [patch_centres(s, self.patch_size, self.stride) for s in pixels.shape[-2:]]
        grid = torch.meshgrid(*(c.float().to(pixels.device) for c in centres), indexing="ij")
        places = 2 * torch.stack(grid, -1).flatten(0, 1) - 1  # (n_patches, 2)
        if self.training:
            places = self._moved(places)
        with torch.autocast(pixels.device.type, enabled=False):
            angles = 2 * math.pi * places[:, :, None] * self.frequencies.float()
            angles = angles.flatten(1).tile(2)
        return angles.cos().to(pixels.dtype), angles.sin().to(pixels.dtype)

    def _moved(self, places: Tensor) -> Tensor:
        def drawn(size: int, bound: float) -> Tensor:
            return places.new_empty(size).uniform_(-bound, bound)

        if self.shift is not None:
            places = places + drawn(2, self.shift)
        if self.jitter is not None:
            places = places * drawn(2, math.log(self.jitter)).exp()
        if self.rescale is not None:
            places = places * drawn(1, math.log(self.rescale)).exp()
        return places


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def cubic_weights(centres: Tensor, n_cells: int, cells_apart: float, *, antialias: bool) -> Tensor:
    """Weights by which cells along one side of a table are read at any places.

    At the centres of equal parts of the side it is the bicubic interpolation of torch.

    Parameters
    ----------
    centres : Tensor of shape (n,)
        In sides, see `patch_centres`.
    n_cells : int
        Of the table.
    cells_apart : float
        Cells of the table per patch; with `antialias` more than one widen the kernel.
    antialias : bool
        With it cells beyond the edge are left out, without it those of the edge stand for them.

    Returns
    -------
    Tensor of shape (n, n_cells)
        Float64; the weights of each place sum to 1.
    """
    at = centres[:, None] * n_cells - 0.5  # in cells, from the centre of the first
    if antialias:
        width = max(cells_apart, 1.0)
        weights = _cubic((torch.arange(n_cells) - at) / width, -0.5)
        return weights / weights.sum(1, keepdim=True)
    cells = at.floor() + torch.arange(-1, 3)  # (n, 4)
    weights = at.new_zeros(len(centres), n_cells)
    return weights.scatter_add_(1, cells.long().clamp(0, n_cells - 1), _cubic(at - cells, -0.75))


def resampled_positions(
    table: Tensor, size: Sequence[int], patch_size: int, stride: int, *, antialias: bool
) -> Tensor:
    """Read a square table of learned positions at the centres of patches.

    Parameters
    ----------
    table : Tensor of shape (n_cells, n_cells, width)
        Learned positions.
    size : (int, int)
        Height and width of the images, in pixels.
    patch_size, stride : int
        In pixels.
    antialias : bool
        See `cubic_weights`.

    Returns
    -------
    Tensor of shape (n_patches, width)
        Row by row.
    """
    rows, columns = (
        cubic_weights(
            patch_centres(side, patch_size, stride),
            len(table),
            len(table) * patch_size / side,
            antialias=antialias,
        ).to(table)
        for side in size
    )
    return torch.einsum("ri,cj,ijd->rcd", rows, columns, table).flatten(0, 1)
