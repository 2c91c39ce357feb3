"""What layers remember of the frames before, where a movie comes in parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Past:
    """Last frames that came to each layer which looks back in time.

    One object belongs to one movie, or one batch of them, and to one model. Handed to the model
    with each part it makes the outputs those of the whole movie; what it holds does not grow.

    Examples
    --------
    >>> import torch
    >>> from v1tlearn import nn
    >>> block = nn.MultiscaleBlock(3, (1, 5)).eval()
    >>> movie, past = torch.randn(1, 3, 20, 6, 6), nn.Past()
    >>> parts = [block(part, past) for part in movie.split(7, 2)]
    >>> torch.allclose(torch.cat(parts, 2), block(movie), atol=1e-6)
    True
    """

    def __init__(self) -> None:
        self._frames: dict[nn.Module, Tensor] = {}

    def lengthen(self, layer: nn.Module, movies: Tensor, n_frames: int) -> Tensor:
        """Put the frames before a part ahead of it, and keep the last ones for the next part.

        Parameters
        ----------
        layer : Module
            Who asks.
        movies : Tensor of shape (n_items, n_channels, n_frames, height, width)
            The next frames that come to this layer.
        n_frames : int
            How far it looks back.

        Returns
        -------
        Tensor of shape (n_items, n_channels, more frames, height, width)
            With zeros ahead of the first frame of the movie.

        Raises
        ------
        ValueError
            If the part is of other movies than those before.
        """
        before = self._frames.get(layer)
        if before is None:
            longer = F.pad(movies, (0, 0, 0, 0, n_frames, 0))
        elif before.shape[:2] + before.shape[3:] != movies.shape[:2] + movies.shape[3:]:
            raise ValueError(
                f"a part of movies of the shape {tuple(movies.shape)} (items, channels, frames, "
                f"height, width) after frames of the shape {tuple(before.shape)}: hand over a new "
                "Past() with the first part of other movies."
            )
        else:
            longer = torch.cat((before, movies), 2)
        self._frames[layer] = longer[:, :, longer.shape[2] - n_frames :].detach().clone()
        return longer
