"""Which elements dropout on the CPU keeps, as it would draw them next."""

import torch

from v1tlearn.nn._blocked_attention import blocked_attention
from v1tlearn.nn.dropout import Dropout


def kept_elements(shape, dtype, rate):
    """What `Dropout` keeps of elements of this shape."""
    return Dropout(rate)(torch.ones(shape, dtype=dtype)) != 0


def kept_weights(
    n_images, n_tokens, n_heads, head_dim, dtype, *, dropout, attend=blocked_attention
):
    """What `attend` keeps of its weights (B, H, N, N), one column after another.

    All scores are zero; the values are the unit vectors, as many tokens at a time as fit.
    """
    columns, state = [], torch.get_rng_state()
    for start in range(0, n_tokens, head_dim):
        qkv = torch.zeros(n_images, n_tokens, 3, n_heads, head_dim, dtype=dtype)
        for token in range(start, min(start + head_dim, n_tokens)):
            qkv[:, token, 2, :, token - start] = 1
        torch.set_rng_state(state)
        columns.append(attend(qkv, dropout=dropout)[..., : n_tokens - start] != 0)
    return torch.cat(columns, -1).transpose(1, 2)
