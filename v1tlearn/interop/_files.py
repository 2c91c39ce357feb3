"""Reading files that others wrote without running anything in them, and writing whole folders.

What the content means is the business of the other modules.
"""

from __future__ import annotations

import math
import os
import pickle
import secrets
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

_PYTHON_TAG = "tag:yaml.org,2002:python/"


class _PlainLoader(yaml.SafeLoader):
    """YAML as plain data: what is tagged as a Python object is read as the data it is made of."""


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if suffix.startswith(("int", "long", "float", "bool", "none", "None")):
        return yaml.safe_load(node.value)
    return node.value


_PlainLoader.add_multi_constructor(_PYTHON_TAG, _plain)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as plain data.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        Numbers, text, lists and dicts; Python tuples become lists.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no YAML, holds an unknown tag, or no mapping with names as keys.
    """
    _check_there(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no plain YAML: {_first_line(error)}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(
            f"{path} holds {_kind(content)}: expected a mapping from argument names to values."
        )
    return content


class _Ignored:
    """Stands for an object whose content is of no use here: made of anything, keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _number(dtype: Any = None, data: Any = None) -> float:
    """Stand for a NumPy scalar, such as a best score: its value if it is a float, else NaN."""
    formats = {8: "<d", 4: "<f"}
    data = data.encode("latin1") if isinstance(data, str) else data
    if isinstance(data, bytes) and len(data) in formats:
        return float(struct.unpack(formats[len(data)], data)[0])
    return math.nan


# The only names, beside tensors and plain containers, that a checkpoint may hold. The published
# training script keeps its gradient scaler and, as its best score, a NumPy scalar in the state of
# its schedule. None of these classes is made: a stand-in takes what the file says, and forgets it.
_STAND_INS: dict[str, Callable[..., Any]] = {
    "torch.amp.grad_scaler.GradScaler": _Ignored,
    "torch.cuda.amp.grad_scaler.GradScaler": _Ignored,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "numpy.dtype": _Ignored,
    "numpy.dtypes.Float32DType": _Ignored,
    "numpy.dtypes.Float64DType": _Ignored,
}


def read_checkpoint(path: Path) -> Any:
    """Read a file that `torch.save` wrote, onto the CPU, without running anything in it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    object
        Tensors, numbers, text and containers. The gradient scalers of the published training
        script, which are read too, come as empty placeholders.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or asks for any other class or function.
    """
    _check_there(path)
    stand_ins = [(thing, name) for name, thing in _STAND_INS.items()]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # an error, if it matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused, and nothing in it was run: beside tensors and plain data it may "
            f"hold gradient scalers of torch only. What came: {_refused(error)}. If you trust its "
            "origin, load it where it was made and save its state_dict() alone."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise _damaged(path, error) from error
    except (AttributeError, AssertionError, UnicodeDecodeError, struct.error) as error:
        raise _damaged(path, error) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that `numpy.savez` wrote, without running anything in the file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or holds Python objects.
    """
    _check_there(path)
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("one array without a name")
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is no file of plain arrays (.npz), or a damaged one: {_first_line(error)}."
        ) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is no checkpoint of torch, or a damaged one: {_first_line(error)}. Copy or "
        "download it again."
    )


def _refused(error: Exception) -> str:
    """The part of torch's message that names what it refused, without its advice to allow it."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [
        line for line in lines if "GLOBAL" in line or "Unsupported" in line or "Trying" in line
    ]
    text = (named or lines or [type(error).__name__])[0]
    before, mark, after = text.partition("WeightsUnpickler error:")
    text = after if mark else before
    return text.split(" was not an allowed global")[0].split("Please use")[0].strip(" .")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}, {lines[0].rstrip('.')}" if lines else type(error).__name__


def _check_there(path: Path) -> None:
    if not path.is_file():
        ours = [p for p in (path, path.parent) if (p / "model.json").is_file()]
        raise FileNotFoundError(
            f"{path} is missing: expected a file."
            + (
                f" {ours[0]} holds a model that save wrote: load it with load of its class."
                if ours
                else ""
            )
        )


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def write_folder(
    folder: Path, write: Callable[[Path], None], is_own: Callable[[Path], bool]
) -> None:
    """Write a folder that is either there as a whole or not at all.

    It is written beside its place and then renamed. An earlier folder is moved aside first, and
    back if the renaming fails.

    Parameters
    ----------
    folder : Path
        Its parents are made where they are missing.
    write : callable
        Gets an empty folder to fill.
    is_own : callable
        Tells of a folder that is in the way whether it may be replaced.

    Raises
    ------
    FileExistsError
        If something else is in the way.
    """
    folder = Path(os.path.abspath(folder))
    free = not os.path.lexists(folder)
    if not free and not (folder.is_dir() and not folder.is_symlink() and is_own(folder)):
        raise FileExistsError(
            f"{folder} exists and is more than a saved model: choose another path, or remove it "
            "first."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    beside = folder.parent / f".{folder.name}-{mark}"
    aside = folder.parent / f".{folder.name}-{mark}-before"
    beside.mkdir()
    try:
        write(beside)
        if not free:
            os.rename(folder, aside)
        try:
            os.rename(beside, folder)
        except BaseException:
            if not free:
                os.rename(aside, folder)
            raise
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if not free:
        shutil.rmtree(aside)


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping of plain data as YAML.

    Parameters
    ----------
    path : Path
    content : dict
    """
    path.write_text(yaml.safe_dump(dict(content), default_flow_style=None), encoding="utf-8")
