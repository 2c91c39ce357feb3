"""Many minimodels on the same maps, in training, some neurons and images at a time.

One autograd function keeps nothing but the maps of the second layer after normalisation, and works
out the rest again in the backward pass. Read by `v1tlearn.nn.readouts.minimodel`, which states the
mathematics.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.convolution import QUICK_LARGE_FILTERS
from v1tlearn.nn.fast.derivatives import differentiable_once

# Values of the maps of the second layer that are worked on at a time.
_CHUNK_VALUES = {"cpu": 2**19, "cuda": 2**28}
_ANY = 0.5  # of a variance of 1 that is added up of two parts


class _Sizes(NamedTuple):
    """Sizes of a call: images, neurons, channels, and the maps of the second layer."""

    n_images: int
    n_neurons: int
    n_channels: int
    padding: int
    height: int
    width: int

    @property
    def n_places(self) -> int:
        """Places of a map of the second layer."""
        return self.height * self.width


def chunks(n_images: int, n_neurons: int, n_values: int, device: str) -> tuple[int, int]:
    """Say how many neurons, and how many images of these, are worked on together.

    Parameters
    ----------
    n_images : int
    n_neurons : int
    n_values : int
        Values of the maps of one neuron for one image.
    device : str
        Its type.

    Returns
    -------
    neurons : int
    images : int
    """
    size = sized(_CHUNK_VALUES.get(device, 2**24))
    images = min(n_images, max(1, size // n_values))
    return min(n_neurons, max(1, size // (n_values * images))), images


def _parts(n: int, step: int) -> Iterator[slice]:
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def _first(
    largest: Tensor, smallest: Tensor, scale: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Pooled maps that a neuron sees, and these after normalisation and ReLU: (B, n, C, h w)."""
    scale, offset, rising = scale[:, :, None], offset[:, :, None], scale[:, :, None] >= 0
    one_way = scale.device.type == "cpu" and bool(rising.all())  # a GPU would have to be waited for
    seen = largest[:, None] if one_way else torch.where(rising, largest[:, None], smallest[:, None])
    return seen, (seen * scale).add_(offset).relu_()


def _depthwise(maps: Tensor, filters: Tensor, padding: int) -> Tensor:
    """Depthwise convolution of maps (B, n, K, h, w) with filters (n, K, k, k)."""
    groups = filters.shape[0] * filters.shape[1]
    out = F.conv2d(
        maps.flatten(1, 2), filters.flatten(0, 1)[:, None], padding=padding, groups=groups
    )
    return out.unflatten(1, filters.shape[:2])


