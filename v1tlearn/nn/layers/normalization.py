"""Normalisation of tokens and of maps.

The second derivatives that torch has for its own take mean and variance for constants, so that
third ones are wrong: plainly, each is written out.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.precision import at_least_float32


class LayerNorm(nn.LayerNorm):
    """Tokens with mean 0 and variance 1, times a gain and plus an offset (Ba et al. 2016)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens (..., d) to tokens (..., d)."""
        if not fast.is_plain():
            return super().forward(inputs)
        values = at_least_float32(inputs)
        centred = values - values.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


def batch_norm(maps: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Maps of mean 0 and variance 1 per channel, times a gain and plus an offset.

    In training these are mean and variance over all images and places, which the running ones that
    stand for them in evaluation follow (Ioffe and Szegedy 2015).

    Parameters
    ----------
    maps : Tensor of shape (n_images, n_channels, height, width)
    norm : BatchNorm2d
        Gain, offset and running statistics.

    Returns
    -------
    Tensor of shape (n_images, n_channels, height, width)
    """
    if not fast.is_plain():
        return norm(maps)
    mean, variance = _running(norm)
    maps = at_least_float32(maps)
    if norm.training:
        norm(maps.detach())  # the running statistics follow
        mean = maps.mean((0, 2, 3))
        variance = (maps - mean[:, None, None]).square().mean((0, 2, 3))
    gain = norm.weight * (variance + norm.eps).rsqrt()
    return (maps - mean[:, None, None]) * gain[:, None, None] + norm.bias[:, None, None]


def batch_statistics(maps: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and variance that batch normalisation takes, on a CPU.

    Parameters
    ----------
    maps : Tensor of shape (n_images, n_channels, height, width)
    norm : BatchNorm2d
        In training its running statistics, which it takes in evaluation, follow those of the maps.

    Returns
    -------
    mean, variance : Tensor of shape (n_channels,)
        Without gradient.
    """
    mean, variance = _running(norm)
    if norm.training:
        cast(Tensor, norm.num_batches_tracked).add_(1)
        mean, variance = torch.ops.aten.batch_norm_update_stats(
            maps.detach(), mean, variance, norm.momentum
        )
    return mean, variance


def _running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance, which torch makes unless it is told not to."""
    return cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
