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
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from v1tlearn._opening import (
    check_plain,
    json_object,
    no_folder,
    read_plain,
    reading,
    system_errors_named,
)
from v1tlearn._paths import MODEL_FILE, what_lies_at
from v1tlearn._replacing import (
    alone_in,
    check_writable,
    is_left,
    make_folder,
    marked,
    replace,
    synchronize,
)
from v1tlearn._values import plain
from v1tlearn._versions import own_version
from v1tlearn.nn import BackboneError, Core, Head, NeuralTower, Readout
from v1tlearn.training.memory import is_out_of_memory
from v1tlearn.training.state import map_tensors

FORMAT = 2

_MOST_USES = 8  # of one tensor of the file, so that its bytes tell how many will be needed
_SMALL = 2**24

_KINDS = (Core, Readout, Head, NeuralTower)


def write(
    path: Path, kind: str, content: dict[str, Any], then: Callable[[], None] = lambda: None
) -> None:
    """Write a fitted estimator into a directory; an earlier one stays whole until the end.

    `then` writes what goes along with it, before another process writes there.
    """
    if path.exists() and not _is_free(path):
        raise FileExistsError(
            f"{path} exists and is no saved model: choose another path, or remove it first."
        )
    check_writable(path / MODEL_FILE)
    tensors = _Tensors()
    told = tensors.encode(content, "")
    document: dict[str, Any] = {"format": FORMAT, "version": _own_version(), "class": kind}
    document |= {"content": told, "described": _described(told)}
    make_folder(path)
    with marked() as mark:
        beside, tensor_file = _remains(path, mark)
        try:
            beside.touch()  # first, since by it the tensors are known to be ours
            with _system_errors_of(tensor_file):
                save_file(tensors.named, tensor_file)
                # which safetensors makes for the owner alone
                known = path / MODEL_FILE
                shutil.copymode(known if known.exists() else beside, tensor_file)
                document["checksum"] = _checksum(tensor_file)
            synchronize(tensor_file)
            synchronize(path)
            with alone_in(path):
                replaced = _own_tensors(path)
                document |= {"tensors": tensor_file.name, "replaces": replaced}
                with _system_errors_of(path / MODEL_FILE):
                    beside.write_text(json.dumps(document, indent=1), encoding="utf-8")
                replace(beside, path / MODEL_FILE)
                for name in replaced:
                    (path / name).unlink(missing_ok=True)
                then()
        except BaseException:
            beside.unlink(missing_ok=True)
            if tensor_file.name not in _own_tensors(path):  # interrupted after the rename
                tensor_file.unlink(missing_ok=True)
            raise
    begun, living = _begun(path), False  # in this order, since a mark is there before
    for other in _marks(path):
        left = _remains(path, other)
        with suppress(FileNotFoundError):  # finished meanwhile
            if not is_left(left[0], other):
                living = True
                continue
            for file in reversed(left):
                file.unlink(missing_ok=True)
    for file in begun if not living else ():
        file.unlink(missing_ok=True)


def check(content: dict[str, Any]) -> None:
    """Refuse, as `write` would, what cannot be written."""
    _Tensors().encode(content, "")


