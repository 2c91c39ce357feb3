"""Squared distances, and soft-DTW of many tables of them at once; both gradients in closed form.

Cells of one anti-diagonal of a table do not depend on each other, and are worked out together, for
all tables. What the backward pass needs are the weights with which a cell takes its three
predecessors, so that it computes no exponential.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.derivatives import differentiable_once

# Values of sequences that are worked on at a time, and stay in the cache: 256 kB in float64.
_CHUNK_VALUES = 2**15


class SquaredDistances(torch.autograd.Function):
    """Squared distances (n, p + q, p + q) between all frames of sequences (n, p, d), (n, q, d)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
        """Squares and products of frames, in the type that is asked for."""
        n_frames = x.shape[1] + y.shape[1]
        out = x.new_empty((len(x), n_frames, n_frames), dtype=dtype)
        for part, frames in _centred(x, y, dtype):
            torch.bmm(frames, frames.mT, out=out[part])
            squares = out[part].diagonal(0, 1, 2).clone()
            out[part].mul_(-2).add_(squares[:, None]).add_(squares[:, :, None])
        ctx.save_for_backward(x, y)
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Each frame is drawn to all others: ``2 sum_j (g_ij + g_ji) (z_i - z_j)``."""
        x, y = ctx.saved_tensors
        to_x, to_y = torch.empty_like(x), torch.empty_like(y)
        for part, frames in _centred(x, y, gradient.dtype):
            pull = (gradient[part] + gradient[part].mT).mul_(-2)
            pull.diagonal(0, 1, 2).sub_(pull.sum(2))
            drawn = pull @ frames
            to_x[part], to_y[part] = drawn.split((x.shape[1], y.shape[1]), 1)
        return to_x, to_y, None


def _centred(x: Tensor, y: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Frames (b, p + q, d) of a few pairs after the other, around their mean, and which these are.

    Distances do not change with the origin; far away from it they would lose digits.
    """
    step = max(1, sized(_CHUNK_VALUES) // max(1, (x.shape[1] + y.shape[1]) * x.shape[2]))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        frames = torch.cat((x[part].to(dtype), y[part].to(dtype)), 1)
        yield part, frames.sub_(frames.mean(1, keepdim=True))


class SoftDTW(torch.autograd.Function):
    """From costs (p, q, n) and the softness to values (n,); see `v1tlearn.nn.soft_dtw`."""

    @staticmethod
    def forward(ctx: Any, costs: Tensor, gamma: float) -> Tensor:
        """R = cost + softmin of the three predecessors; kept are the weights of each."""
        p, q, n = costs.shape
        given = costs.flip(1).div_(-gamma)  # all is in units of -gamma; diagonals are anti-diagonal
        # Row 0 is the border. Paths begin in its cell (0, 0).
        before, previous, current = costs.new_full((3, p + 1, n), -torch.inf)
        before[0] = 0
        weights = []
        for diagonal in range(2, p + q + 1):
            own, above = _rows(diagonal, p, q)
            # From above, from the left, from both: those of one column, one row, and one of each.
            steps = torch.stack((previous[above], previous[own], before[above]))
            highest = steps.amax(0)
            shares = steps.sub_(highest).exp_()
            total = shares.sum(0)
            weights.append(shares.div_(total))
            current[: own.start] = -torch.inf
            torch.add(total.log_().add_(highest), _diagonal(given, diagonal), out=current[own])
            before, previous, current = previous, current, before
        ctx.save_for_backward(costs)
        ctx.weights = weights
        return previous[p] * -gamma

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Share of all paths, by their weights, that pass through each cell."""
        (costs,) = ctx.saved_tensors
        p, q, n = costs.shape
        found = torch.empty_like(costs)
        # What cells of this anti-diagonal, and of the one before it, have got from later ones.
        current, earlier = costs.new_zeros((2, p + 1, n))
        current[p] = gradient
        for diagonal in range(p + q, 1, -1):
            own, above = _rows(diagonal, p, q)
            share = current[own]
            _diagonal(found, diagonal).copy_(share)
            from_above, from_left, from_both = ctx.weights[diagonal - 2] * share
            earlier[above] += from_above
            earlier[own] += from_left
            current.zero_()[above] = from_both
            current, earlier = earlier, current
        return found.flip(1), None


def _rows(diagonal: int, p: int, q: int) -> tuple[slice, slice]:
    """Rows of the cells of an anti-diagonal of p x q ones, counted from 1, and those above them."""
    first, last = max(1, diagonal - q), min(p, diagonal - 1)
    return slice(first, last + 1), slice(first - 1, last)


def _diagonal(flipped: Tensor, diagonal: int) -> Tensor:
    """Anti-diagonal (cells, n) of a table whose columns are turned around."""
    return flipped.diagonal(flipped.shape[1] + 1 - diagonal, 0, 1).T
