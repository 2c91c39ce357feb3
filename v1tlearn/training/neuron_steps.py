"""Steps of minimodels of one mouse: every neuron with a learning rate and moments of its own.

When rates drop and which weights are kept is in `neuron_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from v1tlearn.nn.model import EncodingModel
from v1tlearn.nn.readouts.minimodel import MinimodelReadout, PooledMaps, pool_maps
from v1tlearn.training.data import MouseData, Targets, step_batches

_EPS = 1e-8  # of Adam

Rows = Tensor | slice


class NeuronOptions(NamedTuple):
    """How minimodels are trained, whatever the neuron.

    Attributes
    ----------
    lr : float
        At the beginning.
    betas : (float, float)
    weight_decay : float
        Where the readout says nothing else.
    decoupled : bool
        AdamW, and not Adam.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decoupled: bool = True


class NeuronObjective(NamedTuple):
    """What is minimised for each neuron, and what is judged.

    Attributes
    ----------
    loss : callable
        ``loss(rates, responses, recorded, per_neuron=True)``, the sum over the trials recorded.
    scores : dict of str to callable
        ``score(predictions, responses, recorded)`` of every neuron, by its name in the history;
        epochs are judged by the first.
    per_recorded : bool
        Whether the loss is over the number of recorded responses plus 1e-6.
    in_parts : bool
        A batch cannot be cut, because of its statistics.
    """

    loss: Callable[..., Tensor]
    scores: Mapping[str, Callable[..., Tensor]]
    per_recorded: bool = False
    in_parts: bool = False

    @property
    def score_name(self) -> str:
        """The score by which epochs are judged."""
        return next(iter(self.scores))

    def losses(self, rates: Tensor, target: Tensor, recorded: Tensor | None) -> Tensor:
        """Sum over the trials recorded, of each neuron.

        Parameters
        ----------
        rates : Tensor of shape (n_trials, n_neurons)
        target : Tensor of this shape
        recorded : Tensor of bool of this shape, or None

        Returns
        -------
        Tensor of shape (n_neurons,)
        """
        return self.loss(rates, target, recorded, per_neuron=True)

    def scaled(self, losses: Tensor, target: Tensor, recorded: Tensor | None) -> Tensor:
        """Losses as they are minimised.

        Parameters
        ----------
        losses : Tensor of shape (n_neurons,)
        target : Tensor of shape (n_trials, n_neurons)
        recorded : Tensor of bool of this shape, or None

        Returns
        -------
        Tensor of shape (n_neurons,)
        """
        if not self.per_recorded:
            return losses
        counts = len(target) if recorded is None else recorded.sum(0, dtype=losses.dtype)
        return losses / (counts + 1e-6)


@dataclass
class Moments:
    """Adam's memory, one of each neuron.

    Attributes
    ----------
    lr, steps : Tensor of shape (n_neurons,)
        Learning rate and number of steps, float64 on the CPU.
    first, second : dict of str to Tensor
        Moments by name of the parameter, neurons first.
    """

    lr: Tensor
    steps: Tensor
    first: dict[str, Tensor]
    second: dict[str, Tensor]

    @classmethod
    def of(cls, readout: MinimodelReadout, lr: float) -> Moments:
        """Those of the beginning.

        Parameters
        ----------
        readout : MinimodelReadout
        lr : float

        Returns
        -------
        Moments
        """
        n = readout.n_neurons
        zeros = [{k: torch.zeros_like(p) for k, p in readout.named_parameters()} for _ in "ab"]
        rate = torch.full((n,), lr, dtype=torch.float64)
        return cls(rate, torch.zeros(n, dtype=torch.float64), *zeros)

    def selected(self, neurons: Tensor) -> Moments:
        """Copies of those of some neurons.

        Parameters
        ----------
        neurons : Tensor of int
            On the CPU.

        Returns
        -------
        Moments
        """
        first, second = (
            {k: v[neurons.to(v.device)] for k, v in kept.items()}
            for kept in (self.first, self.second)
        )
        return Moments(self.lr[neurons], self.steps[neurons], first, second)

    def put_(self, neurons: Tensor, some: Moments) -> None:
        """Take over what `selected` gave, after steps.

        Parameters
        ----------
        neurons : Tensor of int
            On the CPU.
        some : Moments
        """
        self.steps[neurons] = some.steps
        for kept, values in ((self.first, some.first), (self.second, some.second)):
            for name, value in values.items():
                kept[name][neurons.to(value.device)] = value

    def restart_(self, neurons: Tensor) -> None:
        """Forget the gradients of some neurons.

        Parameters
        ----------
        neurons : Tensor of int
            On the CPU.
        """
        self.steps[neurons] = 0
        for kept in (*self.first.values(), *self.second.values()):
            kept[neurons.to(kept.device)] = 0


