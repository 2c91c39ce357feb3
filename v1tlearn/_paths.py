"""What lies at a path, and what opens it: said wherever a path came that is something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

MODEL_FILE = "model.json"  # of a saved estimator, which is a directory
REGISTRY_FILE = "registry.json"  # of models by name

_NETCDF = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_PICKLED = (".pkl", ".pickle", ".joblib")
_WEIGHTS = (".pt", ".pth", ".tar", ".ckpt")


class Found(NamedTuple):
    """What lies at a path."""

    what: str  # "a saved model"
    expression: str | None  # what opens it
    is_recordings: bool = False  # whether the expression gives trials, or what Trials takes
    exists: bool = True

    def said(self) -> str:
        """Say it as a sentence about the path."""
        if not self.exists:
            return "there is no such file or directory"
        opens = f": {self.expression} opens it" if self.expression else ""
        return f"it is {self.what}{opens}"

    def as_trials(self) -> str | None:
        """Write the expression that gives trials."""
        if not self.is_recordings or self.expression is None:
            return None
        opened = self.expression
        return opened if opened.startswith("Trials") else f"Trials({opened})"

    def as_recordings(self) -> str | None:
        """Write the expression that gives recordings."""
        if not self.is_recordings or self.expression is None:
            return None
        return self.expression.replace("Trials.open", "v1tlearn.open_recordings")


def what_lies_at(path: str | os.PathLike) -> Found:
    """Look at what a path leads to; nothing is opened beyond its first bytes."""
    path = Path(path)
    recordings = Found("a netCDF file", f"Trials.open({str(path)!r})", True)
    sensorium = f"v1tlearn.read_sensorium({str(path)!r})"
    if path.is_dir():
        return _directory(path, sensorium)
    if not path.exists():
        found = Found("a zip", sensorium, True) if path.suffix.lower() == ".zip" else recordings
        return found._replace(exists=False)
    if not path.is_file():  # a pipe, a device: opening it might wait for ever
        return Found("no plain file", None)
    with path.open("rb") as file:
        start = file.read(64)
    if path.suffix.lower() == ".nwb":
        return Found("an NWB file", f"v1tlearn.read_nwb({str(path)!r})", True)
    if start.startswith(_NETCDF):
        return recordings
    if path.name == MODEL_FILE or path.suffix == ".safetensors":
        return Found("a file of a saved model", f"v1tlearn.load({str(path.parent)!r})")
    if path.suffix in _PICKLED:
        what = "a pickle, which you should open only if you trust its origin"
        return Found(what, f"joblib.load({str(path)!r})")
    if path.suffix in _WEIGHTS:
        return Found("perhaps weights of published code", f"v1tlearn.load_sensorium({str(path)!r})")
    if start.startswith(b"PK") and MODEL_FILE.encode() in start:  # the name of its first member
        return Found("a zip of a saved model, whose folder load opens once it is unpacked", None)
    if start.startswith(b"PK"):
        return Found("a zip, as a mouse in the Sensorium layout comes", sensorium, True)
    return Found("a file of another kind", None)


def _directory(path: Path, sensorium: str) -> Found:
    if (path / MODEL_FILE).is_file():
        return Found("a saved model", f"v1tlearn.load({str(path)!r})")
    if (path / "args.yaml").is_file():
        return Found("a run of the published V1T code", f"v1tlearn.load_v1t({str(path)!r})")
    if (path / REGISTRY_FILE).is_file():
        opens = f"v1tlearn.load(v1tlearn.fetch_model(name, {str(path)!r}))"
        return Found("a registry of models", opens)
    if (path / "data").is_dir():
        return Found("a mouse in the Sensorium layout", sensorium, True)
    children = list(path.iterdir())
    zips = any(child.suffix.lower() == ".zip" for child in children)
    if zips or any((child / "data").is_dir() for child in children):
        return Found("a folder of mice in the Sensorium layout", sensorium, True)
    models = sorted(str(file.parent) for file in path.glob(f"*/{MODEL_FILE}"))
    if models:
        names = [Path(model).name for model in models]
        return Found(f"a folder of the saved models {names}", f"v1tlearn.load({models[0]!r})")
    return Found("a folder of other things", None)
