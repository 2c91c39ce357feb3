"""When to lower the learning rate, go back to the best weights, and stop.

A schedule is told the validation score after every epoch and answers with a `Verdict`; it knows
nothing of models or optimisers, and its state is a plain dict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """What to do after an epoch.

    Attributes
    ----------
    improved : bool
        This is the best epoch so far: keep its weights.
    restore : bool
        Go back to the best weights.
    lr_factor : float
        Multiply the learning rates by this.
    stop : bool
        Training is over.
    fresh : bool
        Begin anew with the optimiser's moments.
    """

    improved: bool = False
    restore: bool = False
    lr_factor: float = 1.0
    stop: bool = False
    fresh: bool = False


class Schedule:
    """What a run asks of a schedule, and the state handling that schedules share.

    A subclass says in `_judge` how it judges an epoch.

    Attributes
    ----------
    min_lr : float
        Learning rates are not lowered below.
    scores_initial_weights : bool
        Whether `start` is to be told the score ahead of the first epoch.
    mean_over : {"mice", "neurons"}
        How scores of several mice become one.
    needs_scores : bool
        Whether epochs cannot be judged without validation trials.
    """

    min_lr = 0.0
    needs_scores = True
    scores_initial_weights = False
    mean_over = "mice"
    _state: tuple[str, ...] = ()

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return "the schedule is over"

    def start(self, score: float) -> None:
        """Take notice of the score of the initial weights."""

    def step(self, score: float | None) -> Verdict:
        """Judge one epoch.

        Parameters
        ----------
        score : float or None
            Validation score; larger is better. None without validation trials.

        Returns
        -------
        Verdict

        Raises
        ------
        ValueError
            If there is no score, and the schedule cannot do without.
        """
        if score is None and self.needs_scores:
            raise ValueError(
                "the schedule judges epochs by validation scores, and there are none: give the run "
                "validation trials, or train with a ConstantSchedule."
            )
        return self._judge(score)

    def _judge(self, score: Any) -> Verdict:
        """Judge one epoch by its score, which is None only where scores are not needed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it judges.")

    def lost(self) -> Verdict | None:
        """Judge an epoch in which the loss was not finite; its weights are lost in any case.

        Returns
        -------
        Verdict or None
            None where such an epoch is an error, as it is unless a schedule says otherwise.
        """
        return None

    def step_rate(self, rate: float, epochs: float) -> float:
        """Learning rate of a single step, where verdicts do not make it.

        Parameters
        ----------
        rate : float
            What the parameters of a group are trained with, as verdicts left it.
        epochs : float
            Epochs since the beginning of the training, the share of the present one included.

        Returns
        -------
        float
            The same rate unless a schedule changes it by itself.
        """
        return rate

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while training, as plain numbers."""
        return {name: getattr(self, name) for name in self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, or start afresh if it is that of another schedule."""
        if set(state) == set(self._state):
            for name, value in state.items():
                setattr(self, name, value)


class ConstantSchedule(Schedule):
    """Train at one learning rate; keep the best epoch, or the last where there are no scores."""

    needs_scores = False
    _state = ("best",)

    def __init__(self) -> None:
        self.best = -math.inf

    def _judge(self, score: float | None) -> Verdict:
        if score is not None and not score > self.best:
            return Verdict()
        self.best = -math.inf if score is None else score
        return Verdict(improved=True)


class PlateauSchedule(Schedule):
    """Lower the learning rate where the score stops improving (Li et al. 2023, published code).

    After `patience` + 1 epochs in a row without a new best score, the best weights come back and
    the learning rates are multiplied by `factor`; a new best score resets the count of drops.
    When `max_drops` drops brought nothing, the next plateau ends the training. A constant score
    drops at epochs 12 and 23 and stops at epoch 34.

    Parameters
    ----------
    patience : int, default=10
        Epochs without improvement that are waited through.
    factor : float, default=0.3
    max_drops : int, default=2
    """

    _state = ("best", "wait", "drops")

    def __init__(self, patience: int = 10, factor: float = 0.3, max_drops: int = 2) -> None:
        self.patience, self.factor, self.max_drops = patience, factor, max_drops
        self.best, self.wait, self.drops = -math.inf, 0, 0

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return (
            f"no better validation score in {self.patience + 1} epochs at each of "
            f"{self.drops + 1} learning rates"
        )

    def _judge(self, score: float) -> Verdict:
        if score > self.best:
            self.best, self.wait, self.drops = score, 0, 0
            return Verdict(improved=True)
        if self.wait < self.patience:
            self.wait += 1
            return Verdict()
        if self.drops >= self.max_drops:
            return Verdict(restore=True, stop=True)
        self.wait, self.drops = 0, self.drops + 1
        return Verdict(restore=True, lr_factor=self.factor)


