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

    def lengthen(self, layer: nn.Module, movies: Tensor, n_frames: int, dim: int = 2) -> Tensor:
        """Put the frames before a part ahead of it, and keep the last ones for the next part.

        Parameters
        ----------
        layer : Module
            Who asks.
        movies : Tensor of shape (n_items, n_channels, n_frames, height, width)
            The next frames that come to this layer; of other axes with another `dim`.
        n_frames : int
            How far it looks back.
        dim : int, default=2
            Axis of the frames.

        Returns
        -------
        Tensor of shape (n_items, n_channels, n_frames + more, height, width)
            With zeros ahead of the first frame of the movie.

        Raises
        ------
        ValueError
            If the part is of other movies than those before.
        """
        before, shape = self._frames.get(layer), list(movies.shape)
        shape[dim] = n_frames
        if before is None:
            longer = F.pad(movies, (0, 0) * (movies.dim() - 1 - dim) + (n_frames, 0))
        elif list(before.shape) != shape:
            raise ValueError(
                f"a part of movies of the shape {tuple(movies.shape)}, whose frames are along axis "
                f"{dim}, after frames of the shape {tuple(before.shape)}: hand over a new Past() "
                "with the first part of other movies."
            )
        else:
            longer = torch.cat((before, movies), dim)
        last = longer.narrow(dim, longer.shape[dim] - n_frames, n_frames)
        self._frames[layer] = last.detach().clone()
        return longer
