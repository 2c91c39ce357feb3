"""One training step: forward and backward passes, and where a training ran off."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.data import MouseData, Targets
from v1tlearn.training.dealing import Share, part_of_batch
from v1tlearn.training.devices import autocast
from v1tlearn.training.objectives import Objective
from v1tlearn.training.ranks import ALONE, Ranks
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
    share: Share | None = None,
    common: torch.Generator | None = None,
    *,
    weight: float = 1.0,
    penalized: bool = True,
) -> tuple[Tensor, Tensor | float, Tensor]:
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
    share : Share, optional
        What the inputs are of a batch of which other processes have more; all of it by default.
    common : Generator, optional
        See `drawing_for_all`.
    weight : float, default=1.0
        Of everything, where other processes compute the same.
    penalized : bool, default=True
        Whether the penalty is counted here.

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
    count: float | Tensor = 0
    if share is None:
        share = Share({}, trials, dict.fromkeys(trials, 0), is_part=False)
    states: dict[str | object, Tensor] = {}

    def weigh(value: Any) -> Any:
        """As it is, bit for bit, where nobody else computes it."""
        return value if weight == 1 else weight * value

    if penalized:
        total = penalty = weigh(objective.penalty(model, {m: data[m] for m in inputs}))
    else:
        total = penalty = next(model.parameters()).new_zeros(())
    for start in range(0, max(trials.values()), at_once):
        rows = slice(start, start + at_once)
        part = {m: _cut(batch, rows) for m, batch in inputs.items() if start < trials[m]}
        known = {m: _cut(targets[m], rows) for m in part}
        with part_of_batch(part, start, share, common, states) if common else nullcontext():
            with autocast(settings.precision, penalty.device):
                found = objective.loss(model, part, known, data, share.sizes)
            for mouse, loss in found.items():
                total = total + weigh(loss.minimised)
                summed = weigh(loss.summed)
                losses[mouse] = losses[mouse] + summed if start else summed
                count = count + weigh(loss.count)
            total.backward()
        total = torch.zeros_like(penalty)
    return torch.stack([losses[mouse] for mouse in inputs]), count, penalty.detach()


def backward_share(
    model: EncodingModel,
    objective: Objective,
    inputs: Mapping[str, MouseBatch],
    targets: Mapping[str, Targets],
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    share: Share,
    ranks: Ranks,
    common: torch.Generator | None,
) -> tuple[Tensor, Tensor | float, Tensor]:
    """Forward and backward pass of what this process has of a batch.

    Parameters
    ----------
    model, objective, inputs, targets, data, settings
        As of `backward`; the inputs are this process's own.
    share : Share
    ranks : Ranks
        What the others have adds up with this to the gradient, and to the losses, of the batch.
    common : Generator or None
        See `drawing_for_all`.

    Returns
    -------
    losses, count, penalty
        As of `backward`.
    """
    known = (model, objective, inputs, targets, data, settings, share.of(inputs), common)
    if ranks.size == 1:
        return backward(*known)
    size = ranks.size if share.is_part else 1
    with ranks.sharing(share.starts, is_part=share.is_part):
        weight, penalized = size / ranks.size, ranks.is_first or not share.is_part
        return backward(*known, weight=weight, penalized=penalized)


def _cut(batch: Any, rows: slice) -> Any:
    """Rows of all tensors of a batch, without copies."""
    parts: list[Any] = [None if values is None else values[rows] for values in batch]
    return type(batch)(*parts) if isinstance(batch, MouseBatch) else parts


@torch.no_grad()
def check_predictions(
    model: EncodingModel, inputs: Mapping[str, MouseBatch], epoch: int, ranks: Ranks = ALONE
) -> None:
    """Check, by a few trials, that a model that was trained for an epoch predicts numbers.

    Parameters
    ----------
    model : EncodingModel
        Left in evaluation mode.
    inputs : dict of str to MouseBatch
    epoch : int
        From 1.
    ranks : Ranks, optional
        Processes that try the model by trials of their own.

    Raises
    ------
    NonFiniteLossError
        In all processes alike.
    """
    model.eval()
    few = {mouse: _cut(batch, slice(_TRIED)) for mouse, batch in inputs.items()}
    flags = torch.stack([rates.isfinite().all() for rates in model(few).values()])
    finite = ranks.least(flags.tolist())
    if not all(finite):
        raise NonFiniteLossError(list(few)[finite.index(0)], epoch)


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
