"""Activations that are computed again in the backward pass instead of being kept for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.drawing import drawn_again
from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.settings import TrainingSettings
from v1tlearn.training.stand_ins import StandIns


def takes_batch_statistics(model: EncodingModel) -> bool:
    """Tell whether the core normalises with statistics of the batch while it is trained."""
    norms = any(isinstance(module, _BatchNorm) for module in model.core.modules())
    return norms and not model.core.frozen


def saves_memory(model: EncodingModel, settings: TrainingSettings) -> bool:
    """Tell whether `checkpoint_activations` saves memory with this model where it is.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    settings : TrainingSettings

    Returns
    -------
    bool
        False where the core names no parts, and with convolutions on a CPU, which compute again
        whatever is set, unless they are compiled.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    always = model.core.recomputes_on_cpu and on_cpu and settings.compile is not True
    return bool(model.core.recomputed_parts()) and not always


def checkpointed(core: Core, wanted: bool) -> StandIns:
    """Keep only the inputs of a core's parts for the backward pass, and compute the rest again.

    The same numbers come out, dropout and running statistics included.

    Parameters
    ----------
    core : Core
    wanted : bool
        Nothing is done without.

    Returns
    -------
    context manager
        Within it the parts are computed again.
    """
    parts = core.recomputed_parts() if wanted else []
    return StandIns({part: _recomputing(part, part.forward) for part in parts})


def _recomputing(part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]

    def contexts() -> tuple[Any, Any]:
        """Contexts of the forward pass and of its repetition."""
        forward_pass, repetition = drawn_again()
        return forward_pass, _repeated(repetition, norms)

    def recomputing(*args: Any) -> Any:
        """Forward pass whose activations are not kept."""
        if not torch.is_grad_enabled():
            return forward(*args)
        if not torch.compiler.is_compiling():
            return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)
        return checkpoint(forward, *args, use_reentrant=False)

    return recomputing


@contextmanager
def _repeated(drawing: AbstractContextManager[None], norms: Sequence[_BatchNorm]) -> Iterator[None]:
    with drawing, _running_statistics_kept(norms):
        yield


@contextmanager
def _running_statistics_kept(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let batch normalisation see a batch once more without taking notice of it."""
    found = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, momentum, count in found:
            norm.momentum, norm.num_batches_tracked = momentum, count
