"""Normalisation of tokens and of maps.

Where several processes share a batch, statistics are those of all of it, see `nn.sharing`.
The second derivatives that torch has for its own take mean and variance for constants, so that
third ones are wrong: plainly, each is written out.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from v1tlearn.nn import fast, sharing
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
    if norm.training and sharing.now() is not None:
        return normalized_together(norm, maps)
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
    if norm.training and sharing.now() is not None:
        with torch.no_grad():
            return _of_all(maps, norm)
    if norm.training:
        cast(Tensor, norm.num_batches_tracked).add_(1)
        mean, variance = torch.ops.aten.batch_norm_update_stats(
            maps.detach(), mean, variance, norm.momentum
        )
    return mean, variance


def normalized_together(norm: _BatchNorm, maps: Tensor) -> Tensor:
    """Batch normalisation in training, by the statistics of a batch that processes share.

    Parameters
    ----------
    norm : BatchNorm1d, BatchNorm2d or BatchNorm3d
        Its running statistics follow those of the whole batch.
    maps : Tensor of shape (n_images, n_channels, ...)
        Of this process.

    Returns
    -------
    Tensor of this shape
    """
    values = at_least_float32(maps)
    mean, variance = _of_all(values, norm)
    shape = (-1, *[1] * (maps.dim() - 2))
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    out = (values - mean.view(shape)) * scale.view(shape)
    return (out if norm.bias is None else out + norm.bias.view(shape)).to(maps.dtype)


def _of_all(maps: Tensor, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all processes, which the running ones follow."""
    values = at_least_float32(maps)
    dims = [0, *range(2, maps.dim())]
    variance, mean = (v.double() for v in torch.var_mean(values, dims, correction=0))
    own = float(maps.numel() // maps.shape[1])
    # sums of squares about 0, whose differences lose nothing that float32 has
    sums = torch.stack([mean, variance + mean.square(), torch.ones_like(mean)]) * own
    mean, square, count = sharing.total(sums)
    mean, square = mean / count, square / count
    variance = (square - mean.square()).clamp(min=0)
    _follow(norm, mean.detach(), (variance * count / (count - 1)).detach())
    return mean.to(values.dtype), variance.to(values.dtype)


def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Let running statistics follow those of a batch."""
    if norm.running_mean is None or norm.running_var is None:
        return
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    weight = norm.momentum
    if weight is None:  # the mean over all batches
        weight = 1 / int(cast(Tensor, norm.num_batches_tracked))
    with torch.no_grad():
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
        norm.running_var.lerp_(variance.to(norm.running_var.dtype), weight)


def _running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance, which torch makes unless it is told not to."""
    return cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
