"""How behaviour enters a transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BehaviorMLP(nn.Module):
    """Turn behaviour into one vector that is added to every token (Li et al. 2023).

    Parameters
    ----------
    n_behaviors : int
        Number of behavioural variables.
    embed_dim : int
        Length of a token; the hidden layer has half as many units.
    mice : sequence of str, default=()
        Mice with a network of their own; one network for all if empty.
    bias : bool, default=True
        Biases of the linear layers.
    """

    def __init__(
        self, n_behaviors: int, embed_dim: int, mice: Sequence[str] = (), bias: bool = True
    ) -> None:
        super().__init__()
        self._index = {mouse: i for i, mouse in enumerate(mice)}
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(n_behaviors, embed_dim // 2, bias=bias),
                nn.Tanh(),
                nn.Linear(embed_dim // 2, embed_dim, bias=bias),
                nn.Tanh(),
            )
            for _ in mice or ("all",)
        )

    def forward(self, behaviors: Tensor, sizes: Sequence[tuple[str, int]] = ()) -> Tensor:
        """Vectors (B, 1, d) of behaviour (B, v); `sizes` tells which rows belong to which mouse."""
        if not self._index:
            return self.networks[0](behaviors)[:, None]
        if strangers := [mouse for mouse, _ in sizes if mouse not in self._index]:
            raise ValueError(
                f"mouse {strangers[0]!r} has no behaviour network; there are those of "
                f"{list(self._index)}."
            )
        parts = behaviors.split([n for _, n in sizes])
        return torch.cat(
            [
                self.networks[self._index[mouse]](part)
                for (mouse, _), part in zip(sizes, parts, strict=True)
            ]
        )[:, None]
