"""The factorised readout: where a neuron looks, times what it looks for."""

from typing import Any

import torch
from torch import Tensor, nn

from v1tlearn.nn.fast.contraction import contract_separable, worth_contracting
from v1tlearn.nn.losses import hoyer_square
from v1tlearn.nn.readouts.readout import Moments, Readout, initial_bias, mask_moments


class FactorizedReadout(Readout):
    """Separable readout of one mouse: rows x columns x channels (Klindt 2017, Du 2025).

    The output of a neuron is ``sum_k sum_cyx channel[k, c] row[k, y] column[k, x] map[c, y, x]``
    plus a bias. Weights of rows and columns are never negative: `project_` puts them back to 0
    after every step of the optimiser.

    Parameters
    ----------
    core_shape : tuple of int
        Channels, height and width of the feature map.
    n_neurons : int
        Number of neurons.
    rank : int, default=1
        Separable kernels k that are added up. (In the published code the spatial weights of all of
        them are added first, and every kernel goes through the non-linearity for itself.)
    space_init, channel_init : float, default=0.01
        Standard deviation of the initial weights, which are normally distributed around 0.
    space_l1, space_l2, space_hoyer : float, default=0.0
        Weights of the penalties on the weights of rows and of columns: their absolute values, their
        squares, and their Hoyer square, see `penalty`.
    channel_l1, channel_l2, channel_hoyer : float, default=0.0
        The same for the weights of channels.
    space_weight_decay, channel_weight_decay : float, optional
        Weight decay in the optimiser where it differs from the model's. Where either is given
        there is none on the biases.
    bias_init : array of shape (n_neurons,), optional
        Initial biases; zeros by default.

    Attributes
    ----------
    rows : Parameter of shape (n_neurons, rank, height)
    columns : Parameter of shape (n_neurons, rank, width)
    channels : Parameter of shape (n_neurons, rank, n_channels)
    bias : Parameter of shape (n_neurons,)

    Raises
    ------
    ValueError
        If shapes disagree, or an option is out of its range.

    References
    ----------
    Klindt et al., "Neural system identification for large populations separating 'what' and
    'where'", NeurIPS, 2017.
    Du et al., "Towards a simplified model of primary visual cortex", 2025.
    """

    def __init__(
        self,
        core_shape: tuple[int, int, int],
        n_neurons: int,
        *,
        rank: int = 1,
        space_init: float = 0.01,
        channel_init: float = 0.01,
        space_l1: float = 0.0,
        space_l2: float = 0.0,
        space_hoyer: float = 0.0,
        channel_l1: float = 0.0,
        channel_l2: float = 0.0,
        channel_hoyer: float = 0.0,
        space_weight_decay: float | None = None,
        channel_weight_decay: float | None = None,
        bias_init: object | None = None,
    ) -> None:
        super().__init__(n_neurons)
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}.")
        for name, scale in {"space_init": space_init, "channel_init": channel_init}.items():
            if not scale > 0:
                raise ValueError(f"{name} must be positive, got {scale}.")
        self.core_shape = tuple(core_shape)
        n_channels, height, width = core_shape
        self.space_penalties = (space_l1, space_l2, space_hoyer)
        self.channel_penalties = (channel_l1, channel_l2, channel_hoyer)
        self.least = 0.1 * space_init
        self.space_weight_decay = space_weight_decay
        self.channel_weight_decay = channel_weight_decay

        # Registered before they are filled: whoever counts parameters can refuse them in time.
        self.rows = nn.Parameter(torch.empty(n_neurons, rank, height))
        self.columns = nn.Parameter(torch.empty(n_neurons, rank, width))
        self.channels = nn.Parameter(torch.empty(n_neurons, rank, n_channels))
        scales = (space_init, space_init, channel_init)
        with torch.no_grad():
            for weights, scale in zip(self.parameters(), scales, strict=True):
                weights.normal_().mul_(scale)
        self.bias = nn.Parameter(initial_bias(bias_init, n_neurons))
        self.float()  # whatever torch's default dtype is

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Responses (B, n) before the output non-linearity, of feature maps (B, C, h, w).

        `shift` (B, 2) moves all receptive fields of an image, right and down, in half map sides;
        beyond the map they read zeros.
        """
        if tuple(features.shape[1:]) != self.core_shape:
            raise ValueError(
                f"the readout is made for feature maps of shape {self.core_shape}, got "
                f"{tuple(features.shape[1:])}."
            )
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.rows.dtype)
            if shift is not None:
                features = _moved(_moved(features, shift[:, 0], 3), shift[:, 1], 2)
            space = self.rows[..., :, None] * self.columns[..., None, :]  # (n, k, h, w)
            space, channels = space.flatten(2).flatten(0, 1), self.channels.flatten(0, 1)
            if features.shape[1] > space.shape[1]:  # what is there in between is smaller so
                outputs = ((channels @ features.flatten(2)) * space).sum(-1)  # of (B, n k, h w)
            elif worth_contracting(features, len(space)):
                outputs = contract_separable(features, space, channels)
            else:
                seen = features.flatten(2) @ space.T  # (B, C, n k)
                outputs = torch.einsum("bcm,mc->bm", seen, channels)
            return outputs.unflatten(1, (self.n_neurons, -1)).sum(-1) + self.bias

    @torch.no_grad()
    def spatial_moments(self) -> Moments:
        """Centre of mass and spread of the weights of places.

        These are the products of the absolute weights of rows and columns, times the length of the
        channel weights where several are added up.

        Returns
        -------
        Moments
            NaN of neurons without any.
        """
        rows = self.rows.abs() * self.channels.norm(dim=2)[..., None]
        return mask_moments(torch.einsum("nky,nkx->nyx", rows, self.columns.abs()))

    def read_each(self, features: Tensor, neurons: Tensor, shift: Tensor | None = None) -> Tensor:
        """Outputs (B,) of one neuron for each map (B, C, h, w)."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.rows.dtype)
            if shift is not None:
                features = _moved(_moved(features, shift[:, 0], 3), shift[:, 1], 2)
            rows, columns, channels = (
                weights[neurons] for weights in (self.rows, self.columns, self.channels)
            )
            space = rows[..., :, None] * columns[..., None, :]  # (B, k, h, w)
            seen = space.flatten(2) @ features.flatten(2).mT  # (B, k, C)
            return (seen * channels).sum((1, 2)) + self.bias[neurons]

    def penalty(self) -> Tensor:
        """Weighted penalties on the weights, summed over neurons.

        Of weights w they are ``sum |w|``, ``sum w^2`` and, for each neuron, the Hoyer square
        ``(sum |w|)^2 / sum w^2``, which is the number of weights where they are all alike and 1
        where a single one differs from 0, whatever their size.

        Returns
        -------
        Tensor
            Scalar.
        """
        parts = ((self.rows, self.space_penalties), (self.columns, self.space_penalties))
        total = self.bias.new_zeros(())
        for weights, (l1, l2, hoyer) in (*parts, (self.channels, self.channel_penalties)):
            if l1:
                total = total + l1 * weights.abs().sum()
            if l2:
                total = total + l2 * weights.square().sum()
            if hoyer:
                total = total + hoyer * hoyer_square(weights.flatten(1)).sum()
        return total

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser: rows and columns, channels, biases.

        Returns
        -------
        list of dict
        """
        decays = (self.space_weight_decay, self.channel_weight_decay)
        if decays == (None, None):
            return super().groups()
        parts = ([self.rows, self.columns], [self.channels], [self.bias])
        return [
            {"params": params} if decay is None else {"params": params, "weight_decay": decay}
            for params, decay in zip(parts, (*decays, 0.0), strict=True)
        ]

    @torch.no_grad()
    def project_(self) -> None:
        """Put negative weights of rows and columns to 0.

        Where none would be left the largest one stays above 0, at a tenth of `space_init`: a
        neuron without rows or columns gives its channels no gradient, and could never recover.
        """
        for weights in (self.rows, self.columns):
            largest = weights == weights.amax(-1, keepdim=True)
            blind = ~(weights > 0).any(-1, keepdim=True)
            weights.clamp_(min=0).masked_fill_(blind & largest, self.least)


def _moved(features: Tensor, shift: Tensor, dim: int) -> Tensor:
    """Maps (B, C, h, w) read farther along one side, by `shift` (B,) half sides; zeros beyond."""
    side = features.shape[dim]
    shape = [-1, 1, 1, 1]
    shape[dim] = side
    at = (
        torch.arange(side, device=shift.device) + shift[:, None].to(features.dtype) * (side - 1) / 2
    )

    def part(cell: Tensor) -> Tensor:
        weight = (1 - (at - cell).abs()) * ((cell >= 0) & (cell < side))  # (B, side)
        index = cell.int().clamp(0, side - 1).long().reshape(shape).expand_as(features)
        return weight.reshape(shape) * features.gather(dim, index)

    return part(at.floor()) + part(at.floor() + 1)
