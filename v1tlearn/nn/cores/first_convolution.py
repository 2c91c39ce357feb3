"""The first convolution of a model, and nothing after it: what all minimodels see."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.layers.geometry import window_centers


class FirstConvolution(Core):
    """Convolution with large filters, as in the first layer of a two-layer model.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images.
    n_channels : int, default=16
        Filters.
    kernel : int, default=25
        Their side, in pixels.
    stride : int, default=1
        Distance from one place of a filter to the next, in pixels.

    Attributes
    ----------
    convolution : Conv2d
        Without bias, padded by half of its side.

    References
    ----------
    Du et al., "Towards a simplified model of primary visual cortex", 2025.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_channels: int = 16,
        kernel: int = 25,
        stride: int = 1,
    ) -> None:
        super().__init__(input_shape)
        n_inputs, *sides = self.input_shape
        padding = kernel // 2
        self.convolution = nn.Conv2d(
            n_inputs, n_channels, kernel, stride=stride, padding=padding, bias=False
        )
        nn.init.xavier_normal_(self.convolution.weight)
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
        self.output_shape = (n_channels, height, width)

    @property
    def filters(self) -> Tensor:
        """Weights of shape (n_channels, image channels, kernel, kernel)."""
        return self.convolution.weight

    def source_positions(self) -> tuple[Tensor, Tensor]:
        """Where the cells of the maps lie: in the middle of the filters.

        Returns
        -------
        rows, columns : Tensor of shape (output height,), (output width,)
            See `Core.source_positions`.
        """
        conv = self.convolution
        window = (conv.kernel_size[0], conv.stride[0], int(conv.padding[0]))
        rows, columns = (window_centers(n, window) for n in self.output_shape[1:])
        return rows, columns

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Maps (B, C, h, w) of images, ahead of any normalisation."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"the core is made for images of shape {self.input_shape}, got "
                f"{tuple(images.shape[1:])}."
            )
        weight, conv = self.convolution.weight, self.convolution
        images = images.to(weight.dtype)
        return F.conv2d(images, weight, stride=conv.stride, padding=conv.padding)
