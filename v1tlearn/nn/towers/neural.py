"""Towers from the responses of one animal to maps of the shape that the image tower gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.fast import neuron_attention
from v1tlearn.nn.fast.neuron_attention import Lines, attend_neurons
from v1tlearn.nn.layers.dropout import Dropout
from v1tlearn.nn.layers.images import resize


class NeuralTower(nn.Module):
    """What one animal has for itself: from the responses of its neurons to maps.

    A tower of your own derives from this class and says in ``forward(responses)`` what it
    computes. All else has a default.

    Parameters
    ----------
    n_neurons : int
    map_shape : tuple of int
        Channels, height and width of the maps.

    Attributes
    ----------
    n_neurons : int
    map_shape : tuple of int
    """

    def __init__(self, n_neurons: int, map_shape: Sequence[int]) -> None:
        super().__init__()
        self.n_neurons = int(n_neurons)
        channels, height, width = map_shape
        self.map_shape = (int(channels), int(height), int(width))

    def forward(self, responses: Tensor) -> Tensor:
        """Maps (B, c, h, w) of scaled responses (B, n_neurons)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes.")

    def penalty(self) -> Tensor:
        """Penalty on the weights, which is added to the loss once per step.

        Returns
        -------
        Tensor
            Scalar; 0 unless a tower says otherwise.
        """
        return next(self.parameters()).new_zeros(())

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser, in groups.

        Returns
        -------
        list of dict
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def project_(self) -> None:
        """Restore, after a step of the optimiser, what parameters must fulfil: nothing here."""


