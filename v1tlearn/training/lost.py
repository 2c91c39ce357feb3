"""Processes that end while others train with them: who it was, and why."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

import torch.distributed as dist

_PATIENCE = 5.0  # seconds in which those that are there say so


class LostProcessError(RuntimeError):
    """A process that trains with this one is gone, or did not answer in time."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the processes that train this model together do not find each other any more: {why} "
            "The first error that one of them printed says more. What was trained before "
            "is in the checkpoint_dir, if fit was given one: the same command goes on from there, "
            "with any number of processes."
        )
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.why,)


class LastWords:
    """What each process of the default group says when it ends, kept where the group was found.

    Parameters
    ----------
    rank, size : int
    """

    def __init__(self, rank: int, size: int) -> None:
        self._own, self._others = str(rank), [str(r) for r in range(size) if r != rank]
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.distributed_c10d._get_default_store()
        self._store = dist.PrefixStore(f"v1tlearn/{attempt}", store)
        before = sys.excepthook

        def say_and_print(kind: Any, error: BaseException, traceback: Any) -> None:
            """Tell the others of an error that ends the process, too."""
            self.say(error)
            before(kind, error, traceback)

        sys.excepthook = say_and_print

    def say(self, error: BaseException | None) -> None:
        """Say that this process goes on no more, and why."""
        why = ""
        if error is not None and not isinstance(error, LostProcessError):
            lines = str(error).splitlines() or [""]
            why = f"{type(error).__name__}: {lines[0]}".strip(" :")
        with suppress(Exception):  # where it was kept is gone, too
            self._store.set(self._own, why)

    def heard(self) -> str:
        """Who has ended, and why, in a sentence; "" where nobody knows."""
        self.say(None)
        silent, end = list(self._others), time.monotonic() + _PATIENCE
        with suppress(Exception):
            while silent and time.monotonic() < end:
                for other in [rank for rank in silent if self._store.check([rank])]:
                    silent.remove(other)
                    if why := self._store.get(other).decode():
                        return f"process {other} ended by {why.rstrip('.')}."
                time.sleep(0.05)
            if len(silent) == 1:
                return f"process {silent[0]} was killed, or does not answer."
            if silent:
                return f"processes {', '.join(silent)} were killed, or do not answer."
        return ""
