"""How fitted models outlive the process.

Always saved: parameters, fitted attributes, weights, and the training state (weights of the last
epoch, optimiser, schedule, random numbers, history), so that ``warm_start`` goes on exactly.
Never saved: the device, because the next machine may not have it, and the training data.

`save` writes ``model.json`` and, beside it, the safetensors file that it names; no pickle is
involved in either direction. Pickling holds the same content, tensors on the CPU.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from v1tlearn._paths import MODEL_FILE
from v1tlearn.estimators._modules import make_model
from v1tlearn.training import initial_rng, private_rng
from v1tlearn.training.state import map_tensors

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor

FORMAT = 1


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
    if "parameters_" in state:
        state["parameters_"] = dict(state["parameters_"])
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
    with private_rng(initial_rng(0)):  # initial weights are not kept
        module = make_model(estimator)
    module.load_state_dict(weights)
    estimator.module_ = module.eval()
    # models of version 0.1.0 did not keep the labels of their neurons
    estimator.__dict__.setdefault("neurons_", {mouse: {} for mouse in estimator.mice_})


def save(estimator: EncodingRegressor, path: Path) -> None:
    """Write a fitted estimator into a directory; it counts from one rename on.

    A generator as `random_state` is written as the seed that was drawn from it.

    An earlier model stays whole until then, whenever the process ends; other files stay.

    Parameters
    ----------
    estimator : EncodingRegressor
    path : Path

    Raises
    ------
    TypeError
        If a parameter cannot be written as JSON.
    FileExistsError
        If something that is no saved model is in the way.
    """
    if path.exists() and not is_free(path):
        raise FileExistsError(
            f"{path} exists and is no saved model: choose another path, or remove it first."
        )
    tensors: dict[str, torch.Tensor] = {}
    state = to_state(estimator.__dict__)
    for parameters in (state, state["parameters_"]):
        if isinstance(parameters["random_state"], np.random.RandomState | np.random.Generator):
            parameters["random_state"] = estimator.seed_
    attributes = encode(state, tensors, "")
    mark = secrets.token_hex(8)
    tensor_file, beside = path / f"tensors-{mark}.safetensors", path / f".{MODEL_FILE}-{mark}"
    content = {
        "format": FORMAT,
        "class": type(estimator).__name__,
        "tensors": tensor_file.name,
        "attributes": attributes,
    }
    path.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, tensor_file)
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(beside, path / MODEL_FILE)
    except BaseException:
        tensor_file.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        raise
    for file in path.iterdir():
        if is_remains(file) and file != tensor_file:
            file.unlink(missing_ok=True)


def read_content(kind: type, path: Path, expected_format: int) -> dict[str, Any]:
    """Read ``model.json`` of a saved model, and check that it is of this class and format.

    Parameters
    ----------
    kind : type
        Class of the model.
    path : Path
        Directory of the model.
    expected_format : int
        The format that this version writes.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If there is none, it is damaged, or of another class or format.
    """
    if not (path / MODEL_FILE).is_file():
        raise ValueError(f"{path} holds no saved model: it has no {MODEL_FILE}.")
    try:
        content = json.loads((path / MODEL_FILE).read_text(encoding="utf-8"))
        saved_format, saved_class = content["format"], content["class"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    if saved_class != kind.__name__:
        raise ValueError(f"{path} holds a {saved_class}: load it with {saved_class}.load(...).")
    if saved_format != expected_format:
        raise ValueError(
            f"{path} has format {saved_format!r}, this version reads {expected_format}: update "
            "v1tlearn."
        )
    return content


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
    content = read_content(kind, path, FORMAT)
    estimator = kind.__new__(kind)
    try:
        tensors = load_file(path / Path(content["tensors"]).name)
        estimator.__dict__.update(decode(content["attributes"], tensors))
        estimator.device = device
        restore_module(estimator)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise damaged(path, error) from error
    estimator._to_device()
    return estimator


def damaged(path: Path, error: Exception) -> ValueError:
    """Make the error for a model that cannot be read."""
    return ValueError(
        f"the model in {path} is damaged or incomplete ({type(error).__name__}: {error}): save it "
        "anew."
    )


def is_free(path: Path) -> bool:
    """Whether a model may be written there: over an earlier one, or where nothing else is."""
    if not path.is_dir():
        return False
    if not (path / MODEL_FILE).exists():
        return all(is_remains(file) for file in path.iterdir())
    try:
        content = json.loads((path / MODEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "class", "attributes"} <= set(content)


def is_remains(file: Path) -> bool:
    """Whether a file is of an earlier `save`, finished or not, beside ``model.json``."""
    weights = file.name.startswith("tensors-") and file.suffix == ".safetensors"
    return weights or file.name.startswith(f".{MODEL_FILE}-")


def encode(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """Plain JSON for a tree; tensors and arrays go to `tensors`, a reference stays."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return encode(value.item(), tensors, name)
    if isinstance(value, torch.Tensor):
        tensors[name] = value.contiguous()
        return {"$tensor": name}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OU":
            return {"$strings": [str(v) for v in value], "object": value.dtype == object}
        tensors[name] = torch.from_numpy(np.array(value))
        return {"$array": name}
    if isinstance(value, dict):
        items = [[encode(k, tensors, ""), v] for k, v in value.items()]
        return {"$dict": [[k, encode(v, tensors, f"{name}/{k}")] for k, v in items]}
    if isinstance(value, list | tuple):
        encoded = [encode(v, tensors, f"{name}/{i}") for i, v in enumerate(value)]
        return encoded if isinstance(value, list) else {"$tuple": encoded}
    if isinstance(value, torch.device):
        return str(value)
    raise TypeError(
        f"{name.strip('/')!r} is a {type(value).__name__}, which cannot be saved as JSON: give "
        "plain numbers and text before saving, or pickle the model."
    )


def decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Rebuild a tree from what `encode` made of it."""
    if isinstance(value, list):
        return [decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$array" in value:
        return tensors[value["$array"]].numpy()
    if "$strings" in value:
        return np.asarray(value["$strings"], dtype=object if value["object"] else str)
    if "$tuple" in value:
        return tuple(decode(v, tensors) for v in value["$tuple"])
    return {k: decode(v, tensors) for k, v in value["$dict"]}
