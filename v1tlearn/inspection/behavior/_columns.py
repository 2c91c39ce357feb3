"""Columns of behaviour: which there are, and their values in the units of the recordings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn.trials import Trials
from v1tlearn.trials.replaced import recorded_behaviors


def column_names(trials: Trials, mouse: str) -> list[str]:
    """Name the columns of a mouse.

    Parameters
    ----------
    trials : Trials
    mouse : str

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If it has no behaviour.
    """
    names = trials.behavior_names(mouse)
    if names is None:
        with_behavior = [m for m in trials.mice if trials.has("behaviors", m)]
        others = f"select mice that have, trials.sel(mouse_id={with_behavior})"
        raise ValueError(
            f"mouse {mouse!r} has no behaviour: {others if with_behavior else 'no mouse has any'}."
        )
    return names


def check_columns(trials: Trials, wanted: Iterable[str], name: str) -> None:
    """Check that all mice have columns.

    Parameters
    ----------
    trials : Trials
    wanted : iterable of str
    name : str
        Of the argument that asks for them.

    Raises
    ------
    ValueError
        If one lacks one.
    """
    wanted = list(wanted)
    if others := [column for column in wanted if not isinstance(column, str)]:
        raise TypeError(f"{name}: {others[0]!r} came, expected the name of a column of behaviour.")
    for mouse in trials.mice:
        known = column_names(trials, mouse)
        if unknown := [column for column in wanted if column not in known]:
            found = [repr(other) for column in unknown for other in guess(column, known)]
            raise ValueError(
                f"mouse {mouse!r}: {name} asks for {unknown}, the columns of behaviour are {known}"
                f"{did_you_mean(found)}"
            )


def recorded(trials: Trials, mouse: str, columns: Sequence[str]) -> np.ndarray:
    """Read columns of one mouse as recorded.

    Parameters
    ----------
    trials : Trials
    mouse : str
    columns : sequence of str

    Returns
    -------
    ndarray of shape (n_trials, [n_times,] n_columns)
        float64.
    """
    names = column_names(trials, mouse)
    values = recorded_behaviors(trials, mouse)
    return values[..., [names.index(column) for column in columns]].astype(np.float64)


def one_per_trial(trials: Trials, mouse: str, column: str) -> np.ndarray:
    """Read one column of one mouse as a number per trial: of movies the mean over time.

    Parameters
    ----------
    trials : Trials
    mouse : str
    column : str

    Returns
    -------
    ndarray of shape (n_trials,)

    Raises
    ------
    ValueError
        If a trial has no number.
    """
    values = recorded(trials, mouse, [column])[..., 0]
    if values.ndim > 1:
        known = np.isfinite(values)
        counts = known.sum(1)
        values = np.where(known, values, 0).sum(1) / np.where(counts, counts, np.nan)
    if missing := int((~np.isfinite(values)).sum()):
        raise ValueError(
            f"mouse {mouse!r}: {column!r} is not a finite number in {missing} of {len(values)} "
            "trials: leave these out."
        )
    return values
