"""Responses of whole recordings, whatever of their trials a view shows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from v1tlearn.trials._reading import BLOCK, read
from v1tlearn.trials.trials import Trials


def blocks_of_recording(trials: Trials, mouse: str) -> Iterator[np.ndarray]:
    """Read the responses of a mouse's recording, also those of trials that are not in the view.

    Parameters
    ----------
    trials : Trials
        A view, which selects neurons.
    mouse : str

    Yields
    ------
    ndarray of shape (n_trials, n_neurons)
        Some trials, NaN where not recorded.

    Raises
    ------
    ValueError
        If the recording has no responses.
    """
    responses = trials.responses
    source, columns = responses._source(mouse), responses._columns.get(mouse)
    for start in range(0, len(source), BLOCK):
        yield read(source, np.arange(start, min(start + BLOCK, len(source))), columns)
