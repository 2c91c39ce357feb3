"""Measuring on one processor what another kind of it would do, which has narrower vectors.

Torch, its libraries of matrix products and the kernels are held to the same instructions, so that
both sides of a ratio are. What a limit does not touch, such as caches and clock rates, stays that
of the processor.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager

from v1tlearn.nn import fast

_CHOSEN = "V1TLEARN_BENCHMARK_AS"
# What torch, oneDNN and MKL read when they are loaded. MKL takes no more than AVX2 on AMD anyway.
_VARIABLES = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--as``, whose value `hold` takes."""
    parser.add_argument(
        "--as",
        dest="held_to",
        choices=tuple(_VARIABLES),
        help="hold torch, its libraries and the kernels to these instructions",
    )


def hold(kind: str | None) -> None:
    """Start the script again with the limits of a kind, unless they hold already.

    Parameters
    ----------
    kind : str or None
        Value of ``--as``; None changes nothing.

    Raises
    ------
    ValueError
        If the kernels of this kind do not run here, or were not built.
    """
    if kind is None or held_to() == kind:
        return
    with fast.using("auto", variant=kind):
        pass  # or the error that names those that run
    environment = os.environ | _VARIABLES[kind] | {_CHOSEN: kind}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def held_to() -> str | None:
    """Kind that this process, or the one that started it, was held to."""
    return os.environ.get(_CHOSEN)


def in_force() -> AbstractContextManager[None]:
    """Use the kernels of the kind that the process is held to; the best ones otherwise."""
    return fast.using("auto", variant=held_to())


def kernels() -> str:
    """Describe the kernels that are used, and what was limited by what."""
    if (kind := held_to()) is None:
        return fast.describe_kernels()
    limits = " ".join(f"{name}={value}" for name, value in _VARIABLES[kind].items())
    return f"compiled kernels for {kind}, as chosen; torch held by {limits}"
