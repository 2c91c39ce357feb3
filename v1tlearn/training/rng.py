"""Random numbers of a training run, kept apart from torch's global generators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Runs in several threads take turns: they all draw from torch's one default generator.
_TURN = threading.RLock()


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
