"""One mouse in the Sensorium layout: trials left in their files, labels and statistics read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._opening import json_object, reading
from v1tlearn.datasets.schema import (
    AXES,
    DIMS,
    POSITION_ATTRS,
    RESPONSES_ATTRS,
    STATISTICS,
    STIMULI_ATTRS,
    behavior_attrs,
    statistic_dims,
)
from v1tlearn.datasets.sensorium.labels import as_text, read_tiers
from v1tlearn.datasets.sensorium.layout import (
    BEHAVIOR_FOLDERS,
    DATA_FOLDERS,
    NEURON_FILES,
    STATISTIC_SUBSETS,
    TRIAL_FILES,
    WITHHELD_TIERS,
)
from v1tlearn.datasets.sensorium.npy import parse_npy
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

logger = logging.getLogger(__name__)

_MOST_CHANNELS = 4
_SCREENS = ((144, 256), (36, 64))  # height and width of the publisher's images


def read_mouse(mouse: str, files: FolderFiles | ZipFiles, told: list[str]) -> xr.Dataset:
    """Open the recording of one mouse; its trials are read when they are indexed.

    What is skipped, or read as something else than it is called, is added to `told`.
    """
    config = _read_config(mouse, files)
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
    coords = _read_trial_labels(mouse, files, n_trials, config)
    labels = coords["tier"][1]
    tiers, kept, of_tiers = read_tiers(labels, mouse)
    told += of_tiers
    coords["tier"] = ("trial", tiers)
    if of_tiers and "trial_tier" not in coords:
        coords["trial_tier"] = ("trial", labels)
    coords |= _read_neurons(mouse, files, n_neurons, config)
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
                hidden = {label: labels == label for label in np.unique(labels[kept]).tolist()}
                hidden = {k: v for k, v in hidden.items() if tiers[v][0] in WITHHELD_TIERS}
                withheld = _withheld_trials(mouse, files, present[0], hidden)
            array = indexing.LazilyIndexedArray(TrialArray(present, withheld))
            variables[name] = xr.Variable(DIMS[name], array, attrs.get(name))
    shapes = {"stimuli": (), "behaviors": (len(columns),), "responses": (n_neurons,)}
    for name in shapes:
        own_folders = behavior_folders if name == "behaviors" else DATA_FOLDERS[name]
        variables |= _read_statistics(mouse, files, name, own_folders, shapes[name])
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


def _read_config(mouse: str, files: FolderFiles | ZipFiles) -> dict:
    """Return what `write_sensorium` kept in config.json beyond the layout; {} for other files."""
    data = files.read("config.json")
    if data is None:
        return {}
    where = f"mouse {mouse!r}: config.json in {files}"
    with reading(where, "is not a JSON object", "repair or remove it"):
        config = json_object(data)
    own = config.get("v1tlearn", {})
    parts = {"v1tlearn": own}
    if isinstance(own, dict):
        parts |= {name: own[name] for name in ("attrs", "coordinates") if name in own}
        attrs = own.get("attrs", {})
        parts |= {f"attrs of {k!r}": v for k, v in attrs.items()} if isinstance(attrs, dict) else {}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(
                f"{where}: {name} is a {type(part).__name__}, expected an object; repair or "
                "remove it"
            )
    if not all(isinstance(name, str) for name in own.get("coordinates", {}).values()):
        raise ValueError(f"{where}: coordinates hold what is no name; repair or remove it")
    return own


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


def _withheld_trials(
    mouse: str,
    files: FolderFiles | ZipFiles,
    responses: TrialFiles,
    hidden: Mapping[str, np.ndarray],
) -> np.ndarray | None:
    """Return which trials belong to a test tier whose responses are all zero; None if none do.

    Reads one trial of a tier with responses, all trials of a tier without. `hidden` masks the
    trials of each test tier, by its name in the files: one may be withheld, another not.
    """
    withheld = np.zeros(responses.n_trials, bool)
    most = max(1, BLOCK_BYTES // (4 * max(1, responses.trial_shape[0])))
    for tier, mask in hidden.items():
        trials = np.flatnonzero(mask)
        start, step = 0, 1
        silent = len(trials) > 0
        while silent and start < len(trials):
            block = np.empty((len(trials[start : start + step]), *responses.trial_shape), "f4")
            responses.read_into(block, np.arange(len(block)), trials[start : start + step])
            silent = not block.any()
            start, step = start + step, min(256, most)
        if silent:
            withheld[trials] = True
            logger.info(
                "mouse %r: the %d responses of tier %s in %s are all zero, taken as withheld (NaN)",
                mouse,
                len(trials),
                tier,
                files,
            )
    return withheld if withheld.any() else None


def _read_labels(
    mouse: str,
    files: FolderFiles | ZipFiles,
    kind: str,
    n: int,
    known: Mapping[str, str],
    config: dict,
) -> dict[str, np.ndarray]:
    """Return the arrays of meta/trials or meta/neurons under their names in a recording.

    Arrays beyond the known ones are kept if they have one plain value per trial or neuron.
    """
    labels: dict[str, np.ndarray] = {}
    own_names = config.get("coordinates", {})
    for file in sorted(files.listdir(f"meta/{kind}")):
        stem = file[:-4] if file[-4:].lower() == ".npy" else ""
        stem = stem.lower() if stem.lower() in known else stem
        if not stem:
            continue
        where = f"mouse {mouse!r}: meta/{kind}/{file} in {files}"
        name = known.get(stem) or own_names.get(f"{kind}/{stem}")
        try:
            values = as_text(parse_npy(files.read(f"meta/{kind}/{file}") or b"", where), where)
            if values.shape[:1] != (n,) or values.ndim != (2 if name == "position" else 1):
                expected = f"({n}, 3)" if name == "position" else f"({n},)"
                raise ValueError(
                    f"{where}: shape is {values.shape}, expected {expected}, one entry per "
                    f"{kind.removesuffix('s')}; the files are of different recordings"
                )
        except ValueError as error:
            if name is not None:
                raise
            logger.warning("left out: %s", error)
            continue
        name = name or f"{kind.removesuffix('s')}_{stem}"
        if name in labels:
            raise ValueError(
                f"{where}: {name} is stored twice, here and in another file of meta/{kind}; remove "
                "one of them"
            )
        labels[name] = values
    return labels


def _read_trial_labels(
    mouse: str, files: FolderFiles | ZipFiles, n_trials: int, config: dict
) -> dict[str, tuple]:
    labels = _read_labels(mouse, files, "trials", n_trials, TRIAL_FILES, config)
    if "tier" not in labels:
        raise ValueError(
            f"mouse {mouse!r}: meta/trials/tiers.npy is missing in {files}; expected one of train, "
            "validation, test, final_test per trial: copy or download the recording again"
        )
    return {name: ("trial", values) for name, values in labels.items()}


def _read_neurons(
    mouse: str, files: FolderFiles | ZipFiles, n_neurons: int, config: dict
) -> dict[str, tuple]:
    labels = _read_labels(mouse, files, "neurons", n_neurons, NEURON_FILES, config)
    coords: dict[str, tuple] = {}
    if "position" in labels:
        position = labels.pop("position").astype("f4", copy=False)
        coords["position"] = (("neuron", "axis"), position, POSITION_ATTRS)
        coords["axis"] = ("axis", np.array(AXES[: position.shape[1]]))
    return coords | {name: ("neuron", values) for name, values in labels.items()}


def _read_statistics(
    mouse: str,
    files: FolderFiles | ZipFiles,
    variable: str,
    folders: Sequence[str],
    shape: tuple[int, ...],
) -> dict[str, tuple]:
    """Return the statistics of one variable that its folders all have, behaviour side by side."""
    statistics: dict[str, tuple] = {}
    for subset, suffix in STATISTIC_SUBSETS.items():
        for statistic in STATISTICS:
            stored = [f"meta/statistics/{folder}/{subset}/{statistic}.npy" for folder in folders]
            found = {name: data for name in stored if (data := files.read(name)) is not None}
            if not found:
                continue
            if len(found) < len(stored):
                missing = next(name for name in stored if name not in found)
                raise ValueError(
                    f"mouse {mouse!r}: {missing} is missing in {files} but {next(iter(found))} is "
                    "there; copy or download the recording again, or remove both"
                )
            arrays = [
                parse_npy(data, f"mouse {mouse!r}: {n} in {files}") for n, data in found.items()
            ]
            values = np.concatenate([array.reshape(-1) for array in arrays])
            if values.size != math.prod(shape) or values.dtype.kind not in "biuf":
                message = (
                    f"mouse {mouse!r}: {next(iter(found))} in {files} has shape {arrays[0].shape} "
                    f"and dtype {values.dtype}, expected numbers of shape {shape} for {variable}"
                )
                if variable != "stimuli":
                    raise ValueError(message)
                logger.warning("left out: %s", message)  # e.g. one mean per colour
                continue
            dims = statistic_dims(variable)
            statistics[f"{variable}_{statistic}{suffix}"] = (dims, values.reshape(shape))
    return statistics