def minimodels(model: EncodingModel, mouse: str) -> MinimodelReadout:
    """Minimodels of a mouse.

    Parameters
    ----------
    model : EncodingModel
        Of minimodels.
    mouse : str

    Returns
    -------
    MinimodelReadout
    """
    readout = model.readout(mouse)
    assert isinstance(readout, MinimodelReadout)
    return readout


class Block:
    """Some neurons of a mouse while they are trained, an epoch long.

    Parameters
    ----------
    readout : MinimodelReadout
        Of all neurons of the mouse.
    moments : Moments
        Likewise.
    neurons : Tensor of int
        On the CPU: who these are.
    options : NeuronOptions
    """

    def __init__(
        self,
        readout: MinimodelReadout,
        moments: Moments,
        neurons: Tensor,
        options: NeuronOptions,
    ) -> None:
        self.neurons, self.options = neurons, options
        self.on_device = neurons.to(readout.mixing.device)
        self.readout, self.moments = readout.selected(self.on_device), moments.selected(neurons)
        self.decays = {
            id(p): group.get("weight_decay", options.weight_decay)
            for group in self.readout.groups()
            for p in group["params"]
        }
        self.losses = readout.mixing.new_zeros(len(neurons))
        self.penalties = readout.mixing.new_zeros(())

    def step(
        self,
        pooled: PooledMaps,
        target: Tensor,
        recorded: Tensor | None,
        head: Callable[[Tensor], Tensor],
        objective: NeuronObjective,
    ) -> None:
        """Take one step on a batch; `losses` and `penalties` add up.

        Parameters
        ----------
        pooled : PooledMaps
        target : Tensor of shape (n_trials, all neurons)
        recorded : Tensor of bool of this shape, or None
        head : callable
            Rates of outputs.
        objective : NeuronObjective
        """
        self.readout.train()
        target = target[:, self.on_device]
        recorded = None if recorded is None else recorded[:, self.on_device]
        losses = objective.losses(head(self.readout.respond(pooled)), target, recorded)
        penalty = self.readout.penalty()
        (objective.scaled(losses, target, recorded).sum() + penalty).backward()
        self._adam()
        self.readout.project_()
        self.losses += losses.detach()
        self.penalties += penalty.detach()

    @torch.no_grad()
    def _adam(self) -> None:
        moments, (first, second) = self.moments, self.options.betas
        moments.steps += 1
        corrected = 1 - first**moments.steps, (1 - second**moments.steps).sqrt()
        factors = torch.stack((moments.lr, moments.lr / corrected[0], corrected[1]))
        own = self.readout.mixing
        # one copy for all parameters, for which the host does not wait on CUDA devices
        factors = factors.to(own.dtype).to(own.device, non_blocking=own.is_cuda)
        for name, p in self.readout.named_parameters():
            lr, size, root = factors.view(3, -1, *[1] * (p.ndim - 1))
            gradient, decay = p.grad, self.decays[id(p)]
            assert gradient is not None  # of the step
            if decay and self.options.decoupled:
                p.mul_(1 - lr * decay)
            elif decay:
                gradient = gradient + decay * p
            mean = moments.first[name].lerp_(gradient, 1 - first)
            square = moments.second[name].mul_(second)
            square.addcmul_(gradient, gradient, value=1 - second)
            p.sub_(mean * size / (square.sqrt() / root).add_(_EPS))
            p.grad = None

    @torch.no_grad()
    def predict(self, pooled: PooledMaps, head: Callable[[Tensor], Tensor]) -> Tensor:
        """Predict rates in evaluation mode.

        Parameters
        ----------
        pooled : PooledMaps
        head : callable

        Returns
        -------
        Tensor of shape (n_images, n_neurons)
        """
        self.readout.eval()
        return head(self.readout.respond(pooled))

    def finite(self) -> Tensor:
        """Tell of which neurons losses and weights are numbers.

        Returns
        -------
        Tensor of bool of shape (n_neurons,)
        """
        weights = [w.isfinite().view(len(w), -1).all(1) for w in self.readout.state_dict().values()]
        return torch.stack([self.losses.isfinite(), *weights]).all(0)


