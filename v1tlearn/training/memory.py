"""Memory of a training step: what it needs, how to get by with less, and what to say when it ends.

What a step keeps for its backward pass is measured, in a forward pass of two trials per mouse.

==============================  ===============================================================
setting                         what "auto" decides
==============================  ===============================================================
``micro_batch_size``            CUDA: as many trials at once as fit into nine tenths of the free
                                memory, or, with ``deterministic``, a third of the whole. CPU: as
                                many as fit into half of the machine's memory, and for speed no more
                                than make tensors of 8 MB per thread: larger ones leave the caches.
                                Parts of equal size. The whole batch elsewhere, and with batch
                                normalisation, which a part of a batch would change.
``checkpoint_activations``      Where not even a single trial fits otherwise; with batch
                                normalisation, where the batch does not.
                                Convolutions on a CPU are computed again whatever is set.
``prediction_batch_size``       See `prediction_batch_size`, which predictions take, too.
==============================  ===============================================================

Where a CPU trains, the C library keeps up to 64 MiB of freed memory: see `keep_freed_memory`.

On a CPU, and with ``deterministic`` anywhere, nothing depends on how much memory is free at the
moment, so that runs can be repeated bit for bit: dropout draws other numbers for other parts.
"""

from __future__ import annotations

import copy
import errno
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.losses import poisson_loss
from v1tlearn.nn.model import EncodingModel
from v1tlearn.training.capacity import available_memory
from v1tlearn.training.data import MouseData
from v1tlearn.training.devices import autocast, numerics
from v1tlearn.training.rng import initial_rng, isolated_rng
from v1tlearn.training.settings import TrainingSettings
from v1tlearn.training.stand_ins import StandIns

_PROBE_TRIALS = 2
_TENSOR_PER_THREAD = 2**23  # bytes
# Values that one layer may put out for a batch where nothing is trained. On a CPU 8 MiB in float32,
# which stay in its caches; elsewhere 1 GiB, where more images at once are no faster.
_CPU_VALUES, _OTHER_VALUES = 2**21, 2**28
_LIVE_LAYERS = 8  # outputs that are in memory at a time, at most
# What is kept for each neuron and image while its response is read: on a CPU, where neurons are
# read in blocks, the response alone; elsewhere numbers, shares and products of four cells, too.
_CPU_READING, _OTHER_READING = 1, 16
_FREED_BLOCK = 2**25 - 2**16  # bytes; a little below the 32 MiB to which glibc adapts
# Going back through an operation takes, beside what was kept, the gradients of its outputs and
# inputs and a copy or two.
_WORKSPACE_TENSORS = 3


# ------------------------------------------------------------------------------- out of memory


# What an error says where memory was asked for in vain, in the words of torch on CPUs and GPUs, of
# the libraries that it calls (cuDNN, cuBLAS), of C++ with GCC and with Microsoft's compiler, of the
# C library, of netCDF, and of Python where the stack of a thread finds no place.
_IN_VAIN = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "alloc_failed",
    "bad_alloc",
    "bad allocation",
    "memory allocation (malloc) failure",
    "can't start new thread",
)


class InsufficientMemoryError(MemoryError):
    """Memory did not suffice; the message says for what, and what helps."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory was asked for in vain, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _IN_VAIN)


@contextmanager
def remedies_named(what: str, remedies: Sequence[str], outcome: str = "") -> Iterator[None]:
    """Turn what is said when memory ends, whoever notices it first, into what helps.

    Parameters
    ----------
    what : str
        What is being done.
    remedies : sequence of str
        What the user can do, most promising first.
    outcome : str, default=""
        What has become of the model.

    Raises
    ------
    InsufficientMemoryError
        If memory does not suffice.
    """
    try:
        yield
    except InsufficientMemoryError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that fill the memory
        # torch and NumPy tell; the C++ library, where it is the first to find nothing, does not
        asked = re.search(r"(?:tried|unable) to allocate ([\d.]+ ?\w+)", str(error), re.IGNORECASE)
        raise InsufficientMemoryError(
            f"memory does not suffice for {what}"
            + (f" ({asked[1]} more were asked for)" if asked else "")
            + f". Any of these helps: {'; '.join(remedies)}."
            + (f" {outcome}" if outcome else "")
        ) from error


def step_in_words(
    model: EncodingModel, data: Mapping[str, MouseData], settings: TrainingSettings
) -> tuple[str, list[str], str]:
    """Describe a training step for `remedies_named`.

    Parameters
    ----------
    model : EncodingModel
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
    neurons = ", ".join(f"{mouse!r}: {trials.responses.shape[1]}" for mouse, trials in data.items())
    height, width = next(iter(data.values())).images.shape[-2:]
    what = (
        f"training steps of batch_size={settings.batch_size} trials per mouse, "
        f"micro_batch_size={settings.micro_batch_size!r} at once, with images of {height} x "
        f"{width} pixels and neurons per mouse {{{neurons}}}"
    )
    remedies = ["a smaller batch_size"]
    if not takes_batch_statistics(model) and settings.micro_batch_size != 1:
        remedies.insert(0, "a smaller micro_batch_size")
    if settings.checkpoint_activations is not True and saves_memory(model, settings):
        remedies.append("checkpoint_activations=True")
    if settings.precision != "bfloat16":
        remedies.append("precision='bfloat16'")
    remedies.append("stream_data=True, where it is a GPU's memory that recordings fill")
    return what, remedies, "The best model so far is kept."


