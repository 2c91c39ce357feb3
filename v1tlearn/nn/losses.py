"""Output non-linearity, Poisson loss and penalties: plain functions of tensors."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn.precision import at_least_float32

FLOAT32_EPSILON = torch.finfo(torch.float32).eps


def elu_plus_one(inputs: Tensor) -> Tensor:
    """Map real numbers to positive rates: ``x + 1`` above zero, ``exp(x)`` below.

    Parameters
    ----------
    inputs : Tensor
        Output of a readout.

    Returns
    -------
    Tensor
        Rates, at least in float32.
    """
    return F.elu(at_least_float32(inputs)) + 1


def inverse_elu_plus_one(rates: Tensor, floor: float = 1e-3) -> Tensor:
    """Value that `elu_plus_one` maps to a rate.

    Parameters
    ----------
    rates : Tensor
        Non-negative rates, such as mean responses.
    floor : float, default=1e-3
        Rates below count as this one; a silent neuron would otherwise get minus infinity.

    Returns
    -------
    Tensor
        ``rates - 1`` where the rate is at least 1, its logarithm elsewhere.
    """
    rates = rates.clamp(min=floor)
    return torch.where(rates >= 1, rates - 1, rates.log())


def poisson_loss(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    eps: float = FLOAT32_EPSILON,
    *,
    per_neuron: bool = False,
) -> Tensor:
    """Sum over trials and neurons of ``(p + eps) - (r + eps) log(p + eps)``.

    The negative Poisson log-likelihood up to a constant, as in the published V1T code; the scale
    ``sqrt(n_trials / batch_size)`` is the caller's.

    Parameters
    ----------
    prediction : Tensor of shape (n_trials, n_neurons)
        Predicted rates, positive.
    target : Tensor of shape (n_trials, n_neurons)
        Recorded responses.
    mask : Tensor of bool of shape (n_trials, n_neurons), optional
        True where a response was recorded. What `target` holds elsewhere, NaN too, reaches
        neither loss nor gradient.
    eps : float, default=1.19e-7
        Keeps the logarithm finite.
    per_neuron : bool, default=False
        Sum over trials only.

    Returns
    -------
    Tensor
        Scalar, or of shape (n_neurons,).

    Raises
    ------
    ValueError
        If the shapes differ; they are never broadcast.
    """
    if prediction.shape != target.shape or (mask is not None and mask.shape != target.shape):
        raise ValueError(
            f"prediction, target and mask must have one shape, got {tuple(prediction.shape)}, "
            f"{tuple(target.shape)} and {None if mask is None else tuple(mask.shape)}."
        )
    rate = prediction + eps
    if mask is not None:
        target = torch.where(mask, target, 0)
    losses = rate - (target + eps) * rate.log()
    return _total(losses, mask, per_neuron)


def _total(losses: Tensor, mask: Tensor | None, per_neuron: bool) -> Tensor:
    """Sum over the trials that were recorded, and over neurons unless each is to have its own."""
    losses = losses if mask is None else torch.where(mask, losses, 0)
    return losses.sum(0) if per_neuron else losses.sum()


def squared_loss(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, *, per_neuron: bool = False
) -> Tensor:
    """Sum over trials and neurons of the squared error.

    Parameters
    ----------
    prediction : Tensor of shape (n_trials, n_neurons)
        Predicted responses.
    target : Tensor of shape (n_trials, n_neurons)
        Recorded responses.
    mask : Tensor of bool of shape (n_trials, n_neurons), optional
        True where a response was recorded.
    per_neuron : bool, default=False
        Sum over trials only.

    Returns
    -------
    Tensor
        Scalar, or of shape (n_neurons,).
    """
    return _total((prediction - target).square(), mask, per_neuron)


def l1_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of absolute values of all parameters.

    Parameters
    ----------
    parameters : iterable of Tensor
        At least one tensor.

    Returns
    -------
    Tensor
        Scalar.
    """
    # One long vector: three operations, however many parameters there are.
    return torch.cat([parameter.reshape(-1) for parameter in parameters]).abs().sum()


def hoyer_square(weights: Tensor) -> Tensor:
    """Number of weights that count: ``(sum |w|)^2 / sum w^2`` (Hoyer 2004).

    Parameters
    ----------
    weights : Tensor of shape (..., n_weights)

    Returns
    -------
    Tensor of shape (...)
        From 1, where one weight alone is not 0, to n_weights, where all are of one size; 0 where
        all are 0. Unchanged when all weights are scaled together.
    """
    energy = weights.square().sum(-1)
    return weights.abs().sum(-1).square() / torch.where(energy > 0, energy, 1)


def laplace_penalty(weight: Tensor, padding: int = 1) -> Tensor:
    """Roughness of convolution filters: the energy of their Laplacian over their own energy.

    ``sum((L * w)^2) / sum(w^2)`` with the 4-neighbour Laplacian L, both sums over all planes, as
    in the Stacked2d core of Lurz et al. (2021).

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in, height, width)
        Convolution filters.
    padding : int, default=1
        Zeros around each filter. With 1, as in the Sensorium 2022 and V1T models, filters are also
        drawn to zero at their edges; with 0 only their interior counts.

    Returns
    -------
    Tensor
        Scalar; unchanged when all filters are scaled together.
    """
    planes = weight.reshape(-1, *weight.shape[-2:])  # (n_out * n_in, h, w)
    p = F.pad(planes, (padding,) * 4)
    neighbours = p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:]
    return (4 * p[:, 1:-1, 1:-1] - neighbours).square().sum() / planes.square().sum()
