"""Random numbers of a run, kept apart from torch's global generators.

Training draws from torch's default generators, which it borrows (`isolated_rng`); building a model
draws from a generator of its own (`private_rng`), and waits for nobody. On a CPU the numbers are
the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Runs in several threads take turns, epoch by epoch: they all draw from torch's one default
# generator, and set its one set of switches.
_TURN = threading.RLock()

_CPU = torch.device("cpu")


def initial_rng(seed: int) -> dict[str, Any]:
    """Random state of a run that has not begun.

    Parameters
    ----------
    seed : int

    Returns
    -------
    dict
        ``seed``, and ``cpu`` and ``device`` generator states, None until they were used.
    """
    return {"seed": seed, "cpu": None, "device": None}


@contextmanager
def isolated_rng(rng: dict[str, Any], device: torch.device) -> Iterator[None]:
    """Draw from the run's own random numbers, and leave the global generators as found.

    Only one thread of a process is in such a block at a time.

    Parameters
    ----------
    rng : dict
        From `initial_rng`; holds the generators' states after the block.
    device : torch.device
    """
    with _TURN:
        module = getattr(torch, device.type)
        cpu_before = torch.get_rng_state()
        device_before = None if device.type == "cpu" else _device_state(module, device)
        try:
            torch.default_generator.manual_seed(rng["seed"])
            if rng["cpu"] is not None:
                torch.set_rng_state(rng["cpu"])
            if device.type != "cpu":
                if rng["device"] is None:
                    _seed_device(module, device, rng["seed"])
                else:
                    _set_device_state(module, device, rng["device"])
            yield
        finally:
            rng["cpu"] = torch.get_rng_state()
            torch.set_rng_state(cpu_before)
            if device_before is not None:
                rng["device"] = _device_state(module, device)
                _set_device_state(module, device, device_before)


@contextmanager
def returned_rng(device: torch.device) -> Iterator[None]:
    """Draw random numbers that are drawn once more afterwards, as if nothing had been.

    Parameters
    ----------
    device : torch.device
        Whose generator comes back, beside that of the CPU.
    """
    of: dict[str, Any] = {"devices": []}
    if device.type != "cpu":
        of = {"devices": [device], "device_type": device.type}
    with torch.random.fork_rng(**of):
        yield


@contextmanager
def forked_rng(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Let torch's default generators draw what is for this process alone.

    Parameters
    ----------
    seed : int
        Of what is drawn by them within the block.
    device : torch.device

    Yields
    ------
    Generator
        On the device. It goes on where the default one was, which afterwards goes on where it is.
    """
    module = getattr(torch, device.type)
    cpu_before = torch.get_rng_state()
    common = torch.Generator(device)
    common.set_state(cpu_before if device.type == "cpu" else _device_state(module, device))
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        _seed_device(module, device, seed)
    try:
        yield common
    finally:
        if device.type == "cpu":
            torch.set_rng_state(common.get_state())
        else:
            torch.set_rng_state(cpu_before)
            _set_device_state(module, device, common.get_state())


@contextmanager
def private_rng(rng: dict[str, Any]) -> Iterator[None]:
    """Draw what is drawn on the CPU from a generator of the run's own.

    The numbers are those of `isolated_rng`, but torch's default generator is neither used nor
    waited for, and only this thread is concerned. On other devices all is as without.

    Parameters
    ----------
    rng : dict
        From `initial_rng`; ``cpu`` holds the generator's state after the block.
    """
    generator = torch.Generator().manual_seed(rng["seed"])
    if rng["cpu"] is not None:
        generator.set_state(rng["cpu"])
    try:
        with _Private(generator):
            yield
    finally:
        rng["cpu"] = generator.get_state()


class _Private(TorchDispatchMode):
    """Hands a generator to every operation on a CPU that draws."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or not _on_cpu(args, kwargs):
            return func(*args, **kwargs)
        if kwargs.get("generator") is not None:  # the caller has one of their own
            return func(*args, **kwargs)
        if (taking := _taking_generator(func)) is not None:
            return taking(*args, **kwargs | {"generator": self.generator})
        # dropout and its like know the default generator alone, which is borrowed
        rng = initial_rng(0) | {"cpu": self.generator.get_state()}
        try:
            with isolated_rng(rng, _CPU):
                return func(*args, **kwargs)
        finally:
            self.generator.set_state(rng["cpu"])


@cache
def _taking_generator(func: Any) -> Any:
    """Find the form of an operation that takes a generator and is the same otherwise."""

    def arguments(form: Any) -> list[str]:
        return [argument.name for argument in form._schema.arguments]

    wanted = sorted({*arguments(func), "generator"})
    forms = (getattr(func.overloadpacket, name) for name in func.overloadpacket.overloads())
    same = (form for form in (func, *forms) if sorted(arguments(form)) == wanted)
    return next(same, None)


def _on_cpu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    devices = [x.device for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
    devices.append(torch.device(kwargs.get("device") or "cpu"))
    return all(device.type == "cpu" for device in devices)


def _device_state(module: Any, device: torch.device) -> torch.Tensor:
    return module.get_rng_state(device) if device.type == "cuda" else module.get_rng_state()


def _set_device_state(module: Any, device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        module.set_rng_state(state, device)
    else:
        module.set_rng_state(state)


def _seed_device(module: Any, device: torch.device, seed: int) -> None:
    if device.type == "cuda":
        with module.device(device):
            module.manual_seed(seed)
    else:
        module.manual_seed(seed)
