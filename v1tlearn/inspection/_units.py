"""Scores of models by mouse, neuron for neuron: who is aligned, and who cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._values import as_responses

# Per mouse the scores, and the unit ids where they are known.
Labelled = dict[str, tuple[np.ndarray, np.ndarray | None]]


def by_mouse(values: Any, name: str) -> Labelled:
    """Take scores apart by mouse, with unit ids where they bring them."""
    if isinstance(values, xr.DataArray):
        if values.ndim != 1 or not {"mouse", "neuron"} <= set(values.coords):
            raise ValueError(
                f"{name!r}: the scores have the dimensions {values.dims} and coordinates "
                f'{list(values.coords)}: expected one dimension with "mouse" and "neuron", as '
                'metrics give with multioutput="raw_values", or a dict by mouse.'
            )
        mice = np.asarray(values["mouse"].values)
        if mice.ndim != 1:
            raise ValueError(
                f"{name!r}: these are scores of the mouse {mice} only: give "
                f"{{mouse: scores}}, as in {{{str(mice)!r}: scores}}."
            )
        values = {mouse: values[mice == mouse] for mouse in pd.unique(mice)}
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{name!r}: scores are a {type(values).__name__}: expected a dict of arrays by mouse, "
            'or what metrics give with multioutput="raw_values".'
        )
    out: Labelled = {}
    for mouse, own in values.items():
        if str(mouse) in out:
            raise ValueError(f"{name!r}: two mice are called {str(mouse)!r}.")
        out[str(mouse)] = _scores(own, name), _ids(own, str(mouse), name)
    return out


def align(models: Mapping[str, Labelled]) -> dict[str, dict[str, np.ndarray]]:
    """Put the mice and neurons of all in the order of the first."""
    first = next(iter(models))
    sizes = {mouse: len(scores) for mouse, (scores, _) in models[first].items()}
    known: dict[str, tuple[str, np.ndarray]] = {}
    out: dict[str, dict[str, np.ndarray]] = {}
    for name, values in models.items():
        found = {mouse: len(scores) for mouse, (scores, _) in values.items()}
        if found != sizes:
            raise ValueError(
                f"{name!r} has scores of the mice and numbers of neurons {found}, {first!r} "
                f"of {sizes}: score all models on the same trials."
            )
        out[name] = {}
        for mouse in sizes:
            scores, ids = values[mouse]
            if ids is not None:
                whose, wanted = known.setdefault(mouse, (name, ids))
                scores = scores[_places(ids, wanted, mouse, name, whose)]
            out[name][mouse] = scores
    return out


def _scores(values: Any, name: str) -> np.ndarray:
    return as_responses(values, f"{name!r}: scores").astype(float).reshape(-1)


def _ids(values: Any, mouse: str, name: str) -> np.ndarray | None:
    if not isinstance(values, xr.DataArray):
        return None
    if values.ndim != 1:
        raise ValueError(
            f"{name!r}, mouse {mouse!r}: the scores have the dimensions {values.dims}: expected "
            "one, a score per neuron."
        )
    found = next((key for key in ("neuron", "unit") if key in values.coords), None)
    if found is None or values.coords[found].dims != values.dims:
        return None
    ids = pd.Series(values.coords[found].values).astype(str)  # 7 of one may be "7" of the other
    if ids.duplicated().any():
        twice = ids[ids.duplicated()].iloc[0]
        raise ValueError(f"{name!r}, mouse {mouse!r}: two neurons have the unit id {twice}.")
    return ids.to_numpy(dtype=object)


def _places(ids: np.ndarray, wanted: np.ndarray, mouse: str, name: str, whose: str) -> np.ndarray:
    """Where the neurons of one are found among those of another."""
    places = pd.Index(ids).get_indexer(pd.Index(wanted))
    if (places < 0).any():
        raise ValueError(
            f"{name!r}, mouse {mouse!r}: there is no score of unit {wanted[places < 0][0]}, which "
            f"{whose!r} has: score all models on the same neurons."
        )
    return places
