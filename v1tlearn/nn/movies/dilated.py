"""Dilated convolutions of movies, of which a few layers look far back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from v1tlearn.nn.fast.convolution import ActivatedConvolutions, activated_convolutions
from v1tlearn.nn.fast.kernels import takes
from v1tlearn.nn.layers.dropout import Dropout
from v1tlearn.nn.layers.normalization import batch_norm, batch_statistics
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.movies.convolutions import (
    SpatiotemporalConvolution,
    channels_last,
    is_quick,
    pointwise,
    to_frames,
    to_movies,
)


def _computed_again(
    frames: Tensor, function: Callable[[Tensor], Tensor], movies: Tensor, past: Past | None
) -> AbstractContextManager[object]:
    """Keep, for the backward pass, how frames follow from movies, which are kept anyway.

    Depthwise convolutions are quick, and all layers' frames would be half of the memory.
    """
    if past is not None or not torch.is_grad_enabled():
        return nullcontext()
    own, shape, movies = frames.data_ptr(), frames.shape, movies.detach()

    def pack(kept: Tensor) -> Tensor | Callable[[], Tensor]:
        """What is kept."""
        again = kept.data_ptr() == own and kept.shape == shape
        return (lambda: function(movies)) if again else kept

    def unpack(kept: Tensor | Callable[[], Tensor]) -> Tensor:
        """What it stands for."""
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return kept()

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


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
        self.convolution = SpatiotemporalConvolution(
            channels, 3, dilation=dilation, causal=causal, padding=1
        )
        self.norm = nn.BatchNorm2d(channels)
        self.mix = nn.Conv3d(channels, channels, 1)
        self.dropout = Dropout(dropout)
        self.context_frames = self.convolution.context_frames

    def forward(self, movies: Tensor, past: Past | None = None) -> Tensor:
        """Movies (B, C, T, H, W) of movies (B, C, T, H, W)."""
        movies = channels_last(movies)
        frames = to_frames(self.convolution(movies, past))
        if is_quick(movies):
            with _computed_again(frames, lambda x: to_frames(self.convolution(x)), movies, past):
                mixed = self._in_chunks(frames, to_frames(movies))
            return to_movies(mixed, len(movies))
        active = to_movies(batch_norm(frames, self.norm).relu(), len(movies))
        return movies + self.dropout(pointwise(active, self.mix))

    def _in_chunks(self, frames: Tensor, before: Tensor) -> Tensor:
        """All after the convolution, a few frames at a time; nothing between is kept."""
        norm, weight = self.norm, self.mix.weight[..., 0]
        mean, variance = batch_statistics(frames, norm)
        rate = self.dropout.p if self.dropout.training else 0.0
        how = ActivatedConvolutions(norm.training, norm.eps, "relu", frames.dtype, ((0, 1),))
        arguments = (frames, norm.weight, norm.bias, mean, variance)
        parameters = (weight, self.mix.bias)
        if rate and not takes(frames, rate):
            return before + self.dropout(activated_convolutions(*arguments, how, *parameters))
        how = how._replace(dropout=rate)
        return activated_convolutions(*arguments, how, *parameters, residual=before)
