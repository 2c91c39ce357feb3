"""The time axis of movies: where it stands, what its frames are, and how many each trial has.

A movie is one trial. Trials that are shorter than others end at `n_frames`; what stands behind is
padding, which nothing reads: NaN in responses, anything in stimuli and behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.datasets.blocks import blocks_in_time

SECONDS, FRAMES = "s", "frame"  # units of `time`
TIME_NAME = "time since the first frame of the trial"

_EVEN = 1e-3  # of a frame, by which frames may stand off an even raster: what rounding leaves
_CHUNK_SECONDS = 2.0
_CHUNK_FRAMES = 60  # where nobody tells how long a frame lasts


def with_time(dims: Sequence[str]) -> tuple[str, ...]:
    """Insert the dimension `time` behind the trials.

    Parameters
    ----------
    dims : sequence of str
        Those of a variable of images, trial first.

    Returns
    -------
    tuple of str
    """
    return (dims[0], "time", *dims[1:])


def is_movie(dataset: xr.Dataset) -> bool:
    """Tell whether the trials of a recording are movies.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    bool
        Whether its stimuli, or where there are none anything along its trials, have a time axis.
    """
    stimuli = dataset.variables.get("stimuli")
    if stimuli is not None:
        return "time" in stimuli.dims
    return "time" in dataset.dims


def time_coordinate(n_frames: int, frame_rate: float | None) -> tuple[str, np.ndarray, dict]:
    """Make the coordinate `time` of movies.

    Parameters
    ----------
    n_frames : int
        Of the longest movie.
    frame_rate : float or None
        Frames per second; without it, time is counted in frames.

    Returns
    -------
    tuple
        As xarray takes it: dimension, values, and attributes with the unit, "s" or "frame".
    """
    frames = np.arange(n_frames, dtype=np.float64)
    attrs = {"long_name": TIME_NAME, "units": FRAMES if frame_rate is None else SECONDS}
    return "time", frames if frame_rate is None else frames / frame_rate, attrs


def frame_rate_of(dataset: xr.Dataset) -> float | None:
    """Frames per second of a recording.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    float or None
        None for images, for movies of one frame, and where time is counted in frames.
    """
    if "time" not in dataset.coords or dataset.sizes["time"] < 2:
        return None
    time = dataset["time"]
    if time.attrs.get("units", SECONDS) != SECONDS:
        return None
    values = time.values
    rate = (len(values) - 1) / (values[-1] - values[0])
    return float(f"{rate:.12g}")  # 30.0, where a division left 30.000000000000004


def frames_of(dataset: xr.Dataset) -> np.ndarray:
    """Count the frames of every trial.

    Parameters
    ----------
    dataset : Dataset
        Of movies.

    Returns
    -------
    ndarray of int, of shape (n_trials,)
        `n_frames`, or the whole time axis where the recording has none.
    """
    if "n_frames" in dataset.variables:
        return dataset["n_frames"].values.astype(np.int64)
    return np.full(dataset.sizes["trial"], dataset.sizes["time"])


def frames_per_chunk(array: xr.DataArray) -> int:
    """Frames that a file holds together, so that a part of a movie is read without the whole.

    Parameters
    ----------
    array : DataArray (trial, time, ...)

    Returns
    -------
    int
        Those of two seconds; 60 where time is counted in frames.
    """
    rate = frame_rate_of(array.to_dataset(name="array"))
    wanted = _CHUNK_FRAMES if rate is None else max(1, round(_CHUNK_SECONDS * rate))
    return min(wanted, array.sizes["time"])


def check_time(mouse: str, dataset: xr.Dataset) -> None:
    """Check the time axis of a recording, where it has one; nothing of its trials is read.

    Parameters
    ----------
    mouse : str
        Mouse id, for errors.
    dataset : Dataset

    Raises
    ------
    ValueError
        If movies have no `time`, or one that is not even or in another unit; if `n_frames` are no
        counts of frames; or integers are padded, which cannot tell that nothing was recorded.
    """
    if not is_movie(dataset):
        for name in ("time", "n_frames"):
            if name in dataset.variables:
                raise ValueError(
                    f"mouse {mouse!r}, {name}: came for stimuli without a dimension 'time', dims "
                    f"{dataset['stimuli'].dims}; expected it for movies alone: drop it, "
                    f"dataset.drop_vars({name!r}), or give movies (trial, time, channel, height, "
                    "width)"
                )
        return
    _check_raster(mouse, dataset)
    if "n_frames" in dataset.variables:
        _check_counts(mouse, dataset)


def _check_raster(mouse: str, dataset: xr.Dataset) -> None:
    n = dataset.sizes["time"]
    if "time" not in dataset.coords:
        raise ValueError(
            f"mouse {mouse!r}, time: the {n} frames of the movies have no times; expected a "
            "coordinate 'time' in seconds: dataset.assign_coords(time=numpy.arange("
            f"{n}) / frame_rate)"
        )
    time = dataset["time"]
    values, units = time.values, time.attrs.get("units", SECONDS)
    if time.dtype.kind not in "uif":
        raise ValueError(
            f"mouse {mouse!r}, time: dtype is {time.dtype}, expected seconds as numbers: "
            "dataset.assign_coords(time=seconds)"
        )
    if units not in (SECONDS, FRAMES):
        raise ValueError(
            f"mouse {mouse!r}, time: is in {units!r}, expected seconds, 's', or 'frame' where the "
            "frame rate is not known: convert it, and set its attribute 'units'"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"mouse {mouse!r}, time: holds NaN or infinite values, expected seconds")
    steps = np.diff(values.astype(np.float64))
    if n < 2:
        return
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        raise ValueError(
            f"mouse {mouse!r}, time: does not rise, {values[at]} s is followed by {values[at + 1]} "
            f"s at frame {at + 1}; expected seconds in rising order: sort the frames"
        )
    even = (values[-1] - values[0]) / (n - 1)
    # times in float32 are rounded, the more the later they are
    rounding = 4 * np.finfo(values.dtype).eps * abs(values).max() if values.dtype.kind == "f" else 0
    off = np.abs(steps - even)
    if (off > _EVEN * even + rounding).any():
        at = int(np.argmax(off))
        raise ValueError(
            f"mouse {mouse!r}, time: is not even, frame {at + 1} comes {steps[at]:g} s after the "
            f"one before, frames on average {even:g} s; expected one frame rate: bring stimuli, "
            "behaviors and responses to one"
        )


def _check_counts(mouse: str, dataset: xr.Dataset) -> None:
    counts, n = dataset["n_frames"].values, dataset.sizes["time"]
    if counts.dtype.kind not in "iu":
        raise ValueError(
            f"mouse {mouse!r}, n_frames: dtype is {counts.dtype}, expected whole numbers: "
            'dataset.assign_coords(n_frames=dataset.n_frames.astype("int64"))'
        )
    wrong = (counts < 1) | (counts > n)
    if wrong.any():
        trial = int(np.argmax(wrong))
        raise ValueError(
            f"mouse {mouse!r}, n_frames: trial {trial} has {counts[trial]} frames, expected 1 to "
            f"{n}, as many as the time axis has: correct the count, or drop the trial"
        )
    for name in ("responses", "expected_responses"):
        if name in dataset and dataset[name].dtype.kind in "iu" and (counts < n).any():
            trial = int(np.argmax(counts < n))
            raise ValueError(
                f"mouse {mouse!r}, {name}: dtype is {dataset[name].dtype}, but trial {trial} ends "
                f"after {counts[trial]} of {n} frames, behind which expected is NaN: convert them "
                'with .astype("float32"), and set what stands behind n_frames to NaN'
            )


def check_frames(mouse: str, name: str, array: xr.DataArray, n_frames: np.ndarray) -> None:
    """Check the numbers of movies, frame by frame as far as each trial goes, and its padding.

    Parameters
    ----------
    mouse, name : str
        For errors.
    array : DataArray (trial, time, ...)
        Read block by block.
    n_frames : ndarray of int, of shape (n_trials,)

    Raises
    ------
    ValueError
        If a frame that exists is not finite, but for NaN in `responses`; or responses stand where
        no frame is.
    """
    if array.dtype.kind != "f":
        return
    are_responses = name.endswith("responses")
    for trial, start, block in blocks_in_time(array):
        own = max(0, int(n_frames[trial]) - start)
        frames, padding = block[:own], block[own:]
        bad = np.isinf(frames) if name == "responses" else ~np.isfinite(frames)
        if bad.any():
            frame = int(np.argmax(bad.reshape(len(frames), -1).any(axis=1)))
            value = frames[frame][bad[frame]][0]
            raise ValueError(
                f"mouse {mouse!r}, {name}: {value} in frame {start + frame} of trial {trial}, "
                f"which has {n_frames[trial]} frames; expected finite values"
                + (" or NaN for 'not recorded'" if name == "responses" else "")
                + ": repair the value, correct n_frames, or drop the trial"
            )
        if are_responses and not np.isnan(padding).all():
            frame = own + int(np.argmax(~np.isnan(padding).reshape(len(padding), -1).all(axis=1)))
            raise ValueError(
                f"mouse {mouse!r}, {name}: there are responses in frame {start + frame} of trial "
                f"{trial}, which has {n_frames[trial]} frames; expected NaN behind the last one: "
                "correct n_frames, or set these responses to NaN"
            )


def pad(movies: Sequence[np.ndarray], n_frames: int, fill: Any) -> np.ndarray:
    """Stack arrays (frames, ...) of different lengths.

    Parameters
    ----------
    movies : sequence of ndarray
        Alike but for the number of frames.
    n_frames : int
        To which they are padded.
    fill : number
        What they are padded with; with NaN, whole numbers come as floats that hold them.

    Returns
    -------
    ndarray of shape (n_movies, n_frames, ...)
    """
    dtype = np.result_type(*(movie.dtype for movie in movies))
    if np.isnan(fill) and dtype.kind != "f":
        dtype = np.result_type(dtype, np.float32)
    out = np.full((len(movies), n_frames, *movies[0].shape[1:]), fill, dtype)
    for place, movie in enumerate(movies):
        out[place, : len(movie)] = movie
    return out
