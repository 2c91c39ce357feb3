"""The training loop: one batch of every mouse per step, one host synchronisation per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from v1tlearn.nn.losses import poisson_loss
from v1tlearn.nn.model import EncodingModel, MouseBatch
from v1tlearn.training import course, memory
from v1tlearn.training.compilation import compiled, resolve_compile
from v1tlearn.training.data import MouseData, Targets, epoch_batches, step_batches
from v1tlearn.training.devices import autocast, numerics
from v1tlearn.training.rng import isolated_rng
from v1tlearn.training.schedule import Verdict
from v1tlearn.training.settings import TrainingSettings
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
    name: str = "model",
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
    name : str, default="model"
        What the log calls the model.

    Returns
    -------
    dict
        `state`.

    Raises
    ------
    NonFiniteLossError
        If a loss is NaN or infinite. `model` and `state` are in order all the same.
    InsufficientMemoryError
        If memory does not suffice; `model` and `state` are in order here, too.
    ValueError
        If a micro-batch size is given to a core with batch normalisation, or compilation is asked
        for without a compiler.
    """
    with memory.remedies_named(*memory.step_in_words(model, data, settings)):
        _run(model, data, settings, optimizer, schedule, state, validation, score, on_epoch, name)
    return state


def _run(
    model: EncodingModel,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    state: dict[str, Any],
    validation: Mapping[str, MouseData] | None,
    score: Score | None,
    on_epoch: Callable[[Record], None] | None,
    name: str,
) -> None:
    device = next(iter(data.values())).device
    _resume(model, optimizer, schedule, state)
    if state["epoch"] == 0:
        state["best"] = copy_weights(model)
    start, reason, why = time.perf_counter(), "error", ""
    try:
        settings = resolve_settings(model, data, settings)
        with (
            isolated_rng(state["rng"], device),
            numerics(settings.precision, device, deterministic=settings.deterministic),
            memory.remedies_named(*memory.step_in_words(model, data, settings)),
        ):
            if device.type == "cpu":
                memory.keep_freed_memory()
            fast = compiled(model.core, settings.compile)
            frugal = memory.checkpointed(model.core, settings.checkpoint_activations)
            if state["epoch"] == 0 and schedule.scores_initial_weights and validation is not None:
                initial = evaluate(model, validation, settings, score, schedule.mean_over)
                schedule.start(initial["validation_correlation"])
            for _ in range(settings.max_epochs):
                with fast, frugal:  # not around `on_epoch`, which may copy the model
                    verdict, lr = _epoch(
                        model, data, settings, optimizer, schedule, state, validation, score
                    )
                course.log_verdict(name, state, verdict, lr)
                if on_epoch is not None:
                    reason = "on_epoch"
                    on_epoch(state["history"][-1])
                    reason = "error"
                if verdict.stop:
                    state["finished"], reason, why = True, "schedule", schedule.ending
                    break
            else:
                reason, why = "max_epochs", f"max_epochs={settings.max_epochs} are over"
    except BaseException as error:
        reason, why = course.reason_of(error, reason)
        if isinstance(error, NonFiniteLossError | memory.InsufficientMemoryError):
            model.load_state_dict(state["best"])
            optimizer.state.clear()
        raise
    finally:
        optimizer.zero_grad(set_to_none=True)  # of a step that was interrupted
        state["model"] = copy_weights(model)
        state["optimizer"] = optimizer.state_dict()
        state["schedule"] = schedule.state_dict()
        model.load_state_dict(state["best"])
        model.eval()
        state["stop_reason"] = reason
        course.log_end(name, state, why, time.perf_counter() - start)