class AttentionTower(NeuralTower):
    """Embed each neuron along a line of its own, attend over neurons, and map linearly.

    Neuron i with response s_i is the token ``a_i s_i + b_i``; tokens attend to each other, without
    positions, residual or normalisation; each neuron reads one number from what it gathered,
    ``u_i . o_i + c_i``; linear layers, with nothing in between, make a coarse map of these numbers,
    which is enlarged (Wang et al. 2026).

    Parameters
    ----------
    n_neurons : int
        At least 2.
    map_shape : tuple of int, default=(1, 16, 64)
        Channels, height and width of the maps.
    grid : (int, int), default=(8, 32)
        Height and width of the coarse map.
    embed_dim : int, default=512
        Length of a token, divisible by `n_heads`.
    n_heads : int, default=1
    hidden_units : sequence of int, default=(2048, 512)
        Of the linear layers ahead of the coarse map.

    Raises
    ------
    ValueError
        If there is but one neuron, or the heads cannot share a token.
    """

    def __init__(
        self,
        n_neurons: int,
        map_shape: Sequence[int] = (1, 16, 64),
        *,
        grid: Sequence[int] = (8, 32),
        embed_dim: int = 512,
        n_heads: int = 1,
        hidden_units: Sequence[int] = (2048, 512),
    ) -> None:
        super().__init__(n_neurons, map_shape)
        if n_neurons < 2:
            raise ValueError("attention over neurons needs at least 2 of them, got 1.")
        if embed_dim % n_heads:
            raise ValueError(
                f"embed_dim={embed_dim} cannot be shared by n_heads={n_heads}: expected a multiple."
            )
        self.grid, self.n_heads = tuple(int(side) for side in grid), n_heads
        self.scale = (embed_dim // n_heads) ** -0.5
        self.slope, self.offset = (
            _uniform(1, n_neurons, embed_dim),
            _uniform(1, n_neurons, embed_dim),
        )
        self.to_query = nn.Linear(embed_dim, embed_dim)
        self.to_key = nn.Linear(embed_dim, embed_dim)
        self.to_value = nn.Linear(embed_dim, embed_dim)
        self.projection = nn.Linear(embed_dim, embed_dim)
        self.reader, self.reader_bias = (
            _uniform(embed_dim, n_neurons, embed_dim),
            _uniform(embed_dim, n_neurons),
        )
        widths = (n_neurons, *hidden_units, self.map_shape[0] * prod(self.grid))
        self.to_map = nn.Sequential(*(nn.Linear(n, m) for n, m in pairwise(widths)))

    def embed(self, responses: Tensor) -> Tensor:
        """Tokens of neurons.

        Parameters
        ----------
        responses : Tensor of shape (n_trials, n_neurons)

        Returns
        -------
        Tensor of shape (n_trials, n_neurons, embed_dim)
            Large: neither training nor prediction make it.
        """
        return responses[..., None] * self.slope + self.offset

    def attention_weights(self, responses: Tensor) -> Tensor:
        """How much each neuron attends to each other one.

        Parameters
        ----------
        responses : Tensor of shape (n_trials, n_neurons)
            Scaled.

        Returns
        -------
        Tensor of shape (n_trials, n_heads, n_neurons, n_neurons)
            Each row, of one neuron over all, sums to 1. Grows with the square of the number of
            neurons: take few trials.
        """
        tokens = self.embed(responses)
        q, k = self._by_head(self.to_query(tokens)), self._by_head(self.to_key(tokens))
        return (self.scale * q @ k.transpose(-1, -2)).softmax(-1)

    def key_weights(self, responses: Tensor) -> Tensor:
        """How much each neuron is attended to by the average one.

        Parameters
        ----------
        responses : Tensor of shape (n_trials, n_neurons)
            Scaled.

        Returns
        -------
        Tensor of shape (n_trials, n_heads, n_neurons)
            Mean of the attention weights over the neurons that attend; each sums to 1. Where
            gradients are recorded the weights of a trial are there at once, elsewhere never.
        """
        if fast.is_plain() or torch.is_grad_enabled():
            return torch.cat([self.attention_weights(one).mean(2) for one in responses.split(1)])
        return neuron_attention.key_weights(responses.to(self.slope.dtype), self._lines())

    def mean_attention(self, responses: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """How much each neuron attends to each other one on average, some neurons at a time.

        Parameters
        ----------
        responses : Tensor of shape (n_trials, n_neurons)
            Scaled.

        Yields
        ------
        neurons : slice
            Those that attend.
        weights : Tensor of shape (n_heads, n_these, n_neurons)
            Mean over trials of `attention_weights`, without gradients.
        """
        yield from neuron_attention.mean_weights(responses.to(self.slope.dtype), self._lines())

    def read(self, responses: Tensor, keep: Tensor | None = None) -> Tensor:
        """What each neuron reads from all neurons.

        Parameters
        ----------
        responses : Tensor of shape (n_trials, n_neurons)
            Scaled.
        keep : Tensor of shape (n_trials, n_heads, n_neurons), optional
            0 or False where a neuron is not to be attended to; the attention weights of the others
            stay as they are.

        Returns
        -------
        Tensor of shape (n_trials, n_neurons)
        """
        if fast.is_plain():
            weights = self.attention_weights(responses)
            if keep is not None:
                weights = weights * keep[:, :, None].to(weights.dtype)
            values = self._by_head(self.to_value(self.embed(responses)))
            mixed = self.projection((weights @ values).transpose(1, 2).flatten(2))
            return (mixed * self.reader).sum(-1) + self.reader_bias
        with torch.autocast(responses.device.type, enabled=False):
            responses = responses.to(self.slope.dtype)
            constant = self.reader @ self.projection.bias + self.reader_bias
            return attend_neurons(responses, self._lines(), keep) + constant

    @torch.no_grad()
    def read_subsets(self, responses: Tensor, keep: Tensor) -> Tensor:
        """What each neuron reads from several subsets of neurons, whose weights are computed once.

        Parameters
        ----------
        responses : Tensor of shape (n_trials, n_neurons)
            Scaled.
        keep : Tensor of shape (n_subsets, n_trials, n_heads, n_neurons)
            As in `read`.

        Returns
        -------
        Tensor of shape (n_subsets, n_trials, n_neurons)
            Without gradients.
        """
        if fast.is_plain():
            return torch.stack([self.read(responses, one) for one in keep])
        constant = self.reader @ self.projection.bias + self.reader_bias
        responses = responses.to(self.slope.dtype)
        return neuron_attention.attend_subsets(responses, self._lines(), keep) + constant

    def maps_of(self, read: Tensor) -> Tensor:
        """Maps of what neurons read.

        Parameters
        ----------
        read : Tensor of shape (n_trials, n_neurons)
            As `read` gives it.

        Returns
        -------
        Tensor of shape (n_trials, channels, height, width)
        """
        coarse = self.to_map(read)
        return resize(coarse.unflatten(1, (self.map_shape[0], *self.grid)), self.map_shape[1:])

    def _by_head(self, tokens: Tensor) -> Tensor:
        """Parts of the heads (..., H, N, D) of tokens (..., N, d)."""
        return tokens.unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)

    def _lines(self) -> Lines:
        """Slopes and offsets of queries, keys and values, and what reads the latter."""
        lines = []
        for to, factor in ((self.to_query, self.scale), (self.to_key, 1.0), (self.to_value, 1.0)):
            lines += [
                factor * (self.slope @ to.weight.T),
                factor * (self.offset @ to.weight.T + to.bias),
            ]
        return Lines(*(self._by_head(x) for x in (*lines, self.reader @ self.projection.weight)))

    def forward(self, responses: Tensor, keep: Tensor | None = None) -> Tensor:
        """Maps (B, c, h, w) of scaled responses (B, N); see `read` for `keep`."""
        return self.maps_of(self.read(responses, keep))


class MLPTower(NeuralTower):
    """Fully connected layers, reshaped to maps, and 1 x 1 convolutions.

    Parameters
    ----------
    n_neurons : int
    map_shape : tuple of int, default=(64, 32, 32)
        Channels, height and width of the maps.
    grid : (int, int), default=(8, 8)
        Height and width of the map that the layers give, which is enlarged.
    hidden_units : sequence of int, default=(256,)
        Of the fully connected layers ahead of it.
    hidden_channels : int, default=16
        Of that map.
    dropout : float, default=0.0
        Probability of each hidden unit, in training.
    """

    def __init__(
        self,
        n_neurons: int,
        map_shape: Sequence[int] = (64, 32, 32),
        *,
        grid: Sequence[int] = (8, 8),
        hidden_units: Sequence[int] = (256,),
        hidden_channels: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(n_neurons, map_shape)
        self.grid, self.hidden_channels = tuple(int(side) for side in grid), hidden_channels
        widths, layers = (n_neurons, *hidden_units), []
        for n, m in pairwise(widths):
            layers += [nn.Linear(n, m), nn.GELU(), Dropout(dropout)]
        self.layers = nn.Sequential(
            *layers, nn.Linear(widths[-1], hidden_channels * prod(self.grid))
        )
        self.convolutions = nn.Sequential(
            nn.Conv2d(hidden_channels, hidden_channels, 1),
            nn.GELU(),
            nn.Conv2d(hidden_channels, self.map_shape[0], 1),
        )

    def forward(self, responses: Tensor) -> Tensor:
        """Maps (B, c, h, w) of scaled responses (B, N)."""
        coarse = self.layers(responses).unflatten(1, (self.hidden_channels, *self.grid))
        return self.convolutions(resize(coarse, self.map_shape[1:]))


def _uniform(n_inputs: int, *shape: int) -> nn.Parameter:
    """Initial weights as of torch's linear layer with so many inputs."""
    bound = n_inputs**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
