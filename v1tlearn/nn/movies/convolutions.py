"""Convolutions of movies (B, C, T, H, W), whose channels lie last in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.fast.temporal import Taps, depthwise_in_time
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.layers.time import check_past, context_of


def channels_last(movies: Tensor) -> Tensor:
    """Movies whose channels lie last in memory, where that is of use."""
    if fast.is_plain():  # under transforms of torch.func, too, which do not know of it
        return movies
    return movies.contiguous(memory_format=torch.channels_last_3d)


def to_frames(movies: Tensor) -> Tensor:
    """Frames (B T, C, H, W) of movies (B, C, T, H, W), without a copy where channels are last."""
    return movies.transpose(1, 2).flatten(0, 1)


def to_movies(frames: Tensor, n_items: int) -> Tensor:
    """Movies (B, C, T, H, W) of frames (B T, C, H, W), without a copy."""
    return frames.unflatten(0, (n_items, -1)).transpose(1, 2)


def is_quick(movies: Tensor) -> bool:
    """Tell whether forms that were made for CPUs are to be taken."""
    on_cpu = movies.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_cpu and not fast.is_plain()


def pointwise(movies: Tensor, convolution: nn.Conv3d) -> Tensor:
    """Mix the channels of each place: a 1 x 1 x 1 convolution."""
    by_place = F.linear(movies.movedim(1, -1), convolution.weight.flatten(1), convolution.bias)
    return by_place.movedim(-1, 1)


class SpatiotemporalConvolution(nn.Conv3d):
    """Convolution of frames where it has one tap in time, and else of each channel for itself.

    Parameters
    ----------
    channels : int
    n_taps : int
        Frames of the kernel.
    side : int, default=3
        Pixels of the kernel, in height and width.
    dilation : int, default=1
        Frames from one tap to the next.
    causal : bool, default=True
        Whether the last tap is the present frame; else the middle one is.
    padding : int, default=0
        Pixels of zeros around each frame.

    Raises
    ------
    ValueError
        If the kernel has no tap, or no middle one where it should.
    """

    bias: Tensor

    def __init__(
        self,
        channels: int,
        n_taps: int,
        *,
        side: int = 3,
        dilation: int = 1,
        causal: bool = True,
        padding: int = 0,
    ) -> None:
        context = context_of(n_taps, dilation=dilation, causal=causal)
        super().__init__(
            channels,
            channels,
            (n_taps, side, side),
            dilation=(dilation, 1, 1),
            groups=1 if n_taps == 1 else channels,
        )
        self.context_frames, self.around = context, padding

    def forward(self, movies: Tensor, past: Past | None = None) -> Tensor:
        """Movies (B, C, T, h, w) of movies (B, C, T, H, W)."""
        check_past(self.context_frames, past)
        before, after = self.context_frames
        if self.kernel_size[0] == 1:
            n_items, frames = len(movies), to_frames(movies)
            frames = F.conv2d(frames, self.weight[:, :, 0], self.bias, padding=self.around)
            return to_movies(frames, n_items)
        if past is not None:
            movies, before = past.lengthen(self, movies, before), 0
        if is_quick(movies):
            taps = Taps(self.dilation[0], before, after, self.around)
            movies = movies.transpose(1, 2)
            return depthwise_in_time(movies, self.weight, self.bias, taps).transpose(1, 2)
        padded = F.pad(movies, (*(self.around,) * 4, before, after))
        return super().forward(padded)
