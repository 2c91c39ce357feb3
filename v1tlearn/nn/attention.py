"""Multi-head self-attention over tokens."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Attention weights that may be kept for the backward pass where no fused kernel avoids it: 64 MB.
_MAX_KEPT_WEIGHTS = 2**24


def _in_parts(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend a few images at a time, computing their attention weights again when going back."""
    n_images = max(1, _MAX_KEPT_WEIGHTS // (q.shape[1] * q.shape[2] ** 2))
    if n_images >= q.shape[0]:
        return attend(q, k, v)
    parts = zip(*(tensor.split(n_images) for tensor in (q, k, v)), strict=True)
    return torch.cat([checkpoint(attend, *part, use_reentrant=False) for part in parts])


def _with_padded_heads(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with heads lengthened by zeros to a multiple of 8, as CUDA's fused kernels need them.

    No product of queries and keys changes, and the outputs that are added are left out.
    """
    head_dim = q.shape[-1]
    padded = (F.pad(tensor, (0, -head_dim % 8)) for tensor in (q, k, v))
    return attend(*padded)[..., :head_dim]


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
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.norm = nn.LayerNorm(embed_dim)
        self.to_qkv = nn.Linear(embed_dim, 3 * n_heads * head_dim, bias=False)
        self.projection = nn.Linear(n_heads * head_dim, embed_dim, bias=bias)
        self.attention_dropout = dropout
        self.dropout = nn.Dropout(dropout)
        self.local = local
        if not local:
            self.scale = scale
            return
        if n_tokens < 2:
            raise ValueError(
                "locality self-attention (attention='lsa') needs at least two tokens; choose a "
                "smaller patch or stride, or attention='standard'."
            )
        self.scale = nn.Parameter(torch.full((n_heads,), scale))
        others = ~torch.eye(n_tokens, dtype=torch.bool)
        self.register_buffer("others", others, persistent=False)

    def queries_keys_values(self, tokens: Tensor) -> Tensor:
        """Project normalised tokens.

        Parameters
        ----------
        tokens : Tensor of shape (n_images, n_tokens, embed_dim)
            Tokens.

        Returns
        -------
        Tensor of shape (3, n_images, n_heads, n_tokens, head_dim)
            Queries, times their factor, keys and values: the attention weights are the softmax of
            the products of the first two.
        """
        qkv = self.to_qkv(self.norm(tokens)).unflatten(-1, (3, self.n_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, N, D) each
        scale = self.scale[:, None, None].to(q.dtype) if self.local else self.scale
        return q * scale, k, v

    def forward(self, tokens: Tensor) -> Tensor:
        """Attention output (B, N, d) of tokens (B, N, d)."""
        q, k, v = self.queries_keys_values(tokens)
        dropout = self.attention_dropout if self.training else 0.0
        attend = partial(
            F.scaled_dot_product_attention,
            attn_mask=self.others if self.local else None,
            dropout_p=dropout,
            scale=1.0,
        )
        if q.device.type == "cuda":
            mixed = _with_padded_heads(attend, q, k, v)
        elif dropout > 0:
            # The fused kernels of other devices have no dropout, and without one every weight
            # would be kept: half a gigabyte per image at the published size.
            mixed = _in_parts(attend, q, k, v)
        else:
            mixed = attend(q, k, v)  # (B, H, N, D)
        return self.dropout(self.projection(mixed.transpose(1, 2).flatten(2)))
