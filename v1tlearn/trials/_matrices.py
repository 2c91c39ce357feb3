"""Matrices that callers hand over as responses, brought to the order of the trials they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._values import as_dims, as_responses, labels_along, order_like
from v1tlearn.datasets.time_axis import frames_of
from v1tlearn.trials._arithmetic import labels_of
from v1tlearn.trials._view import View


def as_matrix(mouse: str, values: Any, dims: tuple[str, ...]) -> Any:
    """A matrix whose rows can be read; those that are read from files stay there."""
    if isinstance(values, np.ma.MaskedArray | xr.DataArray | pd.DataFrame | list | tuple):
        name = f"mouse {mouse!r}: responses"
        return as_responses(as_dims(values, dims, name), name)
    return values


def matrix_like(mouse: str, values: Any, view: View) -> np.ndarray:
    """A matrix with its trials and neurons in the order of a view of this mouse."""
    name = f"mouse {mouse!r}: values"
    values = as_dims(values, view._dims(mouse), name)
    matrix = as_responses(values, name)
    if matrix.ndim != len(view._dims(mouse)) or len(matrix) != len(view):
        return matrix  # the caller says of which shape they are
    ids = view._known_neuron_ids(mouse)
    columns = order_like(
        None if ids is None else pd.Index(ids),
        labels_along(values, "neuron"),
        f"{name} are of other neurons than these trials",
    )
    matrix = matrix if columns is None else matrix[..., columns]
    for label in ("trial", "trial_id", "image_id"):
        given, known = labels_along(values, "trial", label), labels_of(view, label)
        if given is None or known is None:
            continue
        rows = order_like(pd.Index(known), given, f"{name} are of other trials", "trial")
        if rows is not None:
            return matrix[rows]
    return matrix


def check_frames_of(mouse: str, matrix: np.ndarray, view: View) -> None:
    """Refuse responses of other frames than the movies of a view of this mouse have."""
    longest, counts = view._recordings[mouse].sizes["time"], frames_of(view._recordings[mouse])
    counts = counts[view.rows(mouse)[1]]
    if matrix.shape[1] != longest:
        raise ValueError(
            f"mouse {mouse!r}: values have {matrix.shape[1]} frames, the movies up to {longest}: "
            "expected (trials, time, neurons) on the time axis of the trials, NaN behind the last "
            "frame of each."
        )
    padding = np.arange(longest) >= counts[:, None]
    if not padding.any():
        return
    known = np.ones(matrix.shape, bool) if matrix.dtype.kind != "f" else ~np.isnan(matrix)
    filled = (known.any(axis=2) & padding).any(axis=1)
    if filled.any():
        trial = int(np.argmax(filled))
        raise ValueError(
            f"mouse {mouse!r}: there are values behind the last of {counts[trial]} frames of its "
            f"trial {trial}: expected NaN there."
        )
