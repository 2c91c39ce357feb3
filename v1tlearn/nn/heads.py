"""Heads: from the outputs of a readout, any real numbers, to rates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn.losses import elu_plus_one, inverse_elu_plus_one
from v1tlearn.nn.precision import at_least_float32


class Head(nn.Module):
    """What is common to the output non-linearities of one mouse.

    A head says in ``forward(outputs)`` which rates (B, n_neurons) belong to outputs, and in
    ``inverse(rates)`` which outputs to rates.

    Attributes
    ----------
    increasing : bool
        Whether rates are one increasing function of outputs, the same for all neurons; not unless
        a head says so.
    """

    increasing = False

    def forward(self, outputs: Tensor) -> Tensor:
        """Rates, in the units of training, of the outputs of a readout."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes.")

    def inverse(self, rates: Tensor) -> Tensor:
        """Give the outputs that become these rates.

        Parameters
        ----------
        rates : Tensor
            Not negative.

        Returns
        -------
        Tensor
        """
        raise NotImplementedError(f"{type(self).__name__} has no inverse.")


class EluHead(Head):
    """``x + 1`` above zero, ``exp(x)`` below (Lurz et al. 2021)."""

    increasing = True

    def forward(self, outputs: Tensor) -> Tensor:
        """Rates of outputs."""
        return elu_plus_one(outputs)

    def inverse(self, rates: Tensor) -> Tensor:
        """Give the outputs that become these rates.

        Parameters
        ----------
        rates : Tensor
            Not negative.

        Returns
        -------
        Tensor
        """
        return inverse_elu_plus_one(rates)


class SoftplusHead(Head):
    """``log(1 + exp(b x)) / b`` with a steepness b that is learned, one for the mouse.

    As in the winning entry of the Sensorium 2023 competition, where it gained .018 in correlation.

    Parameters
    ----------
    steepness : float, default=1.0
        At the beginning.
    """

    increasing = True
    _FLOOR = 1e-3  # rates below count as this one, as for the inverse of ELU + 1

    def __init__(self, steepness: float = 1.0) -> None:
        super().__init__()
        if not steepness > 0:
            raise ValueError(f"steepness must be positive, got {steepness}.")
        self.log_steepness = nn.Parameter(torch.tensor(float(steepness), dtype=torch.float32).log())

    def forward(self, outputs: Tensor) -> Tensor:
        """Rates of outputs."""
        outputs = at_least_float32(outputs)
        steepness = self.log_steepness.exp()
        return F.softplus(steepness * outputs) / steepness

    def inverse(self, rates: Tensor) -> Tensor:
        """Give the outputs that become these rates.

        Parameters
        ----------
        rates : Tensor
            Not negative.

        Returns
        -------
        Tensor
        """
        steepness = self.log_steepness.exp()
        scaled = steepness * rates.clamp(min=self._FLOOR)
        return (scaled + (-torch.expm1(-scaled)).log()) / steepness


class IdentityHead(Head):
    """Outputs as they are, which may be negative (Wu et al. 2024)."""

    increasing = True

    def forward(self, outputs: Tensor) -> Tensor:
        """Rates of outputs."""
        return outputs

    def inverse(self, rates: Tensor) -> Tensor:
        """Give the outputs that become these rates.

        Parameters
        ----------
        rates : Tensor

        Returns
        -------
        Tensor
        """
        return rates
