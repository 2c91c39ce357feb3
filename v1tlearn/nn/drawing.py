"""Random numbers of a part of a batch: those that its rows have where the batch passes as a whole.

Parts are what one of several processes computes, and what passes a model at once where memory is
short. Whoever trains tells which one it is (`part`), and layers that draw ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Places(NamedTuple):
    """Where the rows of a part are in their batch.

    Attributes
    ----------
    rows : Tensor of int64 of shape (n_rows,)
        On the CPU.
    whole : int
        Rows of the batch.
    """

    rows: Tensor
    whole: int

    def spread(self, n: int) -> Places | None:
        """Places of `n` rows, as many to each of these; None where that does not come out even."""
        each, left = divmod(n, len(self.rows))
        if left:
            return None
        rows = (each * self.rows[:, None] + torch.arange(each)).flatten()
        return Places(rows, each * self.whole)


@dataclass
class Part:
    """A part of a batch that passes a model.

    Attributes
    ----------
    generator : Generator
        Draws for the whole batch; of the device of the data.
    places : Places
        Of the trials of all mice, one mouse after the other.
    mice : dict of str to Places
        Of the trials of each mouse, among its own.
    states : dict of str to Tensor
        From where the generator went on for the core, for each mouse, and afterwards, in the first
        part of the batch, which has all mice. The other parts do so, too.
    """

    generator: torch.Generator
    places: Places
    mice: Mapping[str, Places]
    states: dict[str | object, Tensor] = field(default_factory=dict)

    def go_on(self, name: str | object) -> None:
        """Draw what the first part of the batch drew, from some point on."""
        if name in self.states:
            self.generator.set_state(self.states[name])
        else:
            self.states[name] = self.generator.get_state()


_CORE, _END = object(), object()  # beside the names of mice
_own = threading.local()  # the part that this thread computes, and the places of what draws


@contextmanager
def part(own: Part) -> Iterator[None]:
    """Within, models compute a part of a batch.

    Parameters
    ----------
    own : Part
    """
    own.go_on(_CORE)
    with _at(own, own.places):
        yield
    own.go_on(_END)


@contextmanager
def of_mouse(mouse: str) -> Iterator[None]:
    """Within, what draws sees the trials of one mouse alone.

    Parameters
    ----------
    mouse : str
    """
    now = _now()
    if now is None:
        yield
        return
    now[0].go_on(mouse)
    with _at(now[0], now[0].mice[mouse]):
        yield


@contextmanager
def _at(own: Part, where: Places) -> Iterator[None]:
    before, _own.now = _now(), (own, where)
    try:
        yield
    finally:
        _own.now = before


def _now() -> tuple[Part, Places] | None:
    return getattr(_own, "now", None)


def places(n: int) -> Places | None:
    """Where rows that pass a layer are in the batch.

    Parameters
    ----------
    n : int
        Rows: a number of them per trial, one trial after the other.

    Returns
    -------
    Places or None
        None where they are no part of a batch, or do not belong to its trials.
    """
    now = _now()
    return None if now is None else now[1].spread(n)


def seed(where: Places | None) -> int:
    """Draw what a dropout follows from.

    Parameters
    ----------
    where : Places or None
        From `places`; the seed is that of the whole batch.

    Returns
    -------
    int
    """
    now = _now()
    generator = None if now is None or where is None else now[0].generator
    return int(torch.randint(2**62, (), device="cpu", generator=generator))


def drawn(draw: Callable[[int], Tensor], n: int) -> Tensor:
    """Random numbers of some rows.

    Parameters
    ----------
    draw : callable
        ``draw(n)`` draws for n rows, by torch's default generator.
    n : int
        Rows that pass a layer, see `places`.

    Returns
    -------
    Tensor of shape (n, ...)
        Where these are a part of a batch, the own rows of what is drawn for all of it.
    """
    now, where = _now(), places(n)
    if now is None or where is None:
        return draw(n)
    generator = now[0].generator
    default = _default(generator.device)
    before = default.get_state()
    default.set_state(generator.get_state())
    try:
        whole = draw(where.whole)
        generator.set_state(default.get_state())
    finally:
        default.set_state(before)
    return whole[where.rows.to(whole.device)]


def _default(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    return getattr(torch, device.type).default_generators[device.index or 0]


def drawn_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Let a forward pass be computed again for its gradient, as `torch.utils.checkpoint` does.

    Returns
    -------
    context manager, context manager
        Of the forward pass, and of its repetition, which draws the same.
    """
    now = _now()
    if now is None:
        return nullcontext(), nullcontext()
    own, where = now
    return nullcontext(), _again(own, where, own.generator.get_state())


@contextmanager
def _again(own: Part, where: Places, state: Tensor) -> Iterator[None]:
    """Within, draw as from an earlier state, in whatever thread."""
    after = own.generator.get_state()
    own.generator.set_state(state)
    try:
        with _at(own, where):
            yield
    finally:
        own.generator.set_state(after)
