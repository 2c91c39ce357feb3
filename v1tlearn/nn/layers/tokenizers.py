"""Tokenizers: images in, one embedded token per grid position out, row by row.

Each has `grid`, the (rows, columns) of its tokens, computed from the patch geometry.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.layers.geometry import patch_grid
from v1tlearn.nn.layers.normalization import LayerNorm


class PatchTokenizer(nn.Module):
    """Cut overlapping patches and embed each linearly.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images.
    patch_size, patch_stride : int
        Side of a patch and step between patches, in pixels.
    embed_dim : int
        Length of a token.
    shifted : bool, default=False
        Append to the image four copies moved diagonally by half a patch (shifted patch
        tokenization, Lee et al. 2021), for any number of channels.
    norm_patches, norm_tokens : bool, default=False
        Layer normalisation of the pixels of a patch, and of the finished token; both make the
        dual patch norm of Kumar et al. (2023).

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of tokens.
    windows : list of (int, int, int)
        Side, step and padding of the windows that see the image, one behind the other.

    Raises
    ------
    ValueError
        If a patch does not fit into the image.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        patch_size: int,
        patch_stride: int,
        embed_dim: int,
        *,
        shifted: bool = False,
        norm_patches: bool = False,
        norm_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.grid = patch_grid(input_shape[1:], patch_size, patch_stride)
        self.patch_size = patch_size
        self.patch_stride = patch_stride
        self.windows = [(patch_size, patch_stride, 0)]
        self.shifted = shifted
        n_pixels = input_shape[0] * (5 if shifted else 1) * patch_size**2
        self.patch_norm = LayerNorm(n_pixels) if norm_patches else nn.Identity()
        self.projection = nn.Linear(n_pixels, embed_dim)
        self.token_norm = LayerNorm(embed_dim) if norm_tokens else nn.Identity()

    def _with_shifted_copies(self, images: Tensor) -> Tensor:
        """Images and their copies from upper left, upper right, lower left, lower right."""
        step = self.patch_size // 2
        height, width = images.shape[-2:]
        padded = F.pad(images, (step,) * 4)
        corners = [(y, x) for y in (0, 2 * step) for x in (0, 2 * step)]
        copies = [padded[..., y : y + height, x : x + width] for y, x in corners]
        return torch.cat((images, *copies), dim=1)  # (B, 5 c, h, w)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, h' w', d) of images (B, c, h, w)."""
        if self.shifted:
            images = self._with_shifted_copies(images)
        patches = F.unfold(images, self.patch_size, stride=self.patch_stride)  # (B, c P P, h' w')
        return self.token_norm(self.projection(self.patch_norm(patches.transpose(1, 2))))


class ConvTokenizer(nn.Module):
    """Embed patches by a convolution that starts Kaiming-normal.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images.
    patch_size, patch_stride : int
        Side of the filters and step between them, in pixels.
    embed_dim : int
        Length of a token.
    compact : bool, default=False
        The tokenizer of the compact convolutional transformer (Hassani et al. 2021): 3 pixels of
        padding, no bias, then ReLU and 3 x 3 max-pooling at every second position.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of tokens.
    windows : list of (int, int, int)
        Side, step and padding of the windows that see the image, one behind the other.

    Raises
    ------
    ValueError
        If a filter does not fit into the image.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        patch_size: int,
        patch_stride: int,
        embed_dim: int,
        *,
        compact: bool = False,
    ) -> None:
        super().__init__()
        padding = 3 if compact else 0
        self.windows = [(patch_size, patch_stride, padding)]
        self.grid = patch_grid(input_shape[1:], patch_size, patch_stride, padding)
        self.projection = nn.Conv2d(
            input_shape[0], embed_dim, patch_size, patch_stride, padding, bias=not compact
        )
        nn.init.kaiming_normal_(self.projection.weight)
        self.pool: nn.Module = nn.Identity()
        if compact:
            self.grid = patch_grid(self.grid, 3, 2, 1)
            self.windows.append((3, 2, 1))
            self.pool = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, h' w', d) of images (B, c, h, w)."""
        return self.pool(self.projection(images)).flatten(2).transpose(1, 2)


def sinusoidal_positions(n_positions: int, embed_dim: int) -> Tensor:
    """Fixed position embedding of sines and cosines (Vaswani et al. 2017).

    Parameters
    ----------
    n_positions : int
        Number of tokens.
    embed_dim : int
        Length of a token.

    Returns
    -------
    Tensor of shape (n_positions, embed_dim)
        Sines in the even columns, cosines of the same angles in the odd ones.
    """
    columns = torch.arange(embed_dim)
    wavelength = 10000 ** (2 * (columns // 2).double() / embed_dim)
    angles = torch.arange(n_positions, dtype=torch.float64)[:, None] / wavelength
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).float()


def make_tokenizer(
    name: str,
    input_shape: tuple[int, int, int],
    patch_size: int,
    patch_stride: int,
    embed_dim: int,
) -> PatchTokenizer | ConvTokenizer:
    """Build a tokenizer by name.

    Parameters
    ----------
    name : {"unfold", "conv", "spt", "cct", "dual_norm"}
        Kind of tokenizer.
    input_shape : tuple of int
        Channels, height and width of the images.
    patch_size, patch_stride : int
        Side of a patch and step between patches, in pixels.
    embed_dim : int
        Length of a token.

    Returns
    -------
    PatchTokenizer or ConvTokenizer
        Maps images (B, c, h, w) to tokens (B, h' w', d); has `grid`.

    Raises
    ------
    ValueError
        If the name is unknown, the stride leaves pixels out or a patch does not fit.
    """
    kinds: dict[str, tuple[type[PatchTokenizer | ConvTokenizer], dict[str, Any]]] = {
        "unfold": (PatchTokenizer, {}),
        "conv": (ConvTokenizer, {}),
        "spt": (PatchTokenizer, {"shifted": True, "norm_patches": True}),
        "cct": (ConvTokenizer, {"compact": True}),
        "dual_norm": (PatchTokenizer, {"norm_patches": True, "norm_tokens": True}),
    }
    if name not in kinds:
        raise ValueError(f"tokenizer must be one of {', '.join(map(repr, kinds))}, got {name!r}.")
    if patch_stride > patch_size:
        raise ValueError(
            f"patch_stride {patch_stride} is larger than patch_size {patch_size}, so pixels "
            f"between the patches would be lost; choose a stride of at most the patch size."
        )
    kind, options = kinds[name]
    return kind(input_shape, patch_size, patch_stride, embed_dim, **options)
