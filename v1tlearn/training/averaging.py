"""Averages of the weights over the steps of a training, which predict better than the last ones.

An average is any object with `restart`, `update`, `weights`, `state_dict` and `load_state_dict` as
they are here; a run validates and keeps what `weights` returns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class ExponentialAverage:
    """Exponential moving average: ``average = decay * average + (1 - decay) * weights``.

    It begins with the weights before the first step, and includes buffers such as the running
    statistics of batch normalisation; whole numbers are the latest ones.

    Parameters
    ----------
    decay : float
        From 0, which is no average, to below 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"ema_decay is {decay!r}: expected a number from 0 to below 1, or None."
            )
        self.decay = decay
        self._weights: dict[str, torch.Tensor] = {}

    def restart(self, weights: dict[str, torch.Tensor]) -> None:
        """Begin anew with these weights."""
        self._weights = {name: value.clone() for name, value in weights.items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self._weights[name].lerp_(value, 1 - self.decay)
            else:
                self._weights[name].copy_(value)

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights and buffers as the average has them, by name."""
        return self._weights

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on exactly, as a copy."""
        return {name: value.clone() for name, value in self._weights.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.restart(state)
