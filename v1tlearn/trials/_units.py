"""One axis for the neurons of all mice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

_EXACT = 2**53  # up to which float64 holds every integer
_LEVELS = ("mouse", "neuron")


def label_units(
    values: np.ndarray,
    neurons: Mapping[str, Mapping[str, xr.Variable]],
    *,
    name: str | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Put values of the neurons of all mice, one after another, under mouse and unit id.

    What is known of the neurons of some mice only is NaN for the others; integers that float64
    would round are objects then. What bears the name of one of the two levels cannot stand beside
    them.
    """
    sizes = [known["neuron"].size for known in neurons.values()]
    ids = [known["neuron"].values for known in neurons.values()]
    if len({part.dtype.kind for part in ids}) > 1:
        ids = [part.astype(object) for part in ids]  # numbers stay numbers beside text
    units = pd.MultiIndex.from_arrays(
        [np.repeat(list(neurons), sizes), np.concatenate(ids) if ids else []], names=_LEVELS
    )
    out = xr.DataArray(
        values,
        coords=xr.Coordinates.from_pandas_multiindex(units, "unit"),
        dims="unit",
        name=name,
        attrs=attrs,
    )
    labels = dict.fromkeys(label for known in neurons.values() for label in known)
    return out.assign_coords(
        {
            label: ("unit", _joined(label, neurons, sizes))
            for label in labels
            if label not in ("unit", *_LEVELS)
        }
    )


def _joined(
    label: str, neurons: Mapping[str, Mapping[str, xr.Variable]], sizes: Sequence[int]
) -> np.ndarray:
    parts = [
        pd.Series(known[label].values if label in known else np.nan, range(size))
        for known, size in zip(neurons.values(), sizes, strict=True)
    ]
    return join_values(parts).to_numpy()


def join_values(parts: Sequence[pd.Series]) -> pd.Series:
    """Values of several mice after each other; integers that float64 would round are objects."""
    joined = pd.concat(parts, ignore_index=True)
    whole = [part for part in parts if part.dtype.kind in "iu"]
    if joined.dtype.kind == "f" and any((part.abs() > _EXACT).any() for part in whole):
        return pd.concat([part.astype(object) for part in parts], ignore_index=True)
    return joined