# ------------------------------------------------------------------------ what a step needs


@dataclass(frozen=True)
class Footprint:
    """Memory of a training step, per trial of every mouse that passes the core together.

    Attributes
    ----------
    kept : float
        Bytes that wait for the backward pass.
    recomputed : float
        The same where the core's blocks are computed again.
    largest : float
        Bytes of the largest tensor among them.
    mice : int
        Mice that pass together.
    """

    kept: float
    recomputed: float
    largest: float
    mice: int

    def step(self, *, checkpointed: bool) -> float:
        """Bytes of a step per trial, its workspace included."""
        kept = self.recomputed if checkpointed else self.kept
        return kept + _WORKSPACE_TENSORS * self.largest


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts bytes kept for a backward pass that will not come, by the part that keeps them."""

    def __init__(self, model: EncodingModel) -> None:
        super().__init__(self._note, lambda _: None)
        self.part, self.inputs, self.largest = -1, 0, 0
        self.bytes = {-1: 0}
        # alive, so that no address comes twice
        self.storages = {p.untyped_storage().data_ptr(): p for p in model.parameters()}
        for i, part in enumerate(model.core.recomputed_parts()):
            part.register_forward_pre_hook(partial(self._enter, i))
            part.register_forward_hook(self._leave)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages[storage.data_ptr()] = storage
            self.bytes[self.part] += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())

    def _enter(self, part: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.part, self.bytes[part] = part, 0
        self.inputs += sum(x.nbytes for x in args if isinstance(x, Tensor))

    def _leave(self, *_: Any) -> None:
        self.part = -1


def measure(
    model: EncodingModel, data: Mapping[str, MouseData], settings: TrainingSettings
) -> Footprint:
    """Measure what a training step keeps for its backward pass.

    Nothing is changed: neither weights and running statistics nor random numbers.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    data : dict of str to MouseData
        Training trials per mouse.
    settings : TrainingSettings

    Returns
    -------
    Footprint
        Of all mice, or of the one that needs most where they pass one by one.
    """
    device = next(iter(data.values())).device
    groups = [list(data)] if settings.joint else [[mouse] for mouse in data]
    found = []
    with (
        isolated_rng(initial_rng(0), device),
        numerics(settings.precision, device, deterministic=settings.deterministic),
        torch.enable_grad(),
    ):
        for group in groups:
            probe = copy.deepcopy(model).train()
            rows = {m: slice(min(_PROBE_TRIALS, len(data[m]))) for m in group}
            kept = _Kept(probe)
            with kept:
                with autocast(settings.precision, device):
                    rates = probe({m: data[m].batch(rows[m]) for m in group})
                for mouse in group:
                    poisson_loss(rates[mouse].float(), *data[mouse].targets(rows[mouse]))
            n = max(r.stop for r in rows.values())
            blocks = [size for part, size in kept.bytes.items() if part >= 0]
            recomputed = kept.bytes[-1] + kept.inputs + max(blocks, default=0)
            sizes = (sum(kept.bytes.values()), recomputed, kept.largest)
            found.append(Footprint(*(size / n for size in sizes), mice=len(group)))
    return max(found, key=lambda footprint: footprint.kept)


# --------------------------------------------------------------------- what is done about it


def takes_batch_statistics(model: EncodingModel) -> bool:
    """Tell whether the core normalises with statistics of the batch while it is trained."""
    norms = any(isinstance(module, _BatchNorm) for module in model.core.modules())
    return norms and not model.core.frozen


def saves_memory(model: EncodingModel, settings: TrainingSettings) -> bool:
    """Tell whether `checkpoint_activations` saves memory with this model where it is.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    settings : TrainingSettings

    Returns
    -------
    bool
        False where the core names no parts, and with convolutions on a CPU, which compute again
        whatever is set, unless they are compiled.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    always = model.core.recomputes_on_cpu and on_cpu and settings.compile is not True
    return bool(model.core.recomputed_parts()) and not always


def check_micro_batches(model: EncodingModel, settings: TrainingSettings) -> None:
    """Check that parts of a batch give the same gradient as the batch.

    Raises
    ------
    ValueError
        If batch normalisation would see other statistics.
    """
    size = settings.micro_batch_size
    if not isinstance(size, str) and size < settings.batch_size and takes_batch_statistics(model):
        others = "precision='bfloat16' saves memory, too"
        if saves_memory(model, settings):
            others = "checkpoint_activations=True and precision='bfloat16' save memory, too"
        raise ValueError(
            f"micro_batch_size={size} is below batch_size={settings.batch_size}, but the core has "
            "batch normalisation, whose statistics would be those of fewer trials, and the result "
            f"another one. Set micro_batch_size='auto', which takes whole batches here; {others}."
        )


