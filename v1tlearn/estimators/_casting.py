"""The cast of users' values to the float32 of a model, and the check that goes after it."""

from __future__ import annotations

import numpy as np

from v1tlearn.estimators._movies import movies_and_frames
from v1tlearn.trials._view import View

_NAMED = 5  # trials in an error


def float32(
    values: np.ndarray,
    mouse: str,
    what: str,
    rows: np.ndarray,
    *,
    column: str | None = None,
    missing: bool = False,
    of: View | None = None,
) -> np.ndarray:
    """Cast values (n_trials, ...) of these trials of a recording; NaN stays where it is allowed.

    With a view `of` trials that are frames of movies, errors name the movies.
    """
    with np.errstate(over="ignore"):
        cast = values.astype(np.float32, copy=False)
    lost = np.isinf(cast) if missing else ~np.isfinite(cast)
    if lost.any():
        where = in_trials(rows[lost.reshape(len(lost), -1).any(axis=1)], of, mouse)
        raise ValueError(
            f"mouse {mouse!r}: {what} hold {'' if missing else 'NaN or '}infinite values, or such "
            f"as are too large for float32, in {f'{[column]}, ' * bool(column)}{where}: "
            f"leave these trials out{' or fill the gaps' * bool(column)}."
        )
    return cast


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
