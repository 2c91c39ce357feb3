"""The one place that decides on devices, number formats and determinism.

Global torch settings are changed only inside `numerics` and put back when it ends.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

PRECISIONS = ("float32", "tf32", "bfloat16")

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def resolve_device(
    device: str | torch.device = "auto", present: Collection[str] | None = None
) -> torch.device:
    """Turn a device parameter into a device.

    Parameters
    ----------
    device : str or torch.device
        "auto" takes the first that is there of cuda, mps, cpu.
    present : collection of str, optional
        Kinds of devices that are there; found out by default.

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
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if kind in present))
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
    return resolved


def resolve_precision(precision: str, device: torch.device, *, training: bool) -> str:
    """Turn a precision parameter into a number format.

    Parameters
    ----------
    precision : {"auto", "float32", "tf32", "bfloat16"}
        "auto" is bfloat16 for training on CUDA devices that have it, float32 otherwise.
    device : torch.device
    training : bool
        Whether this is for training or for prediction.

    Returns
    -------
    {"float32", "tf32", "bfloat16"}

    Raises
    ------
    ValueError
        If the format is unknown.
    """
    if precision == "auto":
        fast = training and device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bfloat16" if fast else "float32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected 'auto' or one of {PRECISIONS}.")
    if precision == "tf32" and device.type != "cuda":
        return "float32"  # of which TF32 is the faster form that CUDA devices have
    return precision


@contextmanager
def numerics(
    precision: str, device: torch.device, *, deterministic: bool = False
) -> Iterator[None]:
    """Set torch's global switches for a run, and put them back as found.

    Parameters
    ----------
    precision : {"float32", "tf32", "bfloat16"}
    device : torch.device
    deterministic : bool, default=False
        Use deterministic algorithms only (needed on GPUs; the CPU is deterministic anyway).
    """
    switches = _tf32_switches() if device.type == "cuda" else []
    workspace_before = os.environ.get(_CUBLAS_WORKSPACE)
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    warn_only_before = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        for backend, name, _ in switches:
            on, off = (True, False) if name == "allow_tf32" else ("tf32", "ieee")
            setattr(backend, name, on if precision == "tf32" else off)
        if device.type == "cuda" and workspace_before is None:
            # torch looks only once, at the first matrix product, whether cuBLAS is deterministic
            os.environ[_CUBLAS_WORKSPACE] = ":4096:8"
        if deterministic:
            torch.use_deterministic_algorithms(True)
        yield
    finally:
        for backend, name, before in switches:
            setattr(backend, name, before)
        if device.type == "cuda" and workspace_before is None:
            del os.environ[_CUBLAS_WORKSPACE]
        if deterministic:
            torch.use_deterministic_algorithms(deterministic_before, warn_only=warn_only_before)


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """Return backend, attribute and present value of what turns TF32 on.

    Where the newer attributes were used, torch refuses to read the older ones.
    """
    older = (torch.backends.cuda.matmul, torch.backends.cudnn)
    try:
        return [(backend, "allow_tf32", backend.allow_tf32) for backend in older]
    except RuntimeError:
        newer = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
        return [(backend, "fp32_precision", backend.fp32_precision) for backend in newer]


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
