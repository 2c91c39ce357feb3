"""What a training run is told beside model, data and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from v1tlearn.nn.losses import FLOAT32_EPSILON
from v1tlearn.training.data import MouseData


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
    compile : "auto" or bool
        Whether to compile the core, see `v1tlearn.training.compilation`.
    micro_batch_size : "auto" or int
        Trials per mouse that go through the model at once, see `v1tlearn.training.memory`.
    checkpoint_activations : "auto" or bool
        Whether to compute the core's blocks again in the backward pass, see there.
    prediction_batch_size : int or None
        Trials that go through the model at once in validation; None takes `batch_size`.
    """

    batch_size: int
    max_epochs: int
    loss_scale: str | float = "sqrt"
    joint: bool = True
    precision: str = "float32"
    deterministic: bool = False
    loss_epsilon: float = FLOAT32_EPSILON
    compile: str | bool = "auto"
    micro_batch_size: str | int = "auto"
    checkpoint_activations: str | bool = "auto"
    prediction_batch_size: int | None = None

    def scale(self, mouse: MouseData, n: int) -> float:
        """Loss scale of a batch of `n` trials."""
        if isinstance(self.loss_scale, str):
            return (mouse.scale_trials / n) ** 0.5
        return float(self.loss_scale)
