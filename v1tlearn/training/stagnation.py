"""A schedule that lowers learning rates where a score of either sign stagnates, without an end."""

from __future__ import annotations

import math

from v1tlearn.training.schedule import Schedule, Verdict


class StagnationSchedule(Schedule):
    """Lower the learning rates where the score stagnates; end where it does for longer.

    After more than `patience` epochs in a row whose score is not above the best one by more than
    `threshold` of its size, the rates are multiplied by `factor`: the rule of
    ``torch.optim.lr_scheduler.ReduceLROnPlateau``, of a loss where the score is minus the loss.

    Parameters
    ----------
    patience : int, default=50
    factor : float, default=0.5
    end_after : int, optional
        Epochs in a row without a strictly better score that end the training; it has no end of
        its own by default.
    threshold : float, default=1e-4
    keep_last : bool, default=False
        Keep the weights of the last epoch instead of those of the best.
    """

    _state = ("best", "plateau_best", "bad", "without")

    def __init__(
        self,
        patience: int = 50,
        factor: float = 0.5,
        end_after: int | None = None,
        *,
        threshold: float = 1e-4,
        keep_last: bool = False,
    ) -> None:
        self.patience, self.factor, self.end_after = patience, factor, end_after
        self.threshold, self.keep_last = threshold, keep_last
        self.best, self.plateau_best, self.bad, self.without = -math.inf, -math.inf, 0, 0

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return f"no better validation score in {self.end_after} epochs"

    def _judge(self, score: float) -> Verdict:
        improved = score > self.best
        self.best, self.without = (score, 0) if improved else (self.best, self.without + 1)
        enough = self.plateau_best
        if math.isfinite(enough):
            enough += self.threshold * abs(enough)
        if score > enough:
            self.plateau_best, self.bad = score, 0
        else:
            self.bad += 1
        factor = 1.0
        if self.bad > self.patience:
            factor, self.bad = self.factor, 0
        stop = self.end_after is not None and self.without >= self.end_after
        return Verdict(improved or self.keep_last, lr_factor=factor, stop=stop)
