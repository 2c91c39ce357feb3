"""Responses of one mouse to all its trials, batch by batch."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor

from v1tlearn.nn import sharing
from v1tlearn.nn.model import EncodingModel
from v1tlearn.nn.precision import at_least_float32
from v1tlearn.training.data import MouseData, by_neuron, step_batches
from v1tlearn.training.devices import autocast
from v1tlearn.training.judging import Part, joined

_AT_ONCE = 2**20  # predictions that are judged together


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
    return joined(list(known_parts(model, mouse, trials, batch_size, precision)))


def known_parts(
    model: EncodingModel, mouse: str, trials: MouseData, batch_size: int, precision: str
) -> Generator[Part, None, None]:
    """Predict trials whose responses are known, some at a time; each is read once, and ahead.

    Of processes that share them each has parts of its own.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    mouse : str
    trials : MouseData
    batch_size : int
    precision : {"float32", "tf32", "bfloat16"}

    Yields
    ------
    predictions, responses : Tensor of shape (n, n_neurons)
    recorded : Tensor of bool of this shape, or None
        As `predict_known` gives them of all trials.
    """
    parts: list[Part] = []
    nothing = torch.zeros(0, trials.n_neurons, device=trials.device)
    last: Part | None = (nothing, nothing, None)
    with closing(_batches(model, mouse, trials, batch_size, precision)) as batches:
        for part in batches:
            parts.append(part)
            if sum(rates.numel() for rates, *_ in parts) >= _AT_ONCE:
                yield joined(parts)
                parts, last = [], None
    if parts or last:
        yield joined(parts or [last])  # type: ignore[list-item]  # there is one


def _batches(
    model: EncodingModel, mouse: str, trials: MouseData, batch_size: int, precision: str
) -> Generator[Part, None, None]:
    by = sharing.now()
    rank, size = (0, 1) if by is None else (by.rank, by.size)
    first, stop = (len(trials) * r // size for r in (rank, rank + 1))
    rows = [
        {mouse: slice(start, min(start + batch_size, stop))}
        for start in range(first, stop, batch_size)
    ]
    with closing(step_batches({mouse: trials}, rows)) as batches:
        for inputs, targets in batches:
            with autocast(precision, trials.device):
                rates = at_least_float32(model(inputs)[mouse]).flatten(0, -2)
            yield rates, *by_neuron(targets[mouse])


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
    place = (len(trials) * by.rank // by.size) * trials.n_images
    for rates, *_ in _batches(model, mouse, trials, batch_size, precision):
        predictions[place : place + len(rates)] = rates
        place += len(rates)
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
