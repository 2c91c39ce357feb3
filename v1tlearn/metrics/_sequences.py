"""Responses over time, of one movie or several, as one array of all frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from v1tlearn._instead import refuse_no_array
from v1tlearn._values import as_array, shape_of


def joined(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Frames of all movies, one movie after the other, of both (frames, neurons)."""
    true, pred = _as_list(y_true, "y_true"), _as_list(y_pred, "y_pred")
    shapes = [[movie.shape for movie in movies] for movies in (true, pred)]
    if not true or shapes[0] != shapes[1] or any(len(s) != 2 or s[1] != shapes[0][0][1]
                                                 for s in shapes[0]):  # fmt: skip
        raise ValueError(
            f"y_true has movies of the shapes {shapes[0]}, y_pred of {shapes[1]}: expected the "
            "same ones, each (frames, neurons) and of the same neurons."
        )
    return np.concatenate(true), np.concatenate(pred)


def _as_list(movies: Any, name: str) -> list[np.ndarray]:
    """Movies as arrays; a matrix, or a list of its rows, is one movie."""
    refuse_no_array(name, movies, "responses")
    listed = isinstance(movies, list | tuple)
    depth = len(shape_of(movies[0]) or ()) + 1 if listed and len(movies) else np.ndim(movies)
    return [as_array(movie, name, of="frame") for movie in (movies if depth == 3 else [movies])]
