"""Minimodels: a tiny network for every neuron, on maps that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.fast.choice import is_plain
from v1tlearn.nn.fast.minimodels import chunks, minimodels
from v1tlearn.nn.losses import inverse_elu_plus_one
from v1tlearn.nn.readouts.factorized import FactorizedReadout
from v1tlearn.nn.readouts.readout import Moments, Readout

_EPS = 1e-5  # added to variances


class PooledMaps(NamedTuple):
    """What minimodels need to know of the maps of the first convolution.

    Normalisation, ReLU and then max-pooling is the same as pooling first, by the maximum where the
    normalisation has a positive gain, and by the minimum where it is negative.

    Attributes
    ----------
    largest : Tensor of shape (n_images, n_channels, height, width)
        After max-pooling.
    smallest : Tensor of this shape
        After min-pooling.
    mean : Tensor of shape (n_images, n_channels)
        Of each map ahead of pooling.
    variance : Tensor of this shape
        Likewise, the mean square around the mean.
    n_values : int
        Values of each map ahead of pooling.
    """

    largest: Tensor
    smallest: Tensor
    mean: Tensor
    variance: Tensor
    n_values: int

    def rows(self, rows: Tensor | slice) -> PooledMaps:
        """Maps of some images.

        Parameters
        ----------
        rows : Tensor of int, or slice

        Returns
        -------
        PooledMaps
        """
        largest, smallest, mean, variance = (maps[rows] for maps in self[:4])
        return PooledMaps(largest, smallest, mean, variance, self.n_values)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of all images together, of each channel.

        Returns
        -------
        mean : Tensor of shape (n_channels,)
        variance : Tensor of this shape
        """
        spread, mean = torch.var_mean(self.mean, dim=0, correction=0)
        return mean, self.variance.mean(0) + spread


def pool_maps(maps: Tensor, pool: int) -> PooledMaps:
    """Pool maps by maximum and minimum, and take their statistics.

    Parameters
    ----------
    maps : Tensor of shape (n_images, n_channels, height, width)
    pool : int
        Side of the squares that are pooled; rows and columns that are left over are lost, but
        count in the statistics.

    Returns
    -------
    PooledMaps
    """
    variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0)
    if pool == 1:
        return PooledMaps(maps, maps, mean, variance, maps[0, 0].numel())
    largest, smallest = F.max_pool2d(maps, pool), -F.max_pool2d(-maps, pool)
    return PooledMaps(largest, smallest, mean, variance, maps[0, 0].numel())


