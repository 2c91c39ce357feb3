"""Schedules that bring the learning rate down to a least one."""

from __future__ import annotations

import math

from v1tlearn.training.schedule import Schedule, Verdict


class CosineSchedule(Schedule):
    """Let the learning rates fall along half a cosine, epoch by epoch, and stop early.

    In epoch e, 0 for the first that it sees, the rate is
    ``min_lr + (lr - min_lr) (1 + cos(pi e / n_epochs)) / 2`` (Loshchilov and Hutter 2017), and
    `min_lr` from `n_epochs` on; rates that begin at or below `min_lr` stay as they are. The
    training ends after `patience` epochs in a row without a strictly better score. An epoch whose
    loss is not finite is one of them; then the best weights come back and the optimiser begins
    anew. Without scores it falls to its end, and the last epoch is the best.

    Parameters
    ----------
    n_epochs : int
        Epochs from the full rates to `min_lr`.
    patience : int, default=5
    min_lr : float, default=1e-7

    Raises
    ------
    ValueError
        If the epochs or the patience are below 1.
    """

    needs_scores = False
    _state = ("best", "bad", "first")

    def __init__(self, n_epochs: int, patience: int = 5, min_lr: float = 1e-7) -> None:
        if n_epochs < 1 or patience < 1:
            raise ValueError(
                f"a cosine schedule over {n_epochs} epochs with a patience of {patience}: expected "
                "at least 1 of either."
            )
        self.n_epochs, self.patience, self.least = n_epochs, patience, min_lr
        self.best, self.bad = -math.inf, 0
        self.first: int | None = None  # a training that goes on from another counts on from it

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return f"no better validation score in {self.patience} epochs"

    def step_rate(self, rate: float, epochs: float) -> float:
        """Learning rate of a step.

        Parameters
        ----------
        rate : float
            That of the first epoch.
        epochs : float

        Returns
        -------
        float
        """
        if self.first is None:
            self.first = math.floor(epochs)
        done = min(math.floor(epochs) - self.first, self.n_epochs)
        least = min(self.least, rate)
        return least + (rate - least) * (1 + math.cos(math.pi * done / self.n_epochs)) / 2

    def _judge(self, score: float | None) -> Verdict:
        if score is None or score > self.best:
            self.best, self.bad = -math.inf if score is None else score, 0
            return Verdict(improved=True)
        self.bad += 1
        return Verdict(stop=self.bad >= self.patience)

    def lost(self) -> Verdict:
        """Count an epoch without improvement.

        Returns
        -------
        Verdict
        """
        return self._judge(-math.inf)._replace(restore=True, fresh=True)


class ReduceSchedule(Schedule):
    """Multiply the learning rates where the score stops rising; end where they are least.

    The rule of ``torch.optim.lr_scheduler.ReduceLROnPlateau`` for scores: after more than
    `patience` epochs in a row whose score is not above ``best (1 + threshold)``, the rates are
    multiplied by `factor`, but not below `min_lr`, and with the epoch that reaches it the training
    ends. The rule is relative: of negative scores slightly worse ones count as better. Best weights
    are those of the strictly best score. A loss that is not finite ends the training.

    Parameters
    ----------
    lr : float
        The learning rate at the beginning.
    patience : int, default=5
    factor : float, default=0.5
    min_lr : float, default=1e-5
    threshold : float, default=1e-4

    Raises
    ------
    ValueError
        If `min_lr` is not above 0 and below `lr`, or `factor` not below 1: it would never end.
    """

    _state = ("best", "plateau_best", "bad", "lr")

    def __init__(
        self,
        lr: float,
        patience: int = 5,
        factor: float = 0.5,
        min_lr: float = 1e-5,
        threshold: float = 1e-4,
    ) -> None:
        if not 0 < min_lr < lr or not factor < 1:
            raise ValueError(
                f"a learning rate that falls from {lr} by a factor of {factor} down to {min_lr}: "
                "expected a factor below 1 and a least rate above 0 and below the first."
            )
        self.patience, self.factor, self.min_lr = patience, factor, min_lr
        self.threshold = threshold
        self.best, self.plateau_best, self.bad, self.lr = -math.inf, -math.inf, 0, lr

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return f"the learning rate came down to {self.lr:.3g}"

    def _judge(self, score: float) -> Verdict:
        improved, lr_factor = score > self.best, 1.0
        if improved:
            self.best = score
        if score > self.plateau_best * (1 + self.threshold):
            self.plateau_best, self.bad = score, 0
        else:
            self.bad += 1
        if self.bad > self.patience:
            lr_factor, self.bad = self.factor, 0
            self.lr = max(self.lr * self.factor, self.min_lr)
        return Verdict(improved, lr_factor=lr_factor, stop=self.lr <= self.min_lr)

    def lost(self) -> Verdict:
        """End the training with the best weights.

        Returns
        -------
        Verdict
        """
        return Verdict(restore=True, stop=True)


