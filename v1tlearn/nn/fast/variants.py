"""The variants of the compiled kernels, one per kind of vector, and which of them run here."""

from __future__ import annotations

import importlib
import logging
from typing import Any, NamedTuple

import torch

logger = logging.getLogger(__name__)

kernel: Any = None
try:
    kernel = importlib.import_module("v1tlearn.nn.fast._kernels")  # which is in C
except ImportError as error:
    _missing = str(error)


class _Variant(NamedTuple):
    name: str
    runs: bool
    multiplies_bfloat16: bool


_BUILT = tuple(_Variant(*entry) for entry in kernel.variants()) if kernel else ()


def kernel_variants() -> tuple[str, ...]:
    """Variants of the compiled kernels that run on this processor, the best one first.

    The first is used. All do the same: what dropout drops is the same bit for bit, and values
    differ by rounding.

    Returns
    -------
    tuple of str
        Of "avx512_bf16", "avx512", "avx2", "neon" and "generic", the last of which runs everywhere.
        Empty where nothing was compiled, see `describe_kernels`.
    """
    return tuple(variant.name for variant in _BUILT if variant.runs)


def describe_kernels() -> str:
    """Which compiled kernels are in use, and why not others.

    Returns
    -------
    str
        One sentence.
    """
    if kernel is None:
        return (
            f"no compiled kernels ({_missing}), so that attention and dropout on CPUs take longer; "
            "on Linux and macOS, install v1tlearn again where there are GCC 10 or newer, or Clang, "
            "and the headers of Python"
        )
    used, *slower = kernel_variants()
    lacking = [variant.name for variant in _BUILT if not variant.runs]
    reasons = [
        f"{' and '.join(names)}: {why}"
        for names, why in ((lacking, "not on this processor"), (slower, "slower"))
        if names
    ]
    return f"compiled kernels for {used}" + (f" (not {'; not '.join(reasons)})" if reasons else "")


def processor_multiplies_bfloat16() -> bool | None:
    """Tell whether this processor has products of bfloat16, which save time; None if not known.

    Where no kernels for x86 were compiled, which ask the processor, torch is asked. Of ARM the
    variant does not use such products, but torch may.
    """
    if any(variant.name == "avx2" for variant in _BUILT):
        return has_amx() or any(v.runs and v.multiplies_bfloat16 for v in _BUILT)
    asked: Any = getattr(torch.cpu, "get_capabilities", dict)  # which older ones do not have
    told = asked()
    found = [told[name] for name in ("avx512_bf16", "amx_bf16", "bf16") if name in told]
    return any(found) if found else None


def has_amx() -> bool:
    """Tell whether the processor multiplies matrices of bfloat16."""
    return kernel is not None and kernel.has_amx()


logger.info(describe_kernels())
