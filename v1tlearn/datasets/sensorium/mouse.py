"""One mouse in the Sensorium layout: trials left in their files, labels and statistics read."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._opening import reading
from v1tlearn.datasets.schema import (
    DIMS,
    RESPONSES_ATTRS,
    STIMULI_ATTRS,
    behavior_attrs,
)
from v1tlearn.datasets.sensorium.labels import read_tiers
from v1tlearn.datasets.sensorium.layout import (
    BEHAVIOR_FOLDERS,
    DATA_FOLDERS,
)
from v1tlearn.datasets.sensorium.meta import (
    read_config,
    read_neurons,
    read_statistics,
    read_trial_labels,
    withheld_trials,
)
from v1tlearn.datasets.sensorium.trial_files import (
    BLOCK_BYTES,
    FolderFiles,
    TrialArray,
    TrialFiles,
    first_few,
    numbered_files,
)
from v1tlearn.datasets.sensorium.zip_files import ZipFiles
from v1tlearn.training.memory import is_out_of_memory

_MOST_CHANNELS = 4
_SCREENS = ((144, 256), (36, 64))  # height and width of the publisher's images


def read_mouse(mouse: str, files: FolderFiles | ZipFiles, told: list[str]) -> xr.Dataset:
    """Open the recording of one mouse; its trials are read when they are indexed.

    What is skipped, or read as something else than it is called, is added to `told`.
    """
    config = read_config(mouse, files)
    known_folders = [folder for folders in DATA_FOLDERS.values() for folder in folders]
    opened = {folder: _open_folder(mouse, files, folder, config, told) for folder in known_folders}
    found = files.listdir("data")
    if foreign := sorted(name for name in found if name.lower() not in known_folders):
        told.append(f"in data of {files} {first_few(foreign)}")
    parts = {folder: part for folder, part in opened.items() if part is not None}
    for required in ("images", "responses"):
        if required not in parts:
            raise ValueError(
                f"mouse {mouse!r}: data/{required} is missing or empty in {files}; expected one "
                "file per trial: copy or download the recording again"
            )
    n_trials = parts["images"].n_trials
    for folder, part in parts.items():
        if part.n_trials != n_trials:
            raise ValueError(
                f"mouse {mouse!r}: {n_trials} files in data/images but {part.n_trials} in "
                f"data/{folder} of {files}; expected the same number of trials: copy or download "
                "the recording again"
            )
    n_neurons = parts["responses"].trial_shape[0]
    coords = read_trial_labels(mouse, files, n_trials, config)
    labels = coords["tier"][1]
    tiers, kept, of_tiers = read_tiers(labels, mouse)
    told += of_tiers
    coords["tier"] = ("trial", tiers)
    if of_tiers and "trial_tier" not in coords:
        coords["trial_tier"] = ("trial", labels)
    coords |= read_neurons(mouse, files, n_neurons, config)
    behavior_folders = [folder for folder in BEHAVIOR_FOLDERS if folder in parts]
    columns = [name for folder in behavior_folders for name in BEHAVIOR_FOLDERS[folder]]
    if columns:
        coords["behavior"] = ("behavior", np.array(columns))
    attrs = {
        "stimuli": STIMULI_ATTRS,
        "behaviors": behavior_attrs(columns),
        "responses": RESPONSES_ATTRS,
    }
    variables: dict[str, Any] = {}
    for name, folders in DATA_FOLDERS.items():
        present = [parts[folder] for folder in folders if folder in parts]
        if present:
            withheld = None
            if name == "responses":
                silent = partial(_are_silent, present[0])
                withheld = withheld_trials(mouse, files, labels, tiers, kept, silent)
            array = indexing.LazilyIndexedArray(TrialArray(present, withheld))
            variables[name] = xr.Variable(DIMS[name], array, attrs.get(name))
    shapes = {"stimuli": (), "behaviors": (len(columns),), "responses": (n_neurons,)}
    for name in shapes:
        own_folders = behavior_folders if name == "behaviors" else DATA_FOLDERS[name]
        variables |= read_statistics(mouse, files, name, own_folders, shapes[name])
    where, remedy = f"mouse {mouse!r}: {files}", "copy or download it again"
    with reading(where, "is no recording", remedy, passed=is_out_of_memory):
        dataset = xr.Dataset(variables, coords)
    for name, own in config.get("attrs", {}).items():
        if name and name not in dataset:
            raise ValueError(
                f"mouse {mouse!r}: config.json in {files} tells of {name}, whose files are "
                "missing; copy or download the recording again, or remove config.json"
            )
        (dataset if name == "" else dataset[name]).attrs = own
    return dataset if kept.all() else dataset.isel(trial=np.flatnonzero(kept))


def _open_folder(
    mouse: str, files: FolderFiles | ZipFiles, folder: str, config: dict, told: list[str]
) -> TrialFiles | None:
    """Return the trials in data/`folder`, None if there are none."""
    names = numbered_files(files, f"data/{folder}", mouse, told)
    if not names:
        return None
    part = TrialFiles(mouse, files.members(f"data/{folder}", names), keep_uint8=folder == "images")
    shape, hint = part.trial_shape, ""
    if folder == "images":
        expected, fits = "(channel, height, width)", len(shape) == 3
        if fits and not config and shape[2] <= _MOST_CHANNELS < shape[0]:
            fits, hint = False, ": channels come last; save np.moveaxis(image, -1, 0)"
        elif fits and not config and shape[2:0:-1] in _SCREENS:
            told.append(
                f"mouse {mouse!r}: images {shape[1]} high and {shape[2]} wide, read as that, but "
                "the publisher's are so only if height and width are exchanged"
            )
        elif len(shape) == 2:
            hint = ": there is no channel; save image[None]"
    elif folder in BEHAVIOR_FOLDERS:
        columns = BEHAVIOR_FOLDERS[folder]
        expected = f"({len(columns)},): {', '.join(columns)}"
        fits = shape == (len(columns),)
    else:
        expected, fits = "(neurons,)", len(shape) == 1
    if not fits:
        raise ValueError(
            f"mouse {mouse!r}: shape of data/{folder}/{names[0]} in {files} is {shape}, "
            f"expected {expected}{hint}"
        )
    return part


def _are_silent(responses: TrialFiles, trials: np.ndarray) -> bool:
    """Whether trials hold zeros alone; reads one of them, and all others only if it is silent."""
    most = max(1, BLOCK_BYTES // (4 * max(1, responses.trial_shape[0])))
    start, step = 0, 1
    while start < len(trials):
        block = np.empty((len(trials[start : start + step]), *responses.trial_shape), "f4")
        responses.read_into(block, np.arange(len(block)), trials[start : start + step])
        if block.any():
            return False
        start, step = start + step, min(256, most)
    return True
