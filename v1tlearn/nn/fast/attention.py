"""The one place that decides how attention is computed.

No way but the last keeps weights of tokens x tokens for the backward pass:

======  ==========================================  =============================================
device  case                                        computed by
======  ==========================================  =============================================
CUDA    all                                         torch's fused kernels, heads padded to 8
CPU     float32, and bfloat16 without AMX; dropout  `compiled_attention`, where it was built; to
        up to .99                                   tokens themselves if head_dim >= embed_dim and
                                                    a batch has more tokens than embed_dim
CPU     other cases of bfloat16, or with dropout    `blocked_attention`: torch's kernel has no
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

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from v1tlearn.nn.fast import blocked_attention as blocked
from v1tlearn.nn.fast import kernels
from v1tlearn.nn.fast.choice import chosen, sized
from v1tlearn.nn.fast.compiled_attention import compiled_attention, shared_attention
from v1tlearn.nn.fast.derivatives import once

# Attention weights that may be kept for the backward pass where no fused kernel avoids it: 64 MB.
_MAX_KEPT_WEIGHTS = 2**24

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def in_parts(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend a few images at a time, computing their attention weights again when going back."""
    n_images = max(1, sized(_MAX_KEPT_WEIGHTS) // (q.shape[1] * q.shape[2] * k.shape[2]))
    if n_images >= q.shape[0]:
        return attend(q, k, v)
    parts = zip(*(tensor.split(n_images) for tensor in (q, k, v)), strict=True)
    return torch.cat([checkpoint(attend, *part, use_reentrant=False) for part in parts])


def with_padded_heads(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with heads lengthened by zeros to a multiple of 8, as CUDA's fused kernels need them.

    No product of queries and keys changes, and the outputs that are added are left out.
    """
    head_dim = q.shape[-1]
    padded = (F.pad(tensor, (0, -head_dim % 8)) for tensor in (q, k, v))
    return attend(*padded)[..., :head_dim]


def _uses_kernel(tensor: Tensor, dropout: float, dtype: torch.dtype) -> bool:
    """Tell whether a compiled kernel attends to a tensor, once it is in this format."""
    if torch.compiler.is_compiling():
        return False
    if chosen() != "compiled" and kernels.prefers_torch(dtype):
        return False
    return kernels.takes(tensor, dropout, dtype)


def gathers_tokens(tokens: Tensor, head_dim: int, dropout: float) -> bool:
    """Tell whether `gather_tokens` saves products, with a kernel that is there."""
    n_images, n_tokens, embed_dim = tokens.shape
    if head_dim < embed_dim or n_images * n_tokens <= embed_dim:
        return False
    dtype = tokens.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    return _uses_kernel(tokens, dropout, dtype)


def gather_tokens(
    tokens: Tensor,
    to_qkv: nn.Linear,
    projection: nn.Linear,
    head_dim: int,
    scale: float | Tensor,
    *,
    dropout: float,
    local: bool,
) -> Tensor:
    """Output (B, N, d) of normalised tokens (B, N, d), where no keys and values are computed.

    With keys Wk x and values Wv x, products of queries and keys are (Wk' Wq x)' x, and outputs
    (Wo Wv) times the weighted sum of x, for each head: the products in brackets are those of
    small matrices, and two projections of all tokens remain instead of four. The factor of the
    scores is a number, or a tensor (H,).
    """
    to_q, to_k, to_v = to_qkv.weight.unflatten(0, (3, -1, head_dim))
    from_heads = projection.weight.unflatten(1, (-1, head_dim))
    to_queries = to_k.transpose(1, 2) @ to_q  # (H, d, d)
    if isinstance(scale, Tensor):
        to_queries, scale = to_queries * scale[:, None, None], 1.0
    queries = F.linear(tokens, to_queries.flatten(0, 1)).unflatten(-1, (-1, tokens.shape[-1]))
    mixed = shared_attention(
        queries, tokens.to(queries.dtype), scale=scale, dropout=dropout, local=local
    )
    to_outputs = (from_heads.transpose(0, 1) @ to_v).transpose(0, 1)  # (d, H, d)
    return F.linear(mixed.flatten(2), to_outputs.flatten(1), projection.bias)


def attend(
    qkv: Tensor, scale: float | Tensor, *, dropout: float, others: Tensor | None = None
) -> Tensor:
    """What the heads of each token gather (B, N, H, D), of queries, keys, values (B, N, 3, H, D).

    The factor of the scores is a number, or a tensor (H,). Where there are `others` (N, N), which
    are False on the diagonal, no token attends to itself.
    """
    no_torch_kernel = dropout > 0 or qkv.dtype == torch.bfloat16
    if _uses_kernel(qkv, dropout, qkv.dtype):
        return _in_tiles(compiled_attention, qkv, scale, dropout, others is not None)
    if no_torch_kernel and blocked.takes(qkv, dropout) and not torch.compiler.is_compiling():
        return _in_tiles(blocked.blocked_attention, qkv, scale, dropout, others is not None)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    q = q * (scale[:, None, None].to(q.dtype) if isinstance(scale, Tensor) else scale)
    return _by_torch(q, k, v, dropout, others).transpose(1, 2)


def attend_across(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What queries (B, H, N, D), times their factor, gather from M keys and values (B, H, M, D)."""
    return _by_torch(q, k, v)


def _by_torch(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, others: Tensor | None = None
) -> Tensor:
    """Attend (B, H, N, D) by what torch has for the device."""
    q, k, v = once(q, k, v)
    by_torch = partial(
        F.scaled_dot_product_attention, attn_mask=others, dropout_p=dropout, scale=1.0
    )
    if q.device.type == "cuda":
        return with_padded_heads(by_torch, q, k, v)
    if q.device.type == "cpu" and dropout == 0:
        return by_torch(q, k, v)
    return in_parts(by_torch, q, k, v)


def _in_tiles(
    attend: Callable[..., Tensor], qkv: Tensor, scale: float | Tensor, dropout: float, local: bool
) -> Tensor:
    """Gather, with one factor for all heads or a learned one each."""
    if isinstance(scale, Tensor):
        q = qkv[:, :, :1] * scale[:, None].to(qkv.dtype)
        qkv, scale = torch.cat((q, qkv[:, :, 1:]), 2), 1.0
    return attend(qkv, scale=scale, dropout=dropout, local=local)
