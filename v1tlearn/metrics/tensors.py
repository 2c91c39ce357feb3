"""Single-trial correlation of torch tensors, on their device and without waiting for it.

The same numbers as `single_trial_correlation` of arrays; for validation while training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from v1tlearn.metrics._evaluate import ROUNDING_FLOAT32, ROUNDING_FLOAT64


@torch.no_grad()
def correlation(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pearson's correlation over trials of each neuron.

    Parameters
    ----------
    prediction : Tensor (n, neurons)
        Predicted responses, any floating dtype.
    target : Tensor (n, neurons)
        Recorded responses; NaN where not recorded.
    mask : bool Tensor (n, neurons), optional
        False where `target` is to be left out, in addition to NaN.

    Returns
    -------
    Tensor (neurons,)
        0 where prediction or target is constant up to rounding (as in `v1tlearn.metrics`) or
        predictions are not finite, NaN with fewer than two recorded trials.
        float64, or float32 on devices that have no float64.
    """
    sums = CorrelationSums()
    sums.update("", prediction, target, mask)
    return sums.compute()[""]


class CorrelationSums:
    """Single-trial correlation of several mice from batches of trials.

    Means, squares and products are merged batch by batch (Chan, Golub & LeVeque 1979), relative
    to each neuron's first recorded trial, so that large means do not cancel and a constant neuron
    has a variance of exactly 0. Nothing here waits for the device.
    """

    def __init__(self) -> None:
        self._state: dict[str, _State] = {}

    @torch.no_grad()
    def update(
        self, mouse: str, prediction: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch of trials of one mouse.

        Parameters
        ----------
        mouse : str
            Mouse id.
        prediction : Tensor (n, neurons)
            Predicted responses, any floating dtype.
        target : Tensor (n, neurons)
            Recorded responses; NaN where not recorded.
        mask : bool Tensor (n, neurons), optional
            False where `target` is to be left out, in addition to NaN.
        """
        if prediction.shape != target.shape or prediction.ndim != 2:
            raise ValueError(
                f"mouse {mouse!r}: prediction has shape {tuple(prediction.shape)}, target "
                f"{tuple(target.shape)}; expected the same (trials, neurons)."
            )
        if len(target) == 0:
            return
        recorded = ~torch.isnan(target)
        if mask is not None:
            recorded = recorded & mask
        dtype = torch.float32 if target.device.type == "mps" else torch.float64
        values = torch.stack([prediction.to(dtype), target.to(dtype)])  # (2, n, neurons)
        if mouse not in self._state:
            self._state[mouse] = _State(values, (prediction.dtype, target.dtype))
        self._state[mouse].merge(values, recorded)

    def compute(self) -> dict[str, Tensor]:
        """Correlation of each neuron.

        Returns
        -------
        dict of str to Tensor (neurons,)
            As `correlation`, for each mouse.
        """
        return {mouse: state.correlation() for mouse, state in self._state.items()}

    def mean(self) -> Tensor:
        """Mean over neurons, then over mice.

        Returns
        -------
        Tensor ()
            On the device of the last mouse; undefined neurons and mice are left out.
        """
        scores = [values.nanmean() for values in self.compute().values()]
        return torch.stack(scores).nanmean()


class _State:
    """Running moments of predictions and targets of one mouse; index 0 and 1 of the first axis."""

    def __init__(self, values: Tensor, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
        _, _, neurons = values.shape
        self.rounding = [
            ROUNDING_FLOAT32 if d.is_floating_point and d.itemsize <= 4 else ROUNDING_FLOAT64
            for d in dtypes
        ]
        self.largest = values.new_zeros(2, neurons)
        self.count = values.new_zeros(neurons)
        self.origin = values.new_zeros(2, neurons)
        self.mean = values.new_zeros(2, neurons)
        self.squares = values.new_zeros(2, neurons)
        self.product = values.new_zeros(neurons)

    def merge(self, values: Tensor, recorded: Tensor) -> None:
        first = recorded.int().argmax(dim=0)  # (neurons,) 0 where nothing is recorded
        candidate = values.gather(1, first.expand(2, 1, -1)).squeeze(1)  # (2, neurons)
        known = (self.count > 0) | ~recorded.any(dim=0)
        self.origin = torch.where(known, self.origin, candidate)

        largest = torch.where(recorded, values.abs(), 0).amax(dim=1)
        self.largest = torch.maximum(self.largest, largest)
        values = torch.where(recorded, values - self.origin[:, None], 0)  # (2, n, neurons)
        count = recorded.sum(dim=0).to(values.dtype)
        mean = values.sum(dim=1) / count.clamp(min=1)
        centred = torch.where(recorded, values - mean[:, None], 0)
        total = self.count + count
        delta = mean - self.mean
        share = self.count * count / total.clamp(min=1)
        self.squares += centred.square().sum(dim=1) + delta.square() * share
        self.product += (centred[0] * centred[1]).sum(dim=0) + delta[0] * delta[1] * share
        self.mean += delta * count / total.clamp(min=1)
        self.count = total

    def correlation(self) -> Tensor:
        varies = [
            (squares / self.count).sqrt() > rounding * largest
            for squares, rounding, largest in zip(
                self.squares, self.rounding, self.largest, strict=True
            )
        ]
        scale = self.squares[0].sqrt() * self.squares[1].sqrt()
        r = torch.where(varies[0] & varies[1], (self.product / scale).clamp(-1, 1), 0)
        return torch.where(self.count < 2, torch.nan, r)
