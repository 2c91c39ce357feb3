"""Movies for models of images, as their frames or not at all; and what a model of movies asks."""

from __future__ import annotations

import numpy as np

from v1tlearn.trials import Trials
from v1tlearn.trials.folding import FRAME_RATE, fold_time


def frames_of_movies(trials: Trials) -> Trials:
    """Frames as trials to be predicted; repeats share their ids, as far as movies bear some."""
    named = all("image_id" in trials._recordings[mouse].coords for mouse in trials.mice)
    return fold_time(trials, "frames" if named else None)


def refuse_movies(trials: Trials) -> None:
    """Raise where trials are movies, for those who know images alone."""
    if trials.n_frames is not None:
        raise ValueError(
            f"the trials of the mice {trials.mice} are movies, of up to {trials.n_frames.max()} "
            "frames: expected images, or single frames of the movies with the responses to them, "
            "as images (trials, channels, height, width)."
        )


def movie_lengths(frames: Trials, mouse: str) -> np.ndarray:
    """Count the frames of each movie of a mouse among trials that are frames.

    Raises
    ------
    ValueError
        If they are images, of which nobody knows what was shown before.
    """
    rows = frames.rows(mouse)[1]
    recording = frames._recordings[mouse]
    if "frame_number" not in recording.coords:
        raise ValueError(
            f"mouse {mouse!r}: stimuli are images, but this model sees time: give movies "
            "(trials, time, channels, height, width), or use a model of images."
        )
    starts = np.flatnonzero(recording["frame_number"].values[rows] == 0)
    return np.diff([*starts, len(rows)])


def rate_of_movies(frames: Trials, mouse: str) -> float | None:
    """Frames per second of the movies of a mouse among trials that are frames, where known."""
    rate = frames._recordings[mouse].attrs.get(FRAME_RATE)
    return None if rate is None else float(rate)


def common_rate(frames: Trials) -> float | None:
    """Frames per second of the movies of all mice, where known and alike."""
    rates = {mouse: rate_of_movies(frames, mouse) for mouse in frames.mice}
    known = [rate for rate in rates.values() if rate is not None]
    if not known or not np.allclose(known, known[0], rtol=1e-3):
        return None
    return known[0]
