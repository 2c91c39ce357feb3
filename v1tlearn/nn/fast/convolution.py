"""Batch normalisation, activation, pooling and the convolutions after them, on a CPU.

One autograd function takes a few images at a time, keeps nothing but the maps ahead of batch
normalisation, and works out the rest again in the backward pass, while it is in the cache.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn import drawing, sharing
from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.derivatives import differentiable_once
from v1tlearn.nn.fast.dropout import CompiledDropout
from v1tlearn.nn.fast.kernels import threshold
from v1tlearn.nn.precision import at_least_float32

# Values of a map that are worked on at a time: 2 MB in float32, some five maps of published size.
_CHUNK_VALUES = 2**19

# Whether convolutions with filters as large as images are quick, as with oneDNN on x86.
QUICK_LARGE_FILTERS = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability().startswith("AVX")
)


class ActivatedConvolutions(NamedTuple):
    """What `activated_convolutions` does besides its tensors.

    Attributes
    ----------
    training : bool
        Whether mean and variance are those of the maps themselves, and so depend on them.
    eps : float
        Added to the variance.
    activation : {"elu", "relu", "none"}
        What follows the normalisation.
    dtype : torch.dtype
        Of the maps that come out.
    geometry : tuple of (int, int)
        Padding and groups of each convolution.
    pool : {"max", "mean"} or None, default=None
        What is taken of 2 x 2 places after the activation.
    dropout : float, default=0.0
        Share of the elements that are dropped in the end, where the compiled kernels can.
    """

    training: bool
    eps: float
    activation: str
    dtype: torch.dtype
    geometry: tuple[tuple[int, int], ...]
    pool: str | None = None
    dropout: float = 0.0


def _chunks(maps: Tensor, values: int = 0) -> list[slice]:
    """Cut a batch into images that are worked on together, of so many values at least."""
    step = max(1, sized(_CHUNK_VALUES) // max(maps.shape[1:].numel(), values))
    return [slice(i, i + step) for i in range(0, maps.shape[0], step)]


def _shapes(maps: Tensor, how: ActivatedConvolutions, layers: Sequence[tuple]) -> list[tuple]:
    """Channels, height and width of one image after pooling, and after each convolution."""
    channels, *sides = maps.shape[1:]
    shapes = [(channels, *(side // (1 if how.pool is None else 2) for side in sides))]
    for weight, _, padding, _ in layers:
        sides = [s + 2 * padding - weight.shape[-1] + 1 for s in shapes[-1][1:]]
        shapes.append((weight.shape[0], *sides))
    return shapes


def _flat(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) as a matrix (B h w, C), without a copy where channels are last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(matrix: Tensor, like: Tensor) -> Tensor:
    """Matrix (B h w, C) as channels-last maps (B, C, h, w) of the size of others."""
    n_images, _, height, width = like.shape
    return matrix.view(n_images, height, width, -1).permute(0, 3, 1, 2)


def _is_pointwise(weight: Tensor, groups: int) -> bool:
    return weight.shape[-2:] == (1, 1) and groups == 1


def _convolve(
    maps: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int
) -> Tensor:
    """Convolution of channels-last maps."""
    if _is_pointwise(weight, groups):
        return _maps(F.linear(_flat(maps), weight[:, :, 0, 0], bias), maps)
    return F.conv2d(maps, weight, bias, padding=padding, groups=groups)


def _convolution_backward(
    gradient: Tensor,
    maps: Tensor,
    weight: Tensor,
    padding: int,
    groups: int,
    need_maps: bool,
    need_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a convolution with regard to its maps and its weight."""
    if _is_pointwise(weight, groups):
        g = _flat(gradient)
        to_maps = _maps(g @ weight[:, :, 0, 0], maps) if need_maps else None
        return to_maps, (g.T @ _flat(maps))[:, :, None, None] if need_weight else None
    depthwise = groups == maps.shape[1] == weight.shape[0]
    by_image = need_weight and depthwise and QUICK_LARGE_FILTERS
    need_here = need_weight and not by_image
    to_maps = to_weight = None
    if need_maps or need_here:
        to_maps, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, maps, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], groups,
            [need_maps, need_here, False],
        )  # fmt: skip
    if by_image:
        to_weight = depthwise_weight_gradient(gradient, maps, padding)
    return to_maps, to_weight


