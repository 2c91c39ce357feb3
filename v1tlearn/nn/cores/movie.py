"""Cores of movies: factorised convolutions, space then time, and a recurrent form of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.layers.geometry import patch_grid
from v1tlearn.nn.layers.normalization import batch_norm
from v1tlearn.nn.layers.time import ConvGRU, TimeConvolution
from v1tlearn.nn.losses import laplace_penalty


class FramesCore(Core):
    """Frames as they are: the core of models whose readouts see pixels.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the frames.
    """

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__(input_shape)
        self.output_shape = self.input_shape

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Frames (B, C, h, w) of frames (B, C, h, w)."""
        return images


class MovieCNNCore(Core):
    """Layers of factorised 3-D convolutions: in space, then in time.

    Each is a convolution of frames and one along time, batch normalisation, and ELU; the first one
    has no padding in space. Ahead of a movie there are zeros, in all layers. A recurrent core ends
    with a memory, `v1tlearn.nn.ConvGRU`.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the frames; planes of behaviour count as channels.
    n_layers : int, default=3
    hidden_channels : int, default=32
        Channels of each layer.
    input_kernel, hidden_kernel : int, default=9, 5
        Sides of the filters of the first layer and of the others, in pixels; the latter odd.
    input_time_kernel, hidden_time_kernel : int, default=11, 5
        Frames that the filters of the first layer and of the others cover.
    causal : bool, default=True
        Whether they look back alone. Otherwise they are symmetric around the present frame, odd,
        and there is no memory.
    recurrent : bool, default=False
        Whether there is a memory.
    memory_frames : int, default=20
        From how many frames on a memory counts, in training, where movies are cut into windows.
    batch_norm_momentum : float, default=0.1
    laplace : float, default=1.0
        Weight of the roughness of the first filters in space in `penalty`.

    Attributes
    ----------
    output_shape : tuple of int
        Channels, height and width of the feature maps.

    Raises
    ------
    ValueError
        If the first filters are larger than the frames, a side or length is not odd where it should
        be, or a recurrent core is to look ahead.

    References
    ----------
    Hoefling et al., "A chromatic feature detector in the retina signals visual context changes",
    eLife, 2024.
    Turishcheva et al., "The dynamic Sensorium competition for predicting large-scale mouse visual
    cortex activity from videos", arXiv:2305.19654, 2023.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_layers: int = 3,
        hidden_channels: int = 32,
        input_kernel: int = 9,
        hidden_kernel: int = 5,
        input_time_kernel: int = 11,
        hidden_time_kernel: int = 5,
        causal: bool = True,
        recurrent: bool = False,
        memory_frames: int = 20,
        batch_norm_momentum: float = 0.1,
        laplace: float = 1.0,
    ) -> None:
        super().__init__(input_shape)
        if hidden_kernel % 2 == 0:
            raise ValueError(f"hidden_kernel must be odd, got {hidden_kernel}.")
        if recurrent and not causal:
            raise ValueError("a recurrent core looks back alone: set causal=True.")
        self.output_shape = (hidden_channels, *patch_grid(self.input_shape[1:], input_kernel))
        self.laplace = laplace
        c, layers = hidden_channels, []
        for layer in range(n_layers):
            side, taps = (
                (hidden_kernel, hidden_time_kernel)
                if layer
                else (
                    input_kernel,
                    input_time_kernel,
                )
            )
            layers.append(
                nn.ModuleDict(
                    {
                        "space": nn.Conv2d(
                            c if layer else self.input_shape[0],
                            c,
                            side,
                            padding=side // 2 if layer else 0,
                            bias=False,
                        ),
                        "time": TimeConvolution(c, taps, causal=causal),
                        "norm": nn.BatchNorm2d(c, momentum=batch_norm_momentum),
                    }
                )
            )
        self.layers = nn.ModuleList(layers)
        self.memory = ConvGRU(c) if recurrent else None
        contexts = [layer["time"].context_frames for layer in layers]
        before, after = (sum(context[i] for context in contexts) for i in (0, 1))
        self.context_frames = (before + recurrent * memory_frames, after)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
        self.float()  # whatever torch's default dtype is

    def penalty(self) -> Tensor:
        """Weighted roughness of the filters of the first layer in space.

        Returns
        -------
        Tensor
            Scalar.
        """
        return self.laplace * laplace_penalty(self.layers[0]["space"].weight)

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
        past: Any = None,
    ) -> Tensor:
        """Feature maps (B, T, C, h', w') of movies (B, T, c, h, w)."""
        if images.dim() != 5 or images.shape[2:] != self.input_shape:
            raise ValueError(
                f"the core is made for movies of frames of shape {self.input_shape}, got "
                f"{tuple(images.shape)}."
            )
        shape, maps = images.shape[:2], images.flatten(0, 1)
        if maps.device.type == "cpu":
            maps = maps.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            maps = layer["space"](maps).unflatten(0, shape)  # (B, T, C, h', w')
            maps = layer["time"](maps, past).flatten(0, 1)
            maps = F.elu(batch_norm(maps, layer["norm"]))
        maps = maps.unflatten(0, shape)
        return maps if self.memory is None else self.memory(maps, past)
