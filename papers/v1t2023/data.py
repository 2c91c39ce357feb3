"""
Recordings for ``dataset_s.py`` and ``dataset_f.py``: found by name, stored once, opened lazily.

Also the small simulated folders of ``--quick``, and the file of predictions for competition mice.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import v1tlearn as v1
from v1tlearn.datasets.fetch import FRANKE_2022, SENSORIUM_2022

MICE = {"S": ("A", "B", "C", "D", "E"), "F": tuple(FRANKE_2022)}
COMPETITION_MICE = ("S0", "S1")  # test responses withheld; S0 has no behaviour either
TIERS = ("train", "validation", "test")
WITHHELD_TIERS = ("test", "final_test")


def find_mice(folder: Path, dataset: str) -> dict[str, Path]:
    """Find the zips or folders of the mice of data set "S" or "F": {letter: path}.

    A mouse is known by the animal-session-scan in the name of its zip or folder, whatever comes
    before and after; an unpacked folder goes before the zip beside it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; expected the one with the mice's zips")
    known = {"S": SENSORIUM_2022, "F": FRANKE_2022}[dataset]
    letters = {key: letter for letter, (key, _) in known.items()}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):
        name = re.search(r"(?<!\d)(\d+-\d+-\d+)(?!\d)", path.name)
        if name and name[1] in letters and (path.is_dir() or path.suffix == ".zip"):
            found.setdefault(letters[name[1]], path)
    if not set(found) & set(MICE[dataset]):
        names = ", ".join(f"{letter} = {key}" for letter, (key, _) in known.items())
        raise ValueError(
            f"{folder} holds none of the mice of data set {dataset}; expected zips or folders "
            f"like static21067-10-18-GrayImageNet-....zip with one of these in their names: {names}"
        )
    return {letter: found[letter] for letter in known if letter in found}


def open_mice(folder: Path, dataset: str, store: Path) -> dict[str, xr.Dataset]:
    """Read each mouse of a folder into a netCDF file of its own, and open those lazily.

    The file knows what it was read from, and is read anew where that is another now.
    """
    store.mkdir(parents=True, exist_ok=True)
    recordings = {}
    for letter, path in find_mice(folder, dataset).items():
        file, source = store / f"{letter}.nc", _source(path)
        if not file.exists() or _open(file, letter).attrs.get("read_from") != source:
            print(f"reading mouse {letter} from {path.name} ...", flush=True)
            recording = next(iter(v1.read_sensorium(path).children.values())).to_dataset()
            checksum = zlib.crc32(recording["responses"].to_numpy().tobytes())
            recording = recording.assign_attrs(read_from=source, checksum=checksum)
            v1.save_recordings({letter: recording}, file)
        recordings[letter] = _open(file, letter)
    return recordings


def _open(file: Path, letter: str) -> xr.Dataset:
    return v1.open_recordings(file)[letter].to_dataset()


def _source(path: Path) -> str:
    """Name, number of files, size in bytes and last change of a zip or folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    found = [file.stat() for file in files]
    size, changed = sum(f.st_size for f in found), max((f.st_mtime_ns for f in found), default=0)
    return f"{path.name}: {len(files)} files, {size} bytes, changed {changed}"


def describe(recordings: Mapping[str, xr.Dataset]) -> dict[str, dict[str, int]]:
    """Count neurons and trials per tier of each mouse: what results were made of.

    With the checksum of the responses, whether they came from a zip or a folder.
    """
    return {
        mouse: {"neurons": recording.sizes["neuron"], "checksum": int(recording.attrs["checksum"])}
        | {tier: int((recording["tier"] == tier).sum()) for tier in (*TIERS, "final_test")}
        for mouse, recording in recordings.items()
    }


def write_predictions(path: Path, trials: v1.Trials, predictions: v1.Responses, mouse: str) -> None:
    """Write predictions of one competition mouse as the competition takes them, a row per trial."""
    labels = trials.recordings[mouse]
    # six digits: a float64 would double the file and say no more
    vectors = ["[" + ", ".join(f"{v:.6g}" for v in row) + "]" for row in predictions.get(mouse)]
    neurons = labels["neuron"] if "neuron" in labels.coords else range(trials.n_neurons[mouse])
    table = pd.DataFrame(
        {
            "trial_indices": labels["trial_id"].values,
            "image_ids": trials.image_ids,
            "prediction": vectors,
            "neuron_ids": json.dumps([int(neuron) for neuron in neurons]),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    table.to_csv(beside, index=False)
    os.replace(beside, path)


# -- what --quick runs on ----------------------------------------------------------------------


def simulate(folder: Path, dataset: str) -> Path:
    """Write two small simulated mice of data set "S" or "F" as zips with their published names.

    Beside those of data set S lie its two competition mice: hashed trial ids, test responses zero.
    """
    if folder.exists():
        return folder
    n_competition = len(COMPETITION_MICE) if dataset == "S" else 0
    recordings = v1.make_v1_recordings(
        n_mice=2 + n_competition,
        n_neurons=16,
        n_trials=120,
        n_test_images=6,
        n_repeats=4,
        n_channels=1 if dataset == "S" else 2,
        validation_fraction=0.2,
        explainable_variance=0.6,
        random_state=0,
    )
    known = SENSORIUM_2022 if dataset == "S" else FRANKE_2022
    letters = [*MICE[dataset][:2], *COMPETITION_MICE[:n_competition]]
    mice = {}
    for letter, recording in zip(letters, recordings.children.values(), strict=True):
        mouse = recording.to_dataset().drop_vars("expected_responses")
        if dataset == "S":
            mouse = _enlarged(mouse)
        if letter in COMPETITION_MICE:
            mouse = _withheld(mouse.drop_dims("behavior") if letter == "S0" else mouse)
        mice[known[letter][0]] = mouse
    beside = folder.with_name(f".{folder.name}.part{os.getpid()}")
    for letter, path in zip(letters, v1.write_sensorium(mice, beside, zip=True), strict=True):
        path.rename(path.with_name("static" + "-".join(known[letter]) + ".zip"))
    beside.rename(folder)
    return folder


def _enlarged(mouse: xr.Dataset) -> xr.Dataset:
    """Images of 144 x 256 pixels, which the models make 36 x 64 again."""
    dims, stimuli = mouse["stimuli"].dims, mouse["stimuli"].values
    large = stimuli.repeat(4, axis=-2).repeat(4, axis=-1)
    return mouse.drop_vars("stimuli").assign(stimuli=(dims, large, mouse["stimuli"].attrs))


def _withheld(mouse: xr.Dataset) -> xr.Dataset:
    """Half of the test images become the final test; responses to both zero, ids hashed."""
    tier = mouse["tier"].values.astype("U10")
    images = np.unique(mouse["image_id"].values[tier == "test"])
    tier[np.isin(mouse["image_id"].values, images[::2])] = "final_test"
    responses = mouse["responses"].copy(deep=True)
    responses[np.isin(tier, WITHHELD_TIERS)] = 0.0
    ids = {
        name: ("trial", [hashlib.md5(f"{name}{v}".encode()).hexdigest() for v in values])
        for name, values in ((n, mouse[n].values) for n in ("trial_id", "image_id"))
    }
    return mouse.assign(responses=responses).assign_coords(tier=("trial", tier), **ids)
