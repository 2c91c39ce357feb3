"""The convolutional core of the Sensorium baseline, and the LN core as its linear form."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn import fast, sharing
from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.fast.convolution import ActivatedConvolutions, activated_convolutions
from v1tlearn.nn.layers.geometry import patch_grid, window_centers
from v1tlearn.nn.layers.normalization import batch_norm, batch_statistics
from v1tlearn.nn.layers.parts import Seen
from v1tlearn.nn.losses import laplace_penalty


class Stacked2dCore(Core):
    """Stacked convolutional core (Lurz et al. 2021; Sensorium 2022 configuration).

    A first convolution without padding, then size-preserving ones; batch normalisation and ELU
    after each. Weights start Xavier-normal, biases at zero.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images.
    n_layers : int, default=4
        Number of convolutional layers.
    hidden_channels : int, default=64
        Channels of each layer.
    input_kernel : int, default=9
        Side of the filters of the first layer, in pixels.
    hidden_kernel : int, default=7
        Side of the filters of the other layers, odd.
    depth_separable : bool, default=True
        Build later layers of pointwise, depthwise and pointwise convolutions.
    linear : bool, default=False
        Leave out every ELU: the core of the LN model. Batch normalisation stays.
    batch_norm_momentum : float, default=0.1
        Weight of the newest batch in the running statistics; 0.9 as published.
    laplace : float, default=6.3831
        Weight of the roughness of the first filters in `penalty`.
    bias : bool, default=True
        Biases of the depth-separable convolutions. Other convolutions have none, since batch
        normalisation follows them.

    Attributes
    ----------
    output_shape : tuple of int
        Channels, height and width of the feature map.
    takes_planes : bool
        True: channels of the image that are constant planes may come as numbers instead.

    Raises
    ------
    ValueError
        If the first filters are larger than the images, the later ones have an even side, or a
        number is out of its range.
    """

    takes_planes = True
    recomputes_on_cpu = True  # see `nn.fast.convolution`

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        n_layers: int = 4,
        hidden_channels: int = 64,
        input_kernel: int = 9,
        hidden_kernel: int = 7,
        depth_separable: bool = True,
        linear: bool = False,
        batch_norm_momentum: float = 0.1,
        laplace: float = 6.3831,
        bias: bool = True,
    ) -> None:
        super().__init__(input_shape)
        if n_layers < 1 or hidden_channels < 1:
            raise ValueError(
                f"n_layers and hidden_channels must be at least 1, got {n_layers} and "
                f"{hidden_channels}."
            )
        if hidden_kernel < 1 or hidden_kernel % 2 == 0:
            raise ValueError(
                f"hidden_kernel must be odd, so that layers keep the size of the map, got "
                f"{hidden_kernel}."
            )
        self.output_shape = (hidden_channels, *patch_grid(input_shape[1:], input_kernel))
        self.laplace = laplace

        def hidden_convolution() -> nn.Module:
            c, k = hidden_channels, hidden_kernel
            if not depth_separable:
                return nn.Conv2d(c, c, k, padding=k // 2, bias=False)
            return nn.Sequential(
                nn.Conv2d(c, c, 1, bias=bias),
                nn.Conv2d(c, c, k, padding=k // 2, groups=c, bias=bias),
                nn.Conv2d(c, c, 1, bias=bias),
            )

        first = nn.Conv2d(input_shape[0], hidden_channels, input_kernel, bias=False)
        convolutions = [first, *(hidden_convolution() for _ in range(n_layers - 1))]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    convolution,
                    nn.BatchNorm2d(hidden_channels, momentum=batch_norm_momentum),
                    nn.Identity() if linear else nn.ELU(),
                )
                for convolution in convolutions
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.float()  # whatever torch's default dtype is

    def _layer(self, number: int) -> tuple[nn.Module, nn.BatchNorm2d, nn.Module]:
        """Convolution, normalisation and activation of a layer."""
        convolution, norm, activation = cast(nn.Sequential, self.layers[number])
        return convolution, cast(nn.BatchNorm2d, norm), activation

    def _filters(self) -> Tensor:
        """Filters of the first layer, (channels, image channels, side, side)."""
        return cast(nn.Conv2d, self._layer(0)[0]).weight

    def recomputed_parts(self) -> list[nn.Module]:
        """Parts whose activations may be computed again in the backward pass, to save memory.

        Returns
        -------
        list of Module
            All layers but the first. On a CPU they are always computed again.
        """
        return list(self.layers)[1:]

    def penalty(self) -> Tensor:
        """Weighted roughness of the filters of the first layer.

        Returns
        -------
        Tensor
            Scalar.
        """
        return self.laplace * laplace_penalty(self._filters())

    def source_positions(self) -> tuple[Tensor, Tensor]:
        """Where the cells of the feature maps lie: in the middle of the first filters.

        Returns
        -------
        rows, columns : Tensor of shape (output height,), (output width,)
            See `Core.source_positions`.
        """
        sides = zip(self.output_shape[1:], self._filters().shape[2:], strict=True)
        rows, columns = (window_centers(n, (side, 1, 0)) for n, side in sides)
        return rows, columns

    def _plain(self, images: Tensor, behaviors: Tensor | None) -> Tensor:
        """Maps as they are defined."""
        maps = images
        if behaviors is not None and images.shape[1] < self.input_shape[0]:
            planes = behaviors.to(images.dtype)[:, :, None, None]
            maps = torch.cat((images, planes.expand(-1, -1, *images.shape[2:])), 1)
        for layer in range(len(self.layers)):
            convolution, norm, activation = self._layer(layer)
            maps = activation(batch_norm(convolution(maps), norm))
        return maps

    def _first_maps(self, images: Tensor, behaviors: Tensor | None) -> Tensor:
        """First convolution, of images and constant planes of behaviour, ahead of normalisation."""
        weight = self._filters()
        n_channels = images.shape[1]
        # A clone, since to `contiguous` an image of one channel is in either layout.
        images = images.clone(memory_format=torch.channels_last)
        if behaviors is None or n_channels == weight.shape[1]:
            return F.conv2d(images, weight)
        maps = F.conv2d(images, weight[:, :n_channels])
        # Without padding a filter sees the same number at each of its pixels, wherever it is.
        planes = F.linear(behaviors.to(images.dtype), weight[:, n_channels:].sum((2, 3)))  # (B, C)
        return maps.add_(planes[:, :, None, None])

    def _normalized(self, maps: Tensor, layer: int, dtype: torch.dtype) -> Tensor:
        """Maps of a layer after normalisation and ELU, and through the convolution that follows."""
        _, norm, activation = self._layer(layer)
        mean, variance = batch_statistics(maps, norm)
        following = self._layer(layer + 1)[0] if layer + 1 < len(self.layers) else nn.Identity()
        convolutions = [m for m in following.modules() if isinstance(m, nn.Conv2d)]
        how = ActivatedConvolutions(
            norm.training,
            norm.eps,
            "elu" if isinstance(activation, nn.ELU) else "none",
            dtype,
            tuple((int(c.padding[0]), c.groups) for c in convolutions),
        )
        weights = [w for c in convolutions for w in (c.weight, c.bias)]
        return activated_convolutions(maps, norm.weight, norm.bias, mean, variance, how, *weights)

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Feature maps (B, C, h', w') of images (B, c, h, w).

        Where images lack channels that `input_shape` has, the `behaviors` (B, k) are taken as
        constant planes after them; elsewhere they are not used.
        """
        n_planes = 0 if behaviors is None else behaviors.shape[1]
        if images.shape[1] == self.input_shape[0]:
            n_planes = 0
        given = (images.shape[1] + n_planes, *images.shape[2:])
        if given != self.input_shape:
            raise ValueError(
                f"the core is made for images of shape {self.input_shape}, got "
                f"{tuple(images.shape[1:])}."
            )
        values = images.shape[0] * self.output_shape[1] * self.output_shape[2]
        if self.training and values < 2 and sharing.now() is None:
            raise ValueError(
                f"batch normalisation needs two values per channel in training, got one image of "
                f"{images.shape[2]} x {images.shape[3]} pixels, whose feature map is 1 x 1; choose "
                "another batch_size, so that no batch is a single trial, larger images or a "
                "smaller input_kernel."
            )
        return self.of_parts(images, behaviors)

    def seen(self) -> Seen | None:
        """What single cells see: the first filter, at all places that the later filters reach.

        Returns
        -------
        Seen or None
            None of a derived class whose `forward` is another.
        """
        if type(self).forward is not Stacked2dCore.forward:
            return None
        later = [m for m in self.layers[1:].modules() if isinstance(m, nn.Conv2d)]
        height, width = (sum(int(c.padding[side]) for c in later) for side in (0, 1))
        kernel = self._filters().shape[2:]
        return Seen((kernel[0], kernel[1]), (height, width))

    def of_parts(self, images: Tensor, behaviors: Tensor | None = None) -> Tensor:
        """Feature maps (B, C, h', w') of parts (B, c, h, w) of images, or of whole ones.

        Parameters
        ----------
        images, behaviors : Tensor
            As of `forward`.

        Returns
        -------
        Tensor
        """
        if fast.is_plain():
            return self._plain(images, behaviors)
        maps = self._first_maps(images, behaviors)
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return self.layers[1:](cast(nn.Sequential, self.layers[0])[1:](maps))
        for layer in range(len(self.layers)):
            maps = self._normalized(maps, layer, maps.dtype)
        return maps