class Maps:
    """Pooled maps of the trials of one mouse, kept, or computed again for every batch.

    Parameters
    ----------
    model : EncodingModel
        Its core is frozen.
    mouse : str
    data : MouseData
    batch_size : int
        Trials that pass the core at once while maps that are kept are computed.
    keep : bool
    """

    def __init__(
        self, model: EncodingModel, mouse: str, data: MouseData, batch_size: int, keep: bool
    ) -> None:
        self.model, self.mouse, self.data = model, mouse, data
        self.kept: PooledMaps | None = None
        if keep:
            rows = [slice(i, i + batch_size) for i in range(0, len(data), batch_size)]
            parts = [maps for maps, _ in self._computed(rows)]
            largest, smallest, mean, variance = (
                torch.cat(values) for values in list(zip(*parts, strict=True))[:4]
            )
            self.kept = PooledMaps(largest, smallest, mean, variance, parts[0].n_values)

    def batches(self, steps: Sequence[Rows]) -> Iterator[tuple[PooledMaps, Targets]]:
        """Maps and responses of one batch after the other.

        Parameters
        ----------
        steps : sequence of Tensor of int, or slice
            Rows of each.

        Yields
        ------
        PooledMaps
        tuple
            Responses, and which were recorded.
        """
        if self.kept is None:
            yield from self._computed(steps)
            return
        for rows in steps:
            yield self.kept.rows(rows), self.data.targets(rows)

    @torch.no_grad()
    def _computed(self, steps: Sequence[Rows]) -> Iterator[tuple[PooledMaps, Targets]]:
        model, mouse = self.model, self.mouse
        pool = minimodels(model, mouse).pool
        with closing(step_batches({mouse: self.data}, [{mouse: r} for r in steps])) as batches:
            for inputs, targets in batches:
                batch = inputs[mouse]
                images = model.cropper(batch.images, mouse)
                yield pool_maps(model.encode(mouse, images, batch.behaviors), pool), targets[mouse]


def maps_bytes(model: EncodingModel, mouse: str, n_trials: int) -> int:
    """Memory that the maps of so many trials take.

    Parameters
    ----------
    model : EncodingModel
    mouse : str
    n_trials : int

    Returns
    -------
    int
    """
    channels, height, width = model.core.output_shape
    readout = minimodels(model, mouse)
    pool, size = readout.pool, readout.mixing.element_size()
    return n_trials * 2 * channels * ((height // pool) * (width // pool) + 1) * size


def as_tree(moments: Moments) -> dict[str, Any]:
    """Moments as plain containers, the same tensors.

    Parameters
    ----------
    moments : Moments

    Returns
    -------
    dict
    """
    return dict(vars(moments))
