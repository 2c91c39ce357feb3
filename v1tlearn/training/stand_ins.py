"""Other forward passes for some modules while a model is trained, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from torch import nn


class StandIns(AbstractContextManager):
    """Forward passes that stand in for those of modules within the context.

    The context can be entered again and again, one time after the other. Outside of it the modules
    are as they were, so that they can be copied and pickled between the epochs of a training.

    Parameters
    ----------
    forwards : dict of Module to callable
    """

    def __init__(self, forwards: Mapping[nn.Module, Callable[..., Any]]) -> None:
        self._forwards = dict(forwards)
        self._found: dict[nn.Module, Callable[..., Any]] = {}

    def __enter__(self) -> Self:
        self._found = {m: vars(m)["forward"] for m in self._forwards if "forward" in vars(m)}
        for module, forward in self._forwards.items():
            module.forward = forward
        return self

    def __exit__(self, *_: object) -> None:
        for module in self._forwards:
            del module.forward  # of this one object; that of its class comes forth again
        for module, forward in self._found.items():
            module.forward = forward
