"""From the movies of one mouse, however they came, to arrays with one time axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from v1tlearn._values import as_array, as_responses, labels_along, order_like, shape_of
from v1tlearn.datasets.time_axis import frame_rate_of, pad, time_coordinate

# Axes of one movie, of the behaviour during it, and of the responses to it.
_AXES = {
    "stimuli": ("frames", "channels", "height", "width"),
    "behaviors": ("frames", "columns"),
    "responses": ("frames", "neurons"),
}
_COLUMNS = {"behaviors": "behavior", "responses": "neuron"}
_REMEDY = (
    "every variable needs one entry per frame: bring stimuli, behaviors and responses to one frame "
    "rate, as by counting spikes between the frames"
)


def stack_movies(mouse: str, part: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Variables with lists of movies stacked, and padded, to arrays; and how long movies are.

    None where trials are images. Of an array of movies each is as long as its last frame that is
    not all NaN.
    """
    part, series = dict(part), {}
    for name, axes in _AXES.items():
        if name in part and _is_series(part[name], len(axes)):
            series[name], part[name] = _series(mouse, name, part[name])
    counts = {name: np.array([len(s) for s in found]) for name, found in series.items()}
    stimuli = part["stimuli"]
    is_array, shape = "stimuli" not in counts, shape_of(stimuli) or ()
    if is_array and len(shape) != 5:
        if counts:
            name = next(iter(counts))
            raise ValueError(
                f"mouse {mouse!r}: {name} is a list of arrays {_said(name)}, one per movie, but "
                f"stimuli has shape {shape_of(stimuli)}: expected movies, an array (trials, time, "
                "channels, height, width) or a list of arrays (frames, channels, height, width)."
            )
        return part, None
    longest = shape[1] if is_array else int(counts["stimuli"].max())
    _check_counts(mouse, counts, longest)
    for name, movies in series.items():
        values = pad(movies, longest, 0 if name == "stimuli" else np.nan)
        part[name] = _labelled(values, _COLUMNS.get(name), part[name])
    for name in ("behaviors", "responses"):
        found = shape_of(part[name]) if name in part else None
        if found is not None and (len(found) != 3 or found[1] != longest):
            raise ValueError(
                f"mouse {mouse!r}: stimuli are movies of up to {longest} frames"
                f"{f', shape {shape}' if is_array else ''}, {name} has shape {found}: expected "
                f"(trials, {longest}, {_AXES[name][1]}); {_REMEDY}. Images have four axes, "
                "(trials, channels, height, width)."
            )
    n_frames = next(iter(counts.values()), None)
    if is_array:
        ends = _up_to_nan(as_array(stimuli, "stimuli"))
        if n_frames is None:
            n_frames = ends
        else:
            _check_array(mouse, ends, longest, next(iter(counts)), n_frames)
    assert n_frames is not None  # of lists, or of an array
    if "responses" in part and "responses" not in series:
        _check_padding(mouse, part["responses"], n_frames, longest)
    return part, n_frames


def time_of(mouse: str, part: Mapping[str, Any], n_frames: int, frame_rate: float | None) -> tuple:
    """The coordinate `time`, by the frame rate or by what labelled arrays tell of it."""
    told = {n: found for n in _AXES if (found := labels_along(part.get(n), "time")) is not None}
    if not told:
        return time_coordinate(n_frames, frame_rate)
    (first, labels), *others = told.items()
    for name, found in others:
        if not np.allclose(labels, found, rtol=0, atol=1e-6):
            raise ValueError(
                f"mouse {mouse!r}: {first} and {name} bear different times, "
                f"{list(labels[:3])}, ... and {list(found[:3])}, ...: {_REMEDY}."
            )
    time = ("time", np.asarray(labels), {"units": "s"} | part[first]["time"].attrs)
    own = frame_rate_of(xr.Dataset(coords={"time": time}))
    if frame_rate is not None and (own is None or not np.isclose(own, frame_rate, rtol=1e-3)):
        raise ValueError(
            f"mouse {mouse!r}: frame_rate is {frame_rate}, but {first} bear a coordinate time with "
            f"{own} frames per second: leave frame_rate out, or drop the coordinate."
        )
    return time


def _is_series(values: Any, ndim: int) -> bool:
    """Whether values are one array per movie."""
    objects = getattr(values, "ndim", 0) == 1 and values.dtype == object
    if not (isinstance(values, list | tuple) or objects) or not len(values):
        return False
    return len(shape_of(values[0]) or ()) == ndim


