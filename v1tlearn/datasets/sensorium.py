"""Reader of the Sensorium 2022 / Franke 2022 layout: a folder or a zip per mouse, a file per trial.

Layout: `data/{images,responses,behavior,pupil_center}/{trial}.npy` and `meta/{neurons,trials,
statistics}/`. The way back stands in _sensorium_write.py.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._instead import path_of
from v1tlearn.datasets._sensorium_cache import cached_trials
from v1tlearn.datasets._trial_files import (
    FolderFiles,
    TrialArray,
    TrialFiles,
    numbered_files,
    parse_npy,
)
from v1tlearn.datasets._zip_files import ZipDirectory, ZipFiles
from v1tlearn.datasets.schema import (
    AXES,
    BEHAVIOR_NAMES,
    DIMS,
    POSITION_ATTRS,
    RESPONSES_ATTRS,
    STATISTICS,
    STIMULI_ATTRS,
    behavior_attrs,
    statistic_dims,
    validate_recordings,
)

logger = logging.getLogger(__name__)

# Which folders below data/ make up which variable, and how many columns behaviour files have.
DATA_FOLDERS = {
    "stimuli": ("images",),
    "behaviors": ("behavior", "pupil_center"),
    "responses": ("responses",),
    "expected_responses": ("expected_responses",),  # ours, for simulated recordings
}
BEHAVIOR_FOLDERS = {"behavior": BEHAVIOR_NAMES[:3], "pupil_center": BEHAVIOR_NAMES[3:]}
NEURON_FILES = {
    "unit_ids": "neuron",
    "area": "area",
    "layer": "layer",
    "animal_ids": "animal_id",
    "sessions": "session",
    "scan_idx": "scan",
    "cell_motor_coordinates": "position",
}
IMAGE_LABEL_PREFIXES = ("frame", "colorframeprojector")
TRIAL_FILES = {"tiers": "tier", "trial_idx": "trial_id"} | {
    f"{prefix}_{label}": label
    for prefix in IMAGE_LABEL_PREFIXES
    for label in ("image_id", "image_class")
}
# Statistics over all frames, and over the frames with a stimulus; the suffix of our names for each.
STATISTIC_SUBSETS = {"all": "", "stimulus_frame": "_stimulus_frame"}
WITHHELD_TIERS = ("test", "final_test")


def read_sensorium(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    names: Sequence[str] | Mapping[str, str] | None = None,
    cache: str | os.PathLike | None = None,
) -> xr.DataTree:
    """Open recordings in the Sensorium 2022 / Franke 2022 layout, without unpacking or loading.

    Parameters
    ----------
    path : path or sequence of paths
        A mouse (its folder, or a zip of the folder or of its content), a folder of such folders
        and zips, or a list of any of these. Where a folder holds both a mouse's folder and its
        zip, the folder is read.
    names : sequence of str or mapping from data key to str, optional
        Names of the mice: in the order of the recordings, or by data key. Without it a mouse is
        called by its data key, "21067-10-18" for `static21067-10-18-GrayImageNet-...`, or else by
        the name of its folder or zip.
    cache : path, optional
        A folder, made if missing, that keeps the trials of each recording in an uncompressed
        netCDF store: written when a recording is first read, opened from then on, with the same
        result. Without it nothing is written.

    Returns
    -------
    DataTree
        One child per mouse with `stimuli` (trial, channel, height, width), grey levels in uint8
        if stored so and otherwise float32; `behaviors` (trial, behavior) and `responses`
        (trial, neuron), float32; `position` (neuron, axis) in micrometres; labels of trials and
        neurons; statistics of the training tier. Trials stay in file order; `trial_id` gives the
        order in time. Arrays are read from the files whenever, and only as far as, they are
        indexed; call ``.load()`` to keep them.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    ValueError
        Naming the mouse and the file: truncated zips, missing, misnumbered or damaged files,
        shapes or numbers of trials that differ, arrays of pickled objects; a source that changes
        while it is read into the cache; a cache that is no folder.
    OSError
        If the trials do not fit on the disk of the cache.

    Notes
    -----
    A store in the cache is used as long as these are as they were when it was written: the path of
    the source; of a zip, its size, time of change (in nanoseconds) and central directory, which
    holds the names, sizes and checksums of all members; of a folder, the names, sizes and times of
    change of all files below `data` and `meta`, and the content of `config.json`; the version of
    the store's format. Otherwise it is written anew, and the old one removed. Labels and
    statistics always come from the source, which has to stay in place. A store gets its name when
    it is complete, so several processes may share a cache, and one that is killed leaves at most
    a hidden file, removed a day later when a store of that recording is written.

    Responses of a test tier that are all zero were withheld for a competition and read as NaN.
    Other arrays in `meta/trials` and `meta/neurons` become coordinates `trial_...`, `neuron_...`;
    statistics of the frames with a stimulus end in `_stimulus_frame`.

    References
    ----------
    Willeke et al. 2022, The Sensorium competition, arXiv:2206.08666; Franke et al. 2022, Nature.
    """
    alone = isinstance(path, str | os.PathLike | xr.DataTree | xr.Dataset | Mapping)
    call = "read_sensorium(path) or read_sensorium([path, ...])"
    paths = [path_of("path", one, call) for one in ([path] if alone else path)]
    if not paths:
        raise ValueError("no paths given; expected at least one folder or zip of a mouse")
    found = [mouse for one in paths for mouse in _find_mice(one)]
    datasets: dict[str, xr.Dataset] = {}
    origins: dict[str, str] = {}
    for (_, files), name in zip(found, _mouse_names(found, names), strict=True):
        if name in datasets:
            raise ValueError(
                f"two recordings are called {name!r}: {origins[name]} and {files}; mouse ids must "
                "be unique: pass names=[...], one per recording, or drop one path"
            )
        datasets[name], origins[name] = _read_mouse(name, files), str(files)
    validate_recordings(datasets, check_values=False)
    if cache is not None:
        datasets = {
            name: cached_trials(name, dataset, files, Path(cache))
            for (name, dataset), (_, files) in zip(datasets.items(), found, strict=True)
        }
    tree = xr.DataTree(children={name: xr.DataTree(ds) for name, ds in datasets.items()})
    if cache is not None:
        for name, dataset in datasets.items():  # which xarray forgets
            tree.children[name].set_close(dataset.close)
    return tree


# -- finding mice ------------------------------------------------------------------------------


def _find_mice(path: Path) -> list[tuple[str, FolderFiles | ZipFiles]]:
    """Return (data key, files) of the mice in a folder, a zip, or a folder of those."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected a folder or zip in the Sensorium layout"
        )
    if path.is_file() and path.suffix in (".nc", ".h5", ".hdf5", ".cdf"):
        raise ValueError(
            f"{path} is no folder or zip in the Sensorium layout; recordings that are kept as "
            f"netCDF are opened by open_recordings({str(path)!r}) or Trials.open"
        )
    if path.is_file():
        return _mice_in_zip(path)
    if (path / "data" / "images").is_dir():
        return [(_data_key(path.resolve().name), FolderFiles(path))]
    mice: list[tuple[str, FolderFiles | ZipFiles]] = []
    entries = sorted((e for e in path.iterdir() if not e.name.startswith(".")), key=_natural_order)
    folders = {entry.name for entry in entries if (entry / "data" / "images").is_dir()}
    for entry in entries:
        if entry.name in folders:
            mice.append((_data_key(entry.name), FolderFiles(entry)))
        elif entry.suffix == ".zip" and entry.stem in folders:
            logger.info("%s lies beside its unpacked folder, which is read instead", entry)
        elif entry.suffix == ".zip":
            mice += _mice_in_zip(entry)
    if not mice:
        raise ValueError(
            f"{path} holds no mouse: no data/images in it or in the folders directly below it, and "
            "no zip; expected the folder of a mouse, or a folder of mice or zips"
        )
    return mice


