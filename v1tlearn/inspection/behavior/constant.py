"""Trials as they would have been with other behaviour, for predictions of what it changes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._values import plain
from v1tlearn.inspection._opened import check_trials
from v1tlearn.inspection.behavior._columns import check_columns, column_names, recorded
from v1tlearn.trials import Trials
from v1tlearn.trials.replaced import recorded_behaviors, with_behaviors

_STATISTICS = ("mean", "median")


def with_behavior(trials: Trials, behaviors: Mapping[str, Any]) -> Trials:
    """Set behaviour to a constant, in all trials, and leave everything else as it is.

    ``model.predict(with_behavior(trials, {"running_speed": 0}))`` predicts what neurons would have
    done had the animal stood still.

    Parameters
    ----------
    trials : Trials
        They stay as they are.
    behaviors : dict of str to value
        By column: a number, in the units of the recordings; "mean" or "median", over these trials
        of each mouse; or a dict of these by mouse.

    Returns
    -------
    Trials
        Of the same trials, with their preprocessing, which is applied to the constants, too.
        Columns that are not named are as recorded; of movies, padding behind the last frame stays.

    Raises
    ------
    TypeError
        If these are no trials, or `behaviors` is no dict.
    ValueError
        If a mouse has no such column, or a value is no finite number.

    See Also
    --------
    behavior_gain : How predictions change between two constants.

    Notes
    -----
    What a model predicts for behaviour that it never saw together is a guess: a derivative that
    belongs to another dilation, say. Set columns that belong together together.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import with_behavior
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=20, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> still = with_behavior(trials, {"running_speed": 0.0, "pupil_dilation": "mean"})
    >>> float(still["A"]["behaviors"].sel(behavior="running_speed").max())
    0.0
    """
    check_trials(trials)
    if not isinstance(behaviors, Mapping):
        raise TypeError(
            f"behaviors is a {type(behaviors).__name__}: expected a dict of values by column, such "
            'as {"running_speed": 0.0}.'
        )
    if not behaviors:
        raise ValueError("behaviors is empty: expected at least one column.")
    named = {str(column): value for column, value in behaviors.items()}
    check_columns(trials, named, "behaviors")
    changed = {}
    for mouse in trials.mice:
        values = recorded_behaviors(trials, mouse).astype(np.float64)
        names = column_names(trials, mouse)
        for column, value in named.items():
            constant = _constant(trials, mouse, column, value)
            own = values[..., names.index(column)]
            padding = np.isnan(own) if own.ndim > 1 else np.zeros(own.shape, bool)
            own[...] = np.where(padding, np.nan, constant)
        changed[mouse] = values
    return with_behaviors(trials, changed)


def _constant(trials: Trials, mouse: str, column: str, value: Any) -> float:
    if isinstance(value, Mapping):
        by_mouse = {str(key): one for key, one in value.items()}
        if strangers := [key for key in by_mouse if key not in trials.mice]:
            found = [repr(name) for key in strangers for name in guess(key, trials.mice)]
            raise ValueError(
                f"behaviors[{column!r}] names the mice {strangers}, the trials are of "
                f"{trials.mice}{did_you_mean(found)}"
            )
        if mouse not in by_mouse:
            raise ValueError(
                f"behaviors[{column!r}] has no value of mouse {mouse!r}: give one for each of "
                f"{trials.mice}."
            )
        value = by_mouse[mouse]
    value = plain(value, f"behaviors[{column!r}]")
    if isinstance(value, str) and value in _STATISTICS:
        known = recorded(trials, mouse, [column])
        known = known[np.isfinite(known)]
        if not known.size:
            raise ValueError(f"mouse {mouse!r}: no trial has a number in {column!r}.")
        return float(np.mean(known) if value == "mean" else np.median(known))
    if not isinstance(value, Real) or isinstance(value, bool) or not np.isfinite(float(value)):
        raise ValueError(
            f"mouse {mouse!r}: behaviors[{column!r}] is {value!r}: expected a finite number, "
            "'mean' or 'median'."
        )
    return float(value)
