"""Reading files of arrays that others wrote, without running anything in them."""

from __future__ import annotations

import math
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from v1tlearn._paths import MODEL_FILE


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
    """Read a file that `torch.save` wrote, onto the CPU, without running anything in it."""
    check_there(path)
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
    """Read the arrays that `numpy.savez` wrote, without running anything in the file."""
    check_there(path)
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("one array without a name")
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is no file of plain arrays (.npz), or a damaged one: {first_line(error)}."
        ) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is no checkpoint of torch, or a damaged one: {first_line(error)}. Copy or "
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


def first_line(error: Exception) -> str:
    """Name an error, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}, {lines[0].rstrip('.')}" if lines else type(error).__name__


def check_there(path: Path) -> None:
    """Raise where there is no such file."""
    if path.is_file():
        return
    ours = [p for p in (path, path.parent) if (p / MODEL_FILE).is_file()]
    hint = f" {ours[0]} holds a model that save wrote: load it with its class." if ours else ""
    raise FileNotFoundError(f"{path} is missing: expected a file.{hint}")
