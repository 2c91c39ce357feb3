"""What the Sensorium layout tells of trials and neurons beside the trials: labels, statistics."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from v1tlearn._opening import json_object, reading
from v1tlearn.datasets.schema import AXES, POSITION_ATTRS, STATISTICS, statistic_dims
from v1tlearn.datasets.sensorium.folder_files import FolderFiles
from v1tlearn.datasets.sensorium.labels import as_text
from v1tlearn.datasets.sensorium.layout import (
    NEURON_FILES,
    STATISTIC_SUBSETS,
    TRIAL_FILES,
    WITHHELD_TIERS,
)
from v1tlearn.datasets.sensorium.npy import parse_npy
from v1tlearn.datasets.sensorium.zip_files import ZipFiles

logger = logging.getLogger(__name__)


def read_config(mouse: str, files: FolderFiles | ZipFiles) -> dict:
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


def read_trial_labels(
    mouse: str, files: FolderFiles | ZipFiles, n_trials: int, config: dict
) -> dict[str, tuple]:
    """Return the labels of trials as coordinates; the tier is among them."""
    labels = _read_labels(mouse, files, "trials", n_trials, TRIAL_FILES, config)
    if "tier" not in labels:
        raise ValueError(
            f"mouse {mouse!r}: meta/trials/tiers.npy is missing in {files}; expected one of train, "
            "validation, test, final_test per trial: copy or download the recording again"
        )
    return {name: ("trial", values) for name, values in labels.items()}


def read_neurons(
    mouse: str, files: FolderFiles | ZipFiles, n_neurons: int, config: dict
) -> dict[str, tuple]:
    """Return the labels of neurons, and their positions, as coordinates."""
    labels = _read_labels(mouse, files, "neurons", n_neurons, NEURON_FILES, config)
    coords: dict[str, tuple] = {}
    if "position" in labels:
        position = labels.pop("position").astype("f4", copy=False)
        coords["position"] = (("neuron", "axis"), position, POSITION_ATTRS)
        coords["axis"] = ("axis", np.array(AXES[: position.shape[1]]))
    return coords | {name: ("neuron", values) for name, values in labels.items()}


def read_statistics(
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


def withheld_trials(
    mouse: str,
    files: FolderFiles | ZipFiles,
    labels: np.ndarray,
    tiers: np.ndarray,
    kept: np.ndarray,
    are_silent: Callable[[np.ndarray], bool],
) -> np.ndarray | None:
    """Return which trials belong to a test tier whose responses are all zero; None if none do.

    Tiers count by their names in the files, `labels`: one may be withheld, another not.
    `are_silent` reads the responses of trials, by number, as far as it needs to.
    """
    withheld = np.zeros(len(labels), bool)
    for label in np.unique(labels[kept]).tolist():
        trials = np.flatnonzero(labels == label)
        if tiers[trials[0]] in WITHHELD_TIERS and are_silent(trials):
            withheld[trials] = True
            logger.info(
                "mouse %r: the %d responses of tier %s in %s are all zero, taken as withheld (NaN)",
                mouse,
                len(trials),
                label,
                files,
            )
    return withheld if withheld.any() else None
