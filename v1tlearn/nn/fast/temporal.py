"""Depthwise convolutions of movies on a CPU: for each tap in time a convolution of frames.

A few frames at a time, which stay in the cache for all taps. Those of frames, channels last, are
quick, while torch has none for movies; and taps that lie outside the movie cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.derivatives import differentiable_once

# Values of the frames that are worked on at a time: 1 MB in float32.
_CHUNK_VALUES = 2**18


class Taps(NamedTuple):
    """How filters lie in time and space.

    Attributes
    ----------
    dilation : int
        Frames from one tap to the next.
    before, after : int
        Frames of zeros that are thought ahead of the movie, and behind it.
    padding : int
        Pixels of zeros around each frame.
    """

    dilation: int
    before: int
    after: int
    padding: int


class _DepthwiseInTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, movies: Tensor, weight: Tensor, bias: Tensor, taps: Taps) -> Tensor:
        """See `depthwise_in_time`."""
        ctx.save_for_backward(movies, weight, bias)
        ctx.taps = taps
        n_items, n_frames, channels, *size = movies.shape
        n_taps, side = weight.shape[2], weight.shape[-1]
        n_left = n_frames + taps.before + taps.after - (n_taps - 1) * taps.dilation
        size = [s + 2 * taps.padding - side + 1 for s in size]
        out = movies.new_empty((n_items, n_left, *size, channels)).copy_(bias).movedim(-1, 2)
        filters = weight.unbind(2)
        with torch.autocast(movies.device.type, enabled=False):
            for movie, result in zip(movies, out, strict=True):
                for tap, to, of in _parts(n_left, movie, n_taps, taps):
                    result[to] += F.conv2d(
                        movie[of], filters[tap], padding=taps.padding, groups=channels
                    )
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The same taps, from results to frames and filters."""
        movies, weight, _ = ctx.saved_tensors
        taps, (need_movies, need_weight, need_bias, _) = ctx.taps, ctx.needs_input_grad
        channels, filters = movies.shape[2], [w.contiguous() for w in weight.unbind(2)]
        to_movies = torch.zeros_like(movies) if need_movies else None
        to_filters = [torch.zeros_like(w) for w in filters]
        with torch.autocast(movies.device.type, enabled=False):
            for item, (movie, given) in enumerate(zip(movies, gradient, strict=True)):
                for tap, to, of in _parts(len(given), movie, len(filters), taps):
                    to_frames, to_filter, _ = torch.ops.aten.convolution_backward(
                        given[to], movie[of], filters[tap], None, [1, 1], [taps.padding] * 2,
                        [1, 1], False, [0, 0], channels, [need_movies, need_weight, False],
                    )  # fmt: skip
                    if need_movies:
                        to_movies[item, of] += to_frames
                    if need_weight:
                        to_filters[tap] += to_filter
        to_weight = torch.stack(to_filters, 2) if need_weight else None
        return to_movies, to_weight, gradient.sum((0, 1, 3, 4)) if need_bias else None, None


def _parts(
    n_left: int, movie: Tensor, n_taps: int, taps: Taps
) -> Iterator[tuple[int, slice, slice]]:
    """Taps, results of a few frames, and frames that the tap takes to them."""
    step = max(1, sized(_CHUNK_VALUES) // max(1, movie[0].numel()))
    for start in range(0, n_left, step):
        for tap in range(n_taps):
            shift = tap * taps.dilation - taps.before
            first, last = max(start, -shift), min(start + step, n_left, len(movie) - shift)
            if first < last:
                yield tap, slice(first, last), slice(first + shift, last + shift)


def depthwise_in_time(movies: Tensor, weight: Tensor, bias: Tensor, taps: Taps) -> Tensor:
    """Convolve each channel of movies with a filter in time and space.

    Parameters
    ----------
    movies : Tensor of shape (n_items, n_frames, n_channels, height, width)
        On a CPU, best channels last.
    weight : Tensor of shape (n_channels, 1, n_taps, side, side)
    bias : Tensor of shape (n_channels,)
    taps : Taps

    Returns
    -------
    Tensor of shape (n_items, n_frames + before + after - (n_taps - 1) dilation, n_channels, ...)
        Channels last.
    """
    return _DepthwiseInTime.apply(movies, weight, bias, taps)