def resolve_settings(
    model: EncodingModel, data: Mapping[str, MouseData], settings: TrainingSettings
) -> TrainingSettings:
    """Decide what "auto" means for this model, data and device.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    data : dict of str to MouseData
        Training trials per mouse.
    settings : TrainingSettings

    Returns
    -------
    TrainingSettings
        With numbers and truth values in place of "auto".

    Raises
    ------
    ValueError
        If a micro-batch size was given to a core with batch normalisation, or compilation is asked
        for without a compiler.
    """
    device = next(iter(data.values())).device
    steps = settings.max_epochs * max(-(-len(d) // settings.batch_size) for d in data.values())
    settings = replace(
        settings, compile=resolve_compile(settings.compile, model.core, device, steps)
    )
    return memory.plan(model, data, settings)


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
) -> tuple[Verdict, tuple[float, float]]:
    """Train one epoch; what the schedule says, and the learning rate before and after."""
    start = time.perf_counter()
    lr = optimizer.param_groups[-1]["lr"]
    record: Record = {"epoch": state["epoch"] + 1}
    record |= _train_epoch(model, data, settings, optimizer, state["epoch"] + 1)
    if validation is not None:
        record |= evaluate(model, validation, settings, score, schedule.mean_over)
    verdict = schedule.step(record.get("validation_correlation"))
    state["epoch"] += 1
    if verdict.improved:
        state["best"], state["best_epoch"] = copy_weights(model), state["epoch"]
    if verdict.restore:
        model.load_state_dict(state["best"])
    for group in optimizer.param_groups:
        group["lr"] = max(group["lr"] * verdict.lr_factor, min(schedule.min_lr, group["lr"]))
    record |= {"lr": lr, "seconds": time.perf_counter() - start}
    state["history"].append(record)
    return verdict, (lr, optimizer.param_groups[-1]["lr"])


def _train_epoch(
    model: EncodingModel,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> Record:
    model.train()
    mice = list(data)
    device = next(iter(data.values())).device
    lengths = {mouse: len(trials) for mouse, trials in data.items()}
    groups = [mice] if settings.joint else [[mouse] for mouse in mice]
    losses, counts, penalties = [], [], []
    steps = epoch_batches(lengths, settings.batch_size, device)
    with closing(step_batches(data, steps)) as batches:
        for inputs, targets in batches:
            step = [
                backward({m: inputs[m] for m in group}, targets, data, model, settings)
                for group in groups
            ]
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
    inputs: Mapping[str, MouseBatch],
    targets: Mapping[str, Targets],
    data: Mapping[str, MouseData],
    model: EncodingModel,
    settings: TrainingSettings,
) -> tuple[Tensor, Tensor | int, Tensor]:
    """Forward and backward pass of some mice through the core at once.

    Parameters
    ----------
    inputs : dict of str to MouseBatch
        The batch of each of these mice.
    targets : dict of str to (Tensor, Tensor or None)
        Responses, and which were recorded, of these mice at least.
    data : dict of str to MouseData
    model : EncodingModel
    settings : TrainingSettings
        Resolved; the micro-batch size says how many trials of each mouse pass at once. Gradients
        of the parts add up to that of the batch.

    Returns
    -------
    losses : Tensor of shape (n_mice,)
        Summed Poisson loss per mouse, unscaled.
    count : int or scalar Tensor
        Number of recorded responses.
    penalty : Tensor, scalar
    """
    trials = {mouse: len(batch.images) for mouse, batch in inputs.items()}
    losses: dict[str, Tensor] = {}
    total = penalty = model.core_penalty() + sum(model.readout_penalty(m) for m in inputs)
    for start in range(0, max(trials.values()), settings.micro_batch_size):
        rows = slice(start, start + settings.micro_batch_size)
        part = {m: _cut(batch, rows) for m, batch in inputs.items() if start < trials[m]}
        with autocast(settings.precision, penalty.device):
            predictions = model(part)
        for mouse, rates in predictions.items():
            target, recorded = _cut(targets[mouse], rows)
            loss = poisson_loss(rates.float(), target, recorded, settings.loss_epsilon)
            total = total + settings.scale(data[mouse], trials[mouse]) * loss
            losses[mouse] = losses[mouse] + loss.detach() if start else loss.detach()
        total.backward()
        total = 0.0
    recordings = [targets[mouse] for mouse in inputs]
    count = sum(t.numel() if recorded is None else recorded.sum() for t, recorded in recordings)
    return torch.stack([losses[mouse] for mouse in inputs]), count, penalty.detach()


def _cut(batch: Any, rows: slice) -> Any:
    """Rows of all tensors of a batch, without copies."""
    parts = [None if values is None else values[rows] for values in batch]
    return type(batch)(*parts) if isinstance(batch, MouseBatch) else parts


@torch.inference_mode()
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
    size = settings.prediction_batch_size or settings.batch_size
    for mouse, trials in data.items():
        predictions, target, recorded = _predict_known(
            model, mouse, trials, size, settings.precision
        )
        losses.append(poisson_loss(predictions, target, recorded, settings.loss_epsilon))
        count = count + (target.numel() if recorded is None else recorded.sum())
        weights.append(target.shape[1] if mean_over == "neurons" else 1)
        scores.append(weights[-1] * score(predictions, target, recorded).to(predictions.dtype))
    mean_loss = torch.stack(losses).sum() / count
    loss, mean = torch.stack([mean_loss, torch.stack(scores).sum() / sum(weights)]).tolist()
    return {"validation_loss": loss, "validation_correlation": mean}


def _predict_known(
    model: EncodingModel, mouse: str, trials: MouseData, batch_size: int, precision: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Predictions and targets of one mouse; streamed trials are read ahead, and each once."""
    rows = [{mouse: slice(i, i + batch_size)} for i in range(0, len(trials), batch_size)]
    parts = []
    with (
        closing(step_batches({mouse: trials}, rows)) as batches,
        autocast(precision, trials.device),
    ):
        for inputs, targets in batches:
            parts.append((model(inputs)[mouse].float(), *targets[mouse]))
    predictions, target, recorded = zip(*parts, strict=True)
    whole = None if recorded[0] is None else torch.cat(recorded)
    return torch.cat(predictions), torch.cat(target), whole


@torch.inference_mode()
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
    shape = len(trials), model.readout(mouse).n_neurons
    out = torch.empty(shape, dtype=torch.float32, device=trials.device)
    with autocast(precision, trials.device):
        for start in range(0, len(trials), batch_size):
            rows = slice(start, start + batch_size)
            out[rows] = model({mouse: trials.batch(rows)}, activate=activate)[mouse]
    return out
