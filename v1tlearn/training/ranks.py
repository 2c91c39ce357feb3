"""What a run asks of the processes that train one model, and the answers of one alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from v1tlearn.nn.sharing import Shared, shared


class Ranks:
    """The processes that train one model; this one alone.

    Attributes
    ----------
    rank : int
        Number of this process, from 0; process 0 writes.
    size : int
        How many there are.
    seconds : float
        Time that this process has spent on sums and agreements, waiting for others included. On
        GPUs, whose work goes on meanwhile, less than it took.
    """

    rank, size, seconds = 0, 1, 0.0

    @property
    def is_first(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes, in a new tensor.

        Parameters
        ----------
        values : Tensor

        Returns
        -------
        Tensor
        """
        return values

    def reduce(
        self, parameters: Sequence[nn.Parameter], known: list[bool] | None = None
    ) -> list[bool] | None:
        """Give the parameters of all processes the sum of their gradients.

        Parameters
        ----------
        parameters : sequence of Parameter
        known : list of bool, optional
            Which of them have gradients, as an earlier call with such a step gave it, so that no
            step waits for a GPU to tell.

        Returns
        -------
        list of bool or None
            Which of them have gradients in any process; None where there is one.
        """
        return None

    def align(self, module: nn.Module) -> None:
        """Give a module of all processes the weights and buffers that it has in the first one."""

    def agree(self, values: Sequence[float]) -> list[float]:
        """Give what the first process has.

        Parameters
        ----------
        values : sequence of float
            As many in all processes.

        Returns
        -------
        list of float
        """
        return list(values)

    def least(self, values: Sequence[float]) -> list[float]:
        """Give the least that one of them has, of each of some numbers."""
        return list(values)

    def first(self, action: Callable[[], bool | None]) -> bool:
        """Do something in the first process alone.

        Parameters
        ----------
        action : callable
            What it raises is raised in all of them.

        Returns
        -------
        bool
            Whether its answer was True, in all of them.
        """
        return action() is True

    def check_alike(self, numbers: Mapping[str, float], what: str) -> None:
        """Refuse, in all processes, that these numbers are not the same in all of them."""

    def check_same(self, facts: Mapping[str, str]) -> None:
        """Refuse, in all processes, that one was given something else than the first."""

    def leave(self, error: BaseException | None = None) -> None:
        """Let the others know that this process goes on no more, and why."""

    def sharing(
        self, starts: Mapping[str, int] | None = None, *, is_part: bool = True
    ) -> AbstractContextManager[None]:
        """Let models compute a part of what the processes have together.

        Parameters
        ----------
        starts : dict of str to int, optional
            See `v1tlearn.nn.sharing.Shared`.
        is_part : bool, default=True
            False where every process computes all of it.

        Returns
        -------
        context manager
        """
        return shared(Shared(self.rank, self.size if is_part else 1, self.total, starts or {}))


ALONE = Ranks()
