"""Readouts that see time: a filter behind another readout, and kernels of pixels and frames."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.layers.time import context_of, lengthened
from v1tlearn.nn.readouts.readout import Moments, Readout, initial_bias, mask_moments


class TemporalReadout(Readout):
    """Another readout, frame by frame, and behind it a causal filter in time of each neuron.

    ``out(t) = bias + sum_k weight[n, k] (readout(t - k) - bias)``, with the bias of the readout, or
    0 of one without. Filters begin with the present frame alone, and movies with the bias.

    Parameters
    ----------
    readout : Readout
    n_lags : int
        Frames of the filter, the present one included.

    Attributes
    ----------
    weight : Parameter of shape (n_neurons, n_lags)
        The present frame first.
    """

    context_frames: tuple[int, int]

    def __init__(self, readout: Readout, n_lags: int) -> None:
        super().__init__(readout.n_neurons)
        self.readout, self.takes_shift = readout, readout.takes_shift
        self.context_frames = context_of(n_lags)
        self.weight = nn.Parameter(torch.zeros(self.n_neurons, n_lags))
        with torch.no_grad():
            self.weight[:, 0] = 1

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Outputs (B, n) of the readout of each frame, of feature maps (B, C, h, w)."""
        return self.readout(features, shift)

    def through_time(self, outputs: Tensor, past: Past | None = None) -> Tensor:
        """Filter outputs in time.

        Parameters
        ----------
        outputs : Tensor of shape (n_movies, n_frames, n_neurons)
        past : Past, optional

        Returns
        -------
        Tensor of shape (n_movies, n_frames, n_neurons)
        """
        bias = getattr(self.readout, "bias", None)
        if bias is None:
            return _filtered(lengthened(self, outputs, self.context_frames, past), self.weight)
        longer = lengthened(self, outputs - bias, self.context_frames, past)
        return _filtered(longer, self.weight) + bias

    def spatial_moments(self) -> Moments | None:
        """Where the readout of each frame looks.

        Returns
        -------
        Moments or None
        """
        return self.readout.spatial_moments()

    def penalty(self) -> Tensor:
        """Penalty of the readout.

        Returns
        -------
        Tensor
            Scalar.
        """
        return self.readout.penalty()

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser: the groups of the readout, and filters.

        Returns
        -------
        list of dict
        """
        return [*self.readout.groups(), {"params": [self.weight]}]

    def project_(self) -> None:
        """Restore what parameters of the readout must fulfil."""
        self.readout.project_()


class KernelReadout(Readout):
    """A linear kernel of pixels and frames for each neuron.

    ``out(t) = sum_k sum_cyx kernel[n, k, c, y, x] frame(t - k)[c, y, x]`` plus a bias; ahead of a
    movie frames are zero, which is the mean grey level where stimuli are standardised. A separable
    kernel is a product of one in space and one in time.

    Parameters
    ----------
    core_shape : tuple of int
        Channels, height and width of the frames.
    n_neurons : int
    n_lags : int
        Frames of a kernel, the present one included.
    separable : bool, default=True
    space_smoothness, time_smoothness, l2 : float, default=0.0
        Weights in `penalty`.
    bias_init : array of shape (n_neurons,), optional
        Initial biases; zeros by default.

    Attributes
    ----------
    space : Parameter of shape (n_neurons, 1 or n_lags, channels, height, width)
        Divided by the root of its size, so that steps of one length serve kernels of all sizes.
    time : Parameter of shape (n_neurons, n_lags), or None
        Of separable kernels, the present frame first; divided likewise.
    bias : Parameter of shape (n_neurons,)
    """

    takes_shift = False
    context_frames: tuple[int, int]

    def __init__(
        self,
        core_shape: tuple[int, int, int],
        n_neurons: int,
        n_lags: int,
        *,
        separable: bool = True,
        space_smoothness: float = 0.0,
        time_smoothness: float = 0.0,
        l2: float = 0.0,
        bias_init: object | None = None,
    ) -> None:
        super().__init__(n_neurons)
        self.context_frames = context_of(n_lags)
        self.core_shape, self.n_lags = tuple(core_shape), n_lags
        self.weights = (space_smoothness, time_smoothness, l2)
        shape = (n_neurons, 1 if separable else n_lags, *core_shape)
        self.space = nn.Parameter(torch.empty(shape))
        self.time = nn.Parameter(torch.empty(n_neurons, n_lags)) if separable else None
        with torch.no_grad():
            self.space.normal_().mul_(0.1)
            if self.time is not None:
                self.time.normal_()
        self.bias = nn.Parameter(initial_bias(bias_init, n_neurons))
        self.float()  # whatever torch's default dtype is

    def kernels(self) -> Tensor:
        """Kernels of all neurons.

        Returns
        -------
        Tensor of shape (n_neurons, n_lags, channels, height, width)
            In the units of standardised stimuli and responses; the present frame first.
        """
        space, time = self._factors()
        return (space if time is None else space * time[..., None, None, None]).detach()

    def _factors(self) -> tuple[Tensor, Tensor | None]:
        """Kernels in space, of each lag where they are not separable, and in time."""
        space = self.space * self.space[0].numel() ** -0.5
        return space, None if self.time is None else self.time * self.n_lags**-0.5

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Products (B, n) or, of full kernels, (B, n n_lags) with frames (B, C, h, w)."""
        if tuple(features.shape[1:]) != self.core_shape:
            raise ValueError(
                f"the readout is made for frames of shape {self.core_shape}, got "
                f"{tuple(features.shape[1:])}."
            )
        space, _ = self._factors()
        return features.flatten(1) @ space.flatten(2).flatten(0, 1).T

    def through_time(self, outputs: Tensor, past: Past | None = None) -> Tensor:
        """Add up what each frame contributes.

        Parameters
        ----------
        outputs : Tensor of shape (n_movies, n_frames, k)
            From `forward`.
        past : Past, optional

        Returns
        -------
        Tensor of shape (n_movies, n_frames, n_neurons)
        """
        n_frames, longer = outputs.shape[1], lengthened(self, outputs, self.context_frames, past)
        _, time = self._factors()
        if time is not None:
            return _filtered(longer, time) + self.bias
        by_lag = longer.unflatten(2, (self.n_neurons, self.n_lags))
        total = self.bias
        for lag in range(self.n_lags):
            start = self.n_lags - 1 - lag
            total = total + by_lag[:, start : start + n_frames, :, lag]
        return total

    def spatial_moments(self) -> Moments:
        """Centre of mass and spread of squared kernels, summed over frames and channels.

        Returns
        -------
        Moments
            NaN of neurons whose kernels are 0.
        """
        return mask_moments(self.kernels().square().sum((1, 2)))

    def penalty(self) -> Tensor:
        """Weighted squares, summed over neurons.

        Those of the Laplacian of kernels in space, of their changes from frame to frame, and of
        the kernels themselves. Of a separable kernel both factors bear the last one.

        Returns
        -------
        Tensor
            Scalar.
        """
        in_space, in_time, l2 = self.weights
        space, time = self._factors()
        total = self.bias.new_zeros(())
        if in_space:
            total = total + in_space * _laplacian(space).square().sum()
        if in_time:
            series = space.flatten(2) if time is None else time[..., None]
            total = total + in_time * series.diff(dim=1).square().sum()
        if l2:
            total = total + l2 * space.square().sum()
            if time is not None:
                total = total + l2 * time.square().sum()
        return total


def _filtered(longer: Tensor, weight: Tensor) -> Tensor:
    """Outputs (B, T, n) of series (B, T + n_lags - 1, n), by filters (n, n_lags)."""
    return F.conv1d(longer.mT, weight.flip(1)[:, None], groups=len(weight)).mT


def _laplacian(planes: Tensor) -> Tensor:
    """Sum of the differences to the neighbours, along sides that have some; zeros beyond."""
    total = torch.zeros_like(planes)
    for dim in (-2, -1):
        if planes.shape[dim] > 1:
            edge = planes.narrow(dim, 0, 1) * 0
            longer = torch.cat((edge, planes, edge), dim)
            n = planes.shape[dim]
            total = total + 2 * planes - longer.narrow(dim, 0, n) - longer.narrow(dim, 2, n)
    return total