def _depthwise_backward(
    gradient: Tensor, maps: Tensor, filters: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Gradients with regard to maps (B, n, K, h, w) and filters (n, K, k, k)."""
    n_images, side = len(maps), filters.shape[-1]
    to_maps = _depthwise(gradient, filters.flip(2, 3), side - 1 - padding)
    if QUICK_LARGE_FILTERS and maps.device.type == "cpu":
        # A depthwise convolution itself, of every image with its gradients as filters.
        each = gradient.flatten(0, 2)[:, None]
        apart = F.conv2d(maps.flatten(0, 2)[None], each, padding=padding, groups=len(each))
        return to_maps, apart[0].unflatten(0, (n_images, -1)).sum(0).view_as(filters)
    _, to_filters, _ = torch.ops.aten.convolution_backward(
        gradient.flatten(1, 2), maps.flatten(1, 2), filters.flatten(0, 1)[:, None], None,
        [1, 1], [padding] * 2, [1, 1], False, [0, 0], maps.shape[1] * maps.shape[2],
        [False, True, False],
    )  # fmt: skip
    return to_maps, to_filters.view_as(filters)


class _Minimodels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        largest: Tensor,
        smallest: Tensor,
        scale: Tensor,
        offset: Tensor,
        mixing: Tensor,
        filters: Tensor,
        gain: Tensor,
        shift: Tensor,
        space: Tensor,
        channels: Tensor,
        padding: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `minimodels`."""
        side = filters.shape[-1]
        height, width = (n + 2 * padding - side + 1 for n in largest.shape[-2:])
        n_neurons, n_channels = filters.shape[:2]
        sizes = _Sizes(len(largest), n_neurons, n_channels, padding, height, width)
        n_values = sizes.n_channels * max(sizes.n_places, largest[0, 0].numel())
        ctx.sizes = sizes
        ctx.chunks = chunks(sizes.n_images, sizes.n_neurons, n_values, largest.device.type)
        kept, reads, actives, means, variances = [], [], [], [], []
        for neurons in _parts(sizes.n_neurons, ctx.chunks[0]):
            own = _of(neurons, scale, offset, mixing, filters)
            maps, mean, variance = _second(ctx, largest, smallest, *own)
            of = _of(neurons, gain, shift, space)
            sums = [_read(part, variance, eps, *of) for part in maps]
            actives.append(torch.cat([s[0] for s in sums]))
            reads.append(torch.cat([s[1] for s in sums]))
            kept += maps
            means.append(mean)
            variances.append(variance)
        active, read = torch.cat(actives, 1), torch.cat(reads, 1)  # (B, n, K, R)
        mean, variance = torch.cat(means), torch.cat(variances)
        read *= (variance + eps).rsqrt()[:, :, None]
        seen = gain[:, :, None] * read + shift[:, :, None] * active
        outputs = (seen * channels.mT).sum((2, 3))
        ctx.eps = eps
        ctx.save_for_backward(
            largest, smallest, scale, offset, mixing, filters, gain, shift, space, channels,
            active, read, variance, *kept,
        )  # fmt: skip
        ctx.mark_non_differentiable(mean, variance)
        return outputs, mean, variance

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Some neurons after the others, and some images of these."""
        *weights, active, read, variance = ctx.saved_tensors[:13]
        kept = ctx.saved_tensors[13:]
        largest, smallest, gain, shift, channels = (weights[i] for i in (0, 1, 6, 7, 9))
        weighted = gradient[:, :, None, None] * channels.mT  # (B, n, K, R)
        to_gain = (weighted * read).sum((0, 3))
        to_shift = (weighted * active).sum((0, 3))
        seen = gain[:, :, None] * read + shift[:, :, None] * active
        to_channels = torch.einsum("bn,bnkr->nrk", gradient, seen)
        factor = gain * (variance + ctx.eps).rsqrt()
        n = ctx.sizes.n_images * ctx.sizes.n_places
        along = -factor * to_gain * (variance + ctx.eps).rsqrt() / n
        constant = -factor * to_shift / n
        given = (factor, along, constant, gain, shift, variance)
        parts = []
        kept = iter(kept)
        for neurons in _parts(len(gain), ctx.chunks[0]):
            own = _of(neurons, *weights[2:6], weights[8], *given)
            parts.append(_backward(ctx, largest, smallest, own, weighted[:, neurons], kept))
        to_scale, to_offset, to_mixing, to_filters, to_space = map(
            torch.cat, zip(*parts, strict=True)
        )
        return (
            None, None, to_scale, to_offset, to_mixing, to_filters, to_gain, to_shift, to_space,
            to_channels, None, None,
        )  # fmt: skip


def _of(neurons: slice, *weights: Tensor) -> tuple[Tensor, ...]:
    return tuple(w[neurons] for w in weights)


def _mixed(
    largest: Tensor, smallest: Tensor, scale: Tensor, offset: Tensor, mixing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled maps, first layer (B, n, C, h w), and its mixtures (B, n, K, h, w)."""
    seen, first = _first(largest.flatten(2), smallest.flatten(2), scale, offset)
    return seen, first, (mixing @ first).unflatten(-1, largest.shape[-2:])


def _second(
    ctx: Any,
    largest: Tensor,
    smallest: Tensor,
    scale: Tensor,
    offset: Tensor,
    mixing: Tensor,
    filters: Tensor,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Maps of the second layer around their mean, mean and variance (n, K).

    Maps of some images (b, n, K, h w) after the others, in parts that the allocator gives again.
    """
    sizes, out, sums, squares = ctx.sizes, [], [], []
    for part in _parts(sizes.n_images, ctx.chunks[1]):
        mixed = _mixed(largest[part], smallest[part], scale, offset, mixing)[2]
        out.append(_depthwise(mixed, filters, sizes.padding).flatten(3))
        sums.append(out[-1].mean(3).sum(0))
    mean = reduce(Tensor.add_, sums) / sizes.n_images
    for maps in out:
        maps -= mean[:, :, None]
        squares.append(torch.linalg.vector_norm(maps, dim=3).square_().sum(0))
    return out, mean, reduce(Tensor.add_, squares) / (sizes.n_images * sizes.n_places)


def _scaled(maps: Tensor, gain: Tensor, offset: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Maps (B, n, K, h w) over the root of their variance (n, K), times a gain, plus an offset."""
    values = (variance.flatten(), gain.flatten(), offset.flatten())
    zero = torch.zeros_like(values[0])
    out = F.batch_norm(maps.flatten(1, 2), zero, *values, False, 0.0, eps)
    return out.unflatten(1, gain.shape)


def _read(
    maps: Tensor, variance: Tensor, eps: float, gain: Tensor, shift: Tensor, space: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights of the places that ReLU lets through, and centred maps there: (B, n, K, R).

    ReLU of ``gain * map + shift`` is read as gain times the one and shift times the other.
    """
    z = _scaled(maps, gain, shift, variance, eps)
    active, read = [], []
    for places in space.unbind(1):  # (n, h w) of each rank
        seen = _where_positive(places[:, None].expand_as(z), z)
        active.append(seen.sum(-1))
        read.append(seen.mul_(maps).sum(-1))
    return torch.stack(active, -1), torch.stack(read, -1)


def _where_positive(values: Tensor, z: Tensor) -> Tensor:
    """Values where z is positive, 0 elsewhere."""
    return torch.ops.aten.threshold_backward(values, z, 0)


def _outer(weights: Tensor, space: Tensor) -> Tensor:
    """Products (B, n, K, h w) of (B, n, K, R) and (n, R, h w), summed over ranks."""
    if space.shape[1] == 1:
        return weights * space  # quicker than the same by matrices
    return weights @ space


def _backward(
    ctx: Any,
    largest: Tensor,
    smallest: Tensor,
    own: tuple[Tensor, ...],
    weighted: Tensor,
    kept: Iterator[Tensor],
) -> tuple[Tensor, ...]:
    """Gradients of some neurons: scale, offset, mixing, filters and space."""
    scale, offset, mixing, filters, space, factor, along, constant, gain, shift, variance = own
    sizes = ctx.sizes
    totals: list[Tensor] = []
    one = torch.full_like(variance, 1 - _ANY)
    for part, maps in zip(_parts(sizes.n_images, ctx.chunks[1]), kept, strict=False):
        w = weighted[part]
        z = _scaled(maps, gain, shift, variance, ctx.eps).relu_()
        to_space = (w.mT @ z).sum(0)
        g = _where_positive(_outer(w * factor[:, :, None], space), z)
        g += _scaled(maps, along, constant, one, _ANY)
        g = g.unflatten(-1, (sizes.height, sizes.width))
        seen, first, mixed = _mixed(largest[part], smallest[part], scale, offset, mixing)
        to_mixed, to_filters = _depthwise_backward(g, mixed, filters, sizes.padding)
        to_mixed = to_mixed.flatten(3)
        to_mixing = (to_mixed @ first.mT).sum(0)
        to_first = (mixing.mT @ to_mixed).mul_(first.sign_())
        to_offset = to_first.sum((0, 3))
        to_scale = to_first.mul_(seen).sum((0, 3))
        found = [to_scale, to_offset, to_mixing, to_filters, to_space]
        totals = [t.add_(f) for t, f in zip(totals, found, strict=True)] if totals else found
    return tuple(totals)


def minimodels(
    largest: Tensor,
    smallest: Tensor,
    scale: Tensor,
    offset: Tensor,
    mixing: Tensor,
    filters: Tensor,
    gain: Tensor,
    shift: Tensor,
    space: Tensor,
    channels: Tensor,
    padding: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute many minimodels, with the statistics of the batch in their second layer.

    Parameters
    ----------
    largest : Tensor of shape (n_images, n_inputs, height, width)
        Maps after max-pooling; they get no gradient.
    smallest : Tensor of this shape
        After min-pooling.
    scale : Tensor of shape (n_neurons, n_inputs)
        Of the first normalisation, as a factor on the maps.
    offset : Tensor of this shape
        Added to them.
    mixing : Tensor of shape (n_neurons, n_channels, n_inputs)
        Weights of the 1 x 1 convolution.
    filters : Tensor of shape (n_neurons, n_channels, side, side)
        Of the depthwise convolution.
    gain : Tensor of shape (n_neurons, n_channels)
        Factor after the second normalisation.
    shift : Tensor of this shape
        Added after it.
    space : Tensor of shape (n_neurons, rank, n_places)
        What a neuron reads.
    channels : Tensor of shape (n_neurons, rank, n_channels)
        Likewise.
    padding : int
        Zeros around the maps.
    eps : float
        Added to the variance.

    Returns
    -------
    outputs : Tensor of shape (n_images, n_neurons)
    mean : Tensor of shape (n_neurons, n_channels)
        Of the maps of the second layer, ahead of normalisation; without gradient.
    variance : Tensor of this shape
        Likewise.
    """
    return _Minimodels.apply(
        largest, smallest, scale, offset, mixing, filters, gain, shift, space, channels,
        padding, eps,
    )  # fmt: skip
