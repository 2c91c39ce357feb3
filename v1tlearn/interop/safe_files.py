"""Reading files of arrays that others wrote, without running anything in them."""

from __future__ import annotations

import math
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import torch

from v1tlearn._opening import check_plain, reading
from v1tlearn._paths import MODEL_FILE
from v1tlearn.datasets.sensorium.npy import parse_npy
from v1tlearn.datasets.sensorium.zip_files import ZipFiles, plain_name, read_directory
from v1tlearn.training.memory import is_out_of_memory


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
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
    stand_ins = [(thing, name) for name, thing in _STAND_INS.items()]
    refused = None
    with _reading(path, "checkpoint of torch"):
        with path.open("rb") as file:
            in_zip = file.read(2) == b"PK"
        if in_zip:
            _check_members(path)
        else:
            _check_pickles(path)
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # an error, if it matters
            warnings.filterwarnings("ignore", "Validating sparse tensor")  # refused by name later
            try:
                # Mapped, arrays end where the file does, whatever sizes it tells of.
                return torch.load(path, map_location="cpu", weights_only=True, mmap=in_zip)
            except pickle.UnpicklingError as error:
                refused = error
    raise ValueError(
        f"{path} was refused, and nothing in it was run: beside tensors and plain data it may "
        f"hold gradient scalers of torch only. What came: {_refused(refused)}. If you trust its "
        "origin, load it where it was made and save its state_dict() alone."
    ) from refused


def _check_members(path: Path) -> None:
    """Check what torch does not: that members are as they were written, each once, side by side."""
    directory = read_directory(path)
    files = ZipFiles(path, "", directory)
    packed = [info.filename for info in directory if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"{packed[0]!r} in it is compressed, as torch.save leaves none")
    if not any(info.CRC for info in directory):
        return  # written without checksums, as torch can be told to
    for _ in files.all_members().read_many(np.arange(len(directory))):
        pass


class _Bounded:
    """A file of which no more is asked for than it has: memory is set aside for what is asked."""

    def __init__(self, file: BinaryIO, n_bytes: int) -> None:
        self._file, self._n_bytes = file, n_bytes
        self.readline, self.tell = file.readline, file.tell

    def read(self, n_bytes: int) -> bytes:
        return self._file.read(min(n_bytes, self._n_bytes))


def _check_pickles(path: Path) -> None:
    """Check that the arrays of a file of the old format are no larger than the file."""
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(4):  # a magic number, the protocol, the system, the content
            since: list[int] = []  # numbers, where the description of an array began
            bounded = cast(IO[bytes], _Bounded(file, n_bytes))  # all of it that is called for
            for code, argument, _ in pickletools.genops(bounded):
                if code.name == "BINPERSID" and max(since, default=n_bytes + 1) > n_bytes:
                    raise ValueError("it tells of an array that is larger than the file")
                if code.name == "MARK":
                    since = []
                elif argument is not None and ("INT" in code.name or "LONG" in code.name):
                    since.append(argument)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that `numpy.savez` wrote, without running anything in the file."""
    check_there(path)
    with _reading(path, "file of plain arrays (.npz)"):
        directory = read_directory(path)
        files = ZipFiles(path, "", directory)
        arrays = {}
        for name in map(plain_name, directory):
            data = files.read(name)
            arrays[name.removesuffix(".npy")] = parse_npy(data or b"", name)
        return arrays


def _reading(path: Path, what: str) -> AbstractContextManager[None]:
    wrong, remedy = f"is no {what}, or a damaged one", "copy or download it again"
    return reading(path, wrong, remedy, passed=is_out_of_memory)  # arrays are as large as the file


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


def check_there(path: Path) -> None:
    """Raise where there is no such file."""
    if path.exists():
        check_plain(path)
        return
    ours = [p for p in (path, path.parent) if (p / MODEL_FILE).is_file()]
    hint = f" {ours[0]} holds a model that save wrote: load it with its class." if ours else ""
    raise FileNotFoundError(f"{path} is missing: expected a file.{hint}")
