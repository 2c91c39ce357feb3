"""The network of Vi-ST: from features of the frames of movies to responses over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.movies.convolutions import pointwise
from v1tlearn.nn.movies.dilated import DilatedLayer
from v1tlearn.nn.movies.modulation import ReceptiveFieldModulation
from v1tlearn.nn.movies.multiscale import MultiscaleBlock

_CONDITIONS = ("receptive_fields", "per_cell", "video", "none")
PUBLISHED_KERNELS = ((1, 25), (1, 13, 21), (1, 7, 9), (1, 3, 5))


class ViST(nn.Module):
    """Responses of neurons to movies, from features of a vision transformer (Wu et al. 2024).

    Features go through dilated convolutions, `DilatedLayer` with dilations 1, 2, 4..., to one
    channel per neuron; are modulated by receptive fields, `ReceptiveFieldModulation`; go through
    `MultiscaleBlock`, each of which makes the grid narrower by two; and a linear layer from all
    places and channels gives the responses of each frame. There is no non-linearity at the end.

    Parameters
    ----------
    n_features : int
        Of each patch of a frame, 1024 in the paper.
    n_neurons : int
    grid : int, default=16
        Patches along a side of a frame, more than twice the blocks.
    n_layers : int, default=6
        Dilated layers. Without, features go to neurons directly.
    channels : int, default=256
        Of the dilated layers.
    kernels : sequence of sequence of int, default=((1, 25), (1, 13, 21), (1, 7, 9), (1, 3, 5))
        Frames of the branches of each block. Without blocks, the linear layer follows.
    causal : bool or (bool, bool), default=True
        Whether responses depend on no later frame; or whether the dilated layers and the blocks do
        not.
    condition : {"receptive_fields", "per_cell", "video", "none"}, default="receptive_fields"
        What modulates the features: where any receptive field is, as published; each neuron's own
        field; what comes from the dilated layers; or nothing.
    dropout : float, default=0.25

    Attributes
    ----------
    context_frames : (int, int)
        Frames before and after a frame that count for its responses; (182, 0) in the paper.

    Raises
    ------
    ValueError
        If the grid is too small for the blocks, or an option unknown.

    Examples
    --------
    >>> import torch
    >>> from v1tlearn import nn
    >>> model = nn.ViST(5, 3, grid=6, n_layers=2, channels=4, kernels=((1, 3), (1, 5))).eval()
    >>> features, fields = torch.randn(1, 20, 36, 5), torch.rand(3, 6, 6)
    >>> model(features, fields).shape
    torch.Size([1, 20, 3])
    >>> model.context_frames
    (12, 0)
    """

    def __init__(
        self,
        n_features: int,
        n_neurons: int,
        *,
        grid: int = 16,
        n_layers: int = 6,
        channels: int = 256,
        kernels: Sequence[Sequence[int]] = PUBLISHED_KERNELS,
        causal: bool | tuple[bool, bool] = True,
        condition: str = "receptive_fields",
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if grid <= 2 * len(kernels):
            raise ValueError(
                f"a grid of {grid} x {grid} patches for {len(kernels)} blocks, each of which takes "
                f"two off: expected at least {2 * len(kernels) + 1} x {2 * len(kernels) + 1}."
            )
        if condition not in _CONDITIONS:
            raise ValueError(f"condition={condition!r}: expected one of {list(_CONDITIONS)}.")
        in_layers, in_blocks = (causal, causal) if isinstance(causal, bool) else causal
        self.n_features, self.n_neurons, self.grid = n_features, n_neurons, grid
        self.takes_fields = condition in ("receptive_fields", "per_cell")
        self.read_in = nn.Conv3d(n_features, channels if n_layers else n_neurons, 1)
        self.layers = nn.ModuleList(
            DilatedLayer(channels, 2**i, causal=in_layers, dropout=dropout) for i in range(n_layers)
        )
        self.read_out = nn.Conv3d(channels, n_neurons, 1) if n_layers else None
        self.modulation = None
        if condition != "none":
            self.modulation = ReceptiveFieldModulation(n_neurons, per_cell=condition == "per_cell")
        self.blocks = nn.ModuleList(
            MultiscaleBlock(n_neurons, k, causal=in_blocks, dropout=dropout) for k in kernels
        )
        self.to_responses = nn.Linear(n_neurons * (grid - 2 * len(kernels)) ** 2, n_neurons)
        reach = [part.context_frames for part in (*self.layers, *self.blocks)]
        self.context_frames = tuple(map(sum, zip((0, 0), *reach, strict=True)))

    def forward(
        self, features: Tensor, fields: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """Responses (B, T, N) to movies of features (B, T, g g, D), patches row by row.

        `fields` (N, g, g), or (B, N, g, g), are the receptive fields on the grid of the patches.
        """
        self._check(features, fields)
        movies = features.unflatten(2, (self.grid, self.grid)).movedim(-1, 1)  # (B, D, T, g, g)
        movies = pointwise(movies, self.read_in)
        for layer in self.layers:
            movies = layer(movies, past)
        if self.read_out is not None:
            movies = pointwise(movies, self.read_out)
        if self.modulation is not None:  # movies (B, N, T, g, g)
            condition = movies if fields is None else fields.expand(len(movies), -1, -1, -1)
            movies = self.modulation(movies, condition)
        for block in self.blocks:
            movies = block(movies, past)
        return self.to_responses(movies.transpose(1, 2).flatten(2))

    def stream(self, parts: Iterable[Tensor], fields: Tensor | None = None) -> Iterator[Tensor]:
        """Responses to a movie that comes part by part, those to the whole one.

        Of earlier frames, each layer keeps as many as it looks back, however long the movie is.

        Parameters
        ----------
        parts : iterable of Tensor of shape (n_items, n_frames, grid * grid, n_features)
            Features of one frame after the other, any number of frames at a time.
        fields : Tensor of shape (n_neurons, grid, grid), optional
            See `forward`.

        Yields
        ------
        Tensor of shape (n_items, n_frames, n_neurons)
            Responses to each part, without gradients.

        Raises
        ------
        ValueError
            In training, where normalisation looks at all frames; or if the model is not causal.
        """
        if self.training:
            raise ValueError("a model in training cannot stream: call `eval()` before.")
        if self.context_frames[1]:
            raise ValueError(
                f"the model looks {self.context_frames[1]} frames ahead and cannot stream: give it "
                "whole movies, or parts with `context_frames` more frames on both sides, and leave "
                "out what these give."
            )
        past = Past()
        for part in parts:
            with torch.no_grad():
                yield self(part, fields, past)

    def _check(self, features: Tensor, fields: Tensor | None) -> None:
        expected = (self.grid**2, self.n_features)
        if features.ndim != 4 or features.shape[2:] != expected:
            raise ValueError(
                f"features have the shape {tuple(features.shape)}: expected (items, frames, "
                f"{expected[0]}, {expected[1]}), for {self.grid} x {self.grid} patches of "
                f"{self.n_features} features."
            )
        if self.takes_fields != (fields is not None):
            problem = "needs receptive fields" if self.takes_fields else "takes no receptive fields"
            raise ValueError(f"the model {problem}: see its parameter `condition`.")
        shape = (self.n_neurons, self.grid, self.grid)
        if fields is not None and (
            fields.shape[-3:] != shape or fields.shape[:-3] not in ((), (1,), (len(features),))
        ):
            raise ValueError(
                f"receptive fields have the shape {tuple(fields.shape)}: expected {shape}, or one "
                f"such array for each of the {len(features)} items."
            )
