"""The cast of users' values to the float32 of a model, and the check that goes after it."""

from __future__ import annotations

import numpy as np

from v1tlearn.trials._places import in_trials
from v1tlearn.trials._view import View


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
