"""What callers hand over as scikit-learn's `y`, as the `Responses` of given trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from v1tlearn._values import as_dims, as_responses, labels_along
from v1tlearn.datasets.schema import DIMS
from v1tlearn.datasets.time_axis import pad, with_time
from v1tlearn.trials.responses import Responses
from v1tlearn.trials.trials import Trials


def target_of(trials: Trials, y: Any, call: str) -> Responses:
    """Read `y`, one response vector per trial; permuted within mice it is a target, too."""
    if isinstance(y, Responses):
        if not np.array_equal(y.mouse_ids, trials.mouse_ids):
            raise ValueError(
                "y must be trials.responses, trial by trial of the same mice: "
                f"{len(trials)} trials of {trials.mice} came with {len(y)} responses of {y.mice}. "
                "Was y permuted or split differently from the trials? Within mice it may be "
                "permuted, as permutation_test_score does with groups=trials.mouse_ids."
            )
        _check_time(trials, y)
        return _checked(trials, y._labelled_like(trials))
    one = isinstance(y, str | Mapping) or getattr(y, "ndim", 1) == 0 or not hasattr(y, "__len__")
    if one:
        raise TypeError(
            f"y is a {type(y).__name__}: expected trials.responses, or nothing: {call}(trials) "
            "takes those of the trials."
        )
    if isinstance(y, pd.Series):
        y = y.to_numpy()  # counted by place, whatever its index
    movies = trials.n_frames is not None
    y = as_dims(y, with_time(DIMS["responses"]) if movies else DIMS["responses"], "y")
    if len(y) != len(trials):
        raise ValueError(f"y has {len(y)} entries for {len(trials)} trials.")
    table = getattr(y, "ndim", 1) == 2 + movies
    if not table and np.ndim(y[0]) == 0:
        weights = " Weights of trials go by name: score(trials, sample_weight=weights)."
        raise ValueError(
            "y has one number per trial: expected one vector per trial, trials.responses."
            + weights * (call == "score")
        )
    if table and len(trials.mice) == 1 and labels_along(y, "neuron") is not None:
        y = _by_place(y)
        return _checked(trials, Responses.from_arrays({trials.mice[0]: y}, like=trials))
    matrix = as_responses(y, "y") if table else None
    values = {}
    for mouse in trials.mice:
        places = trials.rows(mouse)[0]
        if matrix is not None:
            values[mouse] = matrix[places]
            continue
        rows = [as_responses(y[place], f"mouse {mouse!r}: y") for place in places]
        if movies:
            values[mouse] = _padded(mouse, rows, trials)
            continue
        if len({row.shape for row in rows}) != 1 or rows[0].ndim != 1:
            raise ValueError(
                f"mouse {mouse!r}: y has vectors of the shapes {sorted({r.shape for r in rows})}: "
                "expected one vector per trial, as long as the mouse has neurons."
            )
        values[mouse] = np.stack(rows)
    return _checked(trials, Responses.from_arrays(values, like=trials))


def _check_time(trials: Trials, y: Responses) -> None:
    for mouse in trials.mice:
        wanted, found = (view._recordings[mouse].sizes.get("time") for view in (trials, y))
        if wanted != found:
            said = ["no time axis" if n is None else f"up to {n} frames" for n in (wanted, found)]
            raise ValueError(
                f"mouse {mouse!r}: the trials have {said[0]}, y has {said[1]}: y must be "
                "trials.responses, frame by frame of the same movies."
            )


def _padded(mouse: str, movies: list[np.ndarray], trials: Trials) -> np.ndarray:
    """One array (frames, neurons) per movie, on the time axis of the trials."""
    wanted = trials[trials.rows(mouse)[0]].n_frames
    assert wanted is not None
    for trial, (movie, count) in enumerate(zip(movies, wanted, strict=True)):
        if movie.ndim != 2 or len(movie) != count or movie.shape[1] != movies[0].shape[-1]:
            raise ValueError(
                f"mouse {mouse!r}: y has an array of shape {movie.shape} for its trial {trial}, a "
                f"movie of {count} frames: expected (frames, neurons)."
            )
    return pad(movies, trials._recordings[mouse].sizes["time"], np.nan)


def _by_place(y: Any) -> Any:
    """The same without labels of its trials, which are those of X, even where y was permuted."""
    if isinstance(y, pd.DataFrame):
        return y.reset_index(drop=True)
    return y.drop_vars([name for name, label in y.coords.items() if "trial" in label.dims])


def _checked(trials: Trials, target: Responses) -> Responses:
    for mouse, n_neurons in trials.n_neurons.items():
        n = target[target.rows(mouse)[0][:1]].get(mouse).shape[-1]
        if n_neurons and n != n_neurons:
            raise ValueError(
                f"mouse {mouse!r}: y has vectors of {n} responses, but the mouse has {n_neurons} "
                "neurons: y must be trials.responses, trial by trial of the same mice."
            )
    return target
