"""The one place that decides on devices, number formats and determinism.

Global settings are changed only inside `isolated` and `numerics`, and put back when these end.
"""

from __future__ import annotations

import logging
import operator
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from v1tlearn.nn.fast.variants import processor_multiplies_bfloat16
from v1tlearn.training.workers import worker_number

logger = logging.getLogger("v1tlearn")

PRECISIONS = ("float32", "tf32", "bfloat16")

_backends: Any = torch.backends  # whose annotations lack some of these switches
_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_CPU = torch.device("cpu")


def resolve_device(
    device: str | torch.device = "auto",
    present: Collection[str] | None = None,
    n_cuda: int | None = None,
    worker: int | None = None,
) -> torch.device:
    """Turn a device parameter into a device.

    Parameters
    ----------
    device : str or torch.device
        "auto" takes the first that is there of cuda, mps, cpu. Of several CUDA devices, workers of
        joblib or dask take one each, in turn.
    present : collection of str, optional
        Kinds of devices that are there; found out by default.
    n_cuda : int, optional
        CUDA devices that are there; found out by default.
    worker : int, optional
        Number of this process among the workers; found out by default, see `worker_number`.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If the device is unknown or not present on this machine.
    """
    if present is None:
        found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        present = [kind for kind, there in found.items() if there] + ["cpu"]
    if isinstance(device, str) and device == "auto":
        kind = next(kind for kind in ("cuda", "mps", "cpu") if kind in present)
        worker = worker_number() if worker is None else worker
        if kind != "cuda" or worker is None:
            return torch.device(kind)
        n_devices = torch.cuda.device_count() if n_cuda is None else n_cuda
        return torch.device(kind, worker % n_devices) if n_devices > 1 else torch.device(kind)
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is no device: expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    if resolved.type not in present:
        raise ValueError(
            f"device={device!r} is not present on this machine: set device='auto' or 'cpu'."
        )
    n_devices = torch.cuda.device_count() if n_cuda is None else n_cuda
    if resolved.type == "cuda" and resolved.index is not None and resolved.index >= n_devices:
        raise ValueError(
            f"device={device!r} is not present on this machine, which has {n_devices} of them, "
            "counted from 0: set device='cuda' or 'auto'."
        )
    return resolved


def resolve_precision(
    precision: str, device: torch.device, *, training: bool, has_bfloat16: bool | None = None
) -> str:
    """Turn a precision parameter into a number format.

    Parameters
    ----------
    precision : {"auto", "float32", "tf32", "bfloat16"}
        "auto" is bfloat16 for training on CUDA devices that have it, float32 otherwise.
    device : torch.device
    training : bool
        Whether this is for training or for prediction.
    has_bfloat16 : bool, optional
        Whether a CUDA device has it; found out by default.

    Returns
    -------
    {"float32", "tf32", "bfloat16"}

    Raises
    ------
    ValueError
        If the format is unknown.
    """
    if precision == "auto":
        if not training or device.type != "cuda":
            return "float32"
        known = multiplies_bfloat16(device) if has_bfloat16 is None else has_bfloat16
        return "bfloat16" if known else "float32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected 'auto' or one of {PRECISIONS}.")
    if precision == "tf32" and device.type != "cuda":
        return "float32"  # of which TF32 is the faster form that CUDA devices have
    if precision == "bfloat16":
        known = multiplies_bfloat16(device) if has_bfloat16 is None else has_bfloat16
        if known is False:
            _tell_that_bfloat16_is_slow(device.type)
    return precision


