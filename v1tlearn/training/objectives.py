"""What is minimised and what is judged: the contract of an objective, and the Poisson one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from v1tlearn.nn import sharing
from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.losses import FLOAT32_EPSILON, poisson_loss
from v1tlearn.nn.model import EncodingModel
from v1tlearn.nn.precision import at_least_float32
from v1tlearn.training.data import MouseData, Targets, by_neuron
from v1tlearn.training.judging import Score, is_summed, judge
from v1tlearn.training.prediction import known_parts, predict_known
from v1tlearn.training.settings import TrainingSettings

Record = dict[str, float]

# A mouse of Sensorium 2022, for which the published weights of penalties were tuned.
PUBLISHED_TRIALS, PUBLISHED_NEURONS = 4500, 8000


@dataclass(frozen=True)
class MouseLoss:
    """Loss of some trials of one mouse.

    Attributes
    ----------
    minimised : Tensor
        Scalar, scaled as it enters the step.
    summed : Tensor
        Scalar, detached: what the history tells, over `count`.
    count : int, float or Tensor
        How many values it is the sum over.
    """

    minimised: Tensor
    summed: Tensor
    count: float | Tensor


class Objective(Protocol):
    """What a run asks of an objective; nothing in it may wait for the device.

    Attributes
    ----------
    score_name : str
        The entry of what `score` returns by which epochs are judged.
    in_parts : bool
        Whether the loss of a batch is the sum of those of its parts, so that parts may be trained
        on one after the other where memory is short.

    Notes
    -----
    An objective that is not in parts may have an attribute ``gathers``, True where processes can
    share a batch all the same: then what the loss of a part needs of the others comes through
    `v1tlearn.nn.sharing`, and the losses of the parts add up to that of the batch.
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


def is_shared(objective: Objective) -> bool:
    """Whether several processes can share its batches."""
    return objective.in_parts or getattr(objective, "gathers", False)


