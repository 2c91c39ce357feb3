"""What a training step keeps for its backward pass, measured with a few trials."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.data import MouseData
from v1tlearn.training.devices import autocast, numerics
from v1tlearn.training.objectives import Objective
from v1tlearn.training.rng import initial_rng, isolated_rng
from v1tlearn.training.settings import TrainingSettings

_PROBE_TRIALS = 2
# Going back through an operation takes, beside what was kept, the gradients of its outputs and
# inputs and a copy or two.
_WORKSPACE_TENSORS = 3


@dataclass(frozen=True)
class Footprint:
    """Memory of a training step, per trial of every mouse that passes the core together.

    Attributes
    ----------
    kept : float
        Bytes that wait for the backward pass.
    recomputed : float
        The same where the core's blocks are computed again.
    largest : float
        Bytes of the largest tensor among them.
    mice : int
        Mice that pass together.
    """

    kept: float
    recomputed: float
    largest: float
    mice: int

    def step(self, *, checkpointed: bool) -> float:
        """Bytes of a step per trial, its workspace included."""
        kept = self.recomputed if checkpointed else self.kept
        return kept + _WORKSPACE_TENSORS * self.largest


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts bytes kept for a backward pass that will not come, by the part that keeps them."""

    def __init__(self, model: EncodingModel) -> None:
        super().__init__(self._note, _never_asked_for)
        self.part, self.inputs, self.largest = -1, 0, 0
        self.bytes = {-1: 0}
        # alive, so that no address comes twice
        self.storages: dict[int, Any] = {
            p.untyped_storage().data_ptr(): p for p in model.parameters()
        }
        for i, part in enumerate(model.core.recomputed_parts()):
            part.register_forward_pre_hook(partial(self._enter, i))
            part.register_forward_hook(self._leave)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages[storage.data_ptr()] = storage
            self.bytes[self.part] += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())

    def _enter(self, part: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.part, self.bytes[part] = part, 0
        self.inputs += sum(x.nbytes for x in args if isinstance(x, Tensor))

    def _leave(self, *_: Any) -> None:
        self.part = -1


def _never_asked_for(kept: Any) -> Tensor:
    """What a backward pass would do with what was kept; there is none."""
    raise RuntimeError("a forward pass that is measured has no backward pass")


def measure(
    model: EncodingModel,
    objective: Objective,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
) -> Footprint:
    """Measure what a training step keeps for its backward pass.

    Nothing is changed: neither weights and running statistics nor random numbers.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    objective : Objective
    data : dict of str to MouseData
        Training trials per mouse.
    settings : TrainingSettings

    Returns
    -------
    Footprint
        Of all mice, or of the one that needs most where they pass one by one.
    """
    device = next(iter(data.values())).device
    groups = [list(data)] if settings.joint else [[mouse] for mouse in data]
    found = []
    with (
        isolated_rng(initial_rng(0), device),
        numerics(settings.precision, device, deterministic=settings.deterministic),
        torch.enable_grad(),
    ):
        for group in groups:
            probe = copy.deepcopy(model).train()
            # numbers, not a slice, which would be a view of the storage of all trials
            sizes = {m: min(_PROBE_TRIALS, len(data[m])) for m in group}
            rows = {m: torch.arange(n, device=device) for m, n in sizes.items()}
            kept = _Kept(probe)
            with kept, autocast(settings.precision, device):
                inputs = {m: data[m].batch(rows[m]) for m in group}
                targets = {m: data[m].targets(rows[m]) for m in group}
                objective.loss(probe, inputs, targets, data, sizes)
            n = max(sizes.values())
            blocks = [size for part, size in kept.bytes.items() if part >= 0]
            recomputed = kept.bytes[-1] + kept.inputs + max(blocks, default=0)
            whole = sum(kept.bytes.values())
            found.append(Footprint(whole / n, recomputed / n, kept.largest / n, len(group)))
    return max(found, key=lambda footprint: footprint.kept)
