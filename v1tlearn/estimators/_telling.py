"""Who is told of the epochs of a training: a function, or several, some of which want to know more.

A function gets the record of every epoch. An object may also have ``begin(history)``, which is told
before the first epoch what was trained already, and ``end()``, which is told that it is over. Of
candidates both get the keyword `candidate`, a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from v1tlearn.training import is_first

Record = dict[str, float]
OnEpoch = Callable[[Record], Any]  # True ends the training


def as_one(on_epoch: Any) -> OnEpoch | None:
    """Join several callbacks to one, which asks each of them.

    Raises
    ------
    TypeError
        If one cannot be called.
    """
    if on_epoch is None:
        return None
    if isinstance(on_epoch, list | tuple):
        several = tuple(_checked(one, f"on_epoch[{place}]") for place, one in enumerate(on_epoch))
        return _Several(several) if several else None
    return _checked(on_epoch, "on_epoch")


def _checked(one: Any, name: str) -> OnEpoch:
    if not callable(one):
        raise TypeError(
            f"{name} is a {type(one).__name__}: expected a function, which is called "
            "with the record of every epoch."
        )
    if isinstance(one, type):
        raise TypeError(f"{name} is the class {one.__name__}: expected an object, of it or other.")
    return one


@contextmanager
def listening(
    on_epoch: OnEpoch | None, history: Sequence[Record], first: Callable[[Callable[[], Any]], Any]
) -> Iterator[None]:
    """Tell who wants to know that a training begins, and what was before, and that it ends.

    Of several processes it is told in the first alone, where `first` calls functions.
    """
    first(lambda: begin(on_epoch, history))
    try:
        yield
    except BaseException:  # after which the others may be gone
        if is_first():
            end(on_epoch)
        raise
    first(lambda: end(on_epoch))


def begin(on_epoch: Any, history: Sequence[Record], **labels: int) -> None:
    """Tell that a training begins, and of the epochs that are over already."""
    if hasattr(on_epoch, "begin"):
        on_epoch.begin([dict(record) for record in history], **labels)


def end(on_epoch: Any, **labels: int) -> None:
    """Tell that a training is over, however it ended."""
    if hasattr(on_epoch, "end"):
        on_epoch.end(**labels)


@dataclass(frozen=True)
class _Several:
    """Callbacks in their order, as one that processes can be sent."""

    callbacks: tuple[OnEpoch, ...]

    def __call__(self, record: Record) -> bool:
        """Tell all of them, whatever one of them answers."""
        answers = [one(dict(record)) for one in self.callbacks]
        return any(answer is True for answer in answers)

    def begin(self, history: Sequence[Record], **labels: int) -> None:
        """Pass on what was trained already."""
        for one in self.callbacks:
            begin(one, history, **labels)

    def end(self, **labels: int) -> None:
        """Pass on that it is over."""
        for one in self.callbacks:
            end(one, **labels)


@dataclass(frozen=True)
class Numbered:
    """Tells the records of one candidate from those of others."""

    on_epoch: OnEpoch
    number: int

    def __call__(self, record: Record) -> Any:
        """Tell of an epoch of this candidate."""
        return self.on_epoch({**record, "candidate": self.number})

    def begin(self, history: Sequence[Record]) -> None:
        """Tell of what there is of this candidate."""
        begin(self.on_epoch, history, candidate=self.number)

    def end(self) -> None:
        """Tell that this candidate is trained."""
        end(self.on_epoch, candidate=self.number)


def outside(on_epoch: Any) -> Any:
    """Let a function of the caller find NumPy as the caller has set it."""
    known = callable(on_epoch) and not isinstance(on_epoch, type)  # what is not is refused later
    return _Outside(on_epoch, np.geterr()) if known else on_epoch


@dataclass(frozen=True)
class _Outside:
    function: OnEpoch
    errors: Mapping[str, Any]

    def __call__(self, record: Record) -> Any:
        """Call the function."""
        with np.errstate(**self.errors):
            return self.function(record)

    def begin(self, history: Sequence[Record], **labels: int) -> None:
        """Pass on what was trained already."""
        with np.errstate(**self.errors):
            begin(self.function, history, **labels)

    def end(self, **labels: int) -> None:
        """Pass on that it is over."""
        with np.errstate(**self.errors):
            end(self.function, **labels)
