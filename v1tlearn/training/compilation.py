"""The one place that decides on `torch.compile`.

=========  =============  ====================================================================
setting    device         what happens
=========  =============  ====================================================================
"auto"     CUDA           The core is compiled if the run has at least 5,000 steps at most, a
                          compiler is there, and the core is trained. Where the compiler fails
                          in a forward pass, with an error of its own or of Triton, a warning is
                          logged and the training goes on without. All other errors reach the
                          caller, those of the backward pass among them, which torch compiles
                          when it first comes: set False then.
"auto"     others         Never: `benchmarks/bench_loop.py --compile` shows what it brings there.
True       any            The core is compiled; an error if there is no compiler.
"reduce-   CUDA           As True, in torch's mode of this name, which records CUDA graphs and
overhead"                 plays them back, one for each number of images that comes: meant for
                          small models that wait for launches. Never measured on a GPU.
"reduce-   others         An error.
overhead"
False      any            Never.
=========  =============  ====================================================================

The core alone is compiled, for training alone and for any number of images; readouts differ from
mouse to mouse, and validation would need a second compilation. Compiling takes time once, which
only long trainings earn; that 5,000 steps do is a guess, which `benchmarks/gpu.py` is to put to the
test on the GPU at hand.
Weights, their names and what is saved
stay those of the plain module; results differ by rounding and, with dropout, by the numbers drawn.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from v1tlearn.training.stand_ins import StandIns

logger = logging.getLogger("v1tlearn")

LEAST_STEPS = 5000
GRAPHS = "reduce-overhead"
_COMPILER_MODULES = ("torch._dynamo", "torch._inductor", "triton")
_COMPILERS = ("g++", "clang++", "c++", "cl")


def missing_compiler(device: torch.device) -> str | None:
    """Tell what `torch.compile` needs on a device and does not find.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    str or None
        None where all is there.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS) if name):
        return "a C++ compiler such as g++ or clang++"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    return None


def resolve_compile(
    setting: str | bool,
    core: nn.Module,
    device: torch.device,
    steps: int,
    missing: Callable[[torch.device], str | None] = missing_compiler,
) -> str | bool:
    """Decide whether to compile the core.

    Parameters
    ----------
    setting : "auto", "reduce-overhead" or bool
    core : Module
    device : torch.device
    steps : int
        Training steps that the run has at most.
    missing : callable, default=missing_compiler
        Tells what compiling needs and does not find.

    Returns
    -------
    "auto", "reduce-overhead" or bool
        "auto" where it pays, but was not asked for.

    Raises
    ------
    ValueError
        If it was asked for, and there is no compiler, or no CUDA device for its graphs.
    """
    lacking = missing(device)
    if setting == GRAPHS and device.type != "cuda":
        raise ValueError(
            f"compile={GRAPHS!r} records CUDA graphs, and the device is {str(device)!r}: set "
            "compile='auto', True or False."
        )
    if setting in (True, GRAPHS) and lacking is not None:
        raise ValueError(
            f"compile={setting!r} needs {lacking}, which was not found: install it, or set "
            "compile='auto' or False."
        )
    if isinstance(setting, bool) or setting == GRAPHS:
        return setting
    trained = any(parameter.requires_grad for parameter in core.parameters())
    pays = device.type == "cuda" and trained and steps >= LEAST_STEPS
    return "auto" if pays and lacking is None else False


def compiled(core: nn.Module, wanted: str | bool) -> StandIns:
    """Compile a core's forward pass for training; the module itself stays as it is.

    Parameters
    ----------
    core : Module
    wanted : "auto", "reduce-overhead" or bool
        Nothing is done where False; with "auto" the plain forward pass takes over if the compiler
        fails in a forward pass, otherwise the error goes on.

    Returns
    -------
    context manager
        Within it the core is the compiled one.
    """
    if not wanted:
        return StandIns({})
    plain = core.forward
    mode: dict[str, Any] = {"mode": GRAPHS} if wanted == GRAPHS else {}
    fast = torch.compile(plain, dynamic=True, **mode)

    def forward(*args: Any) -> Any:
        """Compiled where gradients are wanted."""
        nonlocal fast
        if not torch.is_grad_enabled():
            return plain(*args)
        try:
            return fast(*args)
        except Exception as error:
            if wanted != "auto" or not type(error).__module__.startswith(_COMPILER_MODULES):
                raise
            logger.warning("torch.compile failed, and training goes on without it: %s", error)
            fast = plain
        return plain(*args)

    return StandIns({core: forward})
