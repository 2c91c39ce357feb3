"""A batch that several processes compute together, as the layers know of it that need all of it.

Whoever trains tells (`shared`), and layers ask (`now`). How processes talk to each other is not
known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Shared(NamedTuple):
    """What this process has of a batch.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all of them. One alone, of size 1, has all.
    total : callable
        ``total(values)`` gives the sum over all processes, in a new tensor. All have to call it, in
        the same order.
    starts : dict of str to int
        Of each mouse, where the trials of this process begin among those of the batch.
    """

    rank: int
    size: int
    total: Callable[[Tensor], Tensor]
    starts: Mapping[str, int] = MappingProxyType({})


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


def share() -> float:
    """What each process has to minimise of a loss that all of them compute alike."""
    by = now()
    return 1.0 if by is None else 1 / by.size


def mean(own: Tensor, n: int) -> Tensor:
    """Mean over the processes that share a batch; differentiable.

    Parameters
    ----------
    own : Tensor
        Scalar, the mean of what this process has.
    n : int
        Values that it is the mean of.

    Returns
    -------
    Tensor
        Scalar, of all values, the same in all processes.
    """
    if now() is None:
        return own
    summed, count = total(torch.stack([own * n, own.new_tensor(float(n))]))
    return summed / count


def gathered(own: Tensor, mouse: str, sizes: Mapping[str, int]) -> Tensor:
    """What all processes have of the batch of a mouse; differentiable.

    Parameters
    ----------
    own : Tensor of shape (n_own, ...)
        Of the trials of this process.
    mouse : str
    sizes : dict of str to int
        Trials of each mouse in the whole batch.

    Returns
    -------
    Tensor of shape (sizes[mouse], ...)
    """
    by = now()
    if by is None:
        return own
    before, n = by.starts[mouse], sizes[mouse]
    around = (own.new_zeros(m, *own.shape[1:]) for m in (before, n - before - len(own)))
    return total(torch.cat([next(around), own, next(around)]))