def plan(
    model: EncodingModel, data: Mapping[str, MouseData], settings: TrainingSettings
) -> TrainingSettings:
    """Decide what "auto" means for the memory of this model, data and device.

    Parameters
    ----------
    model : EncodingModel
        On its device.
    data : dict of str to MouseData
        Training trials per mouse.
    settings : TrainingSettings

    Returns
    -------
    TrainingSettings
        With numbers in place of "auto", see the table of this module.

    Raises
    ------
    ValueError
        If a micro-batch size was given to a core with batch normalisation.
    """
    check_micro_batches(model, settings)
    batch = min(settings.batch_size, max(len(trials) for trials in data.values()))
    device = next(iter(data.values())).device
    size, again = settings.micro_batch_size, settings.checkpoint_activations
    at_once = settings.prediction_batch_size or prediction_batch_size(
        model, device, deterministic=settings.deterministic
    )
    if isinstance(size, str) and takes_batch_statistics(model):
        size = batch
    if isinstance(again, str) and not saves_memory(model, settings):
        again = False
    if isinstance(size, str) or isinstance(again, str):  # nothing is measured in vain
        with remedies_named(*step_in_words(model, data, settings)):
            footprint = measure(model, data, settings)
        memory = available_memory(device, deterministic=settings.deterministic)
        size, again = _fitting(footprint, memory, size, again, _quick(footprint, batch, device))
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


def _quick(footprint: Footprint, batch: int, device: torch.device) -> int:
    """Trials of a batch that are trained on fastest at once."""
    if device.type != "cpu":
        return batch
    tensor = _TENSOR_PER_THREAD * torch.get_num_threads()
    return min(batch, max(1, int(tensor / max(1.0, footprint.largest))))


def _even(batch: int, at_most: int) -> int:
    """Size of as few parts as possible, as equal as possible."""
    return -(-batch // -(-batch // at_most))


def prediction_batch_size(
    model: EncodingModel, device: torch.device, *, deterministic: bool = False
) -> int:
    """Decide how many images go through a model at once where nothing is trained.

    Parameters
    ----------
    model : EncodingModel
    device : torch.device
    deterministic : bool, default=False
        Whether it must not depend on how much memory is free.

    Returns
    -------
    int
        As many as keep what the widest layer puts out, or the largest readout needs, at 2 million
        values on a CPU and 256 million on other devices, and no more than fit into
        `available_memory`. At least 1. The `batch_size` of the training does not count.
    """
    channels, height, width = model.core.output_shape
    weights = [
        p for name, p in model.core.named_parameters() if name.endswith("weight") and p.dim()
    ]
    widest = max((len(p) for p in weights), default=channels)
    neurons = max(readout.n_neurons for readout in model.readouts)
    on_cpu = device.type == "cpu"
    values = max(height * width * widest, neurons * (_CPU_READING if on_cpu else _OTHER_READING))
    size = (_CPU_VALUES if on_cpu else _OTHER_VALUES) // values
    room = available_memory(device, deterministic=deterministic)
    if room is not None:
        size = min(size, int(room / (4 * _LIVE_LAYERS * values)))
    return max(1, size)


def keep_freed_memory() -> None:
    """Let the C library keep what one step on a CPU frees for the next one.

    Memory that goes back to the system after every step comes again page by page, by faults that
    cost a small model part of its time. This holds for the process from then on, and changes
    nothing but where memory comes from. glibc gives back what exceeds twice the largest block
    of at most 32 MiB that was freed so far (M_TRIM_THRESHOLD in the manual of mallopt). Such a
    block is freed here; it is never written to, so that it takes no memory. Where this number was
    set by the user, the library is another one, or there is no room for the block, nothing changes.
    """
    try:
        torch.UntypedStorage(_FREED_BLOCK, device="cpu")  # and at once let go
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise


def checkpointed(core: Core, wanted: bool) -> StandIns:
    """Keep only the inputs of a core's parts for the backward pass, and compute the rest again.

    The same numbers come out, dropout and running statistics included.

    Parameters
    ----------
    core : Core
    wanted : bool
        Nothing is done without.

    Returns
    -------
    context manager
        Within it the parts are computed again.
    """
    parts = core.recomputed_parts() if wanted else []
    return StandIns({part: _recomputing(part, part.forward) for part in parts})


def _recomputing(part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]

    def contexts() -> tuple[Any, Any]:
        """Contexts of the forward pass and of its repetition."""
        return nullcontext(), _running_statistics_kept(norms)

    def recomputing(*args: Any) -> Any:
        """Forward pass whose activations are not kept."""
        if not torch.is_grad_enabled():
            return forward(*args)
        if norms and not torch.compiler.is_compiling():
            return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)
        return checkpoint(forward, *args, use_reentrant=False)

    return recomputing


@contextmanager
def _running_statistics_kept(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let batch normalisation see a batch once more without taking notice of it."""
    found = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, momentum, count in found:
            norm.momentum, norm.num_batches_tracked = momentum, count
