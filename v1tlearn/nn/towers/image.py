"""Towers from images to the maps that responses are aligned with: cores, as any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.layers.images import resize
from v1tlearn.nn.layers.mixing import MixBlock


class CNNTower(Core):
    """A shallow convolutional tower whose maps join several scales.

    Each layer halves the image, but for the first one, which does not; what every layer finds is
    brought to the size of the maps, where one 1 x 1 convolution joins them.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images.
    map_shape : tuple of int, default=(64, 32, 32)
        Channels, height and width of the maps.
    hidden_channels : int, default=64
    n_layers : int, default=3
    input_kernel, hidden_kernel : int, default=7, 3
        Odd sides of the kernels, in pixels.

    Raises
    ------
    ValueError
        If the images are too small for so many layers, or a kernel is even.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        map_shape: Sequence[int] = (64, 32, 32),
        *,
        hidden_channels: int = 64,
        n_layers: int = 3,
        input_kernel: int = 7,
        hidden_kernel: int = 3,
    ) -> None:
        super().__init__(input_shape)
        channels, height, width = map_shape
        self.output_shape = (int(channels), int(height), int(width))
        if min(self.input_shape[1:]) < 2 ** (n_layers - 1):
            raise ValueError(
                f"images of {self.input_shape[1]} x {self.input_shape[2]} pixels cannot be halved "
                f"{n_layers - 1} times: use fewer layers, or larger images."
            )
        if not (input_kernel % 2 and hidden_kernel % 2):
            raise ValueError(
                f"kernels of {input_kernel} and {hidden_kernel} pixels: expected odd numbers."
            )
        self.layers = nn.ModuleList(
            nn.Conv2d(
                hidden_channels if i else self.input_shape[0],
                hidden_channels,
                hidden_kernel if i else input_kernel,
                stride=2 if i else 1,
                padding=(hidden_kernel if i else input_kernel) // 2,
            )
            for i in range(n_layers)
        )
        self.join = nn.Conv2d(n_layers * hidden_channels, self.output_shape[0], 1)

    def recomputed_parts(self) -> list[nn.Module]:
        """Layers whose activations may be computed again.

        Returns
        -------
        list of Module
        """
        return list(self.layers)

    def largest_output(self) -> int:
        """Values that a layer puts out for an image, of which the first has the size.

        Returns
        -------
        int
        """
        _, height, width = self.input_shape
        first = cast(nn.Conv2d, self.layers[0])
        return max(super().largest_output(), first.out_channels * height * width)

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Maps (B, c, h, w) of images (B, C, H, W)."""
        found, x = [], images
        for layer in self.layers:
            x = F.gelu(layer(x))
            found.append(resize(x, self.output_shape[1:]))
        return self.join(torch.cat(found, 1))


class DSNetTower(Core):
    """Two stages of a dual-stream network (Mao et al. 2021), as Wang et al. (2026) use them.

    Patches of 4 x 4 pixels, mixed blocks, patches of 2 x 2 cells and mixed blocks again, then a
    1 x 1 convolution to the channels of the maps, brought to their size.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images, at least 32 x 32 pixels with the reductions
        of the paper.
    map_shape : tuple of int, default=(1, 16, 64)
        Channels, height and width of the maps.
    dims, depths, n_heads, reductions : pair of int
        Channels, blocks, heads of the self-attention, and how much coarser its grid is, in the two
        stages.
    cross_attention : {"stated", "published"}, default="stated"
        See `MixBlock`.
    backbone_trained : bool, default=True
        Whether gradients reach what is ahead of the 1 x 1 convolution. In the released code they
        do not; its running statistics follow all the same.

    Raises
    ------
    ValueError
        If the images are too small to have tokens.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        map_shape: Sequence[int] = (1, 16, 64),
        *,
        dims: Sequence[int] = (64, 128),
        depths: Sequence[int] = (3, 4),
        n_heads: Sequence[int] = (1, 2),
        reductions: Sequence[int] = (8, 4),
        cross_attention: str = "stated",
        backbone_trained: bool = True,
    ) -> None:
        super().__init__(input_shape)
        channels, height, width = map_shape
        self.output_shape = (int(channels), int(height), int(width))
        self.backbone_trained = backbone_trained
        stages, c_in, side = [], self.input_shape[0], min(self.input_shape[1:])
        for stage, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            patch = 2 if stage else 4
            side //= patch
            if depth and side < reductions[stage]:
                raise ValueError(
                    f"images of {self.input_shape[1]} x {self.input_shape[2]} pixels have {side} "
                    f"cells across in stage {stage + 1}, whose tokens take {reductions[stage]} of "
                    "them each: use larger images, or smaller reductions."
                )
            blocks = [
                MixBlock(dim, n_heads[stage], reductions[stage], cross_attention=cross_attention)
                for _ in range(depth)
            ]
            stages.append(nn.Sequential(nn.Conv2d(c_in, dim, patch, stride=patch), *blocks))
            c_in = dim
        self.stages = nn.ModuleList(stages)
        self.project = nn.Conv2d(c_in, self.output_shape[0], 1)
        self.apply(_spread)

    def recomputed_parts(self) -> list[nn.Module]:
        """Blocks whose activations may be computed again.

        Returns
        -------
        list of Module
        """
        return [part for stage in self.stages for part in stage.children()]

    def tap(self, images: Tensor) -> Tensor:
        """Feature maps after the last block, ahead of the projection.

        Parameters
        ----------
        images : Tensor of shape (n_images, channels, height, width)

        Returns
        -------
        Tensor of shape (n_images, channels, height // 8, width // 8)
        """
        for stage in self.stages:
            images = stage(images)
        return images

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Maps (B, c, h, w) of images (B, C, H, W)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.backbone_trained):
            tap = self.tap(images)
        return resize(self.project(tap), self.output_shape[1:])


def _spread(module: nn.Module) -> None:
    """Initial weights of linear layers: a narrow normal distribution, cut at two deviations."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        nn.init.zeros_(module.bias)
