"""What "auto" means for the memory of a training step, and what to say when memory ends.

What a step keeps for its backward pass is measured, in a forward pass of two trials per mouse.

==============================  ===============================================================
setting                         what "auto" decides
==============================  ===============================================================
``micro_batch_size``            CUDA: as many trials at once as fit into nine tenths of the free
                                memory, or, with ``deterministic``, a third of the whole. CPU: as
                                many as fit into half of the machine's memory, and for speed no more
                                than make tensors of 8 MB per thread: larger ones leave the caches.
                                Parts of equal size. The whole batch elsewhere, and with batch
                                normalisation and objectives that a part of a batch would change.
``checkpoint_activations``      Where not even a single trial fits otherwise; with batch
                                normalisation, where the batch does not.
                                Convolutions on a CPU are computed again whatever is set.
``prediction_batch_size``       See `prediction_batch_size`, which predictions take, too.
==============================  ===============================================================

Where a CPU trains, the C library keeps up to 64 MiB of freed memory: see `keep_freed_memory`.

On a CPU, and with ``deterministic`` anywhere, nothing depends on how much memory is free at the
moment, so that runs can be repeated bit for bit: on GPUs, dropout draws other numbers for other
parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from v1tlearn.nn.alignment import AlignmentModel
from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.data import MouseData
from v1tlearn.training.memory.capacity import available_memory
from v1tlearn.training.memory.footprint import Footprint, measure
from v1tlearn.training.memory.out_of_memory import remedies_named
from v1tlearn.training.memory.recomputation import saves_memory, takes_batch_statistics
from v1tlearn.training.objectives import Objective
from v1tlearn.training.settings import TrainingSettings

_TENSOR_PER_THREAD = 2**23  # bytes
# Values that one layer may put out for a batch where nothing is trained. On a CPU 8 MiB in float32,
# which stay in its caches; elsewhere 1 GiB, where more images at once are no faster.
_CPU_VALUES, _OTHER_VALUES = 2**21, 2**28
_LIVE_LAYERS = 8  # outputs that are in memory at a time, at most
# What is kept for each neuron and image while its response is read: on a CPU, where neurons are
# read in blocks, the response alone; elsewhere numbers, shares and products of four cells, too.
_CPU_READING, _OTHER_READING = 1, 16

Available = Callable[..., float | None]


def step_in_words(
    model: EncodingModel,
    objective: Objective,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
) -> tuple[str, list[str], str]:
    """Describe a training step for `remedies_named`.

    Parameters
    ----------
    model : EncodingModel
    objective : Objective
    data : dict of str to MouseData
    settings : TrainingSettings

    Returns
    -------
    what : str
        The sizes of a step.
    remedies : list of str
        What makes it smaller and was not done yet.
    outcome : str
    """
    neurons = ", ".join(f"{mouse!r}: {trials.n_neurons}" for mouse, trials in data.items())
    height, width = next(iter(data.values())).images.shape[-2:]
    what = (
        f"training steps of batch_size={settings.batch_size} trials per mouse, "
        f"micro_batch_size={settings.micro_batch_size!r} at once, with images of {height} x "
        f"{width} pixels and neurons per mouse {{{neurons}}}"
    )
    remedies = ["a smaller batch_size"]
    if objective.in_parts and not takes_batch_statistics(model) and settings.micro_batch_size != 1:
        remedies.insert(0, "a smaller micro_batch_size")
    if settings.checkpoint_activations is not True:
        remedies.append("low_memory=True")
    if settings.precision != "bfloat16":
        remedies.append("precision='bfloat16'")
    return what, remedies, "The best model so far is kept."


def check_micro_batches(
    model: EncodingModel, objective: Objective, settings: TrainingSettings
) -> None:
    """Check that parts of a batch give the same gradient as the batch.

    Raises
    ------
    ValueError
        If batch normalisation, or the objective, would see other trials together.
    """
    size = settings.micro_batch_size
    if isinstance(size, str) or size >= settings.batch_size:
        return
    if takes_batch_statistics(model):
        why = "the core has batch normalisation, whose statistics would be those of fewer trials,"
    elif not objective.in_parts:
        why = "the loss of a batch is not the sum of those of its parts,"
    else:
        return
    others = "precision='bfloat16' saves memory, too"
    if saves_memory(model, settings):
        others = "low_memory=True and precision='bfloat16' save memory, too"
    raise ValueError(
        f"micro_batch_size={size} is below batch_size={settings.batch_size}, but {why} and the "
        "result another one. Set micro_batch_size='auto', which takes whole batches here; "
        f"{others}."
    )


def plan(
    model: EncodingModel,
    objective: Objective,
    data: Mapping[str, MouseData],
    settings: TrainingSettings,
    available: Available = available_memory,
    *,
    processes: int = 1,
) -> TrainingSettings:
    """Decide what "auto" means for the memory of this model, data and device.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    objective : Objective
    data : dict of str to MouseData
        Training trials per mouse.
    settings : TrainingSettings
    available : callable, default=available_memory
        Tells how much memory there is.
    processes : int, default=1
        Among which a batch is dealt out.

    Returns
    -------
    TrainingSettings
        With numbers in place of "auto", see the table of this module.

    Raises
    ------
    ValueError
        If a micro-batch size was given that would change the result.
    """
    check_micro_batches(model, objective, settings)
    batch = min(settings.batch_size, max(len(trials) for trials in data.values()))
    batch = -(-batch // processes)
    device = next(iter(data.values())).device
    size, again = settings.micro_batch_size, settings.checkpoint_activations
    at_once = settings.prediction_batch_size or prediction_batch_size(
        model, device, deterministic=settings.deterministic, available=available
    )
    if isinstance(size, str) and (takes_batch_statistics(model) or not objective.in_parts):
        size = batch
    if isinstance(again, str) and not saves_memory(model, settings):
        again = False
    if isinstance(size, str) or isinstance(again, str):  # nothing is measured in vain
        with remedies_named(*step_in_words(model, objective, data, settings)):
            footprint = measure(model, objective, data, settings)
        memory = available(device, deterministic=settings.deterministic)
        size, again = _fitting(
            footprint, memory, size, again, quickest_at_once(footprint, batch, device)
        )
    return replace(
        settings,
        micro_batch_size=_even(batch, size) if size < batch else settings.batch_size,
        checkpoint_activations=again,
        prediction_batch_size=at_once,
    )


def _fitting(
    footprint: Footprint, memory: float | None, size: str | int, again: str | bool, quick: int
) -> tuple[int, bool]:
    """Trials at once, `quick` of them at most where "auto", and whether blocks are recomputed."""
    smallest, wanted = (1, quick) if isinstance(size, str) else (size, size)
    if memory is None:
        return wanted, again is True
    if isinstance(again, str):
        again = smallest * footprint.step(checkpointed=False) > memory
    fitting = int(memory / max(1.0, footprint.step(checkpointed=again)))
    return max(smallest, min(wanted, fitting)), again


def quickest_at_once(footprint: Footprint, batch: int, device: torch.device) -> int:
    """Decide how many trials of a batch are trained on fastest at once, memory or not."""
    if device.type != "cpu":
        return batch
    tensor = _TENSOR_PER_THREAD * torch.get_num_threads()
    return min(batch, max(1, int(tensor / max(1.0, footprint.largest))))


def _even(batch: int, at_most: int) -> int:
    """Size of as few parts as possible, as equal as possible."""
    return -(-batch // -(-batch // at_most))


def prediction_batch_size(
    model: EncodingModel | AlignmentModel,
    device: torch.device,
    *,
    deterministic: bool = False,
    available: Available = available_memory,
) -> int:
    """Decide how many images go through a model at once where nothing is trained.

    Parameters
    ----------
    model : EncodingModel or AlignmentModel
    device : torch.device
    deterministic : bool, default=False
        Whether it must not depend on how much memory is free.
    available : callable, default=available_memory
        Tells how much memory there is.

    Returns
    -------
    int
        As many as keep what the widest layer puts out, the largest readout needs, or an image
        has of pixels before it is cropped and resized, at 2 million values on a CPU and 256 million
        on other devices, and no more than fit into what is `available`. At least 1. The
        `batch_size` of the training does not count.
    """
    neurons = max(model.readout(mouse).n_neurons for mouse in model.mice)
    reading = neurons * (_CPU_READING if device.type == "cpu" else _OTHER_READING)
    least = max(reading, math.prod(model.cropper.input_size))
    return images_at_once(
        model.core, device, least=least, deterministic=deterministic, available=available
    )


def images_at_once(
    core: Core,
    device: torch.device,
    *,
    least: int = 1,
    deterministic: bool = False,
    available: Available = available_memory,
) -> int:
    """Decide how many images go through a core at once where nothing is trained.

    Parameters
    ----------
    core : Core
    device : torch.device
    least : int, default=1
        Values that what follows the core has for an image.
    deterministic : bool, default=False
    available : callable, default=available_memory
        As of `prediction_batch_size`.

    Returns
    -------
    int
        At least 1.
    """
    on_cpu = device.type == "cpu"
    values = max(least, core.largest_output())
    size = (_CPU_VALUES if on_cpu else _OTHER_VALUES) // values
    room = available(device, deterministic=deterministic)
    if room is not None:
        size = min(size, int(room / (4 * _LIVE_LAYERS * values)))
    return max(1, size)