def depthwise_weight_gradient(gradient: Tensor, maps: Tensor, padding: int) -> Tensor:
    """Gradient (C, 1, k, k) with regard to the filters of a depthwise convolution.

    It is itself a depthwise convolution of each image, whose filters are the gradients, and faster
    so than the weight gradients that oneDNN has for channels-last maps on x86.
    """
    of_images = (
        F.conv2d(image[None], filters[:, None], padding=padding, groups=len(image))[0]
        for image, filters in zip(at_least_float32(maps), at_least_float32(gradient), strict=True)
    )
    return reduce(Tensor.add_, of_images)[:, None]


def _activate(
    maps: Tensor,
    mean: Tensor,
    variance: Tensor,
    gain: Tensor,
    offset: Tensor,
    how: ActivatedConvolutions,
) -> tuple[Tensor, Tensor | None]:
    """Normalised maps after the activation, and its derivative; at least float32."""
    z = F.batch_norm(at_least_float32(maps), mean, variance, gain, offset, False, 0.0, how.eps)
    if how.activation == "none":
        return z, None
    if how.activation == "relu":
        slope = (z > 0).to(z.dtype)
        return z.clamp_(min=0), slope
    # exp(min(z, 0)), which is the derivative on both sides of zero; exp2 is vectorised better.
    slope = z.clamp(max=0).mul_(1 / math.log(2)).exp2_()
    return torch.maximum(slope - 1, z, out=z), slope  # exp(z) - 1 >= z


def _pooled(maps: Tensor, pool: str | None) -> tuple[Tensor, Tensor | None]:
    """Maps after pooling, and from where the largest values came."""
    if pool == "max":
        return F.max_pool2d(maps, 2, return_indices=True)
    return (maps if pool is None else F.avg_pool2d(maps, 2)), None


def _unpooled(gradient: Tensor, maps: Tensor, places: Tensor | None, pool: str | None) -> Tensor:
    """Gradient with regard to maps that were pooled."""
    two, none = [2, 2], [0, 0]
    if pool == "max":
        return torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, maps, two, two, none, [1, 1], False, places
        )
    if pool == "mean":
        return torch.ops.aten.avg_pool2d_backward(gradient, maps, two, two, none, False, True, None)
    return gradient


