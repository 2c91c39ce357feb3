"""What a writer is, and the models of a moment that several of them write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import v1tlearn as v1


@dataclass(frozen=True)
class Writer:
    """One kind of what is written.

    Attributes
    ----------
    write : callable
        Writes version 0 or 1 into a folder.
    read : callable
        Which version is in a folder, None where there is none; raises where something is taken for
        whole that is not.
    replaces : bool
        Whether one version takes the place of the other; or both stay beside each other.
    keeps_parts : bool
        Whether what came so far stays, to go on from.
    """

    write: Callable[[Path, int], None]
    read: Callable[[Path], int | None]
    replaces: bool = True
    keeps_parts: bool = False


def which(found, known, what):
    for version, expected in enumerate(known):
        if np.array_equal(found, expected):
            return version
    raise AssertionError(f"{what} is none of those that were written")


def small(kind=v1.CNNRegressor, **params):
    """A model of a moment."""
    sizes = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 3, "hidden_kernel": 3}
    common = {"batch_size": 8, "max_epochs": 1, "device": "cpu", "random_state": 0}
    return kind(**{**sizes, **common, **params})
