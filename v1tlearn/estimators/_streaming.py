"""Predictions of a model that sees time: movies in parts, each with all that was before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._movies import movie_lengths
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.nn import EncodingModel, Past
from v1tlearn.training import MouseData, numerics
from v1tlearn.training.devices import autocast
from v1tlearn.trials import Trials
from v1tlearn.trials.cutting import one_part
from v1tlearn.trials.folding import fold_time


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
    positions = frames.rows(mouse)[0]
    begin = 0
    for n in movie_lengths(frames, mouse):
        own = positions[begin : begin + n]

        def read(first: int, stop: int, own: np.ndarray = own) -> MouseData:
            return mouse_data(fitted, frames[own[first:stop]], mouse, device)

        for place, kept in _movie(model, mouse, int(n), read, at_once, precision, activate):
            yield slice(begin + place.start, begin + place.stop), kept
        begin += n


def stream_parts(
    model: EncodingModel,
    fitted: Fitted,
    movies: Trials,
    device: torch.device,
    *,
    at_once: int,
    precision: str,
    deterministic: bool,
) -> Iterator[tuple[int, Trials, np.ndarray]]:
    """Predict movie after movie, some frames at a time, and keep nothing.

    Between two parts torch has the switches of the caller.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    fitted : Fitted
    movies : Trials
    device : torch.device
    at_once : int
        Frames that are predicted at once.
    precision : {"float32", "tf32", "bfloat16"}
    deterministic : bool

    Yields
    ------
    place : int
        Of the movie among these trials.
    part : Trials
        Of this trial, cut to the frames that are predicted.
    values : ndarray of shape (n_frames, n_neurons)
        In data units, float32.
    """
    n_frames = movies.n_frames
    assert n_frames is not None  # checked by who offers it
    for position, n in enumerate(n_frames.tolist()):
        (mouse,) = movies[[position]].mice
        scale = fitted.mice[mouse].statistics["response_scale"]

        def read(first: int, stop: int, at: int = position, mouse: str = mouse) -> MouseData:
            frames = fold_time(one_part(movies, at, first, stop), None)
            return mouse_data(fitted, frames, mouse, device)

        parts = _movie(model, mouse, n, read, at_once, precision, True)
        while True:
            with (
                torch.inference_mode(),
                numerics(precision, device, deterministic=deterministic),
            ):
                found = next(parts, None)
                if found is None:
                    break
                span, rates = found
                values = rates.mul_(torch.as_tensor(scale, device=device)).cpu().numpy()
            yield position, one_part(movies, position, span.start, span.stop), values


def _movie(
    model: EncodingModel,
    mouse: str,
    n: int,
    read: Callable[[int, int], MouseData],
    at_once: int,
    precision: str,
    activate: bool,
) -> Iterator[tuple[slice, Tensor]]:
    """Predict a movie of `n` frames, of which `read` gives some.

    What is predicted is what the whole movie at once would give. A model that looks back alone
    keeps what its layers saw; to one that looks ahead, each part is given with its context.
    """
    assert model.context_frames is not None  # or there is nothing to stream
    before, after = model.context_frames
    at_once = max(at_once, before + after if after else 1)
    past = None if after else Past()
    for start in range(0, n, at_once):
        stop = min(start + at_once, n)
        first, last = (max(0, start - before), min(n, stop + after)) if after else (start, stop)
        part = read(first, last)
        movie = part.batch(slice(None)).by_movie(last - first)
        with autocast(precision, part.device):
            outputs = model({mouse: movie}, activate=activate, past=past)[mouse][0]
        yield slice(start, stop), outputs[start - first : stop - first].float()