def multiplies_bfloat16(device: torch.device) -> bool | None:
    """Tell whether a device has products of bfloat16, and does not emulate them.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    bool or None
        None where that is not known, as of Apple's GPUs.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # of older ones torch says yes, since it emulates it there
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return processor_multiplies_bfloat16() if device.type == "cpu" else None


@cache  # once is enough
def _tell_that_bfloat16_is_slow(kind: str) -> None:
    which = (
        "this processor does not multiply bfloat16 (avx512_bf16, amx_bf16; bf16 of ARM)"
        if kind == "cpu"
        else "this GPU does not multiply bfloat16 (NVIDIA's do from Ampere on)"
    )
    logger.warning(
        "precision='bfloat16' gains no time here: %s, and emulates it; precision='float32' is "
        "quicker.",
        which,
    )


class _Switch:
    """A setting of the whole process, for as long as some computations need it.

    Several threads may need it at a time; where their values differ, the strictest holds. When the
    last of them is done, the setting is as it was before the first. Whether it fits already is
    looked at under the lock: another thread may be about to put back what does not.
    """

    def __init__(
        self,
        read: Callable[[], Any],
        write: Callable[[Any], None],
        strictest: Callable[..., Any],
        fits: Callable[[Any, Any], bool] = operator.eq,
    ) -> None:
        self._read, self._write, self._strictest, self._fits = read, write, strictest, fits
        self._lock = threading.Lock()
        self._wanted: list[Any] = []
        self._before: Any = None

    @contextmanager
    def at(self, value: Any) -> Iterator[None]:
        """Within, the setting has this value, or a stricter one that others want."""
        with self._lock:
            if not self._wanted:
                self._before = self._read()
            self._wanted.append(value)
            self._become(self._strictest(self._wanted))
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(value)
                self._become(self._strictest(self._wanted) if self._wanted else self._before)

    def _become(self, value: Any) -> None:
        if not self._fits(self._read(), value):
            self._write(value)


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """Return backend, attribute and present value of what turns TF32 on.

    Where the newer attributes were used, torch refuses to read the older ones.
    """
    older: tuple[Any, ...] = (_backends.cuda.matmul, _backends.cudnn)
    try:
        return [(backend, "allow_tf32", backend.allow_tf32) for backend in older]
    except RuntimeError:
        newer = (_backends.cuda.matmul, _backends.cudnn.conv)
        return [(backend, "fp32_precision", backend.fp32_precision) for backend in newer]


def _write_tf32(value: Any) -> None:
    """Turn TF32 on or off, or put back what was read."""
    for backend, name, before in _tf32_switches() if isinstance(value, bool) else value:
        if isinstance(value, bool):
            on, off = (True, False) if name == "allow_tf32" else ("tf32", "ieee")
            before = on if value else off
        setattr(backend, name, before)


def _read_determinism() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


def _write_determinism(value: tuple[bool, bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])
    torch.backends.cudnn.benchmark = value[2]  # which of several algorithms chance would decide


def _read_products() -> list[str]:
    return [backend.fp32_precision for backend in _PRODUCTS]


def _products_fit(found: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether they are as wanted; unless told otherwise, products are of full precision."""
    return found == wanted or (wanted == _FULL and {*found} <= {"none", "ieee"})


def _write_products(values: Sequence[str]) -> None:
    for backend, value in zip(_PRODUCTS, values, strict=True):
        backend.fp32_precision = value


def _write_workspace(value: str | None) -> None:
    if value is None:
        os.environ.pop(_CUBLAS_WORKSPACE, None)
    else:
        os.environ[_CUBLAS_WORKSPACE] = value


def _any_of(wanted: Sequence[Any]) -> Any:
    return wanted[0]


_DETERMINISTIC = (True, False, False)
_FULL = ["ieee", "ieee"]
_PRODUCTS = (_backends.mkldnn.matmul, _backends.mkldnn.conv)  # of float32 on CPUs

_determinism = _Switch(_read_determinism, _write_determinism, _any_of)
_tf32 = _Switch(_tf32_switches, _write_tf32, all)
_workspace = _Switch(partial(os.environ.get, _CUBLAS_WORKSPACE), _write_workspace, _any_of)
_dtype = _Switch(torch.get_default_dtype, torch.set_default_dtype, _any_of)
_products = _Switch(_read_products, _write_products, _any_of, _products_fit)


@contextmanager
def isolated() -> Iterator[None]:
    """Compute as if the caller had set nothing, and leave everything as found.

    Whatever they are outside: torch's default dtype and device, autocast, the precision of float32
    products on a CPU, and how NumPy takes floating point errors. Gradients and inference mode are
    up to what is computed.
    """
    with ExitStack() as stack:
        stack.enter_context(_dtype.at(torch.float32))
        stack.enter_context(_products.at(_FULL))
        if torch.get_default_device() != _CPU:
            stack.enter_context(_CPU)
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(default_errors())
        yield


def default_errors() -> np.errstate:
    """Let NumPy take floating point errors as it does unless told otherwise; also a decorator."""
    return np.errstate(all="warn", under="ignore")


@contextmanager
def numerics(
    precision: str, device: torch.device, *, deterministic: bool = False
) -> Iterator[None]:
    """Set torch's switches for a run, and put them back as found.

    Whatever the caller set is out of force, see `isolated`. Several threads may be within at a
    time: switches of the whole process are put back when the last of them leaves.

    Parameters
    ----------
    precision : {"float32", "tf32", "bfloat16"}
    device : torch.device
    deterministic : bool, default=False
        Use deterministic algorithms only (needed on GPUs; the CPU is deterministic anyway).
    """
    with ExitStack() as stack:
        stack.enter_context(isolated())
        if device.type == "cuda":
            stack.enter_context(_tf32.at(precision == "tf32"))
            # torch looks only once, at the first matrix product, whether cuBLAS is deterministic
            own = os.environ.get(_CUBLAS_WORKSPACE, ":4096:8")
            stack.enter_context(_workspace.at(own))
        if deterministic:
            stack.enter_context(_determinism.at(_DETERMINISTIC))
        yield


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Compute matrix products in bfloat16 if so decided; weights, sums and losses stay float32.

    Parameters
    ----------
    precision : {"float32", "tf32", "bfloat16"}
    device : torch.device

    Returns
    -------
    context manager
    """
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
