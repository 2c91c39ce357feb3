"""Depthwise convolutions of movies on a CPU: for each tap in time a convolution of frames.

A few frames at a time, which stay in the cache for all taps. Those of frames, channels last, are
quick, while torch has none for movies; and taps that lie outside the movie cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.derivatives import differentiable_once
from v1tlearn.nn.precision import at_least_float32

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
        n_left = n_frames + taps.before + taps.after - (weight.shape[2] - 1) * taps.dilation
        size = [s + 2 * taps.padding - weight.shape[-1] + 1 for s in size]
        out = movies.new_empty((n_items, n_left, *size, channels)).movedim(-1, 2)
        filters = [at_least_float32(w).contiguous() for w in weight.unbind(2)]
        with torch.autocast(movies.device.type, enabled=False):
            for movie, result in zip(movies, out, strict=True):
                for chunk, parts in _chunks(result, movie, _shifts(weight, taps)):
                    length, offset = chunk.stop - chunk.start, at_least_float32(bias)
                    total: Tensor | None = None
                    if not (parts and _covers(parts[0], length)):
                        total = offset[:, None, None].expand(length, -1, *size)
                        total = total.contiguous(memory_format=torch.channels_last)
                    for tap, to, of in parts:
                        frames = at_least_float32(movie[of])  # half of it came under autocast
                        own = offset if total is None else None
                        found = F.conv2d(
                            frames, filters[tap], own, padding=taps.padding, groups=channels
                        )
                        if total is None:
                            total = found
                        else:
                            total[to] += found
                    result[chunk] = total
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The same taps the other way round: from results to the frames that they are of."""
        movies, weight, bias = ctx.saved_tensors
        taps, (need_movies, need_weight, need_bias, _) = ctx.taps, ctx.needs_input_grad
        channels = movies.shape[2]
        filters = [at_least_float32(w).contiguous() for w in weight.unbind(2)]
        shifts = [-shift for shift in _shifts(weight, taps)]
        to_movies = torch.empty_like(movies) if need_movies else None
        to_filters = [torch.zeros_like(w) for w in filters]
        with torch.autocast(movies.device.type, enabled=False):
            for item, (movie, given) in enumerate(zip(movies, gradient, strict=True)):
                for chunk, parts in _chunks(movie, given, shifts):
                    frames = at_least_float32(movie[chunk])
                    total: Tensor | None = None
                    if need_movies and not (parts and _covers(parts[0], len(frames))):
                        total = torch.zeros_like(frames)
                    for tap, to, of in parts:
                        results = at_least_float32(given[of])
                        to_frames, to_filter, _ = torch.ops.aten.convolution_backward(
                            results, frames[to], filters[tap], None, [1, 1], [taps.padding] * 2,
                            [1, 1], False, [0, 0], channels, [need_movies, need_weight, False],
                        )  # fmt: skip
                        if total is not None:
                            total[to] += to_frames
                        elif need_movies:
                            total = to_frames
                        if need_weight:
                            to_filters[tap] += to_filter
                    if to_movies is not None and total is not None:
                        to_movies[item, chunk] = total
        to_weight = torch.stack(to_filters, 2).to(weight.dtype) if need_weight else None
        to_bias = gradient.sum((0, 1, 3, 4), dtype=bias.dtype) if need_bias else None
        return to_movies, to_weight, to_bias, None


def _shifts(weight: Tensor, taps: Taps) -> list[int]:
    """From a result to the frame that each tap takes for it."""
    return [tap * taps.dilation - taps.before for tap in range(weight.shape[2])]


def _chunks(
    results: Tensor, frames: Tensor, shifts: Sequence[int]
) -> Iterator[tuple[slice, list[tuple[int, slice, slice]]]]:
    """A few results at a time, and of each tap which of them, and of the frames, belong together.

    A tap whose frames lie outside the movie is left out. The last one that all results have comes
    first: sums begin with what it gives.
    """
    step = max(1, sized(_CHUNK_VALUES) // max(1, results[0].numel(), frames[0].numel()))
    for start in range(0, len(results), step):
        stop, parts = min(start + step, len(results)), []
        for tap, shift in enumerate(shifts):
            first, last = max(start, -shift), min(stop, len(frames) - shift)
            if first < last:
                to = slice(first - start, last - start)
                parts.append((tap, to, slice(first + shift, last + shift)))
        covering = [part for part in parts if _covers(part, stop - start)]
        for part in covering[-1:]:
            parts.insert(0, parts.pop(parts.index(part)))
        yield slice(start, stop), parts


def _covers(part: tuple[int, slice, slice], length: int) -> bool:
    """Tell whether a tap has a frame for each result of a chunk."""
    return part[1] == slice(0, length)


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
        Channels last, in the type of the movies; computed in float32 at least.
    """
    return _DepthwiseInTime.apply(movies, weight, bias, taps)