class RoundsSchedule(Schedule):
    """Rounds of early stopping beside a plateau rule (Sensorium 2022, published code).

    A round ends after `patience` epochs in a row without improvement; the best weights come back
    and the next round begins. Independently, more than `patience` bad epochs multiply the
    learning rate by `factor`, so that it falls one epoch into a new round. The initial weights
    are scored too. The score is the mean over the neurons of all mice, whichever they belong to.

    Parameters
    ----------
    patience : int, default=5
    factor : float, default=0.3
    n_rounds : int, default=4
    tolerance : float, default=1e-6
        Smaller gains are no improvement.
    min_lr : float, default=1e-4
    """

    scores_initial_weights = True
    mean_over = "neurons"
    _state = ("best", "bad", "rounds", "plateau_best", "plateau_bad")

    def __init__(
        self,
        patience: int = 5,
        factor: float = 0.3,
        n_rounds: int = 4,
        tolerance: float = 1e-6,
        min_lr: float = 1e-4,
    ) -> None:
        self.patience, self.factor, self.n_rounds = patience, factor, n_rounds
        self.tolerance, self.min_lr = tolerance, min_lr
        self.best, self.bad, self.rounds = -math.inf, 0, 0
        self.plateau_best, self.plateau_bad = -math.inf, 0

    def start(self, score: float) -> None:
        """Take the score of the initial weights as the one to beat."""
        self.best = score

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return f"{self.rounds} rounds of early stopping are over"

    def _judge(self, score: float) -> Verdict:
        lr_factor = 1.0
        if score > self.plateau_best + self.tolerance:
            self.plateau_best, self.plateau_bad = score, 0
        else:
            self.plateau_bad += 1
            if self.plateau_bad > self.patience:
                lr_factor, self.plateau_bad = self.factor, 0
        if score > self.best + self.tolerance:
            self.best, self.bad = score, 0
            return Verdict(improved=True, lr_factor=lr_factor)
        self.bad += 1
        if self.bad < self.patience:
            return Verdict(lr_factor=lr_factor)
        self.bad, self.rounds = 0, self.rounds + 1
        return Verdict(restore=True, lr_factor=lr_factor, stop=self.rounds >= self.n_rounds)


class PeriodsSchedule(Schedule):
    """Periods of training, each with an optimiser of its own (Du et al. 2025, published code).

    A period ends after its number of epochs, or after `patience` epochs in a row without a strictly
    better score, or with an epoch whose loss is not finite. Then the best weights come back, the
    learning rates are multiplied by `factor`, and the optimiser begins anew.

    Parameters
    ----------
    epochs : sequence of int, default=(100, 30, 30, 30)
        Epochs of each period at most.
    patience : int, default=5
    factor : float, default=1/3
    carry_patience : bool, default=False
        Go on counting epochs without improvement from one period to the next, as the published code
        does: after a period that ended early, the next one ends with its first epoch unless that
        very epoch improves.

    Raises
    ------
    ValueError
        If there is no period, or one without epochs, or the patience is below 1.
    """

    _state = ("best", "wait", "period", "epoch")

    def __init__(
        self,
        epochs: Sequence[int] = (100, 30, 30, 30),
        patience: int = 5,
        factor: float = 1 / 3,
        carry_patience: bool = False,
    ) -> None:
        if not len(epochs) or not all(isinstance(n, Integral) and n >= 1 for n in epochs):
            raise ValueError(
                f"the epochs of the periods are {tuple(epochs)!r}: expected at least one whole "
                "number, each at least 1."
            )
        if patience < 1:
            raise ValueError(f"the patience of a period is {patience}: expected at least 1.")
        self.epochs, self.patience, self.factor = tuple(epochs), patience, factor
        self.carry_patience = carry_patience
        self.best, self.wait, self.period, self.epoch = -math.inf, 0, 0, 0

    @property
    def ending(self) -> str:
        """What it says of itself when it ends the training."""
        return f"{self.period} periods are over"

    def _judge(self, score: float) -> Verdict:
        improved = score > self.best
        self.epoch += 1
        if improved:
            self.best, self.wait = score, 0
        else:
            self.wait += 1
        # A count that is carried over does not end a period whose epoch improves, since it is 0.
        if self.wait < self.patience and self.epoch < self.epochs[self.period]:
            return Verdict(improved)
        return self._next_period()._replace(improved=improved)

    def lost(self) -> Verdict:
        """End the period; epochs without improvement are those counted before.

        Returns
        -------
        Verdict
        """
        return self._next_period()

    def _next_period(self) -> Verdict:
        self.period, self.epoch = self.period + 1, 0
        if not self.carry_patience:
            self.wait = 0
        if self.period == len(self.epochs):
            return Verdict(restore=True, stop=True)
        return Verdict(restore=True, lr_factor=self.factor, fresh=True)