@contextmanager
def _system_errors_of(path: Path) -> Iterator[None]:
    """Name the file in errors of the system, which safetensors tells as its own."""
    try:
        with system_errors_named(path):
            yield
    except SafetensorError as error:
        # "(os error 28)"; in the lowest version that is supported, "Os { code: 28,"
        code = re.search(r"(?:\(os error |Os \{ code: )(\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while part := file.read(_SMALL):
            total = zlib.crc32(part, total)
    return total


def _own_version() -> str | None:
    with suppress(PackageNotFoundError):
        return own_version()
    return None  # used from a folder, without an installation


def _described(content: Any) -> int:
    """Checksum of the description of a content, the same however it is laid out."""
    return zlib.crc32(json.dumps(content).encode())


def _own_tensors(path: Path) -> list[str]:
    """Files of tensors that the model in a directory names: its own, and any left of earlier."""
    try:
        document = _document(path)
        names = [document["tensors"], *document.get("replaces", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    ours = re.compile(r"tensors-[0-9a-f-]+\.safetensors")
    return [name for name in names if ours.fullmatch(str(name)) and (path / name).exists()]


def _document(path: Path) -> dict[str, Any]:
    with damage_named(path):
        return json_object(read_plain(path / MODEL_FILE))


def class_of(path: Path) -> str:
    """Name of the class of a saved model, of a format that this version reads."""
    return _class_of(path, _document(path))


def _class_of(path: Path, document: dict[str, Any]) -> str:
    with damage_named(path):
        kind, found = document["class"], document["format"]
        if not isinstance(kind, str):
            raise TypeError(f"its class is {kind!r}")
    if found != FORMAT:
        writer = document.get("version")
        raise OtherVersionError(
            f"{path} has format {found!r}, this version reads {FORMAT}: "
            + ("fit the model anew." if found == 1 else "update v1tlearn.")
            + (f" v1tlearn {writer} wrote it." if isinstance(writer, str) else "")
        )
    return kind


def _marks(path: Path) -> list[str]:
    """Marks of writers that have not finished in a directory."""
    names = (re.fullmatch(rf"\.{MODEL_FILE}-([0-9a-f-]+)", file.name) for file in path.iterdir())
    return [found[1] for found in names if found]


def _begun(path: Path) -> set[Path]:
    """What safetensors leaves where it is killed."""
    return {file for file in path.iterdir() if re.fullmatch(r"\.tmp[A-Za-z0-9]{6}", file.name)}


def _remains(path: Path, mark: str) -> tuple[Path, Path]:
    """Files that a writer makes; the second is never without the first, until both count."""
    return path / f".{MODEL_FILE}-{mark}", path / f"tensors-{mark}.safetensors"


def check_holds_model(path: Path) -> None:
    """Raise for what is no directory of a model, and say what it is."""
    if (path / MODEL_FILE).is_file():
        return
    said = f"{path} holds no saved model: {what_lies_at(path).said()}."
    said += " Expected the directory that save wrote."
    raise ValueError(said) if path.is_dir() else no_folder(path, said)


def read(path: Path, kind: str) -> dict[str, Any]:
    """Read what `write` wrote."""
    check_holds_model(path)
    while True:
        document = _document(path)
        found = _class_of(path, document)
        if found != kind:
            raise ValueError(f"{path} holds a {found}: load it with {found}.load(...).")
        with damage_named(path, described=True):
            checksum = _described(document["content"])
            if document.get("described", checksum) != checksum:  # earlier ones have none
                raise ValueError(f"what {MODEL_FILE} tells of it differs from its checksum")
            tensor_file = path / Path(document["tensors"]).name
            try:
                check_plain(tensor_file)
                checksum = _checksum(tensor_file)
                if document.get("checksum", checksum) != checksum:  # earlier ones have none
                    raise ValueError(f"{tensor_file.name} differs from its checksum")
                # `load_file` of safetensors 0.8 keeps some bytes of every tensor that it gives
                tensors = load(tensor_file.read_bytes())
            except FileNotFoundError as error:
                if _document(path) != document:
                    continue  # another process replaced it at this moment
                raise ValueError(f"{tensor_file.name} is missing") from error
            content = _Decoder(tensors).decode(document["content"])
            if not isinstance(content, dict):
                raise TypeError(f"its content is a {type(content).__name__}, expected a dict")
            return content


def damage_named(
    path: Path, *, described: bool = False, building: bool = False
) -> AbstractContextManager[None]:
    """Turn what goes wrong while a model is read into one error that names the file.

    `save` replaces a model whose description is whole, and refuses any other folder. While a model
    is built, arrays that find no place are those that wrong parameters ask for.
    """

    def passed(error: Exception) -> bool:
        named = (UnknownModuleError, OtherVersionError, BackboneError, ImportError)  # of an extra
        if isinstance(error, (*named, torch.OutOfMemoryError)):
            return True
        return not building and is_out_of_memory(error)

    remedy = "save it anew, or, of one that was fetched, remove the folder and fetch it again."
    if not (described or building):
        remedy = "remove the folder and save it anew, or fetch it again."
    wrong = "is damaged or incomplete"
    return reading(f"the model in {path}", wrong, remedy, DamagedModelError, passed)


def on_cpu(tree: Any) -> Any:
    """Copy all tensors of a tree to the CPU; those that are alike become one."""
    seen: dict[tuple[Any, ...], torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        """One copy of all tensors that are alike."""
        copied = tensor.detach().cpu().clone()
        return seen.setdefault(_digest(copied), copied)

    return map_tensors(tree, copy)


def _digest(tensor: torch.Tensor) -> tuple[Any, ...]:
    values = tensor.contiguous().reshape(-1)
    # torch views nothing but values
    raw = values.view(torch.uint8).numpy().data if len(values) else b""
    return tensor.dtype, tuple(tensor.shape), hashlib.blake2b(raw, digest_size=16).digest()


def _is_free(path: Path) -> bool:
    """Whether a model may be written there: over an earlier one, or where nothing else is."""
    if not path.is_dir():
        return False
    with alone_in(path):  # or a model may appear between the looks
        if not (path / MODEL_FILE).exists():
            found = set(path.iterdir()) - _begun(path)
            return found == found & {file for m in _marks(path) for file in _remains(path, m)}
        try:
            return {"format", "class"} <= set(_document(path))
        except DamagedModelError:
            return False


# ----------------------------------------------------------------------------------- as plain JSON


class DamagedModelError(ValueError):
    """A model that cannot be read."""


class OtherVersionError(ValueError):
    """A model of a version that knows more than this one, or of one that no release was."""


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
            self.named[name] = tensor.clone() if uses else tensor  # none shares another's memory
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
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, functools.partial):
            parts = [value.func, value.args, value.keywords]
            return {"$partial": [self.encode(part, name) for part in parts]}
        if isinstance(value, type) and issubclass(value, _KINDS):
            return {"$class": f"{value.__module__}.{value.__qualname__}"}
        raise TypeError(
            f"{name.strip('/')!r} is a {type(value).__name__}, which cannot be saved as JSON: give "
            "plain numbers, text, classes of modules or the folder of a backbone before saving, or "
            "pickle the model."
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


def subclasses(kind: type[Any]) -> list[type[Any]]:
    """All classes that derive from one, directly or not."""
    return [k for child in kind.__subclasses__() for k in (child, *subclasses(child))]
