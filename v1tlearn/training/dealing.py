"""How the batches of training steps are dealt out to processes, and what is drawn for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from v1tlearn.nn import sharing
from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.layers.normalization import normalized_together
from v1tlearn.nn.model import EncodingModel
from v1tlearn.nn.readouts.readout import Readout
from v1tlearn.training.data import MouseData, Rows
from v1tlearn.training.distributed import ALONE, Ranks
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
    ranks: Ranks, state: Mapping[str, Any], device: torch.device
) -> AbstractContextManager[torch.Generator | None]:
    """Let each process draw for its own trials, such as dropout, and all alike for whole batches.

    Parameters
    ----------
    ranks : Ranks
    state : dict
        Of the run.
    device : torch.device

    Returns
    -------
    context manager
        Gives the generator for whole batches, which goes on where torch's own was and comes back as
        it; None where the process is alone, and draws everything by torch's own.
    """
    if ranks.size == 1:
        return nullcontext()
    sequence = np.random.SeedSequence([state["rng"]["seed"], state["epoch"], ranks.rank])
    return forked_rng(int(sequence.generate_state(1, np.uint64)[0] >> 1), device)


def draw_noise(
    model: EncodingModel,
    data: Mapping[str, MouseData],
    inputs: Mapping[str, MouseBatch],
    share: Share,
    generator: torch.Generator,
) -> dict[nn.Module, Tensor]:
    """Draw for a whole batch what readouts take, in the order of the mice, and give the own rows.

    Parameters
    ----------
    model : EncodingModel
    data : dict of str to MouseData
    inputs : dict of str to MouseBatch
        Of the mice that pass the core together, what is this process's own.
    share : Share
    generator : torch.Generator
        On the device of the data; the same in all processes.

    Returns
    -------
    dict of Readout to Tensor
    """
    noise: dict[nn.Module, Tensor] = {}
    for mouse, batch in inputs.items():
        each = data[mouse].n_images
        first, n_images = share.starts[mouse] * each, share.sizes[mouse] * each
        for part in model.readout(mouse).modules():
            if isinstance(part, Readout) and part.noise_shape is not None:
                shape, device = (n_images, *part.noise_shape), generator.device
                drawn = torch.randn(shape, dtype=torch.float32, device=device, generator=generator)
                noise[part] = drawn[first : first + len(batch.images) * each]
    return noise


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
    for whose, data in parts.items():
        numbers |= _described(data, whose)
    ranks.check_alike(numbers, "trials or parameters")
    ranks.align(model)


def _described(data: Mapping[str, MouseData], whose: str) -> dict[str, float]:
    """Numbers by which processes find that they have the same trials in the same order."""
    numbers: dict[str, float] = {}
    for mouse, trials in data.items():
        n = len(trials)
        of = f"of the {whose} trials of mouse {mouse!r}"
        numbers |= {f"the number {of}": n, f"the number of neurons {of}": trials.n_neurons}
        for row in sorted({0, n // 3, n // 2, n - 1}):
            rows = slice(row, row + 1)
            seen = trials.batch(rows).images.double().square().mean()
            target = trials.targets(rows)[0].double().square().mean()
            numbers |= {f"trial {row} {of}": float(seen), f"response {row} {of}": float(target)}
    return numbers
