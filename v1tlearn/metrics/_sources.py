"""One argument of a metric, in whatever form it comes: its trials, neurons and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._instead import refuse_no_array
from v1tlearn._models import by_text
from v1tlearn._values import (
    aligned_vectors,
    as_dims,
    as_ids,
    as_responses,
    labels_along,
    shape_of,
)
from v1tlearn.trials._arithmetic import labels_of

DIMS = ("trial", "neuron")


def rows_of(values: Any, places: np.ndarray) -> Any:
    if isinstance(values, (list, tuple)):
        return [values[place] for place in places]
    return values.iloc[places] if hasattr(values, "iloc") else values[places]


@dataclass(frozen=True)
class Source:
    """One argument, `y_true` or `y_pred`."""

    name: str
    n_trials: int
    matrix: Callable[[str, np.ndarray], np.ndarray]  # (mouse, flat positions) -> (n, neurons)
    neurons: Callable[[str, np.ndarray], dict[str, xr.Variable]] = lambda mouse, at: {}
    # (mouse, flat positions, name) -> (n,); None where the argument does not tell
    label: Callable[[str, np.ndarray, str], np.ndarray | None] = lambda mouse, at, name: None
    # (mouse, flat positions) -> the index of these trials, where the argument bears one
    trials: Callable[[str, np.ndarray], pd.Index | None] = lambda mouse, at: None
    mouse_ids: np.ndarray | None = None  # (n_trials,)
    responses: Any = None  # the Responses itself; its image ids can cost a pass over the stimuli
    mice: list[str] | None = None
    per_mouse: bool = False  # a dict or list of matrices: addressed by mouse, not by position
    lengths: np.ndarray | None = None  # (n_trials,) neurons per trial of a ragged argument
    dense: bool = False  # one matrix, whose columns at the right end may be padding


def source_of(name: str, y: Any, keys: list[str] | None) -> Source:
    refuse_no_array(name, y, "responses")
    if all(hasattr(y, attribute) for attribute in ("mouse_ids", "mice", "rows", "get")):
        if hasattr(type(y), "responses"):
            raise TypeError(
                f"{name} is a Trials; pass the Responses that predict gave, model.predict(trials)."
            )
        return Source(
            name,
            len(y),
            lambda mouse, at: as_responses(y.get(mouse), f"mouse {mouse!r}: {name}"),
            lambda mouse, at: neuron_coordinates(y[at[:1]][mouse]),
            lambda mouse, at, label: labels_of(y[at], label),
            mouse_ids=np.asarray(y.mouse_ids).astype(str),
            responses=y,
            mice=[str(mouse) for mouse in y.mice],
        )
    if is_list_of_matrices(y):
        if keys is None or len(keys) != len(y):
            raise ValueError(
                f"{name} is a list of {len(y)} recordings, y_true "
                + ("is not a list" if keys is None else f"is a list of {len(keys)}")
                + ": give both as lists of the same mice."
            )
        y = dict(zip(keys, y, strict=True))
    if isinstance(y, Mapping):
        whose = {mouse: f"mouse {mouse!r}: {name}" for mouse in by_text(name, y)}
        given = {m: as_dims(part, DIMS, whose[m]) for m, part in by_text(name, y).items()}
        matrices = {m: as_responses(part, whose[m]) for m, part in given.items()}
        for mouse, matrix in matrices.items():
            if matrix.ndim != 2:
                raise ValueError(
                    f"mouse {mouse!r}: {name} has shape {matrix.shape}, expected (trials, neurons)."
                )
        lengths = [len(matrix) for matrix in matrices.values()]
        return Source(
            name,
            sum(lengths),
            lambda mouse, at: matrices[mouse],
            lambda mouse, at: neuron_coordinates(given[mouse]),
            lambda mouse, at, label: _trial_label(given[mouse], label),
            lambda mouse, at: trials_of(given[mouse]),
            np.repeat(np.array(list(matrices), dtype=str), lengths),
            mice=list(matrices),
            per_mouse=True,
        )
    return _flat_source(name, y)


def trials_of(y: Any) -> pd.Index | None:
    """Labels of the trials themselves, where an array bears them."""
    return labels_along(y, str(y.dims[0]) if isinstance(y, xr.DataArray) else "trial")


def _trial_label(y: Any, name: str) -> np.ndarray | None:
    """Label of each trial of a DataArray (trial, neuron), as `responses["A"]` is one."""
    if not isinstance(y, xr.DataArray):
        return None
    label = labels_along(y, str(y.dims[0]), name)
    return None if label is None else as_ids(label, f"{name} of the trials")


def neuron_coordinates(y: Any) -> dict[str, xr.Variable]:
    """What a DataArray or a table (trial, neuron) tells of its neurons; "neuron" are the ids."""
    if isinstance(y, pd.DataFrame):
        return {"neuron": xr.IndexVariable("neuron", labels_along(y, "neuron"))}
    if not isinstance(y, xr.DataArray) or y.ndim != 2:
        return {}
    dim = y.dims[1]
    return {
        "neuron" if name == dim else str(name): coordinate.variable
        for name, coordinate in y.coords.items()
        if coordinate.dims[:1] == (dim,)
    }


def _flat_source(name: str, y: Any) -> Source:
    ragged = isinstance(y, (list, tuple)) and len({shape_of(vector) for vector in y}) > 1
    objects = getattr(y, "ndim", 0) == 1 and y.dtype == object
    labelled = isinstance(y, list | tuple) and any(
        isinstance(v, pd.Series | xr.DataArray) for v in y
    )
    if not (ragged or objects or labelled):
        shape = shape_of(y) or as_responses(y, name).shape  # which says what is ragged
        if len(shape) != 2:
            raise ValueError(
                f"{name} has shape {shape} and dtype {getattr(y, 'dtype', object)}; expected "
                "(trials, neurons), a 1-D object array of one vector per trial, a Responses, or a "
                "dict or list of (trials, neurons) per mouse. For one neuron reshape to (-1, 1)."
            )
        of_columns = neuron_coordinates(y)
        return Source(
            name,
            shape[0],
            lambda mouse, at: as_responses(rows_of(y, at), f"mouse {mouse!r}: {name}"),
            lambda mouse, at: of_columns,
            lambda mouse, at, label: None if (own := _trial_label(y, label)) is None else own[at],
            lambda mouse, at: None if (own := trials_of(y)) is None else own[at],
            dense=True,
        )
    given = list(y)
    vectors = [as_responses(vector, name) for vector in given]
    wrong = [i for i, vector in enumerate(vectors) if vector.ndim != 1]
    if wrong:
        raise ValueError(
            f"{name}[{wrong[0]}] has shape {vectors[wrong[0]].shape}; a ragged {name} holds one "
            "vector (neurons,) per trial."
        )
    lengths = np.array([len(vector) for vector in vectors], dtype=np.int64)

    def of_mouse(mouse: str, at: np.ndarray) -> np.ndarray:
        if len(np.unique(lengths[at])) > 1:
            raise ValueError(
                f"mouse {mouse!r}: trials of {name} have {lengths[at].min()} to "
                f"{lengths[at].max()} neurons; all trials of a mouse must have the same."
            )
        return np.stack(aligned(mouse, at)[0])

    def aligned(mouse: str, at: np.ndarray) -> tuple[list[np.ndarray], pd.Index | None]:
        return aligned_vectors([given[i] for i in at], f"mouse {mouse!r}: {name}", at.tolist())

    def neurons(mouse: str, at: np.ndarray) -> dict[str, xr.Variable]:
        ids = aligned(mouse, at)[1]
        return {} if ids is None else {"neuron": xr.IndexVariable("neuron", ids)}

    by_length = lengths if ragged or objects else None  # tells mice apart
    return Source(name, len(vectors), of_mouse, neurons, lengths=by_length)


def is_list_of_matrices(y: Any) -> bool:
    return isinstance(y, (list, tuple)) and len(y) > 0 and len(shape_of(y[0]) or ()) == 2
