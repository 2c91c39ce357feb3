"""Selecting trials by number: the check of what stands between the brackets of a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._values import as_array, holds_mask, labels_along

LabelsOf = Callable[[], Mapping[str, np.ndarray]]


def trial_key(key: Any, view: str, n_trials: int, labels: LabelsOf) -> Any:
    """Check an index of the trial axis; scikit-learn writes ``x[indices, ...]``.

    `labels` gives those of the trials by name, and is asked where a mask bears some.
    """
    if isinstance(key, tuple):
        key = tuple(k for k in key if k is not Ellipsis)
        if len(key) != 1:
            raise IndexError(f"{view} has one axis (trials), but {len(key)} indices came.")
        key = key[0]
    if isinstance(key, slice):
        return key
    labelled = key if isinstance(key, pd.Series | xr.DataArray) else None
    key = as_array(key, "the index of trials") if holds_mask(key) else np.asarray(key)
    if key.dtype == bool and key.shape != (n_trials,):
        raise IndexError(
            f"a mask of shape {key.shape} came for {n_trials} trials: expected one truth "
            "value per trial."
        )
    if key.dtype == bool and labelled is not None:
        _check_labels_of_mask(labelled, n_trials, labels())
    if key.size == 0:
        key = key.astype(np.int64)
    if key.dtype.kind not in "biu" or key.ndim > 1:
        raise IndexError(
            f"trials are selected by a slice, a mask or integers, not by {key.dtype} of shape "
            f"{key.shape}; by label: sel(tier=..., mouse_id=...)."
        )
    if key.dtype.kind != "b" and key.size:
        low, high = int(key.min()), int(key.max())
        if low < -n_trials or high >= n_trials:
            raise IndexError(f"trial {high if high >= n_trials else low} of {n_trials}.")
    return np.atleast_1d(key)


def _check_labels_of_mask(
    mask: pd.Series | xr.DataArray, n_trials: int, labels: Mapping[str, np.ndarray]
) -> None:
    """Refuse a mask whose labels are not those of the trials in their order."""
    dim = str(mask.dims[0]) if isinstance(mask, xr.DataArray) else "trial"
    counted = pd.RangeIndex(n_trials)
    for name in (None, *labels):
        found = labels_along(mask, dim, name)
        known = labels.get(name or "trial", counted)
        if (
            found is None
            or found.equals(counted)
            or found.map(str).equals(pd.Index(known).map(str))
        ):
            continue
        raise IndexError(
            f"the mask of trials bears the labels {name or 'trial'} {list(found[:5])}, ..., "
            "not those of these trials in their order: bring it to their order, or give "
            "mask.to_numpy() where its labels mean nothing."
        )
