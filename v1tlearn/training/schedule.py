"""When to lower the learning rate, go back to the best weights, and stop.

A schedule is told the validation score after every epoch and answers with a `Verdict`; it knows
nothing of models or optimisers, and its state is a plain dict.
"""

from __future__ import annotations

import math
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
    """

    improved: bool = False
    restore: bool = False
    lr_factor: float = 1.0
    stop: bool = False


class Schedule:
    """What a run asks of a schedule, and the state handling that schedules share.

    Attributes
    ----------
    min_lr : float
        Learning rates are not lowered below.
    scores_initial_weights : bool
        Whether `start` is to be told the score ahead of the first epoch.
    mean_over : {"mice", "neurons"}
        How scores of several mice become one.
    ending : str
        What it says of itself when it ends the training.
    """

    min_lr = 0.0
    scores_initial_weights = False
    mean_over = "mice"
    ending = "the schedule is over"
    _state: tuple[str, ...] = ()

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
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it judges.")

    def step_factor(self, epochs: float) -> float:
        """Factor on the learning rates for a single step, which verdicts do not add up to.

        Parameters
        ----------
        epochs : float
            Epochs since the beginning of the training, the share of the present one included.

        Returns
        -------
        float
            1 unless a schedule changes rates within epochs.
        """
        return 1.0

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

    _state = ("best",)

    def __init__(self) -> None:
        self.best = -math.inf

    def step(self, score: float | None) -> Verdict:
        """Judge one epoch.

        Parameters
        ----------
        score : float or None
            Validation score; larger is better. None without validation trials.

        Returns
        -------
        Verdict
        """
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

    def step(self, score: float) -> Verdict:
        """Judge one epoch.

        Parameters
        ----------
        score : float
            Validation score; larger is better.

        Returns
        -------
        Verdict
        """
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

    def step(self, score: float) -> Verdict:
        """Judge one epoch.

        Parameters
        ----------
        score : float
            Validation score; larger is better.

        Returns
        -------
        Verdict
        """
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
