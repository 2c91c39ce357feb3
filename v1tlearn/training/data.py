"""Trials of one mouse, on the device or streamed to it, and the batches cut from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn.model import MouseBatch
from v1tlearn.training.streaming import Source, read_ahead, read_rows

Rows = Tensor | slice
Targets = tuple[Tensor, Tensor | None]

_CPU = torch.device("cpu")


@dataclass
class MouseData:
    """Everything of one mouse that training or prediction reads, on one device.

    Attributes
    ----------
    images : Tensor of shape (n_trials, channels, height, width)
        In their own dtype; made float and standardised batch by batch.
    image_mean, image_std : float
        In the units of the images.
    behaviors : Tensor of shape (n_trials, columns) or None
        Standardised columns for the core.
    pupil : Tensor of shape (n_trials, 2) or None
        Standardised pupil position.
    shifter_inputs : Tensor of shape (n_trials, k) or None
        What moves the stimulus, where that is more than the pupil.
    responses : Tensor of shape (n_trials, n_neurons) or None
        Scaled; 0 where not recorded.
    recorded : Tensor of bool, shape (n_trials, n_neurons), or None
        None where everything was recorded.
    scale_trials : int
        Number of trials that the loss scale counts.
    """

    images: Tensor
    image_mean: float = 0.0
    image_std: float = 1.0
    behaviors: Tensor | None = None
    pupil: Tensor | None = None
    shifter_inputs: Tensor | None = None
    responses: Tensor | None = None
    recorded: Tensor | None = None
    scale_trials: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Where batches and targets come out."""
        return self.images.device

    def batch(self, rows: Rows) -> MouseBatch:
        """Cut out trials as float inputs of the model.

        Parameters
        ----------
        rows : Tensor of int, or slice

        Returns
        -------
        MouseBatch
        """
        return self._inputs(_cut(self.images, rows), rows, own=not isinstance(rows, slice))

    def targets(self, rows: Rows) -> Targets:
        """Cut out responses and the mask of those that were recorded."""
        recorded = None if self.recorded is None else _cut(self.recorded, rows)
        return _cut(self.responses, rows), recorded

    def _inputs(self, images: Tensor, rows: Rows, *, own: bool) -> MouseBatch:
        """Standardise images that were cut out, in place if they are a copy, and add the rest."""
        own = own or images.dtype != torch.float32
        images = images.to(torch.float32)
        if (self.image_mean, self.image_std) != (0.0, 1.0):
            images = images.sub_(self.image_mean) if own else images - self.image_mean
            images = images.div_(self.image_std)
        others = (self.behaviors, self.pupil, self.shifter_inputs)
        return MouseBatch(images, *(None if x is None else _cut(x, rows) for x in others))


@dataclass
class StreamedMouseData(MouseData):
    """Everything of one mouse, its images and responses in host memory or in files.

    Batches are those that `MouseData` cuts, bit for bit; `step_batches` brings them to the device
    ahead of their step.

    Attributes
    ----------
    images : Source of shape (n_trials, channels, height, width)
        In their own dtype.
    responses : Source of shape (n_trials, n_neurons) or None
        Scaled, float32; NaN where not recorded.
    complete : bool
        Whether everything was surely recorded.
    destination : torch.device
        Where batches come out, and where all else is.
    """

    images: Source
    responses: Source | None = None
    complete: bool = False
    destination: torch.device = _CPU

    @property
    def device(self) -> torch.device:
        """Where batches and targets come out."""
        return self.destination

    @property
    def sources(self) -> dict[str, Source]:
        """What is not on the device, by name."""
        given = {"images": self.images, "responses": self.responses}
        return {name: source for name, source in given.items() if source is not None}

    def batch(self, rows: Rows) -> MouseBatch:
        """Read trials, wait for them, and make float inputs of the model.

        Parameters
        ----------
        rows : Tensor of int, or slice

        Returns
        -------
        MouseBatch
        """
        return self.arrived_batch(read_rows(self.images, self._host(rows), self.device), rows)

    def targets(self, rows: Rows) -> Targets:
        """Read responses, wait for them, and tell which were recorded."""
        return self.arrived_targets(read_rows(self.responses, self._host(rows), self.device))

    def arrived_batch(self, images: Tensor, rows: Rows) -> MouseBatch:
        """Make inputs of the model from images that were read.

        Parameters
        ----------
        images : Tensor of shape (n, channels, height, width)
            On the device, in their own dtype; changed in place where they are float32.
        rows : Tensor of int, or slice
            The trials they are of.

        Returns
        -------
        MouseBatch
        """
        return self._inputs(images, rows, own=True)

    def arrived_targets(self, responses: Tensor) -> Targets:
        """Tell which of the responses that were read were recorded, and make the others 0."""
        if self.complete:
            return responses, None
        recorded = ~responses.isnan()
        return responses.nan_to_num_(), recorded

    def _host(self, rows: Rows) -> np.ndarray:
        """Row numbers for the sources."""
        return np.arange(len(self))[rows] if isinstance(rows, slice) else rows.cpu().numpy()


