"""Fitted estimators on disk: a directory with ``model.json`` and the tensors that it names.

Written beside and counted from one rename on; no pickle is involved in either direction, and a
name in a file never imports anything. Always kept: parameters, what is known of the animals,
weights, and the training state, so that a training goes on exactly. Never kept: the device, because
the next machine may not have it, and the training data.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from v1tlearn._opening import check_plain, json_object, read_plain, reading
from v1tlearn._paths import MODEL_FILE
from v1tlearn._values import plain
from v1tlearn.nn import Core, Head, Readout
from v1tlearn.training.state import map_tensors

FORMAT = 2

_MOST_USES = 8  # of one tensor of the file, so that its bytes tell how many will be needed
_SMALL = 2**24

_KINDS = (Core, Readout, Head)


def write(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write a fitted estimator into a directory; an earlier one stays whole until the end."""
    if path.exists() and not _is_free(path):
        raise FileExistsError(
            f"{path} exists and is no saved model: choose another path, or remove it first."
        )
    tensors = _Tensors()
    encoded = tensors.encode(content, "")
    mark = secrets.token_hex(8)
    tensor_file, beside = path / f"tensors-{mark}.safetensors", path / f".{MODEL_FILE}-{mark}"
    text = json.dumps(
        {"format": FORMAT, "class": kind, "tensors": tensor_file.name, "content": encoded}, indent=1
    )
    path.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors.named, tensor_file)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path / MODEL_FILE)
    except BaseException:
        tensor_file.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        raise
    for file in path.iterdir():
        if _is_remains(file) and file != tensor_file:
            file.unlink(missing_ok=True)


def read(path: Path, kind: str) -> dict[str, Any]:
    """Read what `write` wrote."""
    if not (path / MODEL_FILE).is_file():
        raise ValueError(f"{path} holds no saved model: it has no {MODEL_FILE}.")
    with damage_named(path):
        document = json_object(read_plain(path / MODEL_FILE))
        found, found_format = document["class"], document["format"]
    if found != kind:
        raise ValueError(f"{path} holds a {found}: load it with {found}.load(...).")
    if found_format != FORMAT:
        raise ValueError(
            f"{path} has format {found_format!r}, this version reads {FORMAT}: "
            + ("fit the model anew." if found_format == 1 else "update v1tlearn.")
        )
    with damage_named(path):
        tensor_file = path / Path(document["tensors"]).name
        if not tensor_file.exists():
            raise ValueError(f"{tensor_file.name} is missing")
        check_plain(tensor_file)
        content = _Decoder(load_file(tensor_file)).decode(document["content"])
        if not isinstance(content, dict):
            raise TypeError(f"its content is a {type(content).__name__}, expected a dict")
        return content


def damage_named(path: Path) -> AbstractContextManager[None]:
    """Turn what goes wrong while a model is read into one error that names the file."""
    passed = (UnknownModuleError, torch.OutOfMemoryError)
    wrong = "is damaged or incomplete"
    return reading(f"the model in {path}", wrong, "save it anew.", DamagedModelError, passed)


