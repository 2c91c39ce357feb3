"""Blocks that look back over several spans at once, and narrow the frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.fast.dropout import drop_plainly
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.movies.convolutions import (
    SpatiotemporalConvolution,
    channels_last,
    pointwise,
    to_frames,
    to_movies,
)


class MultiscaleBlock(nn.Module):
    """Sum of convolutions of several lengths in time, mixed, beside a skip.

    Each branch is a convolution of k frames and 3 x 3 pixels without zeros around, of all channels
    where k is 1 and of each for itself elsewhere; leaky ReLU (0.1); and dropout of whole channels.
    The sum goes through a 1 x 1 x 1 convolution. The skip is a 1 x 1 x 1 convolution and the mean
    over 3 x 3 pixels. The causal multiscale spatiotemporal block of Wu et al. (2024).

    Parameters
    ----------
    channels : int
    kernels : sequence of int, default=(1, 3, 5)
        Frames of each branch.
    causal : bool, default=True
        Whether branches look back only; else, as far ahead as back.
    dropout : float, default=0.25
        Of channels, branch by branch.

    Attributes
    ----------
    context_frames : (int, int)
        Frames before and after a frame that count for it.

    Raises
    ------
    ValueError
        If there is no kernel, or one of no length, or an even one that is not causal.
    """

    def __init__(
        self,
        channels: int,
        kernels: Sequence[int] = (1, 3, 5),
        *,
        causal: bool = True,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if not kernels:
            raise ValueError("kernels is empty: expected the frames of at least one branch.")
        self.branches = nn.ModuleList(
            SpatiotemporalConvolution(channels, kernel, causal=causal) for kernel in kernels
        )
        self.mix = nn.Conv3d(channels, channels, 1)
        self.skip = nn.Conv3d(channels, channels, 1)
        self.dropout = dropout
        contexts = [branch.context_frames for branch in self.branches]
        self.context_frames = tuple(map(max, zip(*contexts, strict=True)))

    def forward(self, movies: Tensor, past: Past | None = None) -> Tensor:
        """Movies (B, C, T, H - 2, W - 2) of movies (B, C, T, H, W)."""
        movies = channels_last(movies)
        total: Tensor | None = None
        for branch in self.branches:
            found = F.leaky_relu(branch(movies, past), 0.1)
            if self.training and self.dropout:
                found = drop_plainly(found, lambda x: F.dropout3d(x, self.dropout), axes=2)
            total = found if total is None else total + found
        assert total is not None  # of at least one branch
        # The mean over pixels before channels are mixed, not after: the same, of fewer places.
        around = to_movies(F.avg_pool2d(to_frames(movies), 3, stride=1), len(movies))
        return pointwise(total, self.mix) + pointwise(around, self.skip)
