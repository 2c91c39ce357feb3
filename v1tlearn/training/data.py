"""Trials of one mouse, on the device or brought to it in time, and the batches cut from them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.training.sources import Source, read_ahead, read_rows

Rows = Tensor | slice
Targets = tuple[Tensor, Tensor | None]

_CPU = torch.device("cpu")


@dataclass
class MouseData:
    """Everything of one mouse that training or prediction reads.

    Images and responses are tensors on the device, or a `Source` elsewhere, from which
    `step_batches` brings them to the device ahead of their step; batches are the same bit for bit.

    Attributes
    ----------
    images : Tensor or Source of shape (n_trials, channels, height, width)
        In their own dtype; made float and standardised batch by batch.
    image_rows : Tensor of int, of shape (n_trials,), or None
        Which row of the images, a tensor then, each trial shows; its own where None.
    image_mean, image_std : float
        In the units of the images.
    behaviors : Tensor of shape (n_trials, columns) or None
        Standardised columns for the core.
    pupil : Tensor of shape (n_trials, 2) or None
        Standardised pupil position.
    shifter_inputs : Tensor of shape (n_trials, k) or None
        What moves the stimulus, where that is more than the pupil.
    labels : Tensor of int of shape (n_trials,) or None
        Which image each trial shows, where the objective asks.
    responses : Tensor or Source of shape (n_trials, n_neurons) or None
        Scaled, float32; NaN where not recorded.
    complete : bool
        Whether everything was surely recorded.
    scale_trials : int
        Number of trials that the loss scale counts.
    device : torch.device
        Where batches and targets come out, and all else is: that of the images if they are a
        tensor.
    read_steps : int
        Steps whose rows are read from a `Source` at once, because they lie in a row together.
    """

    images: Tensor | Source
    image_mean: float = 0.0
    image_std: float = 1.0
    behaviors: Tensor | None = None
    pupil: Tensor | None = None
    shifter_inputs: Tensor | None = None
    labels: Tensor | None = None
    responses: Tensor | Source | None = None
    complete: bool = True
    scale_trials: int = 0
    device: torch.device = _CPU
    image_rows: Tensor | None = None
    read_steps: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor):
            self.device = self.images.device

    def __len__(self) -> int:
        return len(self.images if self.image_rows is None else self.image_rows)

    @property
    def n_neurons(self) -> int:
        """Neurons of the mouse, whose responses are known."""
        assert self.responses is not None
        return self.responses.shape[1]

    @property
    def n_images(self) -> int:
        """How many images a row has: one, unless rows are windows of movies."""
        return 1

    @property
    def n_counted(self) -> float:
        """How many responses of a neuron a row has that count: one of images."""
        return 1

    def places(self, rows: Rows) -> Rows:
        """Places of what rows hold among images and responses: the same of images.

        Parameters
        ----------
        rows : Tensor of int, of shape (n,), or slice

        Returns
        -------
        Tensor of int, or slice
        """
        return rows

    @property
    def sources(self) -> dict[str, Source]:
        """What is not on the device, by name."""
        given = {"images": self.images, "responses": self.responses}
        return {k: v for k, v in given.items() if v is not None and not isinstance(v, Tensor)}

    def batch(self, rows: Rows, images: Tensor | None = None) -> MouseBatch:
        """Cut out trials as float inputs of the model.

        Parameters
        ----------
        rows : Tensor of int, or slice
        images : Tensor, optional
            Those of these trials where they were read already, on the device; changed in place
            where they are float32. Otherwise they are read, and waited for.

        Returns
        -------
        MouseBatch
        """
        if images is None:
            shown = rows if self.image_rows is None else self.image_rows[rows]
            images = self._rows(self.images, shown)
        lasting = isinstance(self.images, Tensor) and self.image_rows is None
        kept = lasting and isinstance(rows, slice)  # and no copy
        own = not kept or images.dtype != torch.float32
        images = images.to(torch.float32)
        if (self.image_mean, self.image_std) != (0.0, 1.0):
            images = images.sub_(self.image_mean) if own else images - self.image_mean
            images = images.div_(self.image_std)
        others = (self.behaviors, self.pupil, self.shifter_inputs, self.labels)
        return MouseBatch(images, *(None if x is None else _cut(x, rows) for x in others))

    def targets(self, rows: Rows, responses: Tensor | None = None) -> Targets:
        """Cut out responses, 0 where not recorded, and the mask of those that were.

        Parameters
        ----------
        rows : Tensor of int, or slice
        responses : Tensor, optional
            Those of these trials where they were read already, on the device.

        Returns
        -------
        responses : Tensor of shape (n, n_neurons)
        recorded : Tensor of bool of this shape, or None
            None where everything was.
        """
        if responses is None:
            assert self.responses is not None  # or there are no targets
            responses = self._rows(self.responses, rows)
        if self.complete:
            return responses, None
        recorded = ~responses.isnan()
        return torch.where(recorded, responses, 0), recorded

    def _rows(self, values: Tensor | Source, rows: Rows) -> Tensor:
        if isinstance(values, Tensor):
            return _cut(values, rows)
        host = np.arange(len(self))[rows] if isinstance(rows, slice) else rows.cpu().numpy()
        return read_rows(values, host, self.device)


def _cut(values: Tensor, rows: Rows) -> Tensor:
    """Rows of a tensor; copies whole rows, which indexing does element by element."""
    return values[rows] if isinstance(rows, slice) else values.index_select(0, rows)


def by_neuron(targets: Targets) -> Targets:
    """Put responses, and the mask of those that were recorded, into the form (n, n_neurons).

    Parameters
    ----------
    targets : (Tensor, Tensor or None)
        Of shape (n_trials, [n_frames,] n_neurons).

    Returns
    -------
    (Tensor, Tensor or None)
        Without a time axis, frame after frame.
    """
    values, recorded = targets
    return values.flatten(0, -2), None if recorded is None else recorded.flatten(0, -2)


def n_steps(lengths: Mapping[str, int], batch_size: int) -> int:
    """Count the steps of an epoch, which sees all trials of the mouse with most of them."""
    return max(-(-n // batch_size) for n in lengths.values())


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
    steps = n_steps(lengths, batch_size)
    batches: dict[str, list[Tensor]] = {}
    for mouse, n in lengths.items():
        rows: list[Tensor] = []
        while len(rows) < steps:
            rows.extend(torch.randperm(n, device=device).split(batch_size))
        batches[mouse] = rows[:steps]
    return [{mouse: rows[step] for mouse, rows in batches.items()} for step in range(steps)]


Draw = Callable[[Mapping[str, int], int, torch.device], Sequence[Mapping[str, Rows]]]


def step_batches(
    data: Mapping[str, MouseData], steps: Iterable[Mapping[str, Rows]]
) -> Generator[tuple[dict[str, MouseBatch], dict[str, Targets]], None, None]:
    """Cut the batches of training steps, one after the other.

    What is not on the device is read for the next steps meanwhile, by a thread that ends with the
    iterator: close it (`contextlib.closing`) if the loop over it may end early.

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
    with closing(_arriving(data, steps)) as arriving:
        for rows, arrived in zip(steps, arriving, strict=True):
            inputs, targets = {}, {}
            for mouse in (m for m in data if m in rows):
                inputs[mouse] = data[mouse].batch(rows[mouse], arrived.get((mouse, "images")))
                responses = arrived.get((mouse, "responses"))
                targets[mouse] = data[mouse].targets(rows[mouse], responses)
            yield inputs, targets