def _series(mouse: str, name: str, values: Any) -> tuple[list[np.ndarray], pd.Index | None]:
    """One array per movie, columns in the order of the first that labels them; and these labels."""
    where, read = f"mouse {mouse!r}: {name}", as_responses if name == "responses" else as_array
    along = _COLUMNS.get(name)
    wanted, out = None, []
    for trial, movie in enumerate(values):
        array = read(movie, f"{where} of trial {trial}")
        found = None if along is None else labels_along(movie, along)
        if wanted is None:
            wanted = found
        order = order_like(wanted, found, f"{where} of trial {trial} holds other columns", "column")
        out.append(array if order is None else array[:, order])
    shapes = {array.shape[1:] for array in out} | {out[0].shape[1:]}
    if len(shapes) > 1 or any(array.ndim != len(_AXES[name]) for array in out):
        raise ValueError(
            f"{where} are movies of the shapes {sorted({a.shape for a in out})[:4]}: expected "
            f"{_said(name)}, of which the frames alone differ from trial to trial."
        )
    if not all(map(len, out)):
        raise ValueError(f"{where}: trial {[len(a) for a in out].index(0)} has no frame.")
    return out, wanted


def _said(name: str) -> str:
    return f"({', '.join(_AXES[name])})"


def _labelled(values: np.ndarray, dim: str | None, labels: pd.Index | None) -> Any:
    if labels is None or dim is None:
        return values
    return xr.DataArray(values, dims=("trial", "time", dim), coords={dim: np.asarray(labels)})


def _check_counts(mouse: str, counts: Mapping[str, np.ndarray], longest: int) -> None:
    if not counts:
        return
    (first, wanted), *others = counts.items()
    for name, found in others:
        if len(found) != len(wanted):
            continue  # which is told where all variables are counted
        if (found != wanted).any():
            trial = int(np.argmax(found != wanted))
            raise ValueError(
                f"mouse {mouse!r}: trial {trial} has {wanted[trial]} frames of {first} and "
                f"{found[trial]} of {name}: {_REMEDY}."
            )
    if (wanted > longest).any():
        trial = int(np.argmax(wanted > longest))
        raise ValueError(
            f"mouse {mouse!r}: trial {trial} has {wanted[trial]} frames of {first}, stimuli "
            f"{longest}: {_REMEDY}."
        )


def _check_array(mouse: str, ends: np.ndarray, longest: int, name: str, counts: np.ndarray) -> None:
    """Refuse an array of stimuli that is longer than lists say that movies are."""
    if counts.max() < longest:
        raise ValueError(
            f"mouse {mouse!r}: stimuli have {longest} frames, the longest of {name} "
            f"{counts.max()}: {_REMEDY}."
        )
    if len(ends) == len(counts) and (ends < longest).any():
        _check_counts(mouse, {"stimuli": ends, name: counts}, longest)


def _check_padding(mouse: str, responses: Any, n_frames: np.ndarray, longest: int) -> None:
    """Refuse responses behind the last frame of a movie, which nobody would read."""
    if len(responses) != len(n_frames):
        return  # which is told where all variables are counted
    for trial in np.flatnonzero(n_frames < longest):
        rest = as_responses(responses[trial, n_frames[trial] :], f"mouse {mouse!r}: responses")
        if rest.dtype.kind == "f" and not np.isnan(rest).all():  # integers are told of elsewhere
            raise ValueError(
                f"mouse {mouse!r}: trial {trial} has {n_frames[trial]} frames of stimuli, and "
                f"responses of {longest}: expected NaN behind the last frame; {_REMEDY}."
            )


def _up_to_nan(stimuli: np.ndarray) -> np.ndarray:
    """Frames up to the last one that is not all NaN; at least one, whose NaN are then told of."""
    counts = np.full(*stimuli.shape[:2])
    if stimuli.dtype.kind != "f":
        return counts
    for trial, movie in enumerate(stimuli):
        while counts[trial] > 1 and np.isnan(movie[counts[trial] - 1]).all():
            counts[trial] -= 1
    return counts


def check_frame_rate(frame_rate: Any, *, movies: bool) -> float | None:
    """A frame rate, which images have none of."""
    if frame_rate is None:
        return None
    if isinstance(frame_rate, bool) or not isinstance(frame_rate, int | float | np.number):
        raise TypeError(f"frame_rate is {frame_rate!r}: expected a number of frames per second.")
    if not 0 < frame_rate < np.inf:
        raise ValueError(f"frame_rate is {frame_rate}: expected frames per second, above 0.")
    if not movies:
        raise ValueError(
            f"frame_rate is {frame_rate}, but stimuli are images, (trials, channels, height, "
            "width): movies have a time axis behind the trials."
        )
    return float(frame_rate)
