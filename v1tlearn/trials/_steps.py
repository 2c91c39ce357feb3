"""The preprocessing steps that a view remembers, and how they are applied to what it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import xarray as xr

from v1tlearn.trials._reading import read

_PROCESSED_BYTES = 2**25  # of what was recorded, in float32, that steps are applied to at once


class Step(Protocol):
    """One fitted preprocessing step that a view remembers and applies to what it reads."""

    def stimuli(self, mouse_id: str, images: np.ndarray) -> np.ndarray:
        """Process images of shape (trials, channels, height, width)."""

    def behaviors(self, mouse_id: str, values: np.ndarray, names: list[str]) -> np.ndarray:
        """Process behaviour of shape (trials, columns)."""


def processed(
    values: np.ndarray,
    steps: Sequence[Step],
    mouse_id: str,
    behavior_names: list[str] | None,
    *,
    movies: bool,
) -> np.ndarray:
    """Apply steps to behaviour, of which there are names, or to stimuli; of movies to frames."""
    shape = values.shape[:2]
    if movies:
        values = values.reshape(-1, *values.shape[2:])
    for step in steps:
        if behavior_names is None:
            values = step.stimuli(mouse_id, values)
        else:
            values = step.behaviors(mouse_id, values, behavior_names)
    return values.reshape(*shape, *values.shape[1:]) if movies else values


def read_processed(
    variable: xr.Variable,
    rows: np.ndarray,
    steps: Sequence[Step],
    mouse_id: str,
    *,
    behavior_names: list[str] | None,
    movies: bool,
) -> np.ndarray:
    """Read rows, in any order, and apply steps to some of them after the others.

    What steps make may be much smaller than what was recorded, which is never in memory as a whole.
    """
    n_bytes = 4 * math.prod(variable.shape[1:])  # of a trial in float32
    step = max(1, _PROCESSED_BYTES // max(1, n_bytes))
    out: np.ndarray | None = None
    for start in range(0, max(1, len(rows)), step):
        some = read(variable, rows[start : start + step])
        values = processed(some, steps, mouse_id, behavior_names, movies=movies)
        if len(rows) <= step:
            return values
        if out is None:
            out = np.empty((len(rows), *values.shape[1:]), values.dtype)
        out[start : start + step] = values
    assert out is not None  # one part is there, of no trials if need be
    return out
