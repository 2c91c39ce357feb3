"""One training step: forward and backward passes, and where a training ran off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.data import MouseData, Targets
from v1tlearn.training.devices import autocast
from v1tlearn.training.objectives import Objective
from v1tlearn.training.settings import TrainingSettings

# Trials of each mouse by which a model is tried that no validation trials judge.
_TRIED = 8


class NonFiniteLossError(FloatingPointError):
    """Loss or predictions became NaN or infinite; the model holds the best weights so far.

    Attributes
    ----------
    mouse : str
        The mouse that was the first.
    epoch : int
        The epoch, from 1.
    step : int or None
        The step of that epoch, from 1; None where the loss was finite, but after the epoch the
        predictions were not.
    """

    def __init__(self, mouse: str, epoch: int, step: int | None = None) -> None:
        what = (
            f"what is predicted for mouse {mouse!r} is not finite after epoch {epoch}"
            if step is None
            else f"the loss of mouse {mouse!r} is not finite at step {step} of epoch {epoch}, or "
            "its gradient is not"
        )
        super().__init__(
            f"{what}. Lower lr (a tenth is a good start), use precision='float32', or look for "
            f"extreme values in the responses and behaviour of mouse {mouse!r}. The model of the "
            "best epoch so far is kept, if there was one."
        )
        self.mouse, self.epoch, self.step = mouse, epoch, step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.mouse, self.epoch, self.step)  # processes of joblib pickle it


def backward(
    model: EncodingModel,
    objective: Objective,
    inputs: Mapping[str, MouseBatch],
    targets: Mapping[str, Targets],
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
) -> tuple[Tensor, Tensor | int, Tensor]:
    """Forward and backward pass of some mice through the core at once.

    Parameters
    ----------
    model : EncodingModel
    objective : Objective
    inputs : dict of str to MouseBatch
        The batch of each of these mice.
    targets : dict of str to (Tensor, Tensor or None)
        Responses, and which were recorded, of these mice at least.
    data : dict of str to MouseData
    settings : TrainingSettings
        Resolved; the micro-batch size says how many trials of each mouse pass at once. Gradients
        of the parts add up to that of the batch.

    Returns
    -------
    losses : Tensor of shape (n_mice,)
        Summed loss per mouse, unscaled.
    count : int or scalar Tensor
        Number of values that they are sums over.
    penalty : Tensor, scalar
    """
    trials = {mouse: len(batch.images) for mouse, batch in inputs.items()}
    at_once = settings.micro_batch_size
    assert not isinstance(at_once, str)  # resolved
    losses: dict[str, Tensor] = {}
    count: int | Tensor = 0
    total = penalty = objective.penalty(model, {m: data[m] for m in inputs})
    for start in range(0, max(trials.values()), at_once):
        rows = slice(start, start + at_once)
        part = {m: _cut(batch, rows) for m, batch in inputs.items() if start < trials[m]}
        known = {m: _cut(targets[m], rows) for m in part}
        with autocast(settings.precision, penalty.device):
            found = objective.loss(model, part, known, data, trials)
        for mouse, loss in found.items():
            total = total + loss.minimised
            losses[mouse] = losses[mouse] + loss.summed if start else loss.summed
            count = count + loss.count
        total.backward()
        total = torch.zeros_like(penalty)
    return torch.stack([losses[mouse] for mouse in inputs]), count, penalty.detach()


def _cut(batch: Any, rows: slice) -> Any:
    """Rows of all tensors of a batch, without copies."""
    parts: list[Any] = [None if values is None else values[rows] for values in batch]
    return type(batch)(*parts) if isinstance(batch, MouseBatch) else parts


@torch.no_grad()
def check_predictions(model: EncodingModel, inputs: Mapping[str, MouseBatch], epoch: int) -> None:
    """Check, by a few trials, that a model that was trained for an epoch predicts numbers.

    Parameters
    ----------
    model : EncodingModel
        Left in evaluation mode.
    inputs : dict of str to MouseBatch
    epoch : int
        From 1.

    Raises
    ------
    NonFiniteLossError
    """
    model.eval()
    few = {mouse: _cut(batch, slice(_TRIED)) for mouse, batch in inputs.items()}
    finite = torch.stack([rates.isfinite().all() for rates in model(few).values()]).tolist()
    if not all(finite):
        raise NonFiniteLossError(list(few)[finite.index(False)], epoch)


def first_not_finite(losses: Tensor) -> tuple[int, int]:
    """Step and mouse, of (steps, mice), at which the training ran off.

    Where a whole step is lost, or none but the weights, the core was spoilt in the step before, by
    the mouse with the largest loss there.
    """
    lost = ~losses.isfinite()
    step = int(lost.any(1).long().argmax()) if lost.any() else len(losses)
    if step == len(losses) or (step > 0 and lost[step].all()):
        return min(step, len(losses) - 1), int(losses[step - 1].argmax())
    return step, int(lost[step].long().argmax())
