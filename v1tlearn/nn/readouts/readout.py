"""The contract of a readout."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from v1tlearn.nn.layers.past import Past


class Moments(NamedTuple):
    """Where neurons look on a feature map.

    Attributes
    ----------
    mean : Tensor of shape (n_neurons, 2)
        (x, y), in cells from the centre of the upper left one. Float64.
    covariance : Tensor of shape (n_neurons, 2, 2)
        In squared cells. Float64.
    """

    mean: Tensor
    covariance: Tensor


class Readout(nn.Module):
    """What one animal has for itself: from feature maps to the outputs of its neurons.

    A readout says in ``forward(features, shift=None)`` what it computes: outputs (B, n_neurons),
    ahead of the output non-linearity, of feature maps (B, C, h, w). All else has a default.

    Parameters
    ----------
    n_neurons : int

    Attributes
    ----------
    n_neurons : int
    takes_shift : bool
        Whether receptive fields can move with the eye.
    context_frames : (int, int) or None
        None for a readout that reads frame by frame; otherwise how many frames before and after
        a frame `through_time` looks at.
    """

    takes_shift = True
    context_frames: tuple[int, int] | None = None

    def __init__(self, n_neurons: int) -> None:
        super().__init__()
        if n_neurons < 1:
            raise ValueError(f"a readout needs at least one neuron, got n_neurons={n_neurons}.")
        self.n_neurons = n_neurons

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Outputs (B, n_neurons) of feature maps (B, C, h, w).

        `shift` (B, 2) moves all receptive fields of an image, right and down, in half map sides.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes.")

    def read_each(self, features: Tensor, neurons: Tensor, shift: Tensor | None = None) -> Tensor:
        """Outputs of one neuron for each map: all are computed here, unless a readout knows better.

        Parameters
        ----------
        features : Tensor of shape (n_images, n_channels, height, width)
        neurons : Tensor of int of shape (n_images,)
            Which neuron sees which map.
        shift : Tensor of shape (n_images, 2), optional
            As of `forward`.

        Returns
        -------
        Tensor of shape (n_images,)
        """
        return self(features, shift).gather(1, neurons[:, None])[:, 0]

    def points_each(self, neurons: Tensor, shift: Tensor | None = None) -> Tensor | None:
        """Tell where neurons look that read a map at a single point.

        Parameters
        ----------
        neurons : Tensor of int of shape (n_images,)
        shift : Tensor of shape (n_images, 2), optional
            As of `forward`.

        Returns
        -------
        Tensor of shape (n_images, 2) or None
            (x, y); -1 and 1 are the centres of the outermost cells. None unless a readout says
            otherwise: it reads more than a point.
        """
        return None

    def read_at(self, features: Tensor, points: Tensor, neurons: Tensor) -> Tensor:
        """Outputs of one neuron for each map, at a point, of a readout that has `points_each`.

        Parameters
        ----------
        features : Tensor of shape (n_images, n_channels, height, width)
            Maps, or parts of some.
        points : Tensor of shape (n_images, 2)
        neurons : Tensor of int of shape (n_images,)

        Returns
        -------
        Tensor of shape (n_images,)
        """
        raise NotImplementedError(f"{type(self).__name__} reads more than a point.")

    def through_time(self, outputs: Tensor, past: Past | None = None) -> Tensor:
        """Make outputs over time of what `forward` gave for each frame: the same, here.

        Parameters
        ----------
        outputs : Tensor of shape (n_movies, n_frames, k)
            What `forward` gave, of a readout that sees time; k need not be the number of neurons.
        past : Past, optional
            What was before these frames, where a movie comes in parts.

        Returns
        -------
        Tensor of shape (n_movies, n_frames, n_neurons)
        """
        return outputs

    def penalty(self) -> Tensor:
        """Penalty on the weights, which is added to the loss once per step.

        Returns
        -------
        Tensor
            Scalar; 0 unless a readout says otherwise.
        """
        first = next(self.parameters(), None)
        return torch.zeros(()) if first is None else first.new_zeros(())

    def spatial_moments(self) -> Moments | None:
        """Where the neurons look on the feature map, and how far around.

        Returns
        -------
        Moments or None
            None unless a readout says otherwise: it does not tell.
        """
        return None

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser, in groups.

        Returns
        -------
        list of dict
            Each with "params", and "lr" or "weight_decay" where these are to differ from what the
            model is trained with.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def project_(self) -> None:
        """Restore, after a step of the optimiser, what parameters must fulfil: nothing here."""


def mask_moments(weights: Tensor) -> Moments:
    """Mean and covariance of spatial masks.

    Parameters
    ----------
    weights : Tensor of shape (n_neurons, height, width)
        Not negative.

    Returns
    -------
    Moments
        NaN of neurons whose weights are all 0.
    """
    weights = weights.detach().cpu().double()  # Apple's GPUs have no float64
    share = weights / weights.sum((1, 2), keepdim=True)
    y, x = (torch.arange(n, dtype=share.dtype, device=share.device) for n in share.shape[1:])
    places = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), -1)  # (h, w, 2)
    mean = torch.einsum("nyx,yxa->na", share, places)
    away = places - mean[:, None, None]
    return Moments(mean, torch.einsum("nyx,nyxa,nyxb->nab", share, away, away))


def copied(values: object, dtype: torch.dtype) -> Tensor:
    """Tensor of its own, since torch warns of arrays that cannot be written to."""
    if isinstance(values, Tensor):
        return values.detach().to(dtype, copy=True)
    return torch.from_numpy(np.array(values, dtype=np.float64)).to(dtype)


def initial_bias(values: object | None, n_neurons: int) -> Tensor:
    """Check initial biases; zeros where none came.

    Parameters
    ----------
    values : array of shape (n_neurons,), optional
    n_neurons : int

    Returns
    -------
    Tensor of shape (n_neurons,)

    Raises
    ------
    ValueError
        If it is not one finite value per neuron.
    """
    if values is None:
        return torch.zeros(n_neurons)
    bias = copied(values, torch.float32)
    if bias.shape != (n_neurons,) or not bias.isfinite().all():
        raise ValueError(
            f"bias_init must hold one finite value for each of {n_neurons} neurons, got "
            f"shape {tuple(bias.shape)}, {int((~bias.isfinite()).sum())} not finite."
        )
    return bias
