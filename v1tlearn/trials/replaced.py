"""Trials with other responses than the recorded ones; all else that is known of them stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from v1tlearn.datasets.schema import STATISTICS
from v1tlearn.datasets.spontaneous import SPONTANEOUS
from v1tlearn.trials._reading import with_neurons
from v1tlearn.trials.trials import Trials


def with_responses(
    trials: Trials,
    responses: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
) -> Trials:
    """Put responses that were computed from the recorded ones in their place.

    Statistics of the recorded responses and spontaneous activity are left out, because they are in
    other units. Stimuli, behaviour and labels are those of `trials`, with their preprocessing, and
    are not copied.

    Parameters
    ----------
    trials : Trials
    responses : dict of str to ndarray of shape (n_trials, [n_times,] n_neurons)
        Of each mouse here, its trials in their order.
    expected : dict of str to ndarray
        As `responses`, the true rates, of mice that have them.
    attrs : dict
        Of the responses: `long_name` and `units`.

    Returns
    -------
    Trials
        What is not of these trials in the recordings counts as not recorded.
    """
    gone = [SPONTANEOUS, "expected_responses", *(f"responses_{name}" for name in STATISTICS)]
    recordings, neurons = dict(trials._recordings), dict(trials._neurons)
    for mouse in trials.mice:
        recording = with_neurons(recordings[mouse], neurons.pop(mouse, None))
        rows, dims = trials.rows(mouse)[1], recording["responses"].dims
        recording = recording.drop_vars([name for name in gone if name in recording])
        for name, values in (("responses", responses), ("expected_responses", expected)):
            if mouse in values:
                every = np.full(
                    (recording.sizes["trial"], *values[mouse].shape[1:]), np.nan, np.float32
                )
                every[rows] = values[mouse]
                recording[name] = (dims, every, dict(attrs))
        recordings[mouse] = recording
    return trials._copy(_recordings=recordings, _neurons=neurons)