class MinimodelReadout(Readout):
    """One minimodel per neuron, on the maps of one convolution.

    Each normalises the maps for itself, and goes on with ReLU, max-pooling, a 1 x 1 convolution, a
    depthwise one, normalisation, ReLU, and a factorised readout.

    Parameters
    ----------
    core_shape : (int, int, int)
        Channels, height and width of the maps.
    n_neurons : int
    hidden_channels : int, default=64
        Channels of the second layer.
    hidden_kernel : int, default=9
        Side of its filters.
    pool : int, default=2
        Side of the squares that are pooled; 1 for none.
    batch_norm_momentum : float, default=0.9
        Weight of the newest batch in the running statistics.
    bias_init : array of shape (n_neurons,), optional
        Initial biases; zeros by default.
    factorized : dict, optional
        Other parameters of the `FactorizedReadout`.

    Attributes
    ----------
    reading : FactorizedReadout
        Rows, columns, channels and bias of every neuron.

    Raises
    ------
    ValueError
        If nothing is left of the maps, or an option is out of its range.

    References
    ----------
    Du et al., "Towards a simplified model of primary visual cortex", 2025.
    """

    takes_shift = False

    first_gain: Tensor
    first_offset: Tensor
    first_mean: Tensor
    first_variance: Tensor
    second_gain: Tensor
    second_offset: Tensor
    second_mean: Tensor
    second_variance: Tensor

    def __init__(
        self,
        core_shape: tuple[int, int, int],
        n_neurons: int,
        *,
        hidden_channels: int = 64,
        hidden_kernel: int = 9,
        pool: int = 2,
        batch_norm_momentum: float = 0.9,
        bias_init: object | None = None,
        factorized: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(n_neurons)
        self.core_shape, self.pool = tuple(core_shape), pool
        self.padding, self.momentum = hidden_kernel // 2, batch_norm_momentum
        n_inputs, *sides = core_shape
        height, width = (s // pool + 2 * self.padding - hidden_kernel + 1 for s in sides)
        if min(height, width) < 1:
            raise ValueError(
                f"maps of {tuple(sides)} are too small to be pooled over {pool} x {pool} places."
            )
        shapes = {"first": (n_neurons, n_inputs), "second": (n_neurons, hidden_channels)}
        # Registered before they are filled: whoever counts parameters can refuse them in time.
        self.mixing = nn.Parameter(torch.empty(n_neurons, hidden_channels, n_inputs))
        self.filters = nn.Parameter(torch.empty(*shapes["second"], hidden_kernel, hidden_kernel))
        for layer, shape in shapes.items():
            self.register_parameter(f"{layer}_gain", nn.Parameter(torch.ones(shape)))
            self.register_parameter(f"{layer}_offset", nn.Parameter(torch.zeros(shape)))
            self.register_buffer(f"{layer}_mean", torch.zeros(shape))
            self.register_buffer(f"{layer}_variance", torch.ones(shape))
        area = hidden_kernel**2  # Xavier, as if each neuron had convolutions of its own
        with torch.no_grad():
            self.mixing.normal_().mul_((2 / (n_inputs + hidden_channels)) ** 0.5)
            self.filters.normal_().mul_((2 / (area * (1 + hidden_channels))) ** 0.5)
        seen = (hidden_channels, height, width)
        self.reading = FactorizedReadout(seen, n_neurons, bias_init=bias_init, **(factorized or {}))
        self.float()  # whatever torch's default dtype is

    # ------------------------------------------------------------------------------ what it does

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Responses (B, n) before the output non-linearity, of maps (B, C, h, w).

        `shift` is refused: receptive fields of minimodels do not move.
        """
        if tuple(features.shape[1:]) != self.core_shape:
            raise ValueError(
                f"the readout is made for feature maps of shape {self.core_shape}, got "
                f"{tuple(features.shape[1:])}."
            )
        if shift is not None:
            raise ValueError("receptive fields of minimodels do not move: leave out the shifter.")
        with torch.autocast(features.device.type, enabled=False):
            return self.respond(pool_maps(features.to(self.mixing.dtype), self.pool))

    def read_each(self, features: Tensor, neurons: Tensor, shift: Tensor | None = None) -> Tensor:
        """Outputs (B,) of one neuron for each map (B, C, h, w); minimodels of others are left out.

        `shift` is refused: receptive fields of minimodels do not move.
        """
        some, places = neurons.unique(return_inverse=True)
        outputs = self.selected(some)(features, shift)
        return outputs.gather(1, places[:, None])[:, 0]

    def respond(self, pooled: PooledMaps) -> Tensor:
        """Compute responses ahead of the output non-linearity from maps that are pooled.

        Parameters
        ----------
        pooled : PooledMaps
            In training mode their statistics are those of the batch.

        Returns
        -------
        Tensor of shape (n_images, n_neurons)
        """
        if self.training:
            mean, variance = (v.expand_as(self.first_mean) for v in pooled.statistics())
            self._note("first", mean, variance, pooled.n_values * len(pooled.mean))
            quick = not (is_plain() or pooled.largest.requires_grad)
            respond = self._quickly if quick else self._plainly
            return respond(pooled, *self._first_factors(mean, variance)) + self.reading.bias
        factors = self._first_factors(self.first_mean, self.first_variance)
        return self._predict(pooled, *factors) + self.reading.bias

    def _first_factors(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """First normalisation as a factor on the maps and an offset, (n, C)."""
        scale = self.first_gain * (variance + _EPS).rsqrt()
        return scale, self.first_offset - scale * mean

    def _space(self) -> Tensor:
        """Weights of all places (n, rank, h w)."""
        return (self.reading.rows[..., :, None] * self.reading.columns[..., None, :]).flatten(2)

    def _plainly(
        self, pooled: PooledMaps, scale: Tensor, offset: Tensor, neurons: slice = slice(None)
    ) -> Tensor:
        """State all that follows the first normalisation."""
        scale, offset = scale[neurons, :, None, None], offset[neurons, :, None, None]
        seen = torch.where(scale >= 0, pooled.largest[:, None], pooled.smallest[:, None])
        x = F.relu(scale * seen + offset)  # (B, n, C, h, w)
        x = (self.mixing[neurons] @ x.flatten(3)).unflatten(-1, x.shape[3:])  # (B, n, K, h, w)
        filters = self.filters[neurons].flatten(0, 1)[:, None]
        x = F.conv2d(x.flatten(1, 2), filters, padding=self.padding, groups=len(filters))
        x = F.relu(self._normalized(x, neurons))
        x = x.unflatten(1, self.second_mean[neurons].shape).flatten(3)  # (B, n, K, h' w')
        seen = torch.einsum("bnkp,nrp->bnkr", x, self._space()[neurons])
        return torch.einsum("bnkr,nrk->bn", seen, self.reading.channels[neurons])

    def _normalized(self, x: Tensor, neurons: slice) -> Tensor:
        """Maps (B, n K, h, w) of the second layer after normalisation."""
        running = self.second_mean[neurons].view(-1), self.second_variance[neurons].view(-1)
        gain, shift = self.second_gain[neurons].flatten(), self.second_offset[neurons].flatten()
        if not is_plain():
            return F.batch_norm(x, *running, gain, shift, self.training, self.momentum, _EPS)
        mean, variance = running
        if self.training:  # torch's own takes these for constants in its second derivatives
            F.batch_norm(x.detach(), *running, None, None, True, self.momentum, _EPS)
            mean = x.mean((0, 2, 3))
            variance = (x - mean[:, None, None]).square().mean((0, 2, 3))
        factor = gain * (variance + _EPS).rsqrt()
        return (x - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]

    def _quickly(self, pooled: PooledMaps, scale: Tensor, offset: Tensor) -> Tensor:
        """Do as `_plainly` in training mode, with less memory and time."""
        outputs, mean, variance = minimodels(
            *pooled[:2],
            scale,
            offset,
            self.mixing,
            self.filters,
            self.second_gain,
            self.second_offset,
            self._space(),
            self.reading.channels,
            self.padding,
            _EPS,
        )
        self._note("second", mean, variance, len(outputs) * self._space().shape[-1])
        return outputs

    def _predict(self, pooled: PooledMaps, scale: Tensor, offset: Tensor) -> Tensor:
        """Do as `_plainly` in evaluation mode, some neurons and images at a time."""
        n_images, n_values = len(pooled.mean), self.mixing.shape[1] * pooled.largest[0, 0].numel()
        n, images = chunks(n_images, self.n_neurons, n_values, scale.device.type)
        rows = [slice(i, i + images) for i in range(0, n_images, images)]
        return torch.cat(
            [
                torch.cat(
                    [self._plainly(pooled.rows(r), scale, offset, slice(i, i + n)) for r in rows]
                )
                for i in range(0, self.n_neurons, n)
            ],
            dim=1,
        )

    @torch.no_grad()
    def _note(self, layer: str, mean: Tensor, variance: Tensor, n: int) -> None:
        """Take the statistics of a batch of `n` values per channel into the running ones."""
        kept = (getattr(self, f"{layer}_mean"), getattr(self, f"{layer}_variance"))
        unbiased = variance * (n / max(1, n - 1))
        for running, value in zip(kept, (mean, unbiased), strict=True):
            running.lerp_(value, self.momentum)

    # -------------------------------------------------------------------------- what it consists of

    def spatial_moments(self) -> Moments:
        """Where the factorised readouts look, ahead of the second convolution and of pooling.

        Returns
        -------
        Moments
            NaN of neurons that see nothing.
        """
        mean, covariance = self.reading.spatial_moments()
        shift = (self.filters.shape[-1] - 1) / 2 - self.padding  # 0 of odd filters
        mean = (mean + shift) * self.pool + (self.pool - 1) / 2
        return Moments(mean, covariance * self.pool**2)

    def penalty(self) -> Tensor:
        """Weighted penalties on the weights of the factorised readouts, summed over neurons.

        Returns
        -------
        Tensor
            Scalar.
        """
        return self.reading.penalty()

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser: of the layers, and those of the factorised readouts.

        Returns
        -------
        list of dict
        """
        own = [p for name, p in self.named_parameters() if not name.startswith("reading.")]
        return [{"params": own}, *self.reading.groups()]

    def project_(self) -> None:
        """Put negative weights of rows and columns to 0."""
        self.reading.project_()

    # ------------------------------------------------------------------------------ some neurons

    def selected(self, neurons: Tensor) -> Self:
        """Minimodels of some neurons, as a readout of its own with copies of the weights.

        Parameters
        ----------
        neurons : Tensor of int

        Returns
        -------
        MinimodelReadout
            In the mode of this one.
        """
        own: dict[int, Tensor] = {
            id(p): nn.Parameter(p.detach()[neurons]) for p in self.parameters()
        }
        own |= {id(b): b[neurons] for b in self.buffers()}
        new = deepcopy(self, own)  # which takes these for what is copied already
        new.n_neurons = new.reading.n_neurons = len(neurons)
        return new

    @torch.no_grad()
    def put_(self, neurons: Tensor, some: MinimodelReadout) -> None:
        """Take over the weights of some neurons.

        Parameters
        ----------
        neurons : Tensor of int
        some : MinimodelReadout
            What `selected` gave, after it was trained.
        """
        whole = self.state_dict(keep_vars=True)
        for name, values in some.state_dict().items():
            whole[name][neurons] = values

    @torch.no_grad()
    def silence_(self, neurons: Tensor) -> None:
        """Let some neurons respond with the lowest rate that counts, whatever they see.

        Parameters
        ----------
        neurons : Tensor of int
        """
        self.reading.channels[neurons] = 0.0
        self.reading.bias[neurons] = inverse_elu_plus_one(self.reading.bias.new_zeros(()))
