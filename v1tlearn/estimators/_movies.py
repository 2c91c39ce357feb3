"""Movies for models of images: as their frames, or not at all."""

from __future__ import annotations

from v1tlearn.trials import Trials
from v1tlearn.trials.folding import fold_time


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
