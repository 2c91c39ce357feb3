"""One mouse of Sensorium 2023: movies left in their files, labels and statistics read."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn.datasets.schema import DIMS, RESPONSES_ATTRS, STIMULI_ATTRS, behavior_attrs
from v1tlearn.datasets.sensorium.folder_files import FolderFiles
from v1tlearn.datasets.sensorium.labels import read_tiers
from v1tlearn.datasets.sensorium.layout import MOVIE_BEHAVIOR, MOVIE_FOLDERS
from v1tlearn.datasets.sensorium.meta import (
    read_config,
    read_neurons,
    read_statistics,
    read_trial_labels,
    withheld_trials,
)
from v1tlearn.datasets.sensorium.movie_files import MovieArray, MovieFiles, frames_told
from v1tlearn.datasets.sensorium.trial_files import first_few, numbered_files
from v1tlearn.datasets.sensorium.zip_files import ZipFiles
from v1tlearn.datasets.time_axis import time_coordinate, with_time

_SHAPES = {"videos": "(height, width, time)", "responses": "(neurons, time)"}


def read_movie_mouse(
    mouse: str, files: FolderFiles | ZipFiles, frame_rate: float, told: list[str]
) -> xr.Dataset:
    """Open the recording of one mouse; its movies are read when they are indexed.

    What is skipped, or read as something else than it is called, is added to `told`.
    """
    config = read_config(mouse, files)
    known = [folder for folders in MOVIE_FOLDERS.values() for folder in folders]
    if foreign := sorted(name for name in files.listdir("data") if name.lower() not in known):
        told.append(f"in data of {files} {first_few(foreign)}")
    parts: dict[str, MovieFiles] = {}
    columns: list[str] = []
    for folder in known:
        names = numbered_files(files, f"data/{folder}", mouse, told)
        if names:
            members = files.members(f"data/{folder}", names)
            part = MovieFiles(mouse, members, keep_uint8=folder == "videos")
            columns += _checked_columns(folder, part)
            parts[folder] = part
    for required in ("videos", "responses"):
        if required not in parts:
            raise ValueError(
                f"mouse {mouse!r}: data/{required} is missing or empty in {files}; expected one "
                "file per trial: copy or download the recording again"
            )
    n_trials, n_neurons = parts["videos"].n_trials, parts["responses"].frame_shape[0]
    for folder, part in parts.items():
        if part.n_trials != n_trials:
            raise ValueError(
                f"mouse {mouse!r}: {n_trials} files in data/videos but {part.n_trials} in "
                f"data/{folder} of {files}; expected the same number of trials: copy or download "
                "the recording again"
            )
    behavior = [folder for folder in MOVIE_FOLDERS["behaviors"] if folder in parts]
    n_frames = frames_told([parts[folder] for folder in behavior or ["responses"]])
    coords = read_trial_labels(mouse, files, n_trials, config)
    labels = coords["tier"][1]
    tiers, kept, of_tiers = read_tiers(labels, mouse, others_told=False)
    told += of_tiers
    coords["tier"] = ("trial", tiers)
    if (tiers != labels).any() and "trial_tier" not in coords:
        coords["trial_tier"] = ("trial", labels)
    coords |= read_neurons(mouse, files, n_neurons, config)
    coords["n_frames"] = ("trial", n_frames)
    coords["time"] = time_coordinate(int(n_frames.max()), frame_rate)
    silent = partial(_are_silent, parts["responses"])
    withheld = withheld_trials(mouse, files, labels, tiers, kept, silent)
    arrays = {
        "stimuli": MovieArray([parts["videos"]], n_frames, channel=True),
        "responses": MovieArray([parts["responses"]], n_frames, withheld=withheld, missing=True),
    }
    attrs = {"stimuli": STIMULI_ATTRS, "responses": RESPONSES_ATTRS}
    if behavior:
        arrays["behaviors"] = MovieArray([parts[folder] for folder in behavior], n_frames)
        attrs["behaviors"] = behavior_attrs(columns)
        coords["behavior"] = ("behavior", np.array(columns))
    variables: dict[str, Any] = {
        name: xr.Variable(with_time(DIMS[name]), indexing.LazilyIndexedArray(array), attrs[name])
        for name, array in arrays.items()
    }
    shapes = {"stimuli": (), "behaviors": (len(columns),), "responses": (n_neurons,)}
    for name, shape in shapes.items():
        folders = [folder for folder in MOVIE_FOLDERS[name] if folder in parts]
        variables |= read_statistics(mouse, files, name, folders, shape)
    dataset = xr.Dataset(variables, coords)
    return dataset if kept.all() else dataset.isel(trial=np.flatnonzero(kept))


def _checked_columns(folder: str, part: MovieFiles) -> list[str]:
    """Columns of behaviour of one kind of files, whose shape fits."""
    columns = MOVIE_BEHAVIOR.get(folder, {})
    if folder in MOVIE_BEHAVIOR:
        expected = " or ".join(f"({n}, time), {', '.join(of)}" for n, of in columns.items())
        fits = len(part.shape) == 2 and part.shape[0] in columns
    else:
        expected = _SHAPES[folder]
        fits = len(part.shape) == expected.count(",") + 1
    if not fits or 0 in part.shape:
        raise ValueError(f"{part.where(0)}: shape is {part.shape}, expected {expected}")
    return list(columns.get(part.shape[0], ()))


def _are_silent(responses: MovieFiles, trials: np.ndarray) -> bool:
    """Whether trials hold zeros, and NaN, alone; reads no more of them than it needs to."""
    return not any(np.nan_to_num(values).any() for _, values in responses.read(trials))
