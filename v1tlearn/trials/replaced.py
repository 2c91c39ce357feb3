"""Trials with other responses or behaviour than the recorded ones; all else of them stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from v1tlearn.datasets.schema import STATISTICS
from v1tlearn.datasets.spontaneous import SPONTANEOUS
from v1tlearn.trials._reading import read, with_neurons
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


def with_behaviors(trials: Trials, behaviors: Mapping[str, np.ndarray]) -> Trials:
    """Put other behaviour in the place of the recorded one, ahead of any preprocessing.

    Parameters
    ----------
    trials : Trials
    behaviors : dict of str to ndarray of shape (n_trials, [n_times,] n_columns)
        Of mice here, their trials in their order, in the units of the recordings.

    Returns
    -------
    Trials
        Stimuli, responses, labels, statistics and preprocessing are those of `trials`, and are not
        copied. Trials that this view does not show keep their behaviour.

    Raises
    ------
    ValueError
        If a trial that is there several times was to have several behaviours.
    """
    recordings = dict(trials._recordings)
    for mouse, values in behaviors.items():
        recording, rows = recordings[mouse], trials.rows(mouse)[1]
        variable = recording.variables["behaviors"]
        every = np.array(read(variable, np.arange(recording.sizes["trial"])))
        if every.dtype.kind != "f":
            every = every.astype(np.float64)
        every[rows] = values
        if len(np.unique(rows)) < len(rows) and not np.array_equal(
            every[rows], np.asarray(values).astype(every.dtype), equal_nan=True
        ):
            raise ValueError(
                f"mouse {mouse!r}: some trials are there several times, and a trial cannot have "
                "several behaviours: give each once."
            )
        attrs = dict(variable.attrs)
        recordings[mouse] = recording.assign(behaviors=(variable.dims, every, attrs))
    return trials._copy(_recordings=recordings)


def recorded_behaviors(trials: Trials, mouse: str) -> np.ndarray:
    """Read the behaviour of one mouse as recorded, ahead of any preprocessing.

    Parameters
    ----------
    trials : Trials
    mouse : str
        One that has behaviour.

    Returns
    -------
    ndarray of shape (n_trials, [n_times,] n_columns)
    """
    return read(trials._recordings[mouse].variables["behaviors"], trials.rows(mouse)[1])
