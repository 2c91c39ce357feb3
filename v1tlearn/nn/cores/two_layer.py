"""The core of the compact models of Du et al. (2025): few layers, large filters, no biases."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor, nn

from v1tlearn.nn import fast, sharing
from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.fast.convolution import (
    ActivatedConvolutions,
    activated_convolutions,
    large_filter_convolution,
)
from v1tlearn.nn.layers.geometry import patch_grid, window_centers
from v1tlearn.nn.layers.normalization import batch_norm, batch_statistics

_ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "none": nn.Identity}
_POOLS: dict[str, type[nn.Module] | None] = {
    "max": nn.MaxPool2d,
    "mean": nn.AvgPool2d,
    "stride": None,
}


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


class TwoLayerCore(Core):
    """Two layers, or any number, of large filters (Du et al. 2025).

    The first layer is a convolution, batch normalisation, an activation, and pooling over 2 x 2
    places. Each further one is pointwise, depthwise and pointwise convolutions, batch normalisation
    and an activation. Edges are padded with ``kernel // 2`` zeros: odd filters keep the size of the
    map, and even ones make it larger by 1. Weights start Xavier-normal; convolutions have no
    biases.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images.
    channels : sequence of int, default=(16, 320)
        Channels of each layer, which says how many there are.
    kernels : sequence of int, default=(25, 9, 5)
        Sides of the filters of the first layers, in pixels of their maps; the last one is that of
        all further layers.
    pooling : {"max", "mean", "stride"}, default="max"
        What makes the map half as large. "stride" is no pooling, but a first convolution that
        takes every second place.
    depth_separable : bool, default=True
        Otherwise further layers are like the first one: full convolutions, each with pooling.
    pointwise_output : bool, default=True
        Whether further layers have the second pointwise convolution. A minimodel has none.
    activation : {"elu", "relu", "none"}, default="elu"
        "none" is the core of a linear-nonlinear model; batch normalisation stays.
    batch_norm_momentum : float, default=0.1
        Weight of the newest batch in the running statistics; 0.9 as published.
    weight_decay : float, optional
        In the optimiser, where it differs from that of the model; for all parameters, those of
        batch normalisation, too.

    Attributes
    ----------
    output_shape : tuple of int
        Channels, height and width of the feature map.

    Raises
    ------
    ValueError
        If there is no layer or kernel, a number is below 1, a name is unknown, or the map becomes
        smaller than the filters or the pooling.

    References
    ----------
    Du et al., "Towards a simplified model of primary visual cortex", 2025.
    """

    recomputes_on_cpu = True  # see `nn.fast.convolution`

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = (16, 320),
        kernels: Sequence[int] = (25, 9, 5),
        pooling: str = "max",
        depth_separable: bool = True,
        pointwise_output: bool = True,
        activation: str = "elu",
        batch_norm_momentum: float = 0.1,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(input_shape)
        for name, sides in {"channels": channels, "kernels": kernels}.items():
            if not len(sides) or not all(map(_is_count, sides)):
                raise ValueError(
                    f"{name}={tuple(sides)!r}: expected a whole number for each layer, at least 1."
                )
        for name, value, known in (
            ("pooling", pooling, _POOLS),
            ("activation", activation, _ACTIVATIONS),
        ):
            if value not in known:
                raise ValueError(
                    f"{name}={value!r}: expected one of {', '.join(map(repr, known))}."
                )
        self.pooling, self.activation, self.weight_decay = pooling, activation, weight_decay
        channels, kernels = [int(n) for n in channels], [int(n) for n in kernels]
        kernels = [*kernels, *[kernels[-1]] * len(channels)][: len(channels)]
        layers, before = [], input_shape[0]
        for i, (after, kernel) in enumerate(zip(channels, kernels, strict=True)):
            full = i == 0 or not depth_separable
            stride = 2 if pooling == "stride" and i == 0 else 1
            convolution = (
                nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
                if full
                else _separable(before, after, kernel, pointwise_output)
            )
            pool = _POOLS[pooling] if full else None
            norm = nn.BatchNorm2d(after, momentum=batch_norm_momentum)
            parts = (convolution, norm, _ACTIVATIONS[activation]())
            layers.append(nn.Sequential(*parts, pool(2) if pool else nn.Identity()))
            before = after
        self.layers = nn.Sequential(*layers)
        size = two_layer_map(
            input_shape[1:], kernels, pooling=pooling, depth_separable=depth_separable
        )
        self.output_shape = (before, *size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
        self.float()  # whatever torch's default dtype is

    @property
    def filters(self) -> Tensor:
        """Filters of the first layer, (channels, image channels, side, side)."""
        return cast(nn.Conv2d, self._layer(0)[0]).weight

    def _layer(self, number: int) -> tuple[nn.Module, nn.BatchNorm2d, nn.Module, nn.Module]:
        """Convolution, normalisation, activation and pooling of a layer."""
        convolution, norm, activation, pool = cast(nn.Sequential, self.layers[number])
        return convolution, cast(nn.BatchNorm2d, norm), activation, pool

    def source_positions(self) -> tuple[Tensor, Tensor]:
        """Where the cells of the feature maps lie: in the middle of filters and pooled places.

        Returns
        -------
        rows, columns : Tensor of shape (output height,), (output width,)
            See `Core.source_positions`.
        """
        windows = []
        for number in range(len(self.layers)):
            convolution, _, _, pool = self._layer(number)
            for part in convolution.modules():
                if isinstance(part, nn.Conv2d):
                    windows.append((part.kernel_size[0], part.stride[0], int(part.padding[0])))
            if not isinstance(pool, nn.Identity):
                windows.append((2, 2, 0))
        rows, columns = (window_centers(n, *windows) for n in self.output_shape[1:])
        return rows, columns

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser, with their weight decay.

        Returns
        -------
        list of dict
        """
        (group,) = super().groups()
        if self.weight_decay is None or not group["params"]:
            return [group]
        return [group | {"weight_decay": self.weight_decay}]

    def freeze(self, what: str | int = "all") -> None:
        """Keep the core, or the filters of its first layer, as they are from now on.

        Parameters
        ----------
        what : {"all", "filters"}, default="all"
            With "filters" the normalisation of the first layer and all later ones go on learning,
            as in a minimodel on the filters of a full model.

        Raises
        ------
        ValueError
            If it is something else.
        """
        if what == "filters":
            self.filters.requires_grad_(False)
        else:
            super().freeze(what)

    def recomputed_parts(self) -> list[nn.Module]:
        """Parts whose activations may be computed again in the backward pass, to save memory.

        Returns
        -------
        list of Module
            All layers but the first.
        """
        return list(self.layers)[1:]

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Feature maps (B, C, h', w') of images (B, c, h, w)."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"the core is made for images of shape {self.input_shape}, got "
                f"{tuple(images.shape[1:])}."
            )
        values = len(images) * self.output_shape[1] * self.output_shape[2]
        if self.training and values < 2 and sharing.now() is None:
            raise ValueError(
                f"batch normalisation needs two values per channel in training, got one image of "
                f"{images.shape[2]} x {images.shape[3]} pixels, whose feature map is 1 x 1; choose "
                "another batch_size, so that no batch is a single trial, or larger images."
            )
        if not fast.is_plain():
            on_cpu = images.device.type == "cpu" and not torch.compiler.is_compiling()
            return self._in_chunks(images) if on_cpu else self.layers(images)
        maps = images
        for layer in range(len(self.layers)):
            convolution, norm, activation, pool = self._layer(layer)
            maps = pool(activation(batch_norm(convolution(maps), norm)))
        return maps

    def _in_chunks(self, images: Tensor) -> Tensor:
        """Maps, each layer from its normalisation to the convolutions of the next at once."""
        first = cast(nn.Conv2d, self._layer(0)[0])
        if first.stride == (1, 1):
            maps = large_filter_convolution(images, first.weight, int(first.padding[0]))
        else:
            maps = first(images.clone(memory_format=torch.channels_last))
        dtype = maps.dtype
        for i in range(len(self.layers)):
            _, norm, _, pool = self._layer(i)
            mean, variance = batch_statistics(maps, norm)
            following = self._layer(i + 1)[0] if i + 1 < len(self.layers) else nn.Identity()
            convolutions = [m for m in following.modules() if isinstance(m, nn.Conv2d)]
            how = ActivatedConvolutions(
                norm.training,
                norm.eps,
                self.activation,
                dtype,
                tuple((int(c.padding[0]), c.groups) for c in convolutions),
                None if isinstance(pool, nn.Identity) else self.pooling,
            )
            weights = [w for c in convolutions for w in (c.weight, None)]
            maps = activated_convolutions(
                maps, norm.weight, norm.bias, mean, variance, how, *weights
            )
        return maps