def _cut(values: Tensor, rows: Rows) -> Tensor:
    """Rows of a tensor; copies whole rows, which indexing does element by element."""
    return values[rows] if isinstance(rows, slice) else values.index_select(0, rows)


def epoch_batches(
    lengths: Mapping[str, int], batch_size: int, device: torch.device
) -> list[dict[str, Tensor]]:
    """Draw the batches of one epoch: one of every mouse per step.

    An epoch lasts until the mouse with most trials was seen once; mice with fewer start again in
    a new random order, as the published loaders do. The last batch of a pass may be short.

    Parameters
    ----------
    lengths : dict of str to int
        Trials per mouse.
    batch_size : int
        Trials per mouse and step.
    device : torch.device
        Where the indices are needed.

    Returns
    -------
    list of dict of str to Tensor
        One entry per step: rows per mouse.
    """
    n_steps = max(-(-n // batch_size) for n in lengths.values())
    batches: dict[str, list[Tensor]] = {}
    for mouse, n in lengths.items():
        rows: list[Tensor] = []
        while len(rows) < n_steps:
            rows.extend(torch.randperm(n, device=device).split(batch_size))
        batches[mouse] = rows[:n_steps]
    return [{mouse: rows[step] for mouse, rows in batches.items()} for step in range(n_steps)]


def step_batches(
    data: Mapping[str, MouseData], steps: Iterable[Mapping[str, Rows]]
) -> Iterator[tuple[dict[str, MouseBatch], dict[str, Targets]]]:
    """Cut the batches of training steps, one after the other.

    Where data are streamed, those of the next steps are read meanwhile, by a thread that ends
    with the iterator: close it (`contextlib.closing`) if the loop over it may end early.

    Parameters
    ----------
    data : dict of str to MouseData
    steps : iterable of dict of str to Tensor or slice
        Rows per mouse for every step, as `epoch_batches` draws them.

    Yields
    ------
    inputs : dict of str to MouseBatch
        Per mouse, on the device.
    targets : dict of str to tuple of Tensor
        Responses, and the mask of those that were recorded or None, on the device.
    """
    steps = list(steps)
    streamed = {m: trials for m, trials in data.items() if isinstance(trials, StreamedMouseData)}
    with closing(_arriving(streamed, steps)) as arriving:
        for rows, arrived in zip(steps, arriving, strict=True):
            inputs, targets = {}, {}
            for mouse, trials in data.items():
                if mouse not in rows:
                    continue
                if mouse in streamed:
                    inputs[mouse] = trials.arrived_batch(arrived[mouse, "images"], rows[mouse])
                    targets[mouse] = trials.arrived_targets(arrived[mouse, "responses"])
                else:
                    inputs[mouse] = trials.batch(rows[mouse])
                    targets[mouse] = trials.targets(rows[mouse])
            yield inputs, targets


def _arriving(
    streamed: Mapping[str, StreamedMouseData], steps: Sequence[Mapping[str, Rows]]
) -> Iterator[dict[tuple[str, str], Tensor]]:
    """What is read for each step, by mouse and name."""
    if not streamed:
        yield from ({} for _ in steps)
        return
    sources = {(m, name): s for m, trials in streamed.items() for name, s in trials.sources.items()}
    rows = _on_host(streamed, steps)
    wanted = [{key: step[key[0]] for key in sources if key[0] in step} for step in rows]
    device = next(iter(streamed.values())).device
    with closing(read_ahead(sources, wanted, device)) as arriving:
        yield from arriving


def _on_host(
    streamed: Mapping[str, StreamedMouseData], steps: Sequence[Mapping[str, Rows]]
) -> list[dict[str, np.ndarray]]:
    """Row numbers of all steps, fetched from the device at once."""
    drawn = [
        rows[m] for rows in steps for m in streamed if m in rows and isinstance(rows[m], Tensor)
    ]
    fetched = iter(torch.cat(drawn).cpu().split([len(r) for r in drawn]) if drawn else ())
    return [
        {
            m: next(fetched).numpy()
            if isinstance(rows[m], Tensor)
            else np.arange(len(trials))[rows[m]]
            for m, trials in streamed.items()
            if m in rows
        }
        for rows in steps
    ]
