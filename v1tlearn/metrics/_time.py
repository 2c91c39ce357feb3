"""Movies in what the metrics accept: each frame becomes a trial, which its repeats share.

A statistic over trials is then one over all frames that there are, and one over the repeats of an
image is one over those of a frame. Responses behind the end of a movie are NaN, and do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from v1tlearn._equality import same_arrays
from v1tlearn._instead import refuse_no_array
from v1tlearn._models import by_text
from v1tlearn._values import as_dims, as_ids, as_responses, labels_along, shape_of
from v1tlearn.datasets.time_axis import pad
from v1tlearn.metrics._sources import rows_of
from v1tlearn.trials import Responses
from v1tlearn.trials._arithmetic import same_rows
from v1tlearn.trials.folding import fold_time, frame_ids

_DIMS = ("trial", "time", "neuron")


class Arguments(NamedTuple):
    """What a metric was given, by name."""

    y_true: Any
    y_pred: Any
    image_ids: Any
    mouse_ids: Any
    categories: Any
    sample_weight: Any


def frame_by_frame(
    given: Arguments, *, needs_images: bool, needs_categories: bool = False
) -> Arguments:
    """Fold the time axis of movies; arguments without one come back as they are."""
    timed = {}
    for name, y in (("y_true", given.y_true), ("y_pred", given.y_pred)):
        if y is None and name == "y_pred":
            continue
        if not isinstance(y, Responses):
            refuse_no_array(name, y, "responses")
        timed[name] = has_time(y)
    if not any(timed.values()):
        return given
    if needs_categories:
        raise ValueError(
            "responses have a time axis, but categories are of stimuli as wholes: the variance "
            "within a class would be that over time. Average over the frames first, "
            'responses.mean("time").'
        )
    if not all(timed.values()):
        without = next(name for name, has in timed.items() if not has)
        other = "y_pred" if without == "y_true" else "y_true"
        raise ValueError(
            f"{_said(other, getattr(given, other))}, with a time axis, but {without} has no time "
            "axis: expected both (trials, neurons), or both (trials, time, neurons), as "
            "trials.responses and model.predict(trials) are."
        )
    if isinstance(given.y_true, Responses) or isinstance(given.y_pred, Responses):
        return _of_responses(given, needs_images=needs_images)
    return _of_arrays(given)


def has_time(y: Any) -> bool:
    if isinstance(y, Responses):
        return y.n_frames is not None
    if isinstance(y, Mapping):
        return any(_depth(part) == 3 for part in y.values())
    if isinstance(y, list | tuple):
        return len(y) > 0 and _depth(y[0]) == 3
    if _is_ragged(y):
        return any(_depth(entry) == 2 for entry in y[:1])
    return _depth(y) == 3


def _said(name: str, y: Any) -> str:
    if _is_ragged(y):
        return f"{name}[0] has shape {shape_of(y[0])}"
    shape = None if isinstance(y, Responses | Mapping | list | tuple) else shape_of(y)
    return f"{name} is of movies" if shape is None else f"{name} has shape {shape}"


def _depth(values: Any) -> int:
    return len(shape_of(values) or ())


def _is_ragged(y: Any) -> bool:
    """Whether it is an object array of one entry per trial, as `numpy.asarray(responses)` is."""
    return getattr(y, "ndim", 0) == 1 and getattr(y, "dtype", None) == np.dtype(object)


# ---------------------------------------------------------------------------------- with Responses


def _of_responses(given: Arguments, *, needs_images: bool) -> Arguments:
    true, pred = given.y_true, given.y_pred
    if not isinstance(true, Responses):
        true = _labelled(true, pred, "y_true")
    elif pred is not None and not isinstance(pred, Responses):
        pred = _labelled(pred, true, "y_pred")
    if pred is not None:
        _check_frames(true, pred)
    same = pred is None or (
        true.mice == pred.mice and all(same_rows(true, pred, mouse) for mouse in true.mice)
    )
    known = all(true._has_image_ids(mouse, hashing=False) for mouse in true.mice)
    named = known or not same or (needs_images and given.image_ids is None)
    counts = _counts(true)
    folded = fold_time(true, "frames" if named else None)
    if pred is not None:
        other = fold_time(pred, "frames" if named else None)
        # one object tells that the trials are the same
        pred = other._copy(_recordings=folded._recordings) if same else other
    places = {mouse: true.rows(mouse)[0] for mouse in true.mice}
    of_mice = {mouse: counts[own] for mouse, own in places.items()}
    return _expanded(given, counts, of_mice)._replace(y_true=folded, y_pred=pred)


def _counts(view: Responses) -> np.ndarray:
    counts = view.n_frames
    assert counts is not None  # of movies
    return counts


def _labelled(y: Any, like: Responses, name: str) -> Responses:
    """Arrays as `Responses` to the movies of others; behind the last frames they are NaN."""
    frames, y = _counts(like), _turned(y, name)
    if isinstance(y, list | tuple):
        if len(y) != len(like.mice):
            raise ValueError(f"{name} is a list of {len(y)} recordings, of the mice {like.mice}.")
        y = dict(zip(like.mice, y, strict=True))
    values = {str(m): own for m, own in y.items()} if isinstance(y, Mapping) else {}
    if not values and len(y) != len(like):
        raise ValueError(f"{name} has {len(y)} trials, the other argument has {len(like)}.")
    for mouse, n_neurons in {} if values else like.n_neurons.items():
        places = like.rows(mouse)[0]
        if not _is_ragged(y):
            alone = len(like.mice) == 1
            values[mouse] = y if alone else np.asarray(rows_of(y, places))[..., :n_neurons]
            continue
        movies = [as_responses(y[place], name) for place in places]
        for movie, place in zip(movies, places, strict=True):
            if len(movie) != frames[place]:
                raise ValueError(
                    f"mouse {mouse!r}: {name}[{place}] has {len(movie)} frames, the movie has "
                    f"{frames[place]}: expected one row per frame."
                )
        values[mouse] = pad(movies, like._recordings[mouse].sizes["time"], np.nan)
    for mouse in like.mice:
        if mouse not in values:
            continue  # which is told where they are labelled
        own, longest = values[mouse], like._recordings[mouse].sizes["time"]
        there = np.arange(longest) < frames[like.rows(mouse)[0]][:, None]
        if isinstance(own, xr.DataArray) and {"trial", "time"} <= set(own.dims):
            values[mouse] = own.where(xr.DataArray(there, dims=("trial", "time")))
        elif np.shape(own)[:2] == there.shape:
            values[mouse] = np.where(there[..., None], _floats(own, name), np.nan)
    return Responses.from_arrays(values, like=like, name=name)


def _check_frames(true: Responses, pred: Responses) -> None:
    if len(true) != len(pred) or not np.array_equal(true.mouse_ids, pred.mouse_ids):
        return  # which is told where all forms are compared
    one, two = _counts(true), _counts(pred)
    if not same_arrays(one, two):
        trial = int(np.argmax(one != two))
        raise ValueError(
            f"mouse {str(true.mouse_ids[trial])!r}: trial {trial} has {one[trial]} frames in "
            f"y_true and {two[trial]} in y_pred: predict the same movies."
        )


# --------------------------------------------------------------------------------------- of arrays


def _of_arrays(given: Arguments) -> Arguments:
    true = _turned(given.y_true, "y_true")
    pred = None if given.y_pred is None else _turned(given.y_pred, "y_pred")
    _check_same_lengths(true, pred)
    longest = max(_longest(y) for y in (true, pred) if y is not None)
    n_trials = _n_trials(true)
    counts = np.full(sum(n_trials.values()) if isinstance(n_trials, dict) else n_trials, longest)
    per_mouse = n_trials if isinstance(n_trials, dict) else {}
    of_mice = {mouse: np.full(n, longest) for mouse, n in per_mouse.items()}
    return _expanded(given, counts, of_mice)._replace(
        y_true=_flat(true, "y_true", longest),
        y_pred=None if pred is None else _flat(pred, "y_pred", longest),
    )


def _check_same_lengths(true: Any, pred: Any) -> None:
    if pred is None:
        return
    if _is_ragged(true) and _is_ragged(pred) and len(true) == len(pred):
        for trial, (one, two) in enumerate(zip(true, pred, strict=True)):
            if len(one) != len(two):
                raise ValueError(
                    f"trial {trial} has {len(one)} frames in y_true and {len(two)} in y_pred: "
                    "predict the same movies."
                )
    elif not _is_ragged(true) and not _is_ragged(pred) and _longest(true) != _longest(pred):
        raise ValueError(
            f"y_true has {_longest(true)} frames, y_pred {_longest(pred)}: expected both on one "
            "time axis, NaN in y_true behind the last frame of each trial."
        )
    one, two = (labels_along(y, "trial") for y in (true, pred))
    if one is not None and two is not None and not one.equals(two):
        raise ValueError(
            "y_true and y_pred are labelled as different trials, or in another order: bring both "
            "to one, y_pred.sel(trial=y_true.trial)."
        )


def _longest(y: Any) -> int:
    if isinstance(y, Mapping):
        return max(_longest(part) for part in y.values())
    if isinstance(y, list | tuple):
        return max(map(_longest, y))
    return max(map(len, y)) if _is_ragged(y) else np.shape(y)[1]


def _turned(y: Any, name: str) -> Any:
    """Labelled arrays with their dimensions in the order of recordings."""
    if isinstance(y, Mapping):
        return {mouse: _turned(part, f"mouse {mouse!r}: {name}") for mouse, part in y.items()}
    if isinstance(y, list | tuple):
        return [_turned(part, name) for part in y]
    return as_dims(y, _DIMS, name)


def _n_trials(y: Any) -> int | dict[str, int]:
    if isinstance(y, Mapping):
        return {str(mouse): len(part) for mouse, part in y.items()}
    if isinstance(y, list | tuple):
        return {str(number): len(part) for number, part in enumerate(y)}
    return len(y)


def _flat(y: Any, name: str, longest: int) -> Any:
    """The same with one vector per frame."""
    if isinstance(y, Mapping):
        return {mouse: _flat(part, name, longest) for mouse, part in y.items()}
    if isinstance(y, list | tuple):
        return [_flat(part, name, longest) for part in y]
    if _is_ragged(y):
        out = np.empty(len(y) * longest, dtype=object)
        for trial, movie in enumerate(y):
            values = pad([_floats(movie, name)], longest, np.nan)[0]
            for frame in range(longest):
                out[trial * longest + frame] = values[frame]
        return out
    values = _floats(y, name)
    if values.ndim != 3:
        raise ValueError(f"{name} has shape {values.shape}: expected (trials, time, neurons).")
    if values.shape[1] < longest:
        values = pad(list(values), longest, np.nan)
    flat = values.reshape(-1, values.shape[2])
    return flat if not isinstance(y, xr.DataArray) else _with_labels(flat, y, longest)


def _with_labels(flat: np.ndarray, y: xr.DataArray, longest: int) -> xr.DataArray:
    trial, _, neuron = y.dims
    coords: dict[Any, Any] = {}
    for name, label in y.coords.items():
        if label.dims == (neuron,):
            coords[name] = label.variable
        elif label.dims == (trial,) and name != trial:
            values = np.repeat(label.values, longest)
            if name == "image_id":
                values = frame_ids(values, np.tile(np.arange(longest), len(y)))
            coords[name] = (trial, values)
    return xr.DataArray(flat, dims=(trial, neuron), coords=coords)


def _floats(values: Any, name: str) -> np.ndarray:
    array = as_responses(values, name)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


# ------------------------------------------------------------------------------------------ labels


def _expanded(given: Arguments, counts: np.ndarray, of_mice: Mapping[str, np.ndarray]) -> Arguments:
    """Labels and weights of trials as those of their frames."""
    per_recording = isinstance(given.y_true, list | tuple)  # so are mouse ids

    def expanded(name: str, values: Any, change: Callable[[Any, np.ndarray], Any]) -> Any:
        if values is None:
            return None
        if isinstance(values, Mapping):
            known = by_text(name, values)
            return {m: change(v, of_mice.get(m, np.ones(len(v), int))) for m, v in known.items()}
        if isinstance(values, list | tuple) and len(values) == len(of_mice) and _depth(values[0]):
            return [change(v, own) for v, own in zip(values, of_mice.values(), strict=True)]
        if len(values) != len(counts):
            raise ValueError(
                f"{name} has shape {np.shape(values)}, expected one value for each of "
                f"{len(counts)} trials."
            )
        return change(values, counts)

    return given._replace(
        image_ids=expanded("image_ids", given.image_ids, _names),
        mouse_ids=given.mouse_ids
        if per_recording
        else expanded("mouse_ids", given.mouse_ids, _repeated),
        categories=expanded("categories", given.categories, _repeated),
        sample_weight=expanded("sample_weight", given.sample_weight, _repeated),
    )


def _repeated(values: Any, counts: np.ndarray) -> Any:
    if labels_along(values, "trial") is not None:
        values = values.to_numpy()  # labels of trials name no frames
    return rows_of(values, np.repeat(np.arange(len(counts)), counts))


def _names(values: Any, counts: np.ndarray) -> np.ndarray:
    ids = as_ids(values, "image_ids")
    frames = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return frame_ids(np.repeat(ids, counts), frames)