def two_layer_map(
    image_size: Sequence[int],
    kernels: Sequence[int],
    *,
    pooling: str = "max",
    depth_separable: bool = True,
) -> tuple[int, int]:
    """Size of the maps of a `TwoLayerCore`.

    Parameters
    ----------
    image_size : tuple of int
        Height and width of the images, in pixels.
    kernels : sequence of int
        Side of the filters of each layer.
    pooling, depth_separable
        As of `TwoLayerCore`.

    Returns
    -------
    tuple of int
        Height and width.

    Raises
    ------
    ValueError
        If a map becomes smaller than the filters or the pooling.
    """
    height, width = image_size
    size = (height, width)
    for i, kernel in enumerate(kernels):
        full = i == 0 or not depth_separable
        stride = 2 if pooling == "stride" and i == 0 else 1
        size = patch_grid(size, kernel, stride, kernel // 2)
        if full and pooling != "stride":
            size = patch_grid(size, 2, 2)
    return size


def _separable(before: int, after: int, kernel: int, pointwise_output: bool) -> nn.Sequential:
    """Pointwise, depthwise and, where wanted, pointwise convolution."""
    parts = [
        nn.Conv2d(before, after, 1, bias=False),
        nn.Conv2d(after, after, kernel, padding=kernel // 2, groups=after, bias=False),
    ]
    if pointwise_output:
        parts.append(nn.Conv2d(after, after, 1, bias=False))
    return nn.Sequential(*parts)