class RateObjective:
    """A loss of predicted rates, penalties of core and readouts, and a score of each mouse.

    Parameters
    ----------
    loss : callable
        ``loss(rates, responses, recorded)`` of one mouse, a scalar tensor: the sum over the
        responses that were recorded, all where `recorded` is None. With the scale "per_recorded" it
        takes a keyword ``per_neuron=True``, too, and sums over trials only.
    score : callable, optional
        ``score(predictions, responses, recorded)`` of one mouse on the device, a scalar tensor.
        Needed where there are validation trials.
    loss_scale : {"sqrt", "sqrt_recording", "per_neuron", "per_recorded"} or float, default="sqrt"
        Factor on the summed loss of a batch: square root of the mouse's number of trials over the
        batch's; one over the number of neurons (Du et al. 2025); or a constant. "per_recorded"
        divides the sum of each neuron by the number of its responses that were recorded, plus 1e-6,
        and takes the mean over neurons. With the last two of the names the penalties of a readout
        are means over neurons, too.
    penalty_scale : {"absolute", "relative"}, default="absolute"
        Whether penalties are added as they are, or in the size that the loss has with these
        trials and neurons, see `penalty`.
    score_name : str, default="validation_correlation"
        What the score is called in the history.
    also : dict of str to callable, optional
        Further scores for the history, by name; epochs are not judged by them.
    """

    in_parts = True

    def __init__(
        self,
        loss: Callable[..., Tensor],
        score: Score | None = None,
        *,
        loss_scale: str | float = "sqrt",
        penalty_scale: str = "absolute",
        score_name: str = "validation_correlation",
        also: Mapping[str, Score] | None = None,
    ) -> None:
        self.loss_of_mouse, self.score_of_mouse = loss, score
        self.loss_scale, self.penalty_scale = loss_scale, penalty_scale
        self.score_name, self.also = score_name, dict(also or {})
        if loss_scale == "per_recorded":
            self.in_parts = False  # what was recorded of the whole batch counts
            self.gathers = True

    def scale(self, trials: MouseData, n: float) -> float:
        """Loss scale of a batch of `n` trials, or of windows in which so many frames count."""
        if self.loss_scale == "per_neuron":
            return 1 / trials.n_neurons
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
            target, recorded = by_neuron(targets[mouse])
            rates = at_least_float32(rates).flatten(0, -2)
            count = target.numel() if recorded is None else recorded.sum()
            with torch.autocast(rates.device.type, enabled=False):
                if self.loss_scale == "per_recorded":
                    own = self.loss_of_mouse(rates, target, recorded, per_neuron=True)  # (n,)
                    counts = len(target) if recorded is None else recorded.sum(0, dtype=own.dtype)
                    if sharing.now() is not None:
                        counts = sharing.total(torch.as_tensor(counts, dtype=own.dtype))
                    scaled, loss = (own / (counts + 1e-6)).mean(), own.sum()
                else:
                    loss = self.loss_of_mouse(rates, target, recorded)
                    n = sizes[mouse] * data[mouse].n_counted
                    scaled = self.scale(data[mouse], n) * loss
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
        Where it is a mean over neurons, so is every P_m, and nothing depends on either number:
        "relative" is ``sum_m (C + P_m)``.

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
            return core + sum(self._readout_penalty(model, mouse) for mouse in data)
        total = torch.zeros_like(core)
        for mouse, trials in data.items():
            n_neurons = model.readout(mouse).n_neurons
            share = 1.0 if self._is_mean else n_neurons / PUBLISHED_NEURONS
            both = share * core + self._readout_penalty(model, mouse)
            total = total + self._root(trials) * both
        return total

    def _root(self, trials: MouseData) -> float:
        """What the number of trials makes of the loss of a batch, beside the published number."""
        grows = self.loss_scale in ("sqrt", "sqrt_recording")
        return (trials.scale_trials / PUBLISHED_TRIALS) ** 0.5 if grows else 1.0

    @property
    def _is_mean(self) -> bool:
        """Whether the loss is a mean over neurons, not a sum."""
        return self.loss_scale in ("per_neuron", "per_recorded")

    def _readout_penalty(self, model: EncodingModel, mouse: str) -> Tensor:
        """Sum over the neurons of a mouse, or their mean where the loss is one."""
        penalty = model.readout_penalty(mouse)
        if self._is_mean:
            return penalty / model.readout(mouse).n_neurons
        return penalty

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
            ``validation_loss``, mean over responses, and the scores, such as
            ``validation_correlation``, mean over mice or neurons; followed by the name of a mouse,
            ``validation_correlation_A``, its own. NaN where predictions are not finite.
        """
        model.eval()
        assert self.score_of_mouse is not None  # or epochs are not judged
        judges = {self.score_name: self.score_of_mouse, **self.also}
        losses, counts, weights = [], [], []
        scores: dict[str, list[Tensor]] = {name: [] for name in judges}
        size = settings.prediction_batch_size or settings.batch_size
        for mouse, trials in data.items():
            rows = max(1, size // trials.n_images)
            judged = (model, mouse, trials, rows, settings.precision)
            if sharing.now() is not None and not all(map(is_summed, judges.values())):
                found = judge([predict_known(*judged)], self.loss_of_mouse, judges, None)
            else:
                found = judge(known_parts(*judged), self.loss_of_mouse, judges, sharing.now())
            losses.append(found.loss)
            counts.append(found.count)
            weights.append(trials.n_neurons if mean_over == "neurons" else 1)
            for name, own in scores.items():
                own.append(found.scores[name].to(found.dtype))
        loss = torch.stack(losses).sum() / torch.stack(counts).sum()
        record = {"validation_loss": loss.to(found.dtype)}
        for name, own in scores.items():
            weighted = [weight * score for weight, score in zip(weights, own, strict=True)]
            record[name] = torch.stack(weighted).sum() / sum(weights)
            record |= {f"{name}_{mouse}": score for mouse, score in zip(data, own, strict=True)}
        return dict(zip(record, torch.stack(list(record.values())).tolist(), strict=True))


class PoissonObjective(RateObjective):
    """The Poisson loss of predicted rates.

    Parameters
    ----------
    score, loss_scale, penalty_scale, score_name, also
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
        score_name: str = "validation_correlation",
        also: Mapping[str, Score] | None = None,
        loss_epsilon: float = FLOAT32_EPSILON,
    ) -> None:
        super().__init__(
            partial(poisson_loss, eps=loss_epsilon),
            score,
            loss_scale=loss_scale,
            penalty_scale=penalty_scale,
            score_name=score_name,
            also=also,
        )