def _mice_in_zip(path: Path) -> list[tuple[str, FolderFiles | ZipFiles]]:
    try:
        directory = ZipDirectory.read(path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, struct.error) as error:
        why = "it is probably truncated: download or copy it again"
        if path.suffix != ".zip" and not zipfile.is_zipfile(path):
            why = "expected the folder or zip of a mouse, or a folder of these"
        raise ValueError(f"{path} is not a readable zip ({error}); {why}") from error
    numbered = re.compile(r"\d+\.npy")
    prefixes = {
        folder.removesuffix("data/images")
        for folder, _, file in (name.rpartition("/") for name in directory.names)
        if f"/{folder}".endswith("/data/images") and numbered.fullmatch(file)
    }
    if not prefixes:
        raise ValueError(
            f"{path} holds no data/images/*.npy; expected a zip of a mouse in the Sensorium layout"
        )
    mice: list[tuple[str, FolderFiles | ZipFiles]] = []
    for prefix in sorted(prefixes):
        folder = prefix.rstrip("/").rpartition("/")[2]
        candidates = [folder or path.stem] if len(prefixes) > 1 else [folder, path.stem]
        keys = [key for name in candidates if (key := _data_key(name)) != name]
        mice.append(((keys or [folder or path.stem])[0], ZipFiles(path, prefix, directory)))
    return mice