def on_cpu(tree: Any) -> Any:
    """Copy all tensors of a tree to the CPU; those that are alike become one."""
    seen: dict[tuple[Any, ...], torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        """One copy of all tensors that are alike."""
        copied = tensor.detach().cpu().clone()
        return seen.setdefault(_digest(copied), copied)

    return map_tensors(tree, copy)


def _digest(tensor: torch.Tensor) -> tuple[Any, ...]:
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return tensor.dtype, tuple(tensor.shape), hashlib.blake2b(values, digest_size=16).digest()


def _is_free(path: Path) -> bool:
    """Whether a model may be written there: over an earlier one, or where nothing else is."""
    if not path.is_dir():
        return False
    if not (path / MODEL_FILE).exists():
        return all(_is_remains(file) for file in path.iterdir())
    try:
        with damage_named(path):
            return {"format", "class"} <= set(json_object(read_plain(path / MODEL_FILE)))
    except DamagedModelError:
        return False


def _is_remains(file: Path) -> bool:
    """Whether a file is of an earlier `write`, finished or not, beside ``model.json``."""
    weights = file.name.startswith("tensors-") and file.suffix == ".safetensors"
    return weights or file.name.startswith(f".{MODEL_FILE}-")


# ----------------------------------------------------------------------------------- as plain JSON


class DamagedModelError(ValueError):
    """A model that cannot be read."""


class UnknownModuleError(ValueError):
    """A model holds a class of the user, which is to be imported before."""


class _Tensors:
    """Trees as plain JSON; tensors and arrays are collected, each once, and a reference stays."""

    def __init__(self) -> None:
        self.named: dict[str, torch.Tensor] = {}
        self._names: dict[tuple[Any, ...], list[str]] = {}

    def _keep(self, name: str, tensor: torch.Tensor) -> str:
        tensor = tensor.detach().cpu().contiguous()
        uses = self._names.setdefault(_digest(tensor), [])
        if uses and len(uses) % _MOST_USES:
            name = uses[-1]
        else:
            self.named[name] = tensor
        uses.append(name)
        return name

    def encode(self, value: Any, name: str) -> Any:
        """Plain JSON for a tree; `name` says where it stands."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
            return self.encode(plain(value), name)
        if isinstance(value, torch.Tensor):
            return {"$tensor": self._keep(name, value)}
        if isinstance(value, np.ndarray):
            if value.dtype.kind in "OU":
                return {"$strings": [str(v) for v in value], "object": value.dtype == object}
            return {"$array": self._keep(name, torch.from_numpy(np.array(value)))}
        if isinstance(value, dict):
            items = [[self.encode(k, ""), v] for k, v in value.items()]
            return {"$dict": [[k, self.encode(v, f"{name}/{k}")] for k, v in items]}
        if isinstance(value, list | tuple):
            encoded = [self.encode(v, f"{name}/{i}") for i, v in enumerate(value)]
            return encoded if isinstance(value, list) else {"$tuple": encoded}
        if isinstance(value, torch.device):
            return str(value)
        if isinstance(value, functools.partial):
            parts = [value.func, value.args, value.keywords]
            return {"$partial": [self.encode(part, name) for part in parts]}
        if isinstance(value, type) and issubclass(value, _KINDS):
            return {"$class": f"{value.__module__}.{value.__qualname__}"}
        raise TypeError(
            f"{name.strip('/')!r} is a {type(value).__name__}, which cannot be saved as JSON: give "
            "plain numbers, text, or classes of modules before saving, or pickle the model."
        )


class _Decoder:
    """Rebuilds a tree from what `_Tensors.encode` made of it, from the tensors of the file."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self._left = _SMALL + 2 * _MOST_USES * sum(map(_n_bytes, tensors.values()))

    def _use(self, n_bytes: int) -> None:
        self._left -= n_bytes
        if self._left < 0:
            raise ValueError("it would take far more memory than its files have bytes")

    def _tensor(self, name: str) -> torch.Tensor:
        self._use(_n_bytes(self._tensors[name]))
        return self._tensors[name]

    def decode(self, value: Any) -> Any:
        """Give what a value stands for."""
        if isinstance(value, list):
            return [self.decode(v) for v in value]
        if not isinstance(value, dict):
            return value
        if "$tensor" in value:
            return self._tensor(value["$tensor"]).clone()
        if "$array" in value:
            return self._tensor(value["$array"]).numpy().copy()
        if "$strings" in value:
            if not value["object"]:  # all take the room of the longest
                self._use(4 * max(map(len, value["$strings"]), default=0) * len(value["$strings"]))
            return np.asarray(value["$strings"], dtype=object if value["object"] else str)
        if "$tuple" in value:
            return tuple(self.decode(v) for v in value["$tuple"])
        if "$partial" in value:
            function, args, keywords = map(self.decode, value["$partial"])
            return functools.partial(function, *args, **keywords)
        if "$class" in value:
            return _known_class(value["$class"])
        return {k: self.decode(v) for k, v in value["$dict"]}


def _n_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _known_class(name: str) -> Callable[..., Any]:
    """A class of modules that is there already; nothing is imported."""
    kinds = {f"{k.__module__}.{k.__qualname__}": k for kind in _KINDS for k in subclasses(kind)}
    if name not in kinds:
        raise UnknownModuleError(
            f"the model was made with the class {name}, which is not here: import it before."
        )
    return kinds[name]


def subclasses(kind: type) -> list[type]:
    """All classes that derive from one, directly or not."""
    return [k for child in kind.__subclasses__() for k in (child, *subclasses(child))]