class WarmupSchedule(Schedule):
    """Let the learning rates rise along a line, fall along half a cosine, and settle for averaging.

    In epoch e of the `warmup_epochs` the rate is ``start_lr + (lr - start_lr) e / warmup_epochs``;
    then it falls to `min_lr`, which it has from `n_epochs` on. From `average_from` on it goes
    within `anneal_epochs` along half a cosine from what it is there to `average_lr`, and stays, so
    that weights can be averaged (Izmailov et al. 2018); see `EpochAverage`. The rates of Vi-ST (Wu
    et al. 2024), whose averaging begins at epoch 19 counted from 0. The best weights are those of
    the best score; without scores, the last ones. It never ends the training.

    Parameters
    ----------
    n_epochs : int
        Epochs from the first to `min_lr`.
    warmup_epochs : int, default=5
    start_lr, min_lr : float, default=5e-5, 1e-4
    average_from : int, optional
        First epoch, counted from 0, on the way to `average_lr`; by default there is none.
    average_lr : float, default=1e-4
    anneal_epochs : int, default=5

    Raises
    ------
    ValueError
        If the warm-up is not shorter than the training, or annealing takes no epoch.
    """

    needs_scores = False
    _state = ("best",)

    def __init__(
        self,
        n_epochs: int,
        warmup_epochs: int = 5,
        start_lr: float = 5e-5,
        min_lr: float = 1e-4,
        *,
        average_from: int | None = None,
        average_lr: float = 1e-4,
        anneal_epochs: int = 5,
    ) -> None:
        if not 0 <= warmup_epochs < n_epochs or anneal_epochs < 1:
            raise ValueError(
                f"a warm-up of {warmup_epochs} of {n_epochs} epochs, and {anneal_epochs} to the "
                "rate for averaging: expected fewer for the warm-up than in all, and at least 1."
            )
        self.n_epochs, self.warmup_epochs = n_epochs, warmup_epochs
        self.start_lr, self.least = start_lr, min_lr
        self.average_from, self.average_lr = average_from, average_lr
        self.anneal_epochs = anneal_epochs
        self.best = -math.inf

    def step_rate(self, rate: float, epochs: float) -> float:
        """Learning rate of a step.

        Parameters
        ----------
        rate : float
            The highest one.
        epochs : float

        Returns
        -------
        float
        """
        epoch, first = math.floor(epochs), self.average_from
        if first is None or epoch < first:
            return self._rate(rate, epoch)
        left = _half_cosine(min(epoch - first, self.anneal_epochs) / self.anneal_epochs)
        return self.average_lr + (self._rate(rate, first) - self.average_lr) * left

    def _rate(self, rate: float, epoch: int) -> float:
        """Rate of an epoch without averaging."""
        if epoch < self.warmup_epochs:
            return self.start_lr + (rate - self.start_lr) * epoch / self.warmup_epochs
        done = (epoch - self.warmup_epochs) / (self.n_epochs - self.warmup_epochs)
        return self.least + (rate - self.least) * _half_cosine(min(done, 1.0))

    def _judge(self, score: float | None) -> Verdict:
        if score is not None and not score > self.best:
            return Verdict()
        self.best = -math.inf if score is None else score
        return Verdict(improved=True)


def _half_cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return (1 + math.cos(math.pi * done)) / 2
