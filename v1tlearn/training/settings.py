"""What a training run is told beside model, objective, data and schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run needs to know beside model, objective, data and schedule.

    Attributes
    ----------
    batch_size : int
        Trials per mouse and step.
    max_epochs : int
        Epochs at most, in this run.
    joint : bool
        All mice in one pass through the core, its penalty once per step; otherwise one pass and
        one penalty per mouse.
    precision : {"float32", "tf32", "bfloat16"}
    deterministic : bool
    compile : "auto", "reduce-overhead" or bool
        Whether to compile the core, see `v1tlearn.training.compilation`.
    micro_batch_size : "auto" or int
        Trials per mouse that go through the model at once, see `v1tlearn.training.memory.plan`.
    checkpoint_activations : "auto" or bool
        Whether to compute the core's blocks again in the backward pass, see there.
    prediction_batch_size : int or None
        Trials that go through the model at once in validation; None takes `batch_size`.
    ema_decay : float or None
        Average the weights over the steps, exponentially with this decay; the averages are
        validated and kept. See `v1tlearn.training.averaging`.
    clip_norm : float or None
        Norm of the gradient of all trained parameters together above which it is scaled down, by
        ``clip_norm / (norm + 1e-6)``, ahead of every step.
    """

    batch_size: int
    max_epochs: int
    joint: bool = True
    precision: str = "float32"
    deterministic: bool = False
    compile: str | bool = "auto"
    micro_batch_size: str | int = "auto"
    checkpoint_activations: str | bool = "auto"
    prediction_batch_size: int | None = None
    ema_decay: float | None = None
    clip_norm: float | None = None
