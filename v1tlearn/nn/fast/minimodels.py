"""Many minimodels on the same maps, in training, some neurons and images at a time.

One autograd function keeps nothing but the maps of the second layer after normalisation, and works
out the rest again in the backward pass. Read by `v1tlearn.nn.readouts.minimodel`, which states the
mathematics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.convolution import _QUICK_LARGE_FILTERS
from v1tlearn.nn.fast.derivatives import differentiable_once

# Values of the maps of the second layer that are worked on at a time.
_CHUNK_VALUES = {"cpu": 2**19, "cuda": 2**28}


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
    rising = (scale >= 0)[:, :, None]
    seen = torch.where(rising, largest[:, None], smallest[:, None])
    return seen, torch.addcmul(offset[:, :, None], seen, scale[:, :, None]).clamp_(min=0)


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
    n_images, *groups = maps.shape[:3]
    by_image = _QUICK_LARGE_FILTERS and maps.device.type == "cpu"
    to_maps, to_filters, _ = torch.ops.aten.convolution_backward(
        gradient.flatten(1, 2), maps.flatten(1, 2), filters.flatten(0, 1)[:, None], None,
        [1, 1], [padding] * 2, [1, 1], False, [0, 0], groups[0] * groups[1],
        [True, not by_image, False],
    )  # fmt: skip
    if by_image:
        # A depthwise convolution itself, of every image with its gradients as filters.
        each = gradient.flatten(0, 2)[:, None]
        apart = F.conv2d(maps.flatten(0, 2)[None], each, padding=padding, groups=len(each))
        to_filters = apart[0].unflatten(0, (n_images, -1)).sum(0)
    return to_maps.unflatten(1, groups), to_filters.reshape(filters.shape)


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
        sizes = _Sizes(len(largest), *filters.shape[:2], padding, height, width)
        n_values = sizes.n_channels * max(sizes.n_places, largest[0, 0].numel())
        ctx.sizes = sizes
        ctx.chunks = chunks(sizes.n_images, sizes.n_neurons, n_values, largest.device.type)
        kept, read, active, means, variances = [], [], [], [], []
        for neurons in _parts(sizes.n_neurons, ctx.chunks[0]):
            maps = _second(ctx, largest, smallest, *_of(neurons, scale, offset, mixing, filters))
            variance, mean = torch.var_mean(maps, dim=(0, 3), correction=0)
            inverse = (variance + eps).rsqrt()
            of = _of(neurons, gain, shift, space)
            sums = [
                _read(_standardized_(maps[part], mean, inverse), *of)
                for part in _parts(sizes.n_images, ctx.chunks[1])
            ]
            active.append(torch.cat([s[0] for s in sums]))
            read.append(torch.cat([s[1] for s in sums]))
            kept.append(maps)
            means.append(mean)
            variances.append(variance)
        active, read = torch.cat(active, 1), torch.cat(read, 1)  # (B, n, K, R)
        mean, variance = torch.cat(means), torch.cat(variances)
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
        gain, shift, channels = weights[6], weights[7], weights[9]
        weighted = gradient[:, :, None, None] * channels.mT  # (B, n, K, R)
        to_gain = (weighted * read).sum((0, 3))
        to_shift = (weighted * active).sum((0, 3))
        seen = gain[:, :, None] * read + shift[:, :, None] * active
        to_channels = torch.einsum("bn,bnkr->nrk", gradient, seen)
        inverse = (variance + ctx.eps).rsqrt()
        given = (gain, shift, inverse, to_gain, to_shift)
        parts = []
        for neurons, maps in zip(_parts(len(gain), ctx.chunks[0]), kept, strict=True):
            own = _of(neurons, *weights[2:6], weights[8], *given)
            parts.append(_backward(ctx, *weights[:2], own, weighted[:, neurons], maps))
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
) -> Tensor:
    """Maps of the second layer (B, n, K, h w), ahead of normalisation."""
    sizes = ctx.sizes
    out = largest.new_empty(sizes.n_images, *filters.shape[:2], sizes.n_places)
    for part in _parts(sizes.n_images, ctx.chunks[1]):
        mixed = _mixed(largest[part], smallest[part], scale, offset, mixing)[2]
        out[part] = _depthwise(mixed, filters, sizes.padding).flatten(3)
    return out


def _standardized_(maps: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """Standardise maps (B, n, K, h w) in place."""
    return maps.sub_(mean[:, :, None]).mul_(inverse[:, :, None])


def _positive(maps: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Where ReLU lets standardised maps through, as numbers."""
    z = torch.addcmul(shift[:, :, None], maps, gain[:, :, None])
    return z.gt_(0)


def _read(maps: Tensor, gain: Tensor, shift: Tensor, space: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the places that are active, and standardised maps there: (B, n, K, R).

    ReLU of ``gain * map + shift`` is read as gain times the one and shift times the other.
    """
    positive = _positive(maps, gain, shift)
    places = space.mT  # (n, h w, R)
    active = positive @ places
    return active, positive.mul_(maps) @ places


def _backward(
    ctx: Any,
    largest: Tensor,
    smallest: Tensor,
    own: tuple[Tensor, ...],
    weighted: Tensor,
    maps: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of some neurons: scale, offset, mixing, filters and space."""
    scale, offset, mixing, filters, space, gain, shift, inverse, to_gain, to_shift = own
    sizes, totals = ctx.sizes, None
    n = sizes.n_images * sizes.n_places
    factor = (gain * inverse)[:, :, None]
    along, constant = (-v[:, :, None] / n for v in (to_gain, to_shift))
    for part in _parts(sizes.n_images, ctx.chunks[1]):
        positive, w = _positive(maps[part], gain, shift), weighted[part]
        z = torch.addcmul(shift[:, :, None], maps[part], gain[:, :, None]).clamp_(min=0)
        to_space = (w.mT @ z).sum(0)
        g = (w @ space).mul_(positive)
        g.add_(torch.addcmul(constant, maps[part], along)).mul_(factor)
        g = g.unflatten(-1, (sizes.height, sizes.width))
        seen, first, mixed = _mixed(largest[part], smallest[part], scale, offset, mixing)
        to_mixed, to_filters = _depthwise_backward(g, mixed, filters, sizes.padding)
        to_mixed = to_mixed.flatten(3)
        to_mixing = (to_mixed @ first.mT).sum(0)
        to_first = (mixing.mT @ to_mixed).mul_(first > 0)
        to_offset = to_first.sum((0, 3))
        to_scale = to_first.mul_(seen).sum((0, 3))
        found = [to_scale, to_offset, to_mixing, to_filters, to_space]
        totals = found if totals is None else [t.add_(f) for t, f in zip(totals, found)]
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
