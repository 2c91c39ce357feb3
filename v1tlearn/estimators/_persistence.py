"""How fitted models outlive the process.

Always saved: parameters, fitted attributes, weights, and the training state (weights of the last
epoch, optimiser, schedule, random numbers, history), so that ``warm_start`` goes on exactly.
Never saved: the device, because the next machine may not have it, and the training data.

`save` writes ``model.json`` and ``tensors.safetensors`` into a directory; no pickle is involved in
either direction. Pickling holds the same content, tensors on the CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from v1tlearn.estimators._modules import make_model
from v1tlearn.training.state import map_tensors

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor

FORMAT = 1
MODEL_FILE, TENSOR_FILE = "model.json", "tensors.safetensors"


def to_state(state: dict[str, Any]) -> dict[str, Any]:
    """Turn an estimator's attributes into what is kept: no device, weights on the CPU.

    Parameters
    ----------
    state : dict
        Attributes of the estimator.

    Returns
    -------
    dict
    """
    state = dict(state)
    state.pop("device_", None)
    if "module_" in state:
        state["module_"] = dict(state["module_"].state_dict())
    for name in ("module_", "state_"):
        if name in state:
            state[name] = map_tensors(state[name], lambda t: t.detach().cpu().clone())
    return state


def restore_module(estimator: EncodingRegressor) -> None:
    """Rebuild the module of an estimator whose attributes came from `to_state`.

    Parameters
    ----------
    estimator : EncodingRegressor
        With its weights in place of the module; unchanged if it was not fitted.
    """
    weights = estimator.__dict__.get("module_")
    if not isinstance(weights, dict):
        return
    rng = torch.get_rng_state()
    try:
        module = make_model(estimator)
    finally:
        torch.set_rng_state(rng)
    module.load_state_dict(weights)
    estimator.module_ = module.eval()


def save(estimator: EncodingRegressor, path: Path) -> None:
    """Write a fitted estimator into a directory, beside it first, then in one move.

    Parameters
    ----------
    estimator : EncodingRegressor
    path : Path

    Raises
    ------
    TypeError
        If a parameter cannot be written as JSON, such as a random generator.
    FileExistsError
        If something that is no saved model is in the way.
    """
    empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not (path / MODEL_FILE).is_file() and not empty:
        raise FileExistsError(
            f"{path} exists and is no saved model: choose another path, or remove it first."
        )
    tensors: dict[str, torch.Tensor] = {}
    content = {
        "format": FORMAT,
        "class": type(estimator).__name__,
        "attributes": _encode(to_state(estimator.__dict__), tensors, ""),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        save_file(tensors, beside / TENSOR_FILE)
        (beside / MODEL_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        beside.chmod(0o755)
        _replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load(kind: type[EncodingRegressor], path: Path, device: str) -> EncodingRegressor:
    """Read what `save` wrote.

    Parameters
    ----------
    kind : type
        Class of the estimator.
    path : Path
    device : str

    Returns
    -------
    EncodingRegressor
    """
    if not (path / MODEL_FILE).is_file():
        raise ValueError(f"{path} holds no saved model: it has no {MODEL_FILE}.")
    try:
        content = json.loads((path / MODEL_FILE).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSOR_FILE)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"the model in {path} is damaged or incomplete: {error}") from error
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')!r}, this version reads {FORMAT}: update "
            "v1tlearn."
        )
    if content["class"] != kind.__name__:
        raise ValueError(
            f"{path} holds a {content['class']}: load it with {content['class']}.load(...)."
        )
    estimator = kind.__new__(kind)
    estimator.__dict__.update(_decode(content["attributes"], tensors))
    estimator.device = device
    restore_module(estimator)
    return estimator


def _replace(new: Path, path: Path) -> None:
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        os.replace(path, old / path.name)
        os.replace(new, path)
        shutil.rmtree(old)
    else:
        os.replace(new, path)


def _encode(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """Plain JSON for a tree; tensors and arrays go to `tensors`, a reference stays."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), tensors, name)
    if isinstance(value, torch.Tensor):
        tensors[name] = value.contiguous()
        return {"$tensor": name}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OU":
            return {"$strings": [str(v) for v in value], "object": value.dtype == object}
        tensors[name] = torch.from_numpy(np.array(value))
        return {"$array": name}
    if isinstance(value, dict):
        items = [[_encode(k, tensors, ""), v] for k, v in value.items()]
        return {"$dict": [[k, _encode(v, tensors, f"{name}/{k}")] for k, v in items]}
    if isinstance(value, list | tuple):
        encoded = [_encode(v, tensors, f"{name}/{i}") for i, v in enumerate(value)]
        return encoded if isinstance(value, list) else {"$tuple": encoded}
    if isinstance(value, torch.device):
        return str(value)
    raise TypeError(
        f"{name.strip('/')!r} is a {type(value).__name__}, which cannot be saved as JSON: give "
        "plain numbers and text (for random_state an int) before saving, or pickle the model."
    )


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$array" in value:
        return tensors[value["$array"]].numpy()
    if "$strings" in value:
        return np.asarray(value["$strings"], dtype=object if value["object"] else str)
    if "$tuple" in value:
        return tuple(_decode(v, tensors) for v in value["$tuple"])
    return {k: _decode(v, tensors) for k, v in value["$dict"]}
