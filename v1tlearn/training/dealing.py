"""How the batches of training steps are dealt out to processes, and what is drawn for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from v1tlearn.nn import drawing, sharing
from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.layers.normalization import normalized_together
from v1tlearn.training.data import MouseData, Rows
from v1tlearn.training.ranks import ALONE, Ranks
from v1tlearn.training.rng import forked_rng
from v1tlearn.training.settings import TrainingSettings
from v1tlearn.training.stand_ins import StandIns


class Share(NamedTuple):
    """What a process computes of a training step.

    Attributes
    ----------
    rows : dict of str to Tensor of int or slice
        Rows of each mouse that are its own.
    sizes : dict of str to int
        Rows of each mouse in the whole batch.
    starts : dict of str to int
        Where its own begin among them.
    is_part : bool
        False where every process computes the whole batch.
    """

    rows: Mapping[str, Rows]
    sizes: dict[str, int]
    starts: dict[str, int]
    is_part: bool

    def of(self, mice: Iterable[str]) -> Share:
        """The part of it that concerns some mice."""
        names = list(mice)
        rows = {mouse: self.rows[mouse] for mouse in names}
        sizes = {mouse: self.sizes[mouse] for mouse in names}
        starts = {mouse: self.starts[mouse] for mouse in names}
        return Share(rows, sizes, starts, self.is_part)


def deal(
    steps: Sequence[Mapping[str, Rows]], lengths: Mapping[str, int], ranks: Ranks = ALONE
) -> list[Share]:
    """Deal out the batches of steps: of every mouse, each process gets trials in a row.

    Shares of a mouse differ by one trial at most, and so do those of all mice together. A step in
    which a mouse has fewer trials than there are processes is computed by each of them.

    Parameters
    ----------
    steps : sequence of dict of str to Tensor of int or slice
        Rows per mouse, the same in all processes.
    lengths : dict of str to int
        Trials per mouse.
    ranks : Ranks, optional
        The processes.

    Returns
    -------
    list of Share
    """
    rank, size = ranks.rank, ranks.size
    shares = []
    for step in steps:
        sizes = {mouse: _count(rows, lengths[mouse]) for mouse, rows in step.items()}
        if size == 1 or min(sizes.values()) < size:
            shares.append(Share(step, sizes, dict.fromkeys(step, 0), is_part=False))
            continue
        own: dict[str, Rows] = {}
        starts, turn = {}, 0
        for mouse, rows in step.items():
            each, left = divmod(sizes[mouse], size)
            more = [(r - turn) % size < left for r in range(size)]
            start = each * rank + sum(more[:rank])
            stop = start + each + more[rank]
            if isinstance(rows, slice):
                chosen = range(lengths[mouse])[rows][start:stop]
                rows = slice(chosen.start, chosen.stop, chosen.step)
                own[mouse] = rows
            else:
                own[mouse] = rows[start:stop]
            starts[mouse], turn = start, (turn + left) % size
        shares.append(Share(own, sizes, starts, is_part=True))
    return shares


def _count(rows: Rows, length: int) -> int:
    return len(range(length)[rows]) if isinstance(rows, slice) else len(rows)


def drawing_for_all(
    ranks: Ranks, state: Mapping[str, Any], device: torch.device, *, in_parts: bool = False
) -> AbstractContextManager[torch.Generator | None]:
    """Let one generator draw for whole batches, of which a process computes parts.

    Torch's own draws for this process alone, where a module asks for it that knows of no parts.

    Parameters
    ----------
    ranks : Ranks
    state : dict
        Of the run.
    device : torch.device
    in_parts : bool, default=False
        Whether a process computes its share in parts.

    Returns
    -------
    context manager
        Gives the generator for whole batches, which goes on where torch's own was and comes back as
        it; None where batches are whole, and torch's own draws everything. So it does in parts
        on one GPU, where drawing for the whole batch each time would take longer.
    """
    if ranks.size == 1 and not (in_parts and device.type == "cpu"):
        return nullcontext()
    sequence = np.random.SeedSequence([state["rng"]["seed"], state["epoch"], ranks.rank])
    return forked_rng(int(sequence.generate_state(1, np.uint64)[0] >> 1), device)


def part_of_batch(
    part: Mapping[str, MouseBatch],
    start: int,
    share: Share,
    generator: torch.Generator,
    states: dict[str | object, Tensor],
) -> AbstractContextManager[None]:
    """Let a model draw for some rows what they have where the whole batch passes.

    Parameters
    ----------
    part : dict of str to MouseBatch
        What passes the model at once, of the mice of `share`.
    start : int
        Where its rows begin among those of this process.
    share : Share
        Of the mice whose whole batches would pass together.
    generator : torch.Generator
        See `drawing_for_all`.
    states : dict of str to Tensor
        The same for all parts of the batch, empty at first.

    Returns
    -------
    context manager
    """
    mice, rows, before = {}, [], 0
    for mouse, size in share.sizes.items():
        if mouse in part:
            first = share.starts[mouse] + start
            own = torch.arange(first, first + len(part[mouse].images))
            mice[mouse] = drawing.Places(own, size)
            rows.append(before + own)
        before += size
    places = drawing.Places(torch.cat(rows), before)
    return drawing.part(drawing.Part(generator, places, mice, states))


def normalized_by_all(model: nn.Module, ranks: Ranks) -> StandIns:
    """Let batch normalisation take the statistics of the batch that processes share.

    Parameters
    ----------
    model : Module
    ranks : Ranks

    Returns
    -------
    context manager
        Within it, layers in training do; see `v1tlearn.nn.sharing`.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    chosen = norms if ranks.size > 1 else []
    return StandIns({norm: partial(_normalize, norm, norm.forward) for norm in chosen})