class _ActivatedConvolutions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        gain: Tensor,
        offset: Tensor,
        mean: Tensor,
        variance: Tensor,
        residual: Tensor | None,
        how: ActivatedConvolutions,
        *weights: Tensor | None,
    ) -> Tensor:
        """Chunk by chunk; see `activated_convolutions`."""
        ctx.how, ctx.where = how, drawing.places(len(maps)) if how.dropout else None
        ctx.seed = drawing.seed(ctx.where) if how.dropout else 0
        ctx.shared = sharing.now()
        ctx.save_for_backward(maps, gain, offset, mean, variance, *weights)
        layers = _layers(how, weights)
        shapes = _shapes(maps, how, layers)
        out = torch.empty(
            (maps.shape[0], *shapes[-1]),
            dtype=how.dtype,
            device=maps.device,
            memory_format=torch.channels_last,
        )
        with torch.autocast(maps.device.type, enabled=False):
            for chunk in _chunks(maps, max(map(math.prod, shapes))):
                x = _activate(maps[chunk], mean, variance, gain, offset, how)[0]
                x = _pooled(x, how.pool)[0].to(how.dtype)
                for layer in layers:
                    x = _convolve(x, *layer)
                x = _dropped(x, how.dropout, chunk, ctx)
                if residual is None:
                    out[chunk] = x
                else:
                    torch.add(residual[chunk], x, out=out[chunk])
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Recompute each chunk and go back through it; normalisation last, over all images."""
        maps, gain, offset, mean, variance, *weights = ctx.saved_tensors
        how, needed = ctx.how, ctx.needs_input_grad
        layers = _layers(how, weights)
        totals: list[Tensor | None] = [None] * len(weights)
        need_maps = any(needed[:3])
        to_residual = gradient if needed[5] else None
        with torch.autocast(maps.device.type, enabled=False):
            normalization = _NormalizationBackward(maps, gain, mean, variance, how, ctx.shared)
            largest = max(map(math.prod, _shapes(maps, how, layers)))
            for chunk in _chunks(maps, largest):
                x, slope = _activate(maps[chunk], mean, variance, gain, offset, how)
                pooled, places = _pooled(x, how.pool)
                inputs = [pooled.to(how.dtype)]
                for layer in layers[:-1]:
                    inputs.append(_convolve(inputs[-1], *layer))
                g = gradient[chunk].contiguous(memory_format=torch.channels_last)
                g = _dropped(g, how.dropout, chunk, ctx)
                for i in reversed(range(len(layers))):
                    weight, _, padding, groups = layers[i]
                    need_weight, need_bias = needed[7 + 2 * i : 9 + 2 * i]
                    if need_bias:
                        _add(totals, 2 * i + 1, _flat(g).sum(0, dtype=gain.dtype))
                    deeper = need_maps or any(needed[7 : 7 + 2 * i])
                    to_maps, to_weight = _convolution_backward(
                        g, inputs.pop(), weight, padding, groups, deeper, need_weight
                    )
                    if to_weight is not None:
                        _add(totals, 2 * i, to_weight.to(gain.dtype))
                    if to_maps is None:
                        break  # nothing ahead of it learns
                    g = to_maps
                if need_maps:
                    g = _unpooled(at_least_float32(g), x, places, how.pool)
                    normalization.collect(chunk, g if slope is None else slope.mul_(g))
            if not need_maps:
                return None, None, None, None, None, to_residual, None, *totals
            gradients = normalization.finish()
        return *gradients, None, None, to_residual, None, *totals


def _dropped(values: Tensor, rate: float, chunk: slice, ctx: Any) -> Tensor:
    """Values (b, C, h, w) of a chunk, of which those that seed and chunk decide on are zero."""
    if not rate:
        return values
    options = (None, *threshold(rate))
    if ctx.where is None:
        return CompiledDropout.apply(values, *options, ctx.seed + chunk.start, None)
    rows = ctx.where.rows[chunk]  # in as many chunks of the whole batch
    starts = rows - rows % (chunk.stop - chunk.start)
    out = torch.empty_like(values)
    for start in starts.unique().tolist():
        own = starts == start
        kept = CompiledDropout.apply(values[own], *options, ctx.seed + start, rows[own] - start)
        out[own] = kept
    return out


class _NormalizationBackward:
    """Backward pass of batch normalisation: sums over the chunks first, then the chunks again."""

    def __init__(
        self,
        maps: Tensor,
        gain: Tensor,
        mean: Tensor,
        variance: Tensor,
        how: ActivatedConvolutions,
        shared: sharing.Shared | None,
    ) -> None:
        self.maps, self.gain, self.training, self.shared = maps, gain, how.training, shared
        self.mean = mean[:, None, None]
        self.scale = (variance + how.eps).rsqrt()  # (C,)
        self.gradient = torch.empty_like(maps)  # of what comes out, then of the maps
        self.total = torch.zeros_like(gain)
        self.product = torch.zeros_like(gain)

    def collect(self, chunk: slice, gradient: Tensor) -> None:
        """Take the gradient of one chunk of normalised maps."""
        self.gradient[chunk] = gradient
        self.total += _flat(gradient).sum(0)
        centred = at_least_float32(self.maps[chunk]) - self.mean
        self.product += _flat(centred.mul_(gradient)).sum(0)

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of maps, gain and offset."""
        to_gain = self.product * self.scale
        factor = self.gain * self.scale
        along, constant = torch.zeros_like(factor), torch.zeros_like(factor)
        if self.training:  # the mean and the part along the maps are lost
            n = torch.full_like(self.total, self.maps.numel() // self.maps.shape[1])
            total, product = self.total, to_gain
            if self.shared is not None:  # the maps of all processes made the mean
                total, product, n = self.shared.total(torch.stack([total, product, n]))
            along = -factor * self.scale * product / n
            constant = -factor * total / n
        along, constant, factor = (v[:, None, None] for v in (along, constant, factor))
        for chunk in _chunks(self.maps):
            # Centred first: maps far from zero would round all values of a channel alike.
            lost = torch.addcmul(constant, at_least_float32(self.maps[chunk]) - self.mean, along)
            self.gradient[chunk] = lost.addcmul_(at_least_float32(self.gradient[chunk]), factor)
        return self.gradient, to_gain, self.total


def _layers(how: ActivatedConvolutions, weights: Sequence[Tensor | None]) -> list[tuple]:
    """Weight, bias, padding and groups of each convolution, in the precision of the maps."""
    cast = [None if w is None else w.to(how.dtype) for w in weights]
    return [(*cast[2 * i : 2 * i + 2], *geometry) for i, geometry in enumerate(how.geometry)]


def _add(totals: list[Tensor | None], index: int, part: Tensor) -> None:
    total = totals[index]
    totals[index] = part if total is None else total.add_(part)


def activated_convolutions(
    maps: Tensor,
    gain: Tensor,
    offset: Tensor,
    mean: Tensor,
    variance: Tensor,
    how: ActivatedConvolutions,
    *weights: Tensor | None,
    residual: Tensor | None = None,
) -> Tensor:
    """Normalise maps per channel, activate and pool them, then apply some convolutions.

    Parameters
    ----------
    maps : Tensor of shape (n_images, n_channels, height, width)
        Channels last, on a CPU.
    gain : Tensor of shape (n_channels,)
        Factor after the normalisation.
    offset : Tensor of shape (n_channels,)
        Added to it.
    mean : Tensor of shape (n_channels,)
        Of the maps in training, running elsewhere. Its own gradient is part of that of the maps.
    variance : Tensor of shape (n_channels,)
        Likewise.
    how : ActivatedConvolutions
        All else.
    *weights : Tensor or None
        Weight and bias of each convolution, of stride 1.
    residual : Tensor of shape (n_images, n_outputs, height, width), optional
        Added in the end.

    Returns
    -------
    Tensor of shape (n_images, n_outputs, height, width)
        Channels last.
    """
    return _ActivatedConvolutions.apply(maps, gain, offset, mean, variance, residual, how, *weights)


class _LargeFilters(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, padding: int) -> Tensor:
        """See `large_filter_convolution`."""
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        return F.conv2d(images, weight, padding=padding)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of the filters, image by image: a convolution whose filters are the gradients."""
        images, weight = ctx.saved_tensors
        need_images, need_weight, _ = ctx.needs_input_grad
        to_images = to_weight = None
        if need_images:
            to_images, _, _ = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, [1, 1], [ctx.padding] * 2, [1, 1], False, [0, 0],
                1, [True, False, False],
            )  # fmt: skip
        if need_weight:
            images, gradient = at_least_float32(images), at_least_float32(gradient)
            of_images = (
                F.conv2d(image[:, None], filters[:, None], padding=ctx.padding)
                for image, filters in zip(images, gradient, strict=True)
            )
            to_weight = reduce(Tensor.add_, of_images).transpose(0, 1).to(weight.dtype)
        return to_images, to_weight, None


def large_filter_convolution(images: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Convolve images of few channels with large filters, on a CPU.

    Parameters
    ----------
    images : Tensor of shape (n_images, n_channels, height, width)
    weight : Tensor of shape (n_outputs, n_channels, side, side)
    padding : int
        Zeros around.

    Returns
    -------
    Tensor of shape (n_images, n_outputs, height, width)
        Channels last.
    """
    # A clone, since to `contiguous` an image of one channel is in either layout.
    images = images.clone(memory_format=torch.channels_last)
    if not QUICK_LARGE_FILTERS:
        return F.conv2d(images, weight, padding=padding)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        images, weight = images.to(dtype), weight.to(dtype)
    return _LargeFilters.apply(images, weight, padding)
