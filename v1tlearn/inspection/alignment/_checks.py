"""Options that the analyses of an alignment share, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from v1tlearn._values import as_whole, plain
from v1tlearn.inspection.alignment._pairs import Pairs
from v1tlearn.inspection.alignment._ranks import MEAN
from v1tlearn.trials import Trials


def check_mean_is_free(pairs: Sequence[Pairs]) -> None:
    """Check that no mouse is called as the mean over mice is.

    Parameters
    ----------
    pairs : sequence of Pairs

    Raises
    ------
    ValueError
        If one is.
    """
    if any(own.mouse == MEAN for own in pairs):
        raise ValueError(
            f"a mouse is called {MEAN!r}, as the mean over mice is in the answer: give it another "
            "name."
        )


def pick_trials(trials: Trials, n_trials: Any, shown: Sequence[int] | None) -> list[int]:
    """Places of the trials that a display shows: those asked for, or the first of each image.

    Parameters
    ----------
    trials : Trials
    n_trials : int
    shown : sequence of int or None

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        If there are none, or one is not there.
    """
    if shown is None:
        n_trials = as_whole(n_trials, "n_trials")
        first = np.unique(trials.image_ids, return_index=True)[1]
        return sorted(first.tolist())[:n_trials]
    places = np.asarray(plain(shown, "shown"))
    n = len(trials)
    if places.ndim != 1 or not places.size or places.dtype.kind not in "iu":
        raise ValueError(f"shown={shown!r}: expected places of trials, at least one.")
    if places.min() < -n or places.max() >= n:
        raise ValueError(f"shown={shown!r}: expected places below {n}, the number of trials.")
    return (places % n).tolist()
