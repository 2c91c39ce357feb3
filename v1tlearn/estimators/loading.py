"""Open any saved estimator, without being told of which class it is.

Classes are looked up by name among those of this package; a name in a file never imports anything.
"""

from __future__ import annotations

import json
from pathlib import Path

from v1tlearn.estimators._ensemble import subclasses
from v1tlearn.estimators._persistence import MODEL_FILE, damaged
from v1tlearn.estimators.base import EncodingRegressor
from v1tlearn.estimators.ensemble import EnsembleRegressor

_NETCDF = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_PICKLED = (".pkl", ".pickle", ".joblib")
_WEIGHTS = (".pt", ".pth", ".tar", ".ckpt")


def load(path: str | Path, device: str = "auto") -> EncodingRegressor | EnsembleRegressor:
    """Load whatever estimator was saved, a single model or an ensemble.

    Nothing in the files is executed.

    Parameters
    ----------
    path : str or Path
        A directory that the `save` of an estimator wrote.
    device : str, default="auto"
        Where the model goes, whatever it was fitted on.

    Returns
    -------
    CNNRegressor, LNRegressor, ViTRegressor, V1TRegressor or EnsembleRegressor
        Fitted.

    Raises
    ------
    ValueError
        If there is no such model, with what else it might be; if it is damaged; or if it is of a
        class that this package does not have, whose own ``load`` is named.

    See Also
    --------
    Trials.open : Opens recordings.
    load_v1t : Opens models of the published V1T code.
    load_sensorium : Opens models of the Sensorium 2022 code.
    """
    path = Path(path)
    if not (path / MODEL_FILE).is_file():
        raise ValueError(f"{path} holds no saved model: {_what_it_is(path)}")
    name = _class_name(path)
    kinds = {kind.__name__: kind for kind in (*subclasses(EncodingRegressor), EnsembleRegressor)}
    ours = {n: k for n, k in kinds.items() if k.__module__.split(".")[0] == "v1tlearn"}
    if name not in ours:
        raise ValueError(
            f"{path} holds a {name}, which is no class of v1tlearn: load it with {name}.load(...)"
            + ("." if name in kinds else ", after importing that class.")
        )
    return ours[name].load(path, device)


def _class_name(path: Path) -> str:
    try:
        name = json.loads((path / MODEL_FILE).read_text(encoding="utf-8"))["class"]
        if not isinstance(name, str):
            raise TypeError(f"its class is {name!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    return name


def _what_it_is(path: Path) -> str:
    """Why a path is no model, and what opens it instead."""
    if not path.exists():
        return "there is no such file or directory."
    if path.is_file():
        return _what_the_file_is(path)
    if (path / "args.yaml").is_file():
        return "it looks like a run of the published V1T code: v1.load_v1t(...) opens that."
    if (path / "data").is_dir() and (path / "meta").is_dir():
        return "it looks like a recording: v1.read_sensorium(...) reads that."
    models = sorted(file.parent.name for file in path.glob(f"*/{MODEL_FILE}"))
    if models:
        return f"it has no {MODEL_FILE}, but there are models in it: load one of {models}."
    return f"it has no {MODEL_FILE}."


def _what_the_file_is(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_NETCDF):
        return "it looks like recordings in a netCDF file: v1.Trials.open(...) opens those."
    if path.name == MODEL_FILE or path.suffix == ".safetensors":
        return "it is a file, perhaps of one: give the directory that save wrote."
    if path.suffix in _PICKLED:
        return "it looks like a pickle: joblib.load(...) opens those, if you trust their origin."
    if path.suffix in _WEIGHTS:
        return (
            "it looks like weights of published code: v1.load_sensorium(...) opens those, "
            "v1.load_v1t(...) the directory of a run."
        )
    if start.startswith(b"PK"):
        return "it looks like a zip: v1.read_sensorium(...) reads a recording in one."
    return "it is a file: give the directory that save wrote."
