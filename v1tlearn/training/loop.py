"""The training loop: one batch of every mouse per step, one host synchronisation per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from v1tlearn.nn.losses import FLOAT32_EPSILON, poisson_loss
from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.data import MouseData, epoch_batches
from v1tlearn.training.devices import autocast, numerics
from v1tlearn.training.rng import isolated_rng
from v1tlearn.training.state import copy_weights

Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Record = dict[str, float]


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; the model holds the best weights so far.

    Attributes
    ----------
    mouse : str
        The mouse whose loss was the first.
    epoch : int
        The epoch, from 1.
    step : int
        The step of that epoch, from 1.
    """

    def __init__(self, mouse: str, epoch: int, step: int) -> None:
        super().__init__(
            f"the loss of mouse {mouse!r} is not finite at step {step} of epoch {epoch}, or its "
            "gradient is not. Lower lr (a tenth is a good start), use precision='float32', or look "
            f"for extreme values in the responses and behaviour of mouse {mouse!r}. The best model "
            "so far is kept."
        )
        self.mouse, self.epoch, self.step = mouse, epoch, step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.mouse, self.epoch, self.step)  # processes of joblib pickle it


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run needs to know beside model, data and schedule.

    Attributes
    ----------
    batch_size : int
        Trials per mouse and step.
    max_epochs : int
        Epochs at most, in this run.
    loss_scale : {"sqrt", "sqrt_recording"} or float
        Factor on the summed Poisson loss of a batch: square root of the mouse's number of
        trials over the batch's, or a constant.
    joint : bool
        All mice in one pass through the core, its penalty once per step; otherwise one pass and
        one penalty per mouse.
    precision : {"float32", "tf32", "bfloat16"}
    deterministic : bool
    loss_epsilon : float
        Added to rates and responses in the Poisson loss.
    """

    batch_size: int
    max_epochs: int
    loss_scale: str | float = "sqrt"
    joint: bool = True
    precision: str = "float32"
    deterministic: bool = False
    loss_epsilon: float = FLOAT32_EPSILON

    def scale(self, mouse: MouseData, n: int) -> float:
        """Loss scale of a batch of `n` trials."""
        if isinstance(self.loss_scale, str):
            return (mouse.scale_trials / n) ** 0.5
        return float(self.loss_scale)


def train(
    model: EncodingModel,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    state: dict[str, Any],
    *,
    validation: Mapping[str, MouseData] | None = None,
    score: Score | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> dict[str, Any]:
    """Train until the schedule ends it or the epochs are used up.

    Afterwards `model` holds the best weights, `state` everything to go on.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    data : dict of str to MouseData
        Training trials per mouse, on the model's device.
    settings : TrainingSettings
    optimizer : torch.optim.Optimizer
        Over the parameters of `model`.
    schedule : ConstantSchedule, PlateauSchedule or RoundsSchedule
    state : dict
        From `v1tlearn.training.state.new_state`, or returned by an earlier run; changed in place.
    validation : dict of str to MouseData, optional
    score : callable, optional
        ``score(predictions, responses, recorded)`` of one mouse on the device, a scalar tensor;
        the schedule sees the mean over mice. Needed with `validation`.
    on_epoch : callable, optional
        Told the record of every epoch.

    Returns
    -------
    dict
        `state`.

    Raises
    ------
    NonFiniteLossError
        If a loss is NaN or infinite. `model` and `state` are in order all the same.
    """
    device = next(iter(data.values())).images.device
    _resume(model, optimizer, schedule, state)
    try:
        with (
            isolated_rng(state["rng"], device),
            numerics(settings.precision, device, deterministic=settings.deterministic),
        ):
            if state["epoch"] == 0:
                state["best"] = copy_weights(model)
                if schedule.scores_initial_weights and validation is not None:
                    initial = evaluate(model, validation, settings, score, schedule.mean_over)
                    schedule.start(initial["validation_correlation"])
            for _ in range(settings.max_epochs):
                verdict = _epoch(
                    model, data, settings, optimizer, schedule, state, validation, score, on_epoch
                )
                if verdict.stop:
                    state["finished"] = True
                    break
    except NonFiniteLossError:
        model.load_state_dict(state["best"])
        optimizer.state.clear()
        raise
    finally:
        state["model"] = copy_weights(model)
        state["optimizer"] = optimizer.state_dict()
        state["schedule"] = schedule.state_dict()
        model.load_state_dict(state["best"])
        model.eval()
    return state


def _resume(
    model: EncodingModel, optimizer: torch.optim.Optimizer, schedule: Any, state: dict[str, Any]
) -> None:
    if state["model"] is not None:
        model.load_state_dict(state["model"])
    if state["optimizer"] is not None:
        optimizer.load_state_dict(state["optimizer"])
    if state["schedule"] is not None:
        schedule.load_state_dict(state["schedule"])


def _epoch(
    model: EncodingModel,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    state: dict[str, Any],
    validation: Mapping[str, MouseData] | None,
    score: Score | None,
    on_epoch: Callable[[Record], None] | None,
) -> Any:
    start = time.perf_counter()
    lr = optimizer.param_groups[-1]["lr"]
    record: Record = {"epoch": state["epoch"] + 1}
    record |= _train_epoch(model, data, settings, optimizer, state["epoch"] + 1)
    if validation is not None:
        record |= evaluate(model, validation, settings, score, schedule.mean_over)
    verdict = schedule.step(record.get("validation_correlation"))
    state["epoch"] += 1
    if verdict.improved:
        state["best"] = copy_weights(model)
    if verdict.restore:
        model.load_state_dict(state["best"])
    for group in optimizer.param_groups:
        group["lr"] = max(group["lr"] * verdict.lr_factor, min(schedule.min_lr, group["lr"]))
    record |= {"lr": lr, "seconds": time.perf_counter() - start}
    state["history"].append(record)
    if on_epoch is not None:
        on_epoch(record)
    return verdict


def _train_epoch(
    model: EncodingModel,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> Record:
    model.train()
    mice = list(data)
    device = next(iter(data.values())).images.device
    lengths = {mouse: len(trials) for mouse, trials in data.items()}
    groups = [mice] if settings.joint else [[mouse] for mouse in mice]
    losses, counts, penalties = [], [], []
    for rows in epoch_batches(lengths, settings.batch_size, device):
        step = [backward({m: data[m] for m in group}, rows, model, settings) for group in groups]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(torch.cat([s[0] for s in step]))
        counts.append(sum(s[1] for s in step))
        penalties.append(sum(s[2] for s in step))
    table = torch.stack(losses)
    weights = parameters_to_vector(model.parameters()).detach()
    # the only synchronisation of the epoch
    total, count, penalty, finite = torch.stack(
        [
            table.sum(),
            torch.as_tensor(sum(counts), dtype=table.dtype, device=device),
            torch.stack(penalties).mean(),
            table.isfinite().all() & weights.isfinite().all(),
        ]
    ).tolist()
    if not finite:
        step, column = _first_not_finite(table)
        raise NonFiniteLossError(mice[column], epoch, step + 1)
    return {"loss": total / max(count, 1.0), "penalty": penalty}


def _first_not_finite(losses: Tensor) -> tuple[int, int]:
    """Step and mouse, of (steps, mice), at which the training ran off.

    Where a whole step is lost, or none but the weights, the core was spoilt in the step before, by
    the mouse with the largest loss there.
    """
    lost = ~losses.isfinite()
    step = int(lost.any(1).long().argmax()) if lost.any() else len(losses)
    if step == len(losses) or (step > 0 and lost[step].all()):
        return min(step, len(losses) - 1), int(losses[step - 1].argmax())
    return step, int(lost[step].long().argmax())


def backward(
    data: Mapping[str, MouseData],
    rows: Mapping[str, Tensor],
    model: EncodingModel,
    settings: TrainingSettings,
) -> tuple[Tensor, Tensor | int, Tensor]:
    """Forward and backward pass of some mice through the core at once.

    Parameters
    ----------
    data : dict of str to MouseData
    rows : dict of str to Tensor
        The batch: rows per mouse.
    model : EncodingModel
    settings : TrainingSettings

    Returns
    -------
    losses : Tensor of shape (n_mice,)
        Summed Poisson loss per mouse, unscaled.
    count : int or scalar Tensor
        Number of recorded responses.
    penalty : Tensor, scalar
    """
    batches = {mouse: trials.batch(rows[mouse]) for mouse, trials in data.items()}
    with autocast(settings.precision, rows[next(iter(data))].device):
        predictions = model(batches)
    total = penalty = model.core_penalty() + sum(model.readout_penalty(m) for m in data)
    losses, count = [], 0
    for mouse, trials in data.items():
        target, recorded = trials.targets(rows[mouse])
        loss = poisson_loss(predictions[mouse].float(), target, recorded, settings.loss_epsilon)
        total = total + settings.scale(trials, len(target)) * loss
        losses.append(loss.detach())
        count = count + (target.numel() if recorded is None else recorded.sum())
    total.backward()
    return torch.stack(losses), count, penalty.detach()


@torch.no_grad()
def evaluate(
    model: EncodingModel,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    score: Score,
    mean_over: str = "mice",
) -> Record:
    """Validation loss and score of all mice, in evaluation mode.

    Parameters
    ----------
    model : EncodingModel
    data : dict of str to MouseData
    settings : TrainingSettings
    score : callable
        See `train`.
    mean_over : {"mice", "neurons"}, default="mice"
        Whether mice count alike, or by their number of neurons.

    Returns
    -------
    dict
        ``validation_loss``, mean over responses, and ``validation_correlation``, mean over mice or
        neurons.
    """
    model.eval()
    losses, count, scores, weights = [], 0, [], []
    for mouse, trials in data.items():
        predictions = predict_mouse(model, mouse, trials, settings.batch_size, settings.precision)
        target, recorded = trials.targets(slice(None))
        losses.append(poisson_loss(predictions, target, recorded, settings.loss_epsilon))
        count = count + (target.numel() if recorded is None else recorded.sum())
        weights.append(target.shape[1] if mean_over == "neurons" else 1)
        scores.append(weights[-1] * score(predictions, target, recorded).to(predictions.dtype))
    mean_loss = torch.stack(losses).sum() / count
    loss, mean = torch.stack([mean_loss, torch.stack(scores).sum() / sum(weights)]).tolist()
    return {"validation_loss": loss, "validation_correlation": mean}


@torch.no_grad()
def predict_mouse(
    model: EncodingModel,
    mouse: str,
    trials: MouseData,
    batch_size: int,
    precision: str,
    *,
    activate: bool = True,
) -> Tensor:
    """Predict all trials of one mouse, batch by batch.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    mouse : str
    trials : MouseData
    batch_size : int
    precision : {"float32", "tf32", "bfloat16"}
    activate : bool, default=True
        Apply the output non-linearity.

    Returns
    -------
    Tensor of shape (n_trials, n_neurons)
        Standardised responses, or what they are ahead of the non-linearity; float32.
    """
    with autocast(precision, trials.images.device):
        batches = (
            trials.batch(slice(i, i + batch_size)) for i in range(0, len(trials), batch_size)
        )
        return torch.cat([model({mouse: b}, activate=activate)[mouse].float() for b in batches])
