"""Multi-head self-attention over tokens, and the one place that decides how it is computed.

No way but the last keeps weights of tokens x tokens for the backward pass:

======  ==========================================  =============================================
device  case                                        computed by
======  ==========================================  =============================================
CUDA    all                                         torch's fused kernels, heads padded to 8
CPU     with AVX-512: float32, and bfloat16 where   `_compiled_attention`, where it was built; to
        it multiplies that without AMX; dropout up  tokens themselves if head_dim >= embed_dim and
        to .99                                      a batch has more tokens than embed_dim
CPU     other cases of bfloat16, or with dropout    `_blocked_attention`: torch's kernel has no
        up to 255/256                               dropout, and does not use the bfloat16
                                                    products of the processor
CPU     other cases without dropout                 torch's fused kernel
others  more than 64 MB of weights                  torch's choice, a few images at a time,
                                                    computed again in the backward pass
others  less                                        torch's choice
======  ==========================================  =============================================

Where torch compiles the core, a CPU has torch's kernel in float32 and float64 without dropout, and
counts among the others otherwise.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import _blocked_attention, _compiled
from ._compiled_attention import compiled_attention, shared_attention
from .dropout import Dropout

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
        self.dropout = Dropout(dropout)
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
        return self._scaled(self._projected(self.norm(tokens)))

    def _projected(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values (B, N, 3, H, D) of normalised tokens (B, N, d)."""
        return self.to_qkv(tokens).unflatten(-1, (3, self.n_heads, self.head_dim))

    def _scaled(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, times their factor, keys and values (B, H, N, D)."""
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scale = self.scale[:, None, None].to(q.dtype) if self.local else self.scale
        return q * scale, k, v

    def forward(self, tokens: Tensor) -> Tensor:
        """Attention output (B, N, d) of tokens (B, N, d)."""
        tokens = self.norm(tokens)
        if self._gathers_tokens(tokens):
            return self.dropout(self._gather_tokens(tokens))
        mixed = self._mix(self._projected(tokens))  # (B, N, H, D)
        return self.dropout(self.projection(mixed.flatten(2)))

    def _gathers_tokens(self, tokens: Tensor) -> bool:
        """Tell whether `_gather_tokens` saves products, with a kernel that is there."""
        n_images, n_tokens, embed_dim = tokens.shape
        if self.head_dim < embed_dim or n_images * n_tokens <= embed_dim:
            return False
        dtype = tokens.dtype
        if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
            dtype = torch.get_autocast_dtype("cpu")
        return self._uses_kernel(tokens, dtype)

    def _uses_kernel(self, tensor: Tensor, dtype: torch.dtype) -> bool:
        """Tell whether a compiled kernel attends to a tensor, once it is in this format."""
        if torch.compiler.is_compiling() or _compiled.prefers_torch(dtype):
            return False
        return _compiled.takes(tensor, self._weight_dropout(), dtype)

    def _gather_tokens(self, tokens: Tensor) -> Tensor:
        """Output (B, N, d) of normalised tokens (B, N, d), where no keys and values are computed.

        With keys Wk x and values Wv x, products of queries and keys are (Wk' Wq x)' x, and outputs
        (Wo Wv) times the weighted sum of x, for each head: the products in brackets are those of
        small matrices, and two projections of all tokens remain instead of four.
        """
        to_q, to_k, to_v = self.to_qkv.weight.unflatten(0, (3, self.n_heads, self.head_dim))
        from_heads = self.projection.weight.unflatten(1, (self.n_heads, self.head_dim))
        to_queries, scale = to_k.transpose(1, 2) @ to_q, self.scale  # (H, d, d)
        if self.local:
            to_queries, scale = to_queries * self.scale[:, None, None], 1.0
        queries = F.linear(tokens, to_queries.flatten(0, 1)).unflatten(-1, (self.n_heads, -1))
        mixed = shared_attention(
            queries,
            tokens.to(queries.dtype),
            scale=scale,
            dropout=self._weight_dropout(),
            local=self.local,
        )
        to_outputs = (from_heads.transpose(0, 1) @ to_v).transpose(0, 1)  # (d, H, d)
        return F.linear(mixed.flatten(2), to_outputs.flatten(1), self.projection.bias)

    def _weight_dropout(self) -> float:
        """Probability of dropping a weight, now."""
        return self.attention_dropout if self.training else 0.0

    def _mix(self, qkv: Tensor) -> Tensor:
        """What the heads of each token gather (B, N, H, D), of (B, N, 3, H, D)."""
        dropout = self._weight_dropout()
        if self._uses_kernel(qkv, qkv.dtype):
            return self._mix_in_tiles(compiled_attention, qkv, dropout)
        no_torch_kernel = dropout > 0 or qkv.dtype == torch.bfloat16
        takes = no_torch_kernel and _blocked_attention.takes(qkv, dropout)
        if takes and not torch.compiler.is_compiling():
            return self._mix_in_tiles(_blocked_attention.blocked_attention, qkv, dropout)
        q, k, v = self._scaled(qkv)
        attend = partial(
            F.scaled_dot_product_attention,
            attn_mask=self.others if self.local else None,
            dropout_p=dropout,
            scale=1.0,
        )
        if q.device.type == "cuda":
            mixed = _with_padded_heads(attend, q, k, v)
        elif q.device.type == "cpu" and dropout == 0:
            mixed = attend(q, k, v)
        else:
            mixed = _in_parts(attend, q, k, v)
        return mixed.transpose(1, 2)

    def _mix_in_tiles(self, attend: Callable[..., Tensor], qkv: Tensor, dropout: float) -> Tensor:
        """Gather, with one factor for all heads or a learned one each."""
        scale = self.scale
        if self.local:
            q = qkv[:, :, :1] * self.scale[:, None].to(qkv.dtype)
            qkv, scale = torch.cat((q, qkv[:, :, 1:]), 2), 1.0
        return attend(qkv, scale=scale, dropout=dropout, local=self.local)
