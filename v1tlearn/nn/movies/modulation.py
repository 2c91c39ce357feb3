"""Movies of features, modulated by where the receptive fields of the neurons are."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.movies.convolutions import channels_last, pointwise


class ReceptiveFieldModulation(nn.Module):
    """Shift, scale and gate of the features at each place, from the receptive fields there.

    ``x + gate mix(silu(x (1 + scale) + shift))``, where shift, scale and gate are a 1 x 1 x 1
    convolution of ``silu(condition)``. Its weights begin at zero, so that at first nothing is
    changed. The "3-D AdaLN-Zero" of Wu et al. (2024), which normalises nothing.

    Parameters
    ----------
    channels : int
        One per neuron, in the paper.
    per_cell : bool, default=False
        Whether each channel is conditioned on the map of its own neuron. As published, maps are
        summed over neurons, so that the condition tells where any receptive field is, but not
        whose.
    """

    def __init__(self, channels: int, *, per_cell: bool = False) -> None:
        super().__init__()
        self.per_cell = per_cell
        self.condition = nn.Conv3d(channels, 3 * channels, 1)
        self.mix = nn.Conv3d(channels, channels, 1)
        for values in self.condition.parameters():
            nn.init.zeros_(values)
        nn.init.normal_(self.mix.weight, 0, 0.02)
        nn.init.zeros_(cast(Tensor, self.mix.bias))

    def forward(self, movies: Tensor, maps: Tensor) -> Tensor:
        """Movies (B, N, T, H, W) of movies, and maps of them (B, N, H, W) or (B, N, T, H, W).

        Maps with a time axis are a condition of their own: nothing is summed over neurons.
        """
        movies = channels_last(movies)
        if maps.ndim == 4:
            summed = maps if self.per_cell else maps.sum(1, keepdim=True).expand_as(maps)
            maps = summed[:, :, None]
        modulation = pointwise(F.silu(channels_last(maps)), self.condition)
        shift, scale, gate = modulation.chunk(3, 1)  # (B, N, 1 or T, H, W)
        return movies + gate * pointwise(F.silu(movies * (1 + scale) + shift), self.mix)
