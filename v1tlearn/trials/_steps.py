"""The preprocessing steps that a view remembers, and how they are applied to what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


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
