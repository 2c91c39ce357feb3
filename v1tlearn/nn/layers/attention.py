"""Multi-head self-attention over tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.fast.attention import attend, gather_tokens, gathers_tokens
from v1tlearn.nn.fast.dropout import drop_plainly
from v1tlearn.nn.layers.dropout import Dropout
from v1tlearn.nn.layers.normalization import LayerNorm


def weigh(q: Tensor, k: Tensor, *, local: bool = False) -> Tensor:
    """Attention weights: the softmax of the products of queries and keys.

    Parameters
    ----------
    q, k : Tensor of shape (n_images, n_heads, n_tokens, head_dim)
        Queries, times their factor, and keys.
    local : bool, default=False
        No token attends to itself.

    Returns
    -------
    Tensor of shape (n_images, n_heads, n_tokens, n_tokens)
        Each row, of one query over all keys, sums to 1.
    """
    scores = q @ k.transpose(-1, -2)
    if local:
        itself = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(itself, -torch.inf)
    return scores.softmax(-1)


class Attention(nn.Module):
    """Layer norm, multi-head self-attention and projection back to the token length.

    Parameters
    ----------
    embed_dim : int
        Length of a token.
    n_heads : int
        Number of heads.
    n_tokens : int
        Number of tokens.
    head_dim : int
        Length of queries, keys and values of one head.
    scale : float
        Factor of the products of queries and keys; the initial one where it is learned.
    local : bool, default=False
        Locality self-attention (Lee et al. 2021): no token attends to itself, and each head learns
        its own factor.
    dropout : float, default=0.0
        Probability for attention weights and, once more, for the outputs.
    bias : bool, default=True
        Bias of the output projection; queries, keys and values have none.

    Raises
    ------
    ValueError
        If locality self-attention would leave a token nothing to attend to.
    """

    others: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        n_tokens: int,
        *,
        head_dim: int,
        scale: float,
        local: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if local and n_tokens < 2:
            raise ValueError(
                "locality self-attention (attention='lsa') needs at least two tokens; choose a "
                "smaller patch or stride, or attention='standard'."
            )
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.norm = LayerNorm(embed_dim)
        self.to_qkv = nn.Linear(embed_dim, 3 * n_heads * head_dim, bias=False)
        self.projection = nn.Linear(n_heads * head_dim, embed_dim, bias=bias)
        self.attention_dropout = dropout
        self.dropout = Dropout(dropout)
        self.local = local
        self.scale = nn.Parameter(torch.full((n_heads,), scale)) if local else scale
        others = ~torch.eye(n_tokens, dtype=torch.bool) if local else None
        self.register_buffer("others", others, persistent=False)

    def queries_keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project normalised tokens.

        Parameters
        ----------
        tokens : Tensor of shape (n_images, n_tokens, embed_dim)
            Tokens.

        Returns
        -------
        q, k, v : Tensor of shape (n_images, n_heads, n_tokens, head_dim)
            Queries, times their factor, keys and values; `weigh` makes attention weights of the
            first two.
        """
        return self._of_heads(self._projected(self.norm(tokens)))

    def _projected(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values (B, N, 3, H, D) of normalised tokens (B, N, d)."""
        return self.to_qkv(tokens).unflatten(-1, (3, self.n_heads, self.head_dim))

    def _of_heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, times their factor, keys and values (B, H, N, D)."""
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scale = self.scale
        return q * (scale[:, None, None].to(q.dtype) if isinstance(scale, Tensor) else scale), k, v

    def forward(self, tokens: Tensor) -> Tensor:
        """Attention output (B, N, d) of tokens (B, N, d)."""
        tokens = self.norm(tokens)
        dropout = self.attention_dropout if self.training else 0.0
        if fast.is_plain():
            q, k, v = self._of_heads(self._projected(tokens))
            weights = weigh(q, k, local=self.local)
            if dropout:
                weights = drop_plainly(weights, lambda x: F.dropout(x, dropout), axes=4)
            mixed = (weights @ v).transpose(1, 2)  # (B, N, H, D)
        elif gathers_tokens(tokens, self.head_dim, dropout):
            gathered = gather_tokens(
                tokens, self.to_qkv, self.projection, self.head_dim, self.scale,
                dropout=dropout, local=self.local,
            )  # fmt: skip
            return self.dropout(gathered)
        else:
            qkv = self._projected(tokens)
            mixed = attend(qkv, self.scale, dropout=dropout, others=self.others)
        return self.dropout(self.projection(mixed.flatten(2)))