def _arriving(
    data: Mapping[str, MouseData], steps: Sequence[Mapping[str, Rows]]
) -> Generator[dict[tuple[str, str], Tensor], None, None]:
    """What is read for each step, by mouse and name."""
    sources = {(m, name): s for m, trials in data.items() for name, s in trials.sources.items()}
    if not sources:
        yield from ({} for _ in steps)
        return
    streamed = {m: data[m] for m, _ in sources}
    rows = _on_host(streamed, steps)
    wanted = [{key: step[key[0]] for key in sources if key[0] in step} for step in rows]
    device = next(iter(streamed.values())).device
    together = max(trials.read_steps for trials in streamed.values())
    with closing(read_ahead(sources, wanted, device, together=together)) as arriving:
        yield from arriving


def _on_host(
    streamed: Mapping[str, MouseData], steps: Sequence[Mapping[str, Rows]]
) -> list[dict[str, np.ndarray]]:
    """Places of what all steps read, fetched from the device at once."""
    places = [
        {m: trials.places(rows[m]) for m, trials in streamed.items() if m in rows} for rows in steps
    ]
    drawn = [own for step in places for own in step.values() if isinstance(own, Tensor)]
    fetched = iter(torch.cat(drawn).cpu().split([len(own) for own in drawn]) if drawn else ())
    return [
        {
            m: next(fetched).numpy()
            if isinstance(own, Tensor)
            else np.arange(len(streamed[m]))[own]
            for m, own in step.items()
        }
        for step in places
    ]
