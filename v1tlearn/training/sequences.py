"""Training by windows that begin anywhere in movies, and count as wholes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn import sharing
from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.model import EncodingModel
from v1tlearn.nn.precision import at_least_float32
from v1tlearn.training.data import MouseData, Targets
from v1tlearn.training.movies import MovieData
from v1tlearn.training.objectives import MouseLoss, RateObjective, Score
from v1tlearn.training.windows import window_starts


def all_windows(
    data: Mapping[str, MouseData],
    n_frames: Mapping[str, np.ndarray],
    recorded: Mapping[str, np.ndarray],
    length: int,
) -> dict[str, MovieData]:
    """Find the windows of all mice, of which `RandomWindows` draws.

    Parameters
    ----------
    data : dict of str to MouseData
        Frames of movies, movie after movie.
    n_frames : dict of str to ndarray of int, of shape (n_movies,)
        Frames of each movie.
    recorded : dict of str to ndarray of bool, of shape (n_frames.sum(),)
        Frames that windows may hold.
    length : int
        Frames of a window.

    Returns
    -------
    dict of str to MovieData
        A row is a window, all frames of which count. None straddles two movies.

    Raises
    ------
    ValueError
        If no window fits into any movie of a mouse, or nothing was recorded in one of them.
    """
    out = {}
    for mouse, own in n_frames.items():
        for movie, part in enumerate(np.split(recorded[mouse], np.cumsum(own)[:-1])):
            if not part.any():
                raise ValueError(
                    f"mouse {mouse!r}: no frame of movie {movie} of {len(own)} has responses of "
                    f"all neurons: its responses are NaN in all or some neurons throughout its "
                    f"{len(part)} frames. Leave this movie, or these neurons, out."
                )
        try:
            starts = window_starts(own, length, recorded[mouse])
        except ValueError as error:
            raise ValueError(
                f"mouse {mouse!r}: window_frames is {length}, but {error} Set window_frames="
                f"{longest_runs(own, recorded[mouse]).max()} or less."
            ) from error
        device = data[mouse].device
        windows = torch.as_tensor(starts[:, None] + np.arange(length), device=device)
        given = {field.name: getattr(data[mouse], field.name) for field in fields(MouseData)}
        counted = torch.ones((), dtype=torch.bool, device=device).expand(windows.shape)
        out[mouse] = MovieData(**given, frames=windows, counted=counted)
    return out


def longest_runs(n_frames: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Count the frames in a row that a window may hold at most, in each movie.

    Parameters
    ----------
    n_frames : ndarray of int, of shape (n_movies,)
        Frames of each movie.
    recorded : ndarray of bool, of shape (n_frames.sum(),)
        Frames that windows may hold.

    Returns
    -------
    ndarray of int, of shape (n_movies,)
    """
    parts = np.split(recorded, np.cumsum(n_frames)[:-1])
    runs = [np.diff(np.flatnonzero(np.concatenate([[True], ~part, [True]]))) - 1 for part in parts]
    return np.array([run.max() for run in runs])


class RandomWindows:
    """Draws the windows of an epoch: what a run takes as `draw`.

    Batches are whole: what is left of a pass through the windows of a mouse is not drawn in it.

    Parameters
    ----------
    n_steps : int
        Of an epoch.
    """

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def __call__(
        self, lengths: Mapping[str, int], batch_size: int, device: torch.device
    ) -> Sequence[Mapping[str, Tensor]]:
        """Draw rows of windows per mouse and step; none comes twice in a pass.

        Parameters
        ----------
        lengths : dict of str to int
            Windows per mouse.
        batch_size : int
            Windows per mouse and step; fewer of a mouse that has fewer.
        device : torch.device
            Where the rows are needed; its generator draws them.

        Returns
        -------
        list of dict of str to Tensor of int, of shape (batch_size,)
            One entry per step.
        """
        steps: list[dict[str, Tensor]] = [{} for _ in range(self.n_steps)]
        for mouse, n in lengths.items():
            size = min(batch_size, n)
            drawn: list[Tensor] = []
            while len(drawn) < self.n_steps:
                order = torch.randperm(n, device=device)
                drawn.extend(order[: n // size * size].split(size))
            for step, rows in zip(steps, drawn, strict=False):
                step[mouse] = rows
        return steps


class SequenceObjective(RateObjective):
    """A loss of whole windows, such as one that compares the courses of responses.

    Parameters
    ----------
    loss : callable
        ``loss(prediction, target)`` of one mouse, both (n_windows, n_frames, n_neurons) and
        recorded throughout: a scalar tensor. The history tells its mean over steps and mice. What
        it is a mean over goes through `v1tlearn.nn.sharing.mean`, by which processes share it.
    loss_of_frames : callable
        ``loss(rates, responses, recorded)``, the sum over responses that were recorded, by which
        ``validation_loss`` tells of movies of any length; nothing is judged by it.
    score, score_name, also
        As of `RateObjective`.
    """

    in_parts, gathers = False, True

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        loss_of_frames: Callable[..., Tensor],
        score: Score | None = None,
        *,
        score_name: str = "validation_correlation",
        also: Mapping[str, Score] | None = None,
    ) -> None:
        super().__init__(loss_of_frames, score, loss_scale=1.0, score_name=score_name, also=also)
        self.loss_of_windows = loss

    def loss(
        self,
        model: EncodingModel,
        inputs: Mapping[str, MouseBatch],
        targets: Mapping[str, Targets],
        data: Mapping[str, MouseData],
        sizes: Mapping[str, int],
    ) -> dict[str, MouseLoss]:
        """Compute the loss of each mouse.

        Parameters
        ----------
        model : EncodingModel
        inputs : dict of str to MouseBatch
        targets : dict of str to (Tensor, Tensor or None)
        data : dict of str to MouseData
        sizes : dict of str to int

        Returns
        -------
        dict of str to MouseLoss
        """
        losses = {}
        for mouse, rates in model(inputs).items():
            with torch.autocast(rates.device.type, enabled=False):
                loss = self.loss_of_windows(at_least_float32(rates), targets[mouse][0])
            share = sharing.share()
            losses[mouse] = MouseLoss(share * loss, share * loss.detach(), share)
        return losses