def _data_key(name: str) -> str:
    """Return "21067-10-18" for "static21067-10-18-GrayImageNet-...", any other name as it is."""
    match = re.fullmatch(r"static(.+)-(?:Gray|Color)ImageNet(?:-[0-9a-f]+)?", name)
    return match[1] if match else name


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort "mouse10" after "mouse2"."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", path.name)
        if part
    ]


def _mouse_names(
    found: list[tuple[str, FolderFiles | ZipFiles]],
    names: Sequence[str] | Mapping[str, str] | None,
) -> list[str]:
    keys = [key for key, _ in found]
    if names is None:
        return keys
    if isinstance(names, str):
        raise TypeError(f"names must be a list of names or a mapping, got the string {names!r}")
    if isinstance(names, Mapping):
        unknown = sorted(set(names) - set(keys))
        if unknown:
            raise ValueError(
                f"names has entries for {', '.join(unknown)}, which are not among the data keys "
                f"found ({', '.join(keys)})"
            )
        return [names.get(key, key) for key in keys]
    if len(names) != len(keys):
        raise ValueError(
            f"{len(names)} names for {len(keys)} recordings ({', '.join(keys)}); expected one each"
        )
    return list(names)


# -- reading one mouse -------------------------------------------------------------------------


def _read_mouse(mouse: str, files: FolderFiles | ZipFiles) -> xr.Dataset:
    config = _read_config(mouse, files)
    parts = {
        folder: _open_folder(mouse, files, folder)
        for folders in DATA_FOLDERS.values()
        for folder in folders
    }
    for required in ("images", "responses"):
        if parts[required] is None:
            raise ValueError(
                f"mouse {mouse!r}: data/{required} is missing or empty in {files}; expected one "
                "file per trial: copy or download the recording again"
            )
    n_trials = parts["images"].n_trials
    for folder, part in parts.items():
        if part is not None and part.n_trials != n_trials:
            raise ValueError(
                f"mouse {mouse!r}: {n_trials} files in data/images but {part.n_trials} in "
                f"data/{folder} of {files}; expected the same number of trials: copy or download "
                "the recording again"
            )
    n_neurons = parts["responses"].trial_shape[0]
    coords = _read_trial_labels(mouse, files, n_trials, config)
    coords |= _read_neurons(mouse, files, n_neurons, config)
    behavior_folders = [folder for folder in BEHAVIOR_FOLDERS if parts[folder] is not None]
    columns = [name for folder in behavior_folders for name in BEHAVIOR_FOLDERS[folder]]
    if columns:
        coords["behavior"] = ("behavior", np.array(columns))
    attrs = {
        "stimuli": STIMULI_ATTRS,
        "behaviors": behavior_attrs(columns),
        "responses": RESPONSES_ATTRS,
    }
    variables = {}
    for name, folders in DATA_FOLDERS.items():
        present = [parts[folder] for folder in folders if parts[folder] is not None]
        if present:
            withheld = None
            if name == "responses":
                withheld = _withheld_trials(mouse, files, present[0], coords["tier"][1])
            array = indexing.LazilyIndexedArray(TrialArray(present, withheld))
            variables[name] = xr.Variable(DIMS[name], array, attrs.get(name))
    shapes = {"stimuli": (), "behaviors": (len(columns),), "responses": (n_neurons,)}
    for name in shapes:
        folders = behavior_folders if name == "behaviors" else DATA_FOLDERS[name]
        variables |= _read_statistics(mouse, files, name, folders, shapes[name])
    dataset = xr.Dataset(variables, coords)
    for name, own in config.get("attrs", {}).items():
        if name and name not in dataset:
            raise ValueError(
                f"mouse {mouse!r}: config.json in {files} tells of {name}, whose files are "
                "missing; copy or download the recording again, or remove config.json"
            )
        (dataset if name == "" else dataset[name]).attrs = own
    return dataset


