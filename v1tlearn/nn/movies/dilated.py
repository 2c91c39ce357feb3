"""Dilated convolutions of movies, of which a few layers look far back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from v1tlearn.nn.fast.convolution import ActivatedConvolutions, activated_convolutions
from v1tlearn.nn.layers.dropout import Dropout
from v1tlearn.nn.layers.normalization import batch_norm
from v1tlearn.nn.movies.convolutions import (
    TimeConvolution,
    channels_last,
    is_quick,
    pointwise,
    to_frames,
    to_movies,
)
from v1tlearn.nn.movies.past import Past


class DilatedLayer(nn.Module):
    """Residual layer: a dilated depthwise convolution, normalisation, ReLU, and mixed channels.

    Three taps in time and 3 x 3 pixels, with zeros around and ahead of the movie; batch
    normalisation over items, frames and places; then a 1 x 1 x 1 convolution and dropout, added to
    what came in. The layer of the feature extractor of Wu et al. (2024).

    Parameters
    ----------
    channels : int
    dilation : int, default=1
        Frames from one tap to the next.
    causal : bool, default=True
        Whether the last tap is the present frame; else the middle one is.
    dropout : float, default=0.25
        Of single elements.

    Attributes
    ----------
    context_frames : (int, int)
        Frames before and after a frame that count for it.
    """

    def __init__(
        self, channels: int, dilation: int = 1, *, causal: bool = True, dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.convolution = TimeConvolution(channels, 3, dilation=dilation, causal=causal, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.mix = nn.Conv3d(channels, channels, 1)
        self.dropout = Dropout(dropout)
        self.context_frames = self.convolution.context_frames

    def forward(self, movies: Tensor, past: Past | None = None) -> Tensor:
        """Movies (B, C, T, H, W) of movies (B, C, T, H, W)."""
        movies = channels_last(movies)
        frames = to_frames(self.convolution(movies, past))
        if is_quick(movies):
            mixed = self._in_chunks(frames)
        else:
            mixed = pointwise(batch_norm(frames, self.norm).relu(), self.mix)
        return movies + to_movies(self.dropout(mixed), len(movies))

    def _in_chunks(self, frames: Tensor) -> Tensor:
        """Normalise, activate and mix a few frames at a time; only frames are kept."""
        norm, weight = self.norm, self.mix.weight[..., 0]
        mean, variance = norm.running_mean, norm.running_var
        if norm.training:
            norm.num_batches_tracked.add_(1)
            mean, variance = torch.ops.aten.batch_norm_update_stats(
                frames.detach(), mean, variance, norm.momentum
            )
        how = ActivatedConvolutions(norm.training, norm.eps, "relu", frames.dtype, ((0, 1),))
        return activated_convolutions(
            frames, norm.weight, norm.bias, mean, variance, how, weight, self.mix.bias
        )
