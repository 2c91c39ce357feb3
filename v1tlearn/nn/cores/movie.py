"""Cores of movies: factorised convolutions, space then time, and a recurrent form of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.layers.geometry import window_centers
from v1tlearn.nn.layers.normalization import batch_norm
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.layers.time import ConvGRU, TemporalConvolution
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

    def source_positions(self) -> tuple[Tensor, Tensor]:
        """Where the cells of the maps lie: they are the pixels.

        Returns
        -------
        rows, columns : Tensor of shape (height,), (width,)
            See `Core.source_positions`.
        """
        rows, columns = map(window_centers, self.output_shape[1:])
        return rows, columns


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
    hidden_channels : int or sequence of int, default=32
        Channels of each layer; or one number for each.
    input_kernel : int or (int, int), default=9
        Side of the filters of the first layer in pixels, or height and width.
    hidden_kernel : int, default=5
        Side of the filters of the other layers in pixels, odd.
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
        be, channels are of another number of layers, or a recurrent core is to look ahead.

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
        hidden_channels: int | Sequence[int] = 32,
        input_kernel: int | Sequence[int] = 9,
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
        channels = _widths(hidden_channels, n_layers)
        first = _sides(input_kernel, self.input_shape)
        n_inputs, *size = self.input_shape
        rows, columns = (n - side + 1 for n, side in zip(size, first, strict=True))
        self.output_shape = (channels[-1], rows, columns)
        self.laplace = laplace

        def layer(n_in: int, n_out: int, sides: tuple[int, int], padding: int, taps: int) -> _Layer:
            space = nn.Conv2d(n_in, n_out, sides, padding=padding, bias=False)
            time = TemporalConvolution(n_out, taps, causal=causal)
            return _Layer(space, time, nn.BatchNorm2d(n_out, momentum=batch_norm_momentum))

        side = hidden_kernel
        layers = [layer(n_inputs, channels[0], first, 0, input_time_kernel)]
        for n_in, n_out in pairwise(channels):
            layers.append(layer(n_in, n_out, (side, side), side // 2, hidden_time_kernel))
        self.layers = nn.ModuleList(layers)
        self.memory = ConvGRU(channels[-1]) if recurrent else None
        contexts = [layer.time.context_frames for layer in layers]
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
        return self.laplace * laplace_penalty(cast(_Layer, self.layers[0]).space.weight)

    def source_positions(self) -> tuple[Tensor, Tensor]:
        """Where the cells of the feature maps lie: in the middle of the first filters.

        Returns
        -------
        rows, columns : Tensor of shape (output height,), (output width,)
            See `Core.source_positions`.
        """
        first = cast(_Layer, self.layers[0]).space.weight.shape[2:]
        sides = zip(self.output_shape[1:], first, strict=True)
        rows, columns = (window_centers(n, (side, 1, 0)) for n, side in sides)
        return rows, columns

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
        past: Past | None = None,
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
        maps = maps.unflatten(0, shape)
        for layer in self.layers:
            maps = layer(maps, past)
        return maps if self.memory is None else self.memory(maps, past)


class _Layer(nn.Module):
    """A convolution in space, one in time, batch normalisation, ELU."""

    def __init__(self, space: nn.Conv2d, time: TemporalConvolution, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.space, self.time, self.norm = space, time, norm

    def forward(self, movies: Tensor, past: Past | None = None) -> Tensor:
        """Movies (B, T, C, h', w') of movies (B, T, c, h, w)."""
        shape = movies.shape[:2]
        maps = self.space(movies.flatten(0, 1)).unflatten(0, shape)
        maps = self.time(maps, past).flatten(0, 1)
        return F.elu(batch_norm(maps, self.norm)).unflatten(0, shape)


def _sides(kernel: int | Sequence[int], input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of the first filters, which fit into frames."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    if not (1 <= height <= input_shape[1] and 1 <= width <= input_shape[2]):
        raise ValueError(
            f"input_kernel={kernel!r} does not fit into frames of {input_shape[1]} x "
            f"{input_shape[2]} pixels: choose a smaller side, or (height, width)."
        )
    return int(height), int(width)


def _widths(channels: int | Sequence[int], n_layers: int) -> list[int]:
    """Channels of each layer."""
    widths = [channels] * n_layers if isinstance(channels, int) else list(channels)
    if len(widths) != n_layers or not all(isinstance(n, int) and n >= 1 for n in widths):
        raise ValueError(
            f"hidden_channels={channels!r} of n_layers={n_layers}: expected one whole number, 1 at "
            "least, for all layers, or one for each."
        )
    return widths
