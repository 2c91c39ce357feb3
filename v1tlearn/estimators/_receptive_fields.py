"""Receptive fields that recordings bring, and whether they are those of `fit`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from v1tlearn._values import first_few
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.trials import Trials

NAME = "receptive_field"


def with_fields(fitted: Fitted, trials: Trials) -> Fitted:
    """Add the receptive fields of all mice to what is known of them.

    Raises
    ------
    ValueError
        If a mouse has none, or those of some neurons are zero, NaN or infinite.
    """
    mice = {}
    for mouse, known in fitted.mice.items():
        fields = _recorded(trials, mouse)
        if fields is None:
            raise ValueError(
                f"mouse {mouse!r}: the recording has no receptive_field (neuron, row, column), "
                "which condition='receptive_fields' and 'per_cell' need: add it to the recording, "
                "or set condition='video' or 'none'."
            )
        mice[mouse] = replace(known, statistics={**known.statistics, NAME: fields})
    return replace(fitted, mice=mice)


def check_fields(fitted: Fitted, trials: Trials) -> None:
    """Refuse recordings whose receptive fields are others than those of `fit`."""
    for mouse in trials.mice:
        known = fitted.mice[mouse].statistics.get(NAME) if mouse in fitted.mice else None
        found = None if known is None else _recorded(trials, mouse)
        if known is None or found is None:
            continue
        if found.shape != known.shape:
            raise ValueError(
                f"mouse {mouse!r}: receptive_field has the shape {found.shape} (neuron, row, "
                f"column), the model was fitted with {known.shape}: give the recording of the same "
                "cells, with the same maps, or without any: those of fit count."
            )
        differs = ~np.isclose(found, known, atol=1e-4).all((1, 2))
        if differs.any():
            raise ValueError(
                f"mouse {mouse!r}: receptive_field of {differs.sum()} of {len(known)} neurons, "
                f"{first_few(np.flatnonzero(differs), 'place')}, is another one than at fit: are "
                "these other cells, or in another order? Give the recording of the same cells, "
                "with the same maps, or without any: those of fit count."
            )


def _recorded(trials: Trials, mouse: str) -> np.ndarray | None:
    """Maps of a mouse, each over its largest absolute value, float32; None where there are none."""
    recording = trials._described(mouse)
    if NAME not in recording:
        return None
    fields = np.asarray(recording[NAME].transpose("neuron", ...).values, dtype=np.float64)
    lost = np.logical_or(~np.isfinite(fields).all((1, 2)), ~fields.any((1, 2)))
    if lost.any():
        raise ValueError(
            f"mouse {mouse!r}: receptive_field is zero, NaN or infinite for {lost.sum()} of "
            f"{len(lost)} neurons, {first_few(np.flatnonzero(lost), 'place')}: leave these out by "
            "trials.sel(neuron=...), or give them maps."
        )
    return (fields / np.abs(fields).max((1, 2), keepdims=True)).astype(np.float32)
