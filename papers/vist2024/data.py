"""
The recording of one retina to two movies: of the published data set, or any saved recording.

Also the simulated one of ``--quick``, and features of frames that were computed elsewhere.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

import v1tlearn as v1
from papers.vist2024.published import MOVIES

# Small retinal cells that see two movies of different lengths, as the published ones are.
_SIMULATED = {"n_neurons": 8, "n_movies": 2, "n_test_movies": 2, "n_repeats": 8}
_SIMULATED |= {"n_frames": (200, 260), "image_shape": (32, 32), "behavior": False}
_SIMULATED |= {"cells": "retina", "scene": "saccades", "noise": 0.5, "validation_fraction": 0.0}
QUICK_GRID = 8


def open_recording(path: Path, recording: str | None) -> v1.Trials:
    """Open a recording of two movies, and average the responses over their repeats.

    Parameters
    ----------
    path : Path
        The unpacked data set of Onken et al. (2016), or a file that `save_recordings` wrote.
    recording : str or None
        Which one, where there are several; of the data set "recording1" by default.

    Returns
    -------
    Trials
        Two, whose `image_id` is "movie 1" and "movie 2", in the order in which they come.

    Raises
    ------
    ValueError
        If there is no such recording, several without a name, or it has not two movies.
    """
    recordings = v1.read_onken2016(path) if path.is_dir() else v1.open_recordings(path)
    trials = v1.Trials(recordings)
    if recording is None and path.is_dir():
        recording = trials.mice[0]
    if recording is None and len(trials.mice) > 1:
        raise ValueError(f"{path} has {', '.join(trials.mice)}: name one by --recording")
    if recording is not None and recording not in trials.mice:
        raise ValueError(f"{path} has no {recording}, only {', '.join(trials.mice)}")
    trials = trials.sel(mouse_id=recording or trials.mice[0])
    if trials.n_frames is None:
        raise ValueError(f"{path} has images: Vi-ST is a model of movies")
    return mean_of_repeats(trials)


def mean_of_repeats(trials: v1.Trials) -> v1.Trials:
    """One trial for each of two movies, with mean responses over the repeats of each frame."""
    (name,) = trials.mice
    ids = trials.image_ids
    _, first = np.unique(ids, return_index=True)
    first = np.sort(first)
    if len(first) != len(MOVIES):
        raise ValueError(
            f"{name} has {len(first)} movies, {', '.join(map(str, ids[first][:10]))}: expected two,"
            " one to train on and one to test on; select them and save the recording anew"
        )
    means = trials.responses.mean("image_id").get(name)
    dataset = trials.recordings[name].to_dataset().isel(trial=first)
    dataset = dataset.drop_vars(["tier", "trial_id", "expected_responses"], errors="ignore")
    dataset = dataset.assign_coords(image_id=("trial", np.array(MOVIES)))
    attrs = dataset["responses"].attrs
    responses = (("trial", "time", "neuron"), means.astype(np.float32), attrs)
    return v1.Trials({name: dataset.assign(responses=responses)})


def with_features(trials: v1.Trials, of_frames: Callable[[str], np.ndarray]) -> v1.Trials:
    """Replace frames by features that were computed before.

    Parameters
    ----------
    trials : Trials
    of_frames : callable
        Of the name of a movie; gives (frames, patches, features), patches row by row of a square.

    Raises
    ------
    ValueError
        If features are of other frames, or of no square of patches.
    """
    (name,) = trials.mice
    dataset = trials.recordings[name].to_dataset()
    parts = []
    for movie, n_frames in zip(trials.image_ids, trials.n_frames, strict=True):
        found = np.asarray(of_frames(str(movie)), np.float32)
        grid = round(found.shape[1] ** 0.5) if found.ndim == 3 else 0
        if found.ndim != 3 or len(found) != n_frames or grid**2 != found.shape[1]:
            raise ValueError(
                f"features of {movie} have the shape {found.shape}: expected ({n_frames}, patches, "
                "features), one entry per frame and the patches of a square grid"
            )
        maps = found.transpose(0, 2, 1).reshape(n_frames, -1, grid, grid)
        parts.append(np.pad(maps, [(0, dataset.sizes["time"] - n_frames), *[(0, 0)] * 3]))
    stimuli = xr.Variable(dataset["stimuli"].dims, np.stack(parts))
    return v1.Trials({name: dataset.drop_vars("stimuli").assign(stimuli=stimuli)})


def read_features(folder: Path) -> Callable[[str], np.ndarray]:
    """Features in the files ``movie1.npy`` and ``movie2.npy`` of a folder."""

    def of_movie(movie: str) -> np.ndarray:
        path = folder / f"{movie.replace(' ', '')}.npy"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: expected the features of {movie}, an array (frames, patches, "
                "features)"
            )
        return np.load(path, allow_pickle=False, mmap_mode="r")

    return of_movie


def random_features(trials: v1.Trials, n_features: int = 12) -> Callable[[str], np.ndarray]:
    """What stands for a pretrained prior in ``--quick``: random filters of patches, rectified."""
    (name,) = trials.mice
    grid = QUICK_GRID

    def of_movie(movie: str) -> np.ndarray:
        place = trials.image_ids.tolist().index(movie)
        frames = trials.get("stimuli", name)[place, : trials.n_frames[place], 0] / 127.5 - 1.0
        n, height, width = frames.shape
        patches = frames.reshape(n, grid, height // grid, grid, width // grid).swapaxes(2, 3)
        patches = patches.reshape(n, grid**2, -1)
        filters = np.random.default_rng(0).standard_normal((patches.shape[2], n_features))
        return np.maximum(patches @ filters / patches.shape[2] ** 0.5, 0)

    return of_movie


def simulate(path: Path, seed: int) -> Path:
    """Write a small recording of retinal cells that saw two movies, each eight times."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        recordings = v1.make_movie_recordings(**_SIMULATED, random_state=seed)
        shown = v1.Trials(recordings).sel(tier="test")
        beside = path.with_name(f".{path.name}.part")
        v1.save_recordings(shown.recordings, beside)
        beside.rename(path)
    return path


def halves(trials: v1.Trials) -> v1.Trials:
    """Both halves of one movie as trials of their own, which windows do not straddle."""
    (name,) = trials.mice
    (n_frames,) = trials.n_frames
    dataset = trials.recordings[name].to_dataset()
    (movie,) = dataset["image_id"].values
    longest = (int(n_frames) + 1) // 2
    parts = []
    for number, (start, end) in enumerate([(0, longest), (longest, int(n_frames))], 1):
        part = dataset.isel(time=slice(start, end)).drop_vars("time")
        missing = (0, longest - (end - start))  # a frame, of a movie of an odd number
        filled = {"stimuli": 0, "responses": np.nan}
        part = part.pad(time=missing, constant_values=filled, keep_attrs=True)
        labels = {"image_id": [f"{movie}, half {number}"], "n_frames": [end - start]}
        parts.append(part.assign_coords({key: ("trial", value) for key, value in labels.items()}))
    both = xr.concat(parts, "trial", data_vars="minimal", coords="minimal", compat="override")
    return v1.Trials({name: both.assign_coords(time=dataset["time"].values[:longest])})
