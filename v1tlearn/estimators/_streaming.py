"""Predictions of a model that sees time: movies in parts, each with all that was before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._movies import movie_lengths
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.nn import EncodingModel, Past
from v1tlearn.training.devices import autocast
from v1tlearn.trials import Trials


def stream(
    model: EncodingModel,
    fitted: Fitted,
    frames: Trials,
    mouse: str,
    device: torch.device,
    *,
    at_once: int,
    precision: str,
    activate: bool,
) -> Iterator[tuple[slice, Tensor]]:
    """Predict the movies of one mouse, some frames at a time.

    What is predicted is what the whole movie at once would give. A model that looks back alone
    keeps what its layers saw; to one that looks ahead, each part is given with its context.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    fitted : Fitted
    frames : Trials
        Frames of movies as trials.
    mouse : str
    device : torch.device
    at_once : int
        Frames that are predicted at once.
    precision : {"float32", "tf32", "bfloat16"}
    activate : bool
        Apply the output non-linearity.

    Yields
    ------
    places : slice
        Among the frames of this mouse.
    outputs : Tensor of shape (n_frames, n_neurons)
    """
    assert model.context_frames is not None  # or there is nothing to stream
    before, after = model.context_frames
    positions = frames.rows(mouse)[0]
    at_once = max(at_once, before + after if after else 1)
    begin = 0
    for n in movie_lengths(frames, mouse):
        past = None if after else Past()
        for start in range(0, n, at_once):
            stop = min(start + at_once, n)
            first, last = (max(0, start - before), min(n, stop + after)) if after else (start, stop)
            part = mouse_data(
                fitted, frames[positions[begin + first : begin + last]], mouse, device
            )
            movie = part.batch(slice(None)).by_movie(last - first)
            with autocast(precision, device):
                outputs = model({mouse: movie}, activate=activate, past=past)[mouse][0]
            kept = outputs[start - first : stop - first].float()
            yield slice(begin + start, begin + stop), kept
        begin += n
