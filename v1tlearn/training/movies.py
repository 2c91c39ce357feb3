"""Movies of one mouse as windows of frames, of which each frame counts once in an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.training.data import MouseData, Rows, Targets

Context = tuple[int, int]


@dataclass(kw_only=True)
class MovieData(MouseData):
    """Movies, whose frames lie on one axis, cut into windows: what `MouseData` are to images.

    A row, of batches and of the length, is a window.

    Attributes
    ----------
    frames : Tensor of int of shape (n_windows, n_frames)
        Places, on the axis of all frames, of those in each window.
    counted : Tensor of bool of this shape
        Which of them count in loss and scores; others are context.
    """

    frames: Tensor
    counted: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def n_images(self) -> int:
        """Frames of a window."""
        return self.frames.shape[1]

    @cached_property  # so that no step waits for the device to tell it
    def n_counted(self) -> float:
        """Frames of a window that count, on average."""
        return int(self.counted.sum()) / len(self)

    def places(self, rows: Rows) -> Tensor:
        """Places of what windows hold among images and responses.

        Parameters
        ----------
        rows : Tensor of int, of shape (n,), or slice

        Returns
        -------
        Tensor of int
            Window after window.
        """
        return self.frames[rows].flatten()

    def batch(self, rows: Rows, images: Tensor | None = None) -> MouseBatch:
        """Cut out windows as float inputs of the model.

        Parameters
        ----------
        rows : Tensor of int, or slice
        images : Tensor, optional
            Frames of these windows, one after the other, where they were read already.

        Returns
        -------
        MouseBatch
            With a time axis behind that of windows.
        """
        flat = super().batch(self.places(rows), images)
        return flat.by_movie(self.n_images)

    def targets(self, rows: Rows, responses: Tensor | None = None) -> Targets:
        """Cut out responses, 0 where not recorded, and the mask of those that count.

        Parameters
        ----------
        rows : Tensor of int, or slice
        responses : Tensor, optional
            Of the frames of these windows, where they were read already.

        Returns
        -------
        responses : Tensor of shape (n, n_frames, n_neurons)
        recorded : Tensor of bool of this shape
            Of frames that count.
        """
        values, recorded = super().targets(self.places(rows), responses)
        shape = (-1, self.n_images)
        values = values.unflatten(0, shape)
        counted = self.counted[rows][..., None].expand_as(values)
        return values, counted if recorded is None else counted & recorded.unflatten(0, shape)


def cut_into_windows(
    data: Mapping[str, MouseData],
    n_frames: Mapping[str, np.ndarray],
    context: Context,
    window: int,
) -> dict[str, MovieData]:
    """Cut the movies of all mice into windows that tile them.

    Parameters
    ----------
    data : dict of str to MouseData
        Frames of movies, movie after movie.
    n_frames : dict of str to ndarray of int, of shape (n_movies,)
        Frames of each movie.
    context : (int, int)
        Frames before and after a frame that its prediction depends on, see
        `v1tlearn.nn.EncodingModel.context_frames`.
    window : int
        Frames of a window that count.

    Returns
    -------
    dict of str to MovieData
        Windows have their context beside the frames that count, and never reach beyond their
        movie; where a movie begins or ends, so that there is no context, all frames count. A movie
        that is shorter than the windows repeats its last frame, which does not count then.

    Raises
    ------
    ValueError
        If a window is longer than all movies of a mouse, or a movie that ends within a window
        would be seen to go on, by a model that looks ahead.
    """
    for mouse, own in n_frames.items():
        if window > own.max():
            raise ValueError(
                f"mouse {mouse!r}: window_frames is {window}, but the longest of {len(own)} movies "
                f"has {own.max()} frames: set window_frames={own.max()} or less, or give longer "
                "movies."
            )
    length = _window_length(n_frames, context, window)
    out = {}
    for mouse, own in n_frames.items():
        if context[1] and own.min() < length:
            raise ValueError(
                f"mouse {mouse!r}: a movie has {own.min()} frames, but windows have {length}, "
                f"{window} and the context of a model that looks ahead: set window_frames="
                f"{max(1, int(own.min()) - sum(context))} or causal=True, or leave short movies "
                "out."
            )
        frames, counted = _tiles(own, context, length)
        device = data[mouse].device
        given = {field.name: getattr(data[mouse], field.name) for field in fields(MouseData)}
        out[mouse] = MovieData(
            **given,
            frames=torch.as_tensor(frames, device=device),
            counted=torch.as_tensor(counted, device=device),
        )
    return out


def _window_length(n_frames: Mapping[str, np.ndarray], context: Context, window: int) -> int:
    """Frames of all windows, context included, which move on through every longer movie."""
    longest = {mouse: int(own.max()) for mouse, own in n_frames.items()}
    whole = sum(context) + window
    if not context[1]:  # shorter movies repeat their last frame
        return min(whole, max(longest.values()))
    length = min(whole, min(longest.values()))
    if length < min(whole, max(longest.values())) and length <= sum(context):
        raise ValueError(
            f"the longest movies of the mice have {longest} frames, and a prediction of this model "
            f"depends on {sum(context)} frames besides its own: the shorter windows of one mouse "
            "cannot tile the movies of another. Give movies of one length, set causal=True or "
            "shorter kernels in time, or fit the mice apart."
        )
    return length


def _tiles(n_frames: np.ndarray, context: Context, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of windows, and which count: each frame of each movie once."""
    before, after = context
    offsets, frames, counted, begin = np.arange(length), [], [], 0
    for n in n_frames:
        done = 0
        while done < n:
            start = min(max(0, done - before), max(0, n - length))
            stop = n if start + length >= n else start + length - after
            own = start + offsets
            frames.append(begin + np.minimum(own, n - 1))
            counted.append((own >= done) & (own < stop))
            done = stop
        begin += n
    return np.stack(frames), np.stack(counted)