def _read_config(mouse: str, files: FolderFiles | ZipFiles) -> dict:
    """Return what `write_sensorium` kept in config.json beyond the layout; {} for other files."""
    data = files.read("config.json")
    if data is None:
        return {}
    try:
        return json.loads(data).get("v1tlearn", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"mouse {mouse!r}: config.json in {files} is not a JSON object ({error}); repair or "
            "remove it"
        ) from error


def _open_folder(mouse: str, files: FolderFiles | ZipFiles, folder: str) -> TrialFiles | None:
    """Return the trials in data/`folder`, None if there are none."""
    names = numbered_files(files, f"data/{folder}", mouse)
    if not names:
        return None
    part = TrialFiles(mouse, files.members(f"data/{folder}", names), keep_uint8=folder == "images")
    if folder == "images":
        expected, fits = "(channel, height, width)", len(part.trial_shape) == 3
    elif folder in BEHAVIOR_FOLDERS:
        columns = BEHAVIOR_FOLDERS[folder]
        expected = f"({len(columns)},): {', '.join(columns)}"
        fits = part.trial_shape == (len(columns),)
    else:
        expected, fits = "(neurons,)", len(part.trial_shape) == 1
    if not fits:
        raise ValueError(
            f"mouse {mouse!r}: shape of data/{folder}/{names[0]} in {files} is {part.trial_shape}, "
            f"expected {expected}"
        )
    return part


def _withheld_trials(
    mouse: str, files: FolderFiles | ZipFiles, responses: TrialFiles, tiers: np.ndarray
) -> np.ndarray | None:
    """Return which trials belong to a test tier whose responses are all zero; None if none do.

    Reads one trial of a tier with responses, all trials of a tier without.
    """
    withheld = np.zeros(len(tiers), bool)
    for tier in WITHHELD_TIERS:
        trials = np.flatnonzero(tiers == tier)
        start, step = 0, 1
        silent = len(trials) > 0
        while silent and start < len(trials):
            block = np.empty((len(trials[start : start + step]), *responses.trial_shape), "f4")
            responses.read_into(block, np.arange(len(block)), trials[start : start + step])
            silent = not block.any()
            start, step = start + step, 256
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
        stem = file.removesuffix(".npy")
        if stem == file:
            continue
        where = f"mouse {mouse!r}: meta/{kind}/{file} in {files}"
        data = files.read(f"meta/{kind}/{file}")
        name = known.get(stem) or own_names.get(f"{kind}/{stem}")
        try:
            values = parse_npy(data, where)
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
            arrays = [parse_npy(data, f"mouse {mouse!r}: {n}") for n, data in found.items()]
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
