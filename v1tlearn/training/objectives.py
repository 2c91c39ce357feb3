"""What is minimised and what is judged: the contract of an objective, and the Poisson one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from v1tlearn.nn.losses import FLOAT32_EPSILON, poisson_loss
from v1tlearn.nn.model import EncodingModel, MouseBatch
from v1tlearn.training.data import MouseData, Targets
from v1tlearn.training.prediction import predict_known
from v1tlearn.training.settings import TrainingSettings

Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Record = dict[str, float]

# A mouse of Sensorium 2022, for which the published weights of penalties were tuned.
PUBLISHED_TRIALS, PUBLISHED_NEURONS = 4500, 8000


class MouseLoss(NamedTuple):
    """Loss of some trials of one mouse.

    Attributes
    ----------
    minimised : Tensor
        Scalar, scaled as it enters the step.
    summed : Tensor
        Scalar, detached: what the history tells, over `count`.
    count : int or Tensor
        How many values it is the sum over.
    """

    minimised: Tensor
    summed: Tensor
    count: int | Tensor


class Objective(Protocol):
    """What a run asks of an objective; nothing in it may wait for the device.

    Attributes
    ----------
    score_name : str
        The entry of what `score` returns by which epochs are judged.
    in_parts : bool
        Whether the loss of a batch is the sum of those of its parts, so that parts may be trained
        on one after the other where memory is short.
    """

    score_name: str
    in_parts: bool

    def loss(
        self,
        model: EncodingModel,
        inputs: Mapping[str, MouseBatch],
        targets: Mapping[str, Targets],
        data: Mapping[str, MouseData],
        sizes: Mapping[str, int],
    ) -> dict[str, MouseLoss]:
        """Compute the loss of each mouse of `inputs`, which may be a part of its batch.

        Parameters
        ----------
        model : EncodingModel
            In training mode; the number format of the run is in force.
        inputs : dict of str to MouseBatch
        targets : dict of str to (Tensor, Tensor or None)
            Responses, 0 where not recorded, and which were recorded.
        data : dict of str to MouseData
            What the trials are of.
        sizes : dict of str to int
            Trials of each mouse in the whole batch.

        Returns
        -------
        dict of str to MouseLoss
        """

    def penalty(self, model: EncodingModel, data: Mapping[str, MouseData]) -> Tensor:
        """Compute the costs that a batch of these mice bears once, however many its parts."""

    def score(
        self,
        model: EncodingModel,
        data: Mapping[str, MouseData],
        settings: TrainingSettings,
        mean_over: str = "mice",
    ) -> Record:
        """Judge a model by trials it was not trained on.

        Parameters
        ----------
        model : EncodingModel
        data : dict of str to MouseData
        settings : TrainingSettings
        mean_over : {"mice", "neurons"}, default="mice"
            Whether mice count alike, or by their number of neurons.

        Returns
        -------
        dict of str to float
            For the history; the larger the entry `score_name`, the better.
        """


class RateObjective:
    """A loss of predicted rates, penalties of core and readouts, and a score of each mouse.

    Parameters
    ----------
    loss : callable
        ``loss(rates, responses, recorded)`` of one mouse, a scalar tensor: the sum over the
        responses that were recorded, all where `recorded` is None.
    score : callable, optional
        ``score(predictions, responses, recorded)`` of one mouse on the device, a scalar tensor.
        Needed where there are validation trials.
    loss_scale : {"sqrt", "sqrt_recording"} or float, default="sqrt"
        Factor on the summed loss of a batch: square root of the mouse's number of trials over the
        batch's, or a constant.
    penalty_scale : {"absolute", "relative"}, default="absolute"
        Whether penalties are added as they are, or in the size that the loss has with these
        trials and neurons, see `penalty`.
    """

    score_name = "validation_correlation"
    in_parts = True

    def __init__(
        self,
        loss: Score,
        score: Score | None = None,
        *,
        loss_scale: str | float = "sqrt",
        penalty_scale: str = "absolute",
    ) -> None:
        self.loss_of_mouse, self.score_of_mouse = loss, score
        self.loss_scale, self.penalty_scale = loss_scale, penalty_scale

    def scale(self, trials: MouseData, n: int) -> float:
        """Loss scale of a batch of `n` trials."""
        if isinstance(self.loss_scale, str):
            return (trials.scale_trials / n) ** 0.5
        return float(self.loss_scale)

    def loss(
        self,
        model: EncodingModel,
        inputs: Mapping[str, MouseBatch],
        targets: Mapping[str, Targets],
        data: Mapping[str, MouseData],
        sizes: Mapping[str, int],
    ) -> dict[str, MouseLoss]:
        """Compute the scaled loss of each mouse, its sum, and the responses recorded.

        Parameters
        ----------
        model : EncodingModel
        inputs : dict of str to MouseBatch
        targets : dict of str to (Tensor, Tensor or None)
        data : dict of str to MouseData
        sizes : dict of str to int

        Returns
        -------
        dict of str to MouseLoss
        """
        losses = {}
        for mouse, rates in model(inputs).items():
            target, recorded = targets[mouse]
            with torch.autocast(rates.device.type, enabled=False):
                loss = self.loss_of_mouse(rates.float(), target, recorded)
            count = target.numel() if recorded is None else recorded.sum()
            scaled = self.scale(data[mouse], sizes[mouse]) * loss
            losses[mouse] = MouseLoss(scaled, loss.detach(), count)
        return losses

    def penalty(self, model: EncodingModel, data: Mapping[str, MouseData]) -> Tensor:
        """Penalty of the core and of the readouts of some mice.

        The loss of a batch of B trials of mouse m, whose N_m trials and n_m neurons have the mean
        loss L_m, is ``sqrt(N_m B) n_m L_m``. Beside it stands, with a penalty C of the core and
        P_m of the readout, which is a sum over neurons,

        * "absolute": ``C + sum_m P_m``, as published, where every mouse has a pass, and so a C, of
          its own;
        * "relative": ``sum_m sqrt(N_m / 4500) (n_m / 8000 C + P_m)``: each mouse bears what is in
          proportion to its loss. With 4,500 trials and 8,000 neurons per mouse, the size of
          Sensorium 2022, this is the published sum; where trials, neurons or mice are doubled,
          loss and penalty double (of trials: grow by the root of 2) together.

        With a constant `loss_scale` the loss of a batch does not depend on N_m, and the root is 1.

        Parameters
        ----------
        model : EncodingModel
        data : dict of str to MouseData
            The mice that bear it, with their trials.

        Returns
        -------
        Tensor
            Scalar.
        """
        core = model.core_penalty()
        if self.penalty_scale == "absolute":
            return core + sum(model.readout_penalty(mouse) for mouse in data)
        total = torch.zeros_like(core)
        for mouse, trials in data.items():
            share = model.readout(mouse).n_neurons / PUBLISHED_NEURONS
            total = total + self.penalty_factor(trials) * (
                share * core + model.readout_penalty(mouse)
            )
        return total

    def penalty_factor(self, trials: MouseData) -> float:
        """What the number of trials does to the loss, beside that of a published mouse."""
        if isinstance(self.loss_scale, str):
            return (trials.scale_trials / PUBLISHED_TRIALS) ** 0.5
        return 1.0

    @torch.inference_mode()
    def score(
        self,
        model: EncodingModel,
        data: Mapping[str, MouseData],
        settings: TrainingSettings,
        mean_over: str = "mice",
    ) -> Record:
        """Validation loss and score of all mice, in evaluation mode.

        Parameters
        ----------
        model : EncodingModel
        data : dict of str to MouseData
        settings : TrainingSettings
        mean_over : {"mice", "neurons"}, default="mice"

        Returns
        -------
        dict
            ``validation_loss``, mean over responses, and ``validation_correlation``, mean over
            mice or neurons; followed by the name of a mouse, ``validation_correlation_A``, its own.
            NaN where predictions are not finite.
        """
        model.eval()
        losses, count, scores, weights = [], 0, [], []
        size = settings.prediction_batch_size or settings.batch_size
        for mouse, trials in data.items():
            predictions, target, recorded = predict_known(
                model, mouse, trials, size, settings.precision
            )
            losses.append(self.loss_of_mouse(predictions, target, recorded))
            count = count + (target.numel() if recorded is None else recorded.sum())
            weights.append(target.shape[1] if mean_over == "neurons" else 1)
            score = self.score_of_mouse(predictions, target, recorded).to(predictions.dtype)
            scores.append(torch.where(predictions.isfinite().all(), score, torch.nan))
        mean_loss = torch.stack(losses).sum() / count
        weighted = [weight * score for weight, score in zip(weights, scores, strict=True)]
        mean = torch.stack(weighted).sum() / sum(weights)
        loss, mean, *own = torch.stack([mean_loss, mean, *scores]).tolist()
        of_mice = {self.score_of(mouse): score for mouse, score in zip(data, own, strict=True)}
        return {"validation_loss": loss, self.score_name: mean, **of_mice}

    @classmethod
    def score_of(cls, mouse: str) -> str:
        """Name of the score of one mouse in the history."""
        return f"{cls.score_name}_{mouse}"


class PoissonObjective(RateObjective):
    """The Poisson loss of predicted rates.

    Parameters
    ----------
    score, loss_scale, penalty_scale
        As of `RateObjective`.
    loss_epsilon : float, default=1.19e-7
        Added to rates and responses in the loss.
    """

    def __init__(
        self,
        score: Score | None = None,
        *,
        loss_scale: str | float = "sqrt",
        penalty_scale: str = "absolute",
        loss_epsilon: float = FLOAT32_EPSILON,
    ) -> None:
        super().__init__(
            partial(poisson_loss, eps=loss_epsilon),
            score,
            loss_scale=loss_scale,
            penalty_scale=penalty_scale,
        )
