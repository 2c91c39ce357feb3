"""A batch that several processes compute together, as the layers know of it that need all of it.

Whoever trains tells (`shared`), and layers ask (`now`). How processes talk to each other is not
known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Shared(NamedTuple):
    """What this process has of a batch.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all of them. One alone, of size 1, has all.
    total : callable
        ``total(values)`` gives the sum over all processes, in a new tensor. All have to call it, in
        the same order.
    noise : dict of Module to Tensor
        Random numbers of readouts, which were drawn for the whole batch: the rows of this process.
    """

    rank: int
    size: int
    total: Callable[[Tensor], Tensor]
    noise: Mapping[nn.Module, Tensor]


# One of the whole process: backward passes run in threads of torch's own, and trainings take turns.
_NOW: list[Shared] = []


@contextmanager
def shared(by: Shared) -> Iterator[None]:
    """Within, models compute a part of a batch.

    Parameters
    ----------
    by : Shared
    """
    _NOW.append(by)
    try:
        yield
    finally:
        _NOW.remove(by)


def now() -> Shared | None:
    """What this process has of the batch that is computed; None where it has all of it."""
    return _NOW[-1] if _NOW and _NOW[-1].size > 1 else None


def noise_of(readout: nn.Module) -> Tensor | None:
    """Random numbers that were drawn for a readout; None where it is to draw them."""
    return _NOW[-1].noise.get(readout) if _NOW else None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum over all processes."""
        ctx.total = total
        return total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Sum of what the losses of all processes make of the sum."""
        return _Total.apply(gradient, ctx.total), None


def total(values: Tensor) -> Tensor:
    """Sum over the processes that share a batch; differentiable, any number of times.

    Parameters
    ----------
    values : Tensor

    Returns
    -------
    Tensor
        The values themselves where there is one process.
    """
    by = now()
    return values if by is None else _Total.apply(values, by.total)
