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


class EpochAverage:
    """Plain mean of the weights at the starts of some epochs (Izmailov et al. 2018).

    Before the first of these it is no average, but the latest weights. Buffers are averaged, too:
    running statistics of a batch normalisation are better taken anew with the averaged weights, by
    ``torch.optim.swa_utils.update_bn``. Vi-ST (Wu et al. 2024) averages over the starts of epochs
    19 to 29 of 30, so that what the last epoch learned does not count.

    Parameters
    ----------
    epochs : range
        Epochs, counted from 0, at whose start weights are taken.
    steps_per_epoch : int

    Raises
    ------
    ValueError
        If there is no epoch, or the first one is 0, or an epoch has no step.
    """

    def __init__(self, epochs: range, steps_per_epoch: int) -> None:
        if not len(epochs) or min(epochs) < 1 or steps_per_epoch < 1:
            raise ValueError(
                f"an average over the starts of the epochs {epochs} of {steps_per_epoch} steps: "
                "expected at least one epoch, none before 1, and at least one step."
            )
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self._weights: dict[str, torch.Tensor] = {}
        self._latest: nn.Module | None = None  # whose weights count as long as there is no average
        self._steps = self._taken = 0

    def restart(self, weights: dict[str, torch.Tensor]) -> None:
        """Begin anew with these weights; steps are counted on."""
        self._weights = {name: value.clone() for name, value in weights.items()}
        self._latest, self._taken = None, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step, where an epoch begins with them.

        Nothing is copied after the other steps.
        """
        self._steps += 1
        epoch, step = divmod(self._steps, self.steps_per_epoch)
        if step or epoch not in self.epochs:
            self._latest = None if self._taken else model
            return
        self._latest, self._taken = None, self._taken + 1
        for name, value in model.state_dict().items():
            if self._taken > 1 and value.is_floating_point():
                self._weights[name].lerp_(value, 1 / self._taken)
            else:
                self._weights[name].copy_(value)

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights and buffers as the average has them, by name.

        As long as there is no average, they are those that the model has now.
        """
        return self._weights if self._latest is None else self._latest.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on exactly, as a copy."""
        weights = {name: value.clone() for name, value in self.weights().items()}
        return {"weights": weights, "steps": self._steps, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.restart(state["weights"])
        self._steps, self._taken = state["steps"], state["taken"]
