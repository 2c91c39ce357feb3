"""Responses of one mouse to all its trials, batch by batch."""

from __future__ import annotations

from contextlib import closing

import torch
from torch import Tensor

from v1tlearn.nn import sharing
from v1tlearn.nn.model import EncodingModel
from v1tlearn.nn.precision import at_least_float32
from v1tlearn.training.data import MouseData, by_neuron, step_batches
from v1tlearn.training.devices import autocast


def predict_known(
    model: EncodingModel, mouse: str, trials: MouseData, batch_size: int, precision: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Predict trials whose responses are known; each is read once, and ahead.

    Of processes that share them, see `v1tlearn.nn.sharing`, each predicts some, and all have all.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    mouse : str
    trials : MouseData
    batch_size : int
    precision : {"float32", "tf32", "bfloat16"}

    Returns
    -------
    predictions, responses : Tensor of shape (n_trials, n_neurons)
        In the units of training. Of windows of movies, one row per frame.
    recorded : Tensor of bool of this shape, or None
        None where everything was recorded.
    """
    if (by := sharing.now()) is not None:
        return _predict_some(model, mouse, trials, batch_size, precision, by)
    rows = [{mouse: slice(i, i + batch_size)} for i in range(0, len(trials), batch_size)]
    parts = []
    with (
        closing(step_batches({mouse: trials}, rows)) as batches,
        autocast(precision, trials.device),
    ):
        for inputs, targets in batches:
            rates = at_least_float32(model(inputs)[mouse]).flatten(0, -2)
            parts.append((rates, *by_neuron(targets[mouse])))
    predictions, target, recorded = zip(*parts, strict=True)
    whole = None if recorded[0] is None else torch.cat(recorded)
    return torch.cat(predictions), torch.cat(target), whole


def _predict_some(
    model: EncodingModel,
    mouse: str,
    trials: MouseData,
    batch_size: int,
    precision: str,
    by: sharing.Shared,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Predict the trials that are this process's own, and learn those of the others from them."""
    target, recorded = by_neuron(trials.targets(slice(0, len(trials))))
    predictions = torch.zeros(target.shape, dtype=torch.float32, device=trials.device)
    first, stop = (len(trials) * r // by.size for r in (by.rank, by.rank + 1))
    starts = range(first, stop, batch_size)
    rows = [{mouse: slice(i, min(i + batch_size, stop))} for i in starts]
    with (
        closing(step_batches({mouse: trials}, rows)) as batches,
        autocast(precision, trials.device),
    ):
        for start, (inputs, _) in zip(starts, batches, strict=True):
            rates = at_least_float32(model(inputs)[mouse]).flatten(0, -2)
            place = start * trials.n_images
            predictions[place : place + len(rates)] = rates
    return by.total(predictions), target, recorded


@torch.inference_mode()
def predict_mouse(
    model: EncodingModel,
    mouse: str,
    trials: MouseData,
    batch_size: int,
    precision: str,
    *,
    activate: bool = True,
) -> Tensor:
    """Predict all trials of one mouse, batch by batch.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    mouse : str
    trials : MouseData
    batch_size : int
    precision : {"float32", "tf32", "bfloat16"}
    activate : bool, default=True
        Apply the output non-linearity.

    Returns
    -------
    Tensor of shape (n_trials, n_neurons)
        Standardised responses, or what they are ahead of the non-linearity; float32.
    """
    shape = len(trials), model.readout(mouse).n_neurons
    out = torch.empty(shape, dtype=torch.float32, device=trials.device)
    with autocast(precision, trials.device):
        for start in range(0, len(trials), batch_size):
            rows = slice(start, start + batch_size)
            out[rows] = model({mouse: trials.batch(rows)}, activate=activate)[mouse]
    return out
