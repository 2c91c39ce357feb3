"""Trials of one mouse on the device, and the batches cut from them there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from v1tlearn.nn.model import MouseBatch


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

    def batch(self, rows: Tensor | slice) -> MouseBatch:
        """Cut out trials as float inputs of the model.

        Parameters
        ----------
        rows : Tensor of int, or slice

        Returns
        -------
        MouseBatch
        """
        images = self.images[rows].to(torch.float32)
        if (self.image_mean, self.image_std) != (0.0, 1.0):
            images = (images - self.image_mean) / self.image_std
        others = (self.behaviors, self.pupil, self.shifter_inputs)
        return MouseBatch(images, *(None if x is None else x[rows] for x in others))

    def targets(self, rows: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        """Cut out responses and the mask of those that were recorded."""
        return self.responses[rows], None if self.recorded is None else self.recorded[rows]


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
    data: Mapping[str, MouseData], steps: Iterable[Mapping[str, Tensor | slice]]
) -> Iterator[tuple[dict[str, MouseBatch], dict[str, tuple[Tensor, Tensor | None]]]]:
    """Cut the batches of training steps, one after the other.

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
    for rows in steps:
        yield (
            {mouse: data[mouse].batch(r) for mouse, r in rows.items()},
            {mouse: data[mouse].targets(r) for mouse, r in rows.items()},
        )
