"""Where trials, and frames of movies, stand in the recording: said in errors."""

from __future__ import annotations

import numpy as np

from v1tlearn.trials._view import View

_NAMED = 5  # trials in an error


def in_trials(rows: np.ndarray, of: View | None = None, mouse: str = "") -> str:
    """Name trials by their places in the recording, the first few and a count.

    Those of a view `of` frames of movies are named by movie and frame.
    """
    if of is not None and (found := movies_and_frames(of, mouse, rows)) is not None:
        named = [f"{frame} of trial {trial}" for trial, frame in zip(*found, strict=True)]
        first = ", ".join(named[:_NAMED])
        if len(rows) <= _NAMED:
            return f"frame {first}" if len(rows) == 1 else f"the frames {first}"
        return f"{len(rows)} frames, {first}, ..."
    first = ", ".join(str(row) for row in rows[:_NAMED])
    if len(rows) <= _NAMED:
        return f"trial {first}" if len(rows) == 1 else f"the trials {first}"
    return f"{len(rows)} trials, {first}, ..."


def movies_and_frames(
    frames: View, mouse: str, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Tell of which trial of a recording, and which frame of it, folded rows are.

    None where the trials are images.
    """
    coords = frames._recordings[mouse].coords
    if "frame_number" not in coords:
        return None
    numbers = coords["frame_number"].values
    return (np.cumsum(numbers == 0) - 1)[rows], numbers[rows]
