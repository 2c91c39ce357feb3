"""From the parameter groups that modules name to an optimiser, and the rates of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.schedule import Schedule

KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make_optimizer(
    model: EncodingModel,
    kind: str = "adam",
    *,
    lr: float,
    core_lr: float | None = None,
    betas: Sequence[float] = (0.9, 0.999),
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Build the optimiser: the core with its own learning rate, the rest with the other.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    kind : {"adam", "adamw"}, default="adam"
    lr : float
    core_lr : float, optional
        Of the core; `lr` by default.
    betas : sequence of two float, default=(0.9, 0.999)
    weight_decay : float, default=0.0

    Returns
    -------
    torch.optim.Optimizer
        The first group is the core's, the last one that of all the rest. Between them are the
        groups to which core and readouts give a learning rate or weight decay of their own.

    Raises
    ------
    ValueError
        If `betas` are not two numbers from 0 to below 1.
    """
    if len(betas) != 2 or not all(isinstance(beta, Real) and 0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={betas!r}: expected two numbers from 0 to below 1.")
    core_lr = lr if core_lr is None else core_lr
    of_core = model.core.groups()
    of_readouts = [group for mouse in model.mice for group in model.readout(mouse).groups()]
    special = [_group({"lr": core_lr} | group) for group in of_core if set(group) != {"params"}]
    special += [_group({"lr": lr} | group) for group in of_readouts if set(group) != {"params"}]
    apart = {id(p) for group in special for p in group["params"]}
    core = [p for group in of_core if set(group) == {"params"} for p in group["params"]]
    apart |= {id(p) for p in model.core.parameters()}
    rest = [p for p in model.parameters() if id(p) not in apart]
    groups = [_group({"params": core, "lr": core_lr}), *special, _group({"params": rest, "lr": lr})]
    options = {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay}
    if next(model.parameters()).device.type in ("cpu", "cuda"):
        options["fused"] = True
    return KINDS[kind](groups, **options)


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """Make a group that remembers what learning rate was asked for, whatever becomes of it."""
    return group | {"params": list(group["params"]), "parameter_lr": group["lr"]}


def update_groups(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bring the learning rates that are asked for now into the saved state of an optimiser.

    Parameters
    ----------
    saved : dict
        State of an earlier run.
    optimizer : torch.optim.Optimizer
        As `make_optimizer` built it for the run to come.

    Returns
    -------
    dict
        The saved state; a learning rate that the schedule lowered stays unless the parameter was
        changed since.
    """
    groups = []
    for before, now in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        keep = {"params"} | ({"lr"} if before["parameter_lr"] == now["parameter_lr"] else set())
        groups.append({k: before[k] if k in keep else v for k, v in now.items()})
    return {**saved, "param_groups": groups}


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], most: float) -> None:
    """Scale gradients down together where their norm is above a bound.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those without a gradient do not count.
    most : float
        Gradients are multiplied by ``most / (norm + 1e-6)`` where that is below 1.

    Notes
    -----
    The norm is taken from sums, which torch adds up in pairs. Norms of torch add one square after
    the other on a CPU, and are wrong by 0.05 % for ten million gradients.
    """
    parameters = list(parameters)
    squares = torch.stack([p.grad.square().sum() for p in parameters if p.grad is not None])
    torch.nn.utils.clip_grads_with_norm_(parameters, most, squares.sum().sqrt())


@contextmanager
def rates_of_steps(
    groups: Sequence[dict[str, Any]], schedule: Schedule
) -> Iterator[Callable[[float], float]]:
    """Let a schedule change learning rates step by step; then they are as before.

    Parameters
    ----------
    groups : sequence of dict
        Of the optimisers.
    schedule : Schedule

    Yields
    ------
    callable
        Sets the rates of a step, so many epochs after the beginning.
    """
    rates = [group["lr"] for group in groups]

    def set_rates(epochs: float) -> float:
        """Set those of a step, so many epochs after the beginning; the last one of them."""
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = schedule.step_rate(rate, epochs)
        return groups[-1]["lr"]

    try:
        yield set_rates
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
