"""Batches of trials that are read in blocks: what lies in a row is read in a row, and mixed then.

Reading single trials in random order asks a disk for many small pieces. Here an epoch reads blocks
of successive trials, in random order and cut at another place each time, and draws batches from a
window of `MIXED` blocks. Each trial still comes once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from v1tlearn.training.data import n_steps

MIXED = 16  # blocks of a window


def steps_of_window(batch_size: int, block: int) -> int:
    """Count the steps whose batches are drawn from the same blocks.

    Parameters
    ----------
    batch_size : int
    block : int
        Trials of a block.

    Returns
    -------
    int
        So many that a window holds `MIXED` blocks or more.
    """
    return -(-MIXED * block // batch_size)


def block_batches(
    lengths: Mapping[str, int], batch_size: int, device: torch.device, block: int
) -> list[dict[str, Tensor]]:
    """Draw the batches of one epoch as `epoch_batches` does, but from blocks of trials in a row.

    Parameters
    ----------
    lengths : dict of str to int
        Trials per mouse.
    batch_size : int
        Trials per mouse and step.
    device : torch.device
        Where the indices are needed.
    block : int
        Trials in a row that are one block.

    Returns
    -------
    list of dict of str to Tensor
        One entry per step: rows per mouse. Those of `steps_of_window` successive steps, from the
        first on, are whole blocks but for their ends.
    """
    steps, window = n_steps(lengths, batch_size), steps_of_window(batch_size, block) * batch_size
    batches: dict[str, list[Tensor]] = {}
    for mouse, n in lengths.items():
        rows: list[Tensor] = []
        while len(rows) < steps:
            rows.extend(_order(n, block, window, device).split(batch_size))
        batches[mouse] = rows[:steps]
    return [{mouse: rows[step] for mouse, rows in batches.items()} for step in range(steps)]


def _order(n: int, block: int, window: int, device: torch.device) -> Tensor:
    """All rows once: blocks in random order, then rows in random order within each window."""
    places = torch.arange(n, device=device)
    number = (places + torch.randint(block, (1,), device=device)) // block
    in_blocks = torch.argsort(torch.randperm(n // block + 2, device=device)[number], stable=True)
    drawn = torch.rand(n, dtype=torch.float64, device=device)
    return in_blocks[torch.argsort(places // window + drawn)]
