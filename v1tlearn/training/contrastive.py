"""The alignment of images and responses as an objective, and the optimisers of its two towers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from v1tlearn.nn import sharing
from v1tlearn.nn.alignment import AlignmentModel
from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.contrastive import alignment_loss, ranks_of_seen, steady_cosines
from v1tlearn.training.data import MouseData, Targets, step_batches
from v1tlearn.training.devices import autocast
from v1tlearn.training.objectives import MouseLoss, Record
from v1tlearn.training.settings import TrainingSettings

SCORES = {"top1": "validation_top1", "loss": "validation_score"}


class ContrastiveObjective:
    """Alignment of the maps of images and responses, trial by trial (Wang et al. 2026).

    Each mouse has a loss of its own, over the trials of its batch, and all count alike.

    Parameters
    ----------
    weights : (float, float, float), default=(1.0, 0.0, 0.0)
        Of the contrastive loss, of the root mean squared difference, and of one minus the
        structural similarity, see `v1tlearn.nn.alignment_loss`.
    at_once : int, optional
        Trials that pass a tower at once. The loss is that of the whole batch all the same: parts
        keep their maps only, and are computed again, one by one, for the gradients of these (Gao et
        al. 2021). By default the whole batch passes.
    selection : {"top1", "loss"}, default="top1"
        What judges epochs: the share of the validation trials whose image is the one in the
        gallery of all validation images that is most similar to the response, or the loss.

    Attributes
    ----------
    score_name : str
    in_parts : bool
        False: trials of a batch are compared with each other.
    gathers : bool
        True: processes tell each other the maps of their trials.
    """

    in_parts, gathers = False, True

    def __init__(
        self,
        weights: tuple[float, float, float] = (1.0, 0.0, 0.0),
        *,
        at_once: int | None = None,
        selection: str = "top1",
    ) -> None:
        self.weights, self.at_once, self.score_name = weights, at_once, SCORES[selection]

    def loss(
        self,
        model: AlignmentModel,
        inputs: Mapping[str, MouseBatch],
        targets: Mapping[str, Targets],
        data: Mapping[str, MouseData],
        sizes: Mapping[str, int],
    ) -> dict[str, MouseLoss]:
        """Compute the loss of each mouse, over all trials of its batch.

        Parameters
        ----------
        model : AlignmentModel
        inputs : dict of str to MouseBatch
        targets : dict of str to (Tensor, Tensor or None)
        data : dict of str to MouseData
        sizes : dict of str to int

        Returns
        -------
        dict of str to MouseLoss
        """
        images, losses = self._maps_of_images(model, inputs), {}
        for mouse, maps in images.items():
            responses = self._maps_of_responses(model, mouse, *targets[mouse])
            n, labels = len(maps), inputs[mouse].labels
            stacked = sharing.gathered(torch.stack([maps, responses], 1), mouse, sizes)
            if labels is not None:
                labels = sharing.gathered(labels, mouse, sizes)
            loss = self._loss(model, stacked[:, 0], stacked[:, 1], labels)
            losses[mouse] = MouseLoss(sharing.share() * loss, n * loss.detach(), n)
        return losses

    def _loss(
        self, model: AlignmentModel, images: Tensor, responses: Tensor, labels: Tensor | None
    ) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return alignment_loss(
                images,
                responses,
                temperature=model.temperature,
                weights=self.weights,
                labels=labels,
            )

    def _maps_of_images(
        self, model: AlignmentModel, inputs: Mapping[str, MouseBatch]
    ) -> dict[str, Tensor]:
        """Maps of all mice's images, which pass together unless in parts."""
        if self.at_once is None:
            return model(inputs)
        return {
            mouse: self._in_parts(lambda x, m=mouse: model({m: MouseBatch(x)})[m], batch.images)
            for mouse, batch in inputs.items()
        }

    def _maps_of_responses(
        self, model: AlignmentModel, mouse: str, responses: Tensor, recorded: Tensor | None
    ) -> Tensor:
        if recorded is None:
            return self._in_parts(lambda x: model.encode_responses(mouse, x), responses)
        return self._in_parts(
            lambda x, known: model.encode_responses(mouse, x, known), responses, recorded
        )

    def _in_parts(self, encode: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Maps of some trials at a time, of which nothing else is kept."""
        if self.at_once is None or len(tensors[0]) <= self.at_once:
            return encode(*tensors)
        parts = zip(*(tensor.split(self.at_once) for tensor in tensors), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([encode(*part) for part in parts])
        return torch.cat([checkpoint(encode, *part, use_reentrant=False) for part in parts])

    def penalty(self, model: AlignmentModel, mice: Iterable[str]) -> Tensor:
        """Penalty of the image tower and of the neural towers of these mice."""
        return model.core_penalty() + sum(model.readout_penalty(mouse) for mouse in mice)

    @torch.inference_mode()
    def score(
        self,
        model: AlignmentModel,
        data: Mapping[str, MouseData],
        settings: TrainingSettings,
        mean_over: str = "mice",
    ) -> Record:
        """Loss of all validation trials as one batch, and the share whose image is found.

        Parameters
        ----------
        model : AlignmentModel
        data : dict of str to MouseData
        settings : TrainingSettings
        mean_over : {"mice", "neurons"}, default="mice"

        Returns
        -------
        dict of str to float
            ``validation_loss`` and ``validation_top1``, means over mice, and followed by the name
            of a mouse its own; ``validation_score``, minus the loss. NaN where maps are not finite.
        """
        model.eval()
        record: dict[str, Tensor] = {}
        weights = [t.n_neurons if mean_over == "neurons" else 1 for t in data.values()]
        for mouse, trials in data.items():
            images, responses, labels = _encoded(model, mouse, trials, settings)
            loss = self._loss(model, images, responses, labels)
            found = first_ranks(responses, images, labels) == 1
            finite = images.isfinite().all() & responses.isfinite().all()
            record[f"validation_loss_{mouse}"] = loss
            record[f"validation_top1_{mouse}"] = torch.where(
                finite, found.to(loss.dtype).mean(), torch.nan
            )
        told = dict(zip(record, torch.stack(list(record.values())).tolist(), strict=True))

        def mean(name: str) -> float:
            """Mean over mice."""
            own = [told[f"{name}_{mouse}"] for mouse in data]
            return sum(w * x for w, x in zip(weights, own, strict=True)) / sum(weights)

        means = {name: mean(name) for name in ("validation_loss", "validation_top1")}
        return means | {"validation_score": -means["validation_loss"]} | told


def _encoded(
    model: AlignmentModel, mouse: str, trials: MouseData, settings: TrainingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps of images and of responses of all trials, and which image each shows."""
    size = settings.prediction_batch_size or settings.batch_size
    rows = [{mouse: slice(i, i + size)} for i in range(0, len(trials), size)]
    images, responses = [], []
    with (
        closing(step_batches({mouse: trials}, rows)) as batches,
        autocast(settings.precision, trials.device),
    ):
        for inputs, targets in batches:
            images.append(model(inputs)[mouse])
            responses.append(model.encode_responses(mouse, *targets[mouse]))
    labels = trials.labels
    if labels is None:
        labels = torch.arange(len(trials), device=trials.device)
    return torch.cat(images), torch.cat(responses), labels


def first_ranks(responses: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Rank of the image that was seen among all that there are, by similarity.

    Parameters
    ----------
    responses, images : Tensor of shape (n_trials, ...)
        Maps.
    labels : Tensor of int of shape (n_trials,)
        Which image each trial shows; the gallery has each once.

    Returns
    -------
    Tensor of int of shape (n_trials,)
        From 1 to the number of images, in whatever order they are; ties count against it.
    """
    order = torch.arange(len(labels), device=labels.device)
    shown, places = labels.unique(return_inverse=True)
    first = torch.full_like(shown, len(labels)).scatter_reduce(0, places, order, "amin")
    return ranks_of_seen(steady_cosines(responses, images[first]), places)


def make_optimizers(
    model: AlignmentModel,
    *,
    image_lr: float = 3e-4,
    image_weight_decay: float = 5e-5,
    neural_lr: float = 5e-5,
    neural_smoothing: float = 0.9,
) -> list[torch.optim.Optimizer]:
    """Build the optimisers of the two kinds of towers (Wang et al. 2026).

    Parameters
    ----------
    model : AlignmentModel
        On its device.
    image_lr, image_weight_decay : float, default=3e-4, 5e-5
        AdamW, of the image tower but for the groups to which it gives others.
    neural_lr : float, default=5e-5
        RMSprop, of the neural towers and of a learned temperature.
    neural_smoothing : float, default=0.9
        How slowly the mean squared gradient of RMSprop follows.

    Returns
    -------
    list of torch.optim.Optimizer
        That of the neural towers last; the first one is missing where the image tower is frozen.
    """
    image = [{"lr": image_lr} | group for group in model.core.groups() if group["params"]]
    own = {id(p) for p in model.core.parameters()}
    neural = [p for p in model.parameters() if id(p) not in own and p.requires_grad]
    optimizers: list[torch.optim.Optimizer] = []
    if image:
        groups = [group | {"parameter_lr": group["lr"]} for group in image]
        optimizers.append(torch.optim.AdamW(groups, weight_decay=image_weight_decay))
    group = {"params": neural, "lr": neural_lr, "parameter_lr": neural_lr}
    return [*optimizers, torch.optim.RMSprop([group], alpha=neural_smoothing)]
