"""Writer of the Sensorium 2022 / Franke 2022 layout; sensorium.py reads it back."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from v1tlearn._instead import path_of
from v1tlearn._opening import system_errors_named
from v1tlearn._replacing import alone_in, make_folder, replacing
from v1tlearn._values import as_flag
from v1tlearn.datasets.blocks import blocks
from v1tlearn.datasets.given_recordings import recordings_to_dict
from v1tlearn.datasets.schema import STATISTICS, validate_recordings
from v1tlearn.datasets.sensorium.layout import (
    BEHAVIOR_FOLDERS,
    DATA_FOLDERS,
    IMAGE_LABEL_PREFIXES,
    IMAGE_LABELS,
    NEURON_FILES,
    STATISTIC_SUBSETS,
    TRIAL_FILES,
)
from v1tlearn.datasets.time_axis import is_movie


def write_sensorium(
    recordings: xr.DataTree | Mapping[str, xr.Dataset] | xr.Dataset,
    folder: str | os.PathLike,
    zip: bool = False,
) -> list[Path]:
    """Write recordings in the layout of Sensorium 2022, one folder or zip per mouse.

    Parameters
    ----------
    recordings : DataTree, mapping {mouse: Dataset}, or Dataset
        Several mice, or one: a child of a DataTree, or a dataset whose attribute `mouse_id` names
        it. Each with `stimuli`, `responses` and the coordinate `tier`. Read block by block, so
        lazily opened recordings are never whole in memory.
    folder : path
        Where the mice go, as `static{mouse}-GrayImageNet` (one channel) or `-ColorImageNet`; made
        if missing.
    zip : bool, default=False
        Write one zip per mouse instead of one folder.

    Returns
    -------
    list of Path
        One per mouse, in order; `read_sensorium` takes them.

    Raises
    ------
    FileExistsError
        If a mouse is already there; nothing is overwritten.
    ValueError
        If the layout cannot hold the recordings; `save_recordings` can.

    Notes
    -----
    `read_sensorium` gives back the same values and labels: it reads uint8 stimuli as uint8, and
    all other values as float32. What the layout has no place for goes where other readers do not
    look: `expected_responses` in a folder of their own, attributes and names of extra
    coordinates in `config.json`. Responses that were not recorded are written as NaN. Each mouse
    is written beside its place and then renamed, so an interrupted call leaves no half of one.
    """
    folder = path_of("folder", folder, "write_sensorium(recordings, folder)")
    zip = as_flag(zip, "zip")
    datasets = {
        mouse: dataset.set_coords("position") if "position" in dataset else dataset
        for mouse, dataset in recordings_to_dict(recordings).items()
    }
    validate_recordings(datasets, check_values=False)
    targets = {}
    for mouse, dataset in datasets.items():
        _check_fits(mouse, dataset)
        kind = "Gray" if dataset.sizes["channel"] == 1 else "Color"
        targets[mouse] = folder / f"static{mouse}-{kind}ImageNet{'.zip' if zip else ''}"
        _check_free(mouse, targets[mouse])
    make_folder(folder)
    for mouse, target in targets.items():
        sinks: Any = _ZipSink if zip else _FolderSink
        with alone_in(folder):
            _check_free(mouse, target)  # another process may have written it since
            with replacing(target) as partial, sinks(partial) as sink:
                _write_mouse(sink, mouse, datasets[mouse])
    return list(targets.values())


def _check_free(mouse: str, target: Path) -> None:
    if target.exists():
        raise FileExistsError(
            f"mouse {mouse!r}: {target} exists already; remove it or choose another folder"
        )


class _FolderSink:
    """Files below a new folder."""

    def __init__(self, root: Path):
        self._root = root

    def __enter__(self) -> _FolderSink:
        self._root.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with system_errors_named(path):
            path.write_bytes(data)


class _ZipSink:
    """Members of a new zip; their dates are fixed, so equal recordings give equal files."""

    def __init__(self, path: Path):
        self._archive, self._path = zipfile.ZipFile(path, "x"), path

    def __enter__(self) -> _ZipSink:
        return self

    def __exit__(self, *error: object) -> None:
        with system_errors_named(self._path):
            self._archive.close()

    def write(self, name: str, data: bytes) -> None:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        with system_errors_named(self._path):
            self._archive.writestr(info, data, compresslevel=1)


def _statistic_names() -> dict[str, tuple[str, str, str]]:
    """Return {our name: (variable, subset, statistic)} of every statistic of the layout."""
    return {
        f"{variable}_{statistic}{suffix}": (variable, subset, statistic)
        for variable in ("stimuli", "behaviors", "responses")
        for subset, suffix in STATISTIC_SUBSETS.items()
        for statistic in STATISTICS
    }


def _behavior_folders(mouse: str, dataset: xr.Dataset) -> list[str]:
    """Return the folders that hold the behaviour columns, in their order."""
    if "behaviors" not in dataset:
        return []
    names = dataset["behavior"].values.tolist()
    for folders in (["behavior", "pupil_center"], ["behavior"], ["pupil_center"]):
        if names == [name for folder in folders for name in BEHAVIOR_FOLDERS[folder]]:
            return folders
    raise ValueError(
        f"mouse {mouse!r}, behavior: columns are {', '.join(names)}; the Sensorium layout holds "
        f"{', '.join(BEHAVIOR_FOLDERS['behavior'])}, then or instead "
        f"{', '.join(BEHAVIOR_FOLDERS['pupil_center'])}: select them with "
        "dataset.sel(behavior=[...]), or use save_recordings, which holds any"
    )


def _check_fits(mouse: str, dataset: xr.Dataset) -> None:
    """Raise if the layout cannot hold a recording: nothing is dropped on the way."""
    if is_movie(dataset):
        raise ValueError(
            f"mouse {mouse!r}, stimuli: are movies, dims {dataset['stimuli'].dims}; the Sensorium "
            "2022 layout holds images: use save_recordings"
        )
    for name in ("responses", "tier"):
        if name not in dataset:
            raise ValueError(
                f"mouse {mouse!r}: {name} is missing; the Sensorium layout needs it: add it, or "
                "use save_recordings"
            )
    _behavior_folders(mouse, dataset)
    known = {*DATA_FOLDERS, *_statistic_names(), "position", "behavior", "axis"}
    for name in map(str, dataset.variables):
        if name not in known and dataset[name].dims not in (("trial",), ("neuron",)):
            raise ValueError(
                f"mouse {mouse!r}, {name}: the Sensorium layout has no place for it (dims "
                f"{dataset[name].dims}); drop it with dataset.drop_vars({name!r}), or use "
                "save_recordings, which holds any"
            )
        if name not in known and name not in dataset.coords:
            raise ValueError(
                f"mouse {mouse!r}, {name}: only coordinates can be labels of trials and neurons; "
                f"use dataset.set_coords({name!r}), or save_recordings"
            )


def _write_mouse(sink: _FolderSink | _ZipSink, mouse: str, dataset: xr.Dataset) -> None:
    coordinates = _write_labels(sink, mouse, dataset)
    behavior_folders = _behavior_folders(mouse, dataset)
    for name, folders in DATA_FOLDERS.items():
        if name in dataset:
            columns = _columns(behavior_folders) if name == "behaviors" else {folders[0]: ...}
            for start, block in blocks(dataset[name]):
                for trial, values in enumerate(block, start):
                    for folder, part in columns.items():
                        sink.write(f"data/{folder}/{trial}.npy", _npy(values[part]))
    for name, (variable, subset, statistic) in _statistic_names().items():
        if name in dataset:
            folders = DATA_FOLDERS[variable]
            columns = _columns(behavior_folders) if variable == "behaviors" else {folders[0]: ...}
            for folder, part in columns.items():
                values = dataset[name].values[part]
                sink.write(f"meta/statistics/{folder}/{subset}/{statistic}.npy", _npy(values))
    attrs = {str(n): _plain(mouse, str(n), dataset[n].attrs) for n in dataset.variables}
    attrs[""] = _plain(mouse, "attributes of the recording", dataset.attrs)
    config = {"links": {}, "v1tlearn": {"attrs": attrs, "coordinates": coordinates}}
    sink.write("config.json", json.dumps(config, indent=1).encode())


def _columns(folders: list[str]) -> dict[str, slice]:
    """Return the columns of `behaviors` that go into each folder."""
    columns, start = {}, 0
    for folder in folders:
        columns[folder] = slice(start, start := start + len(BEHAVIOR_FOLDERS[folder]))
    return columns


def _write_labels(sink: _FolderSink | _ZipSink, mouse: str, dataset: xr.Dataset) -> dict[str, str]:
    """Write labels of trials and neurons; return the names that the layout does not imply."""
    prefix = IMAGE_LABEL_PREFIXES[dataset.sizes["channel"] > 1]
    implied = {
        "trial": {"tier": "tiers", "trial_id": "trial_idx"}
        | {label: f"{prefix}_{stem}" for stem, label in IMAGE_LABELS.items()},
        "neuron": {name: stem for stem, name in NEURON_FILES.items()},
    }
    taken = {"trial": set(TRIAL_FILES), "neuron": set(NEURON_FILES)}
    own_names = {}
    for name, array in ((str(name), array) for name, array in dataset.coords.items()):
        if name in ("behavior", "axis"):
            continue
        kind = str(array.dims[0])
        stem = implied[kind].get(name)
        if stem is None:
            stem = name.removeprefix(f"{kind}_")
            while stem in taken[kind]:
                stem += "_"
            taken[kind].add(stem)
            own_names[f"{kind}s/{stem}"] = name
        values = array.values
        if values.dtype.kind in "OT":
            if not all(isinstance(value, str) for value in values.tolist()):
                raise ValueError(
                    f"mouse {mouse!r}, {name}: holds Python objects, expected text or numbers; "
                    "convert it with .astype(str)"
                )
            values = values.astype(str)
        sink.write(f"meta/{kind}s/{stem}.npy", _npy(values))
    return own_names


def _plain(mouse: str, name: str, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON holds them."""
    try:
        return json.loads(json.dumps(dict(attrs), default=lambda value: value.tolist()))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"mouse {mouse!r}, {name}: an attribute cannot be written as JSON ({error}); use text, "
            "numbers or lists of them"
        ) from error


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(values, order="C"), allow_pickle=False)
    return buffer.getvalue()