def _normalize(norm: _BatchNorm, forward: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    together = norm.training and sharing.now() is not None
    return normalized_together(norm, maps) if together else forward(maps)


def begin_alike(
    ranks: Ranks,
    model: nn.Module,
    parts: Mapping[str, Mapping[str, MouseData]],
    settings: TrainingSettings,
    epoch: int,
) -> None:
    """Check that all processes were given the same, and give all the weights of the first.

    Parameters
    ----------
    ranks : Ranks
    model : Module
    parts : dict of str to dict of str to MouseData
        Trials of every mouse, by what they are for.
    settings : TrainingSettings
    epoch : int
        Of the state that they go on from.

    Raises
    ------
    ValueError
        In all processes, if they differ.
    """
    if ranks.size == 1:
        return
    numbers: dict[str, float] = {"the epoch to go on from": epoch}
    numbers |= {"batch_size": settings.batch_size, "max_epochs": settings.max_epochs}
    numbers["the number of weights"] = sum(p.numel() for p in model.parameters())
    if epoch:  # of which a process has not only the weights
        sizes = [p.detach().double().square().sum() for p in model.parameters()]
        numbers["the size of the weights to go on from"] = float(torch.stack(sizes).sum())
    mice: dict[str, str] = {}
    for whose, data in parts.items():
        numbers |= _described(data, whose)
        told = f"the number of {whose} trials of mouse"
        mice |= {f"{told} {mouse!r}": str(len(trials)) for mouse, trials in data.items()}
    ranks.check_same(mice)
    ranks.check_alike(numbers, "trials or parameters")
    ranks.align(model)


def _described(data: Mapping[str, MouseData], whose: str) -> dict[str, float]:
    """Numbers by which processes find that they have the same trials in the same order.

    Values of a trial have weights by their place, since the same ones in another order are others.
    """
    numbers: dict[str, float] = {}
    for mouse, trials in data.items():
        n = len(trials)
        of = f"of the {whose} trials of mouse {mouse!r}"
        numbers[f"the number of neurons {of}"] = trials.n_neurons
        for row in sorted({0, n // 3, n // 2, n - 1}):
            rows = slice(row, row + 1)
            seen = trials.batch(rows)._asdict() | {"responses": trials.targets(rows)[0]}
            for name, values in seen.items():
                if values is not None:
                    squares = values.double().square().flatten()
                    weights = torch.linspace(1, 2, len(squares), device=squares.device)
                    size = float((squares * weights).mean())
                    numbers[f"the size of the {name} of trial {row} {of}"] = size
    return numbers
