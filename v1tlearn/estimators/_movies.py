"""Movies for models of images, as their frames or not at all; and what a model of movies asks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from v1tlearn.trials import Trials
from v1tlearn.trials.folding import FRAME_RATE, fold_time


def frames_of_movies(trials: Trials, *, labelled: bool = True) -> Trials:
    """Frames as trials to be predicted.

    Parameters
    ----------
    trials : Trials
    labelled : bool, default=True
        Whether repeats share their ids, as far as movies bear some. Without it frames bear no
        label of their trials, which takes less memory than the labels of many frames.

    Returns
    -------
    Trials
        Those of images as they are.
    """
    if trials.n_frames is None:
        return trials
    if not labelled:
        bare = {
            mouse: recording.drop_vars(
                [
                    name
                    for name, label in recording.coords.items()
                    if label.dims == ("trial",) and name != "n_frames"
                ]
            )
            for mouse, recording in trials._recordings.items()
        }
        return fold_time(trials._copy(_recordings=bare), None)
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
    steps = np.diff(recording["frame_number"].values[rows])  # a part of a movie begins at any frame
    return np.diff([0, *np.flatnonzero(steps != 1) + 1, len(rows)])


def rate_of_movies(frames: Trials, mouse: str) -> float | None:
    """Frames per second of the movies of a mouse among trials that are frames, where known."""
    rate = frames._recordings[mouse].attrs.get(FRAME_RATE)
    return None if rate is None else float(rate)


def rates_differ(rates: Iterable[float | None]) -> bool:
    """Tell whether frame rates differ, of those that are known."""
    known = [rate for rate in rates if rate is not None]
    return bool(known) and not np.allclose(known, known[0], rtol=1e-3)


def common_rate(frames: Trials) -> float | None:
    """Frames per second of the movies of all mice, where known and alike."""
    rates = [rate_of_movies(frames, mouse) for mouse in frames.mice]
    return None if rates_differ(rates) else next((r for r in rates if r is not None), None)


def ends_of_movies(frames: Trials, fraction: float) -> tuple[Trials, np.ndarray]:
    """Find the end of every movie, whose frames these trials are.

    Parameters
    ----------
    frames : Trials
    fraction : float
        Of each movie that its end is.

    Returns
    -------
    named : Trials
        With beginnings and ends named as parts of their movies, as `cut_in_time` does.
    late : ndarray of bool of shape (n_frames,)
        Frames of ends.
    """
    late, recordings = np.zeros(len(frames), bool), dict(frames._recordings)
    for mouse in frames.mice:
        lengths = movie_lengths(frames, mouse)
        cuts = np.clip(np.round((1 - fraction) * lengths).astype(int), 1, lengths - 1)
        within = np.concatenate([np.arange(n) for n in lengths])
        n, cut = np.repeat(lengths, lengths), np.repeat(cuts, lengths)
        own = within >= cut
        positions, rows = frames.rows(mouse)
        late[positions] = own
        parts = zip(
            frames.image_ids[positions],
            np.where(own, cut, 0).tolist(),
            np.where(own, n, cut).tolist(),
            strict=True,
        )
        recording = recordings[mouse]
        labels = np.full(recording.sizes["trial"], "", dtype=object)
        labels[rows] = [f"{one}[{start}:{stop}]" for one, start, stop in parts]
        recordings[mouse] = recording.assign_coords(image_id=("trial", labels.astype(str)))
    return frames._copy(_recordings=recordings, _hashes={}), late
