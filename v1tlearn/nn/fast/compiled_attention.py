"""Attention with dropout for the CPU by a compiled kernel, where one was built.

Tiles of weights never leave the caches, in both directions.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor

from v1tlearn.nn import drawing
from v1tlearn.nn.fast.choice import chosen_variant, worth_threads
from v1tlearn.nn.fast.derivatives import differentiable_once
from v1tlearn.nn.fast.kernels import TYPES, threshold
from v1tlearn.nn.fast.variants import kernel

# Below, starting threads costs more than they save.
_PRODUCTS_WORTH_THREADS = 2_000_000


def compiled_attention(
    qkv: Tensor, *, scale: float = 1.0, dropout: float = 0.0, local: bool = False
) -> Tensor:
    """Attend as `blocked_attention` does, in float32 or bfloat16.

    The probability of dropping a weight comes in steps of 2^-16. As in Dao et al. (2022), the
    maximum of a row of scores is corrected tile by tile, and the backward pass computes weights
    again from the logarithms of their sums. In bfloat16, factors of
    products are rounded, everything else is float32. What is dropped follows from a hash of a seed,
    image, head, query and key: results are the same bit for bit at any number of threads, and in
    parts of a batch (`v1tlearn.nn.drawing`). Torch's generator gives one seed per call, whatever
    the sizes.
    """
    return CompiledAttention.apply(
        qkv.contiguous(), None, _Options(scale, *threshold(dropout), local)
    )


def shared_attention(
    queries: Tensor,
    tokens: Tensor,
    *,
    scale: float = 1.0,
    dropout: float = 0.0,
    local: bool = False,
) -> Tensor:
    """Attend where tokens (B, N, d) are the keys and values of all heads' queries (B, N, H, d)."""
    options = _Options(scale, *threshold(dropout), local)
    return CompiledAttention.apply(queries.contiguous(), tokens.contiguous(), options)


class _Options(NamedTuple):
    scale: float
    upscale: float
    limit: int
    local: bool


class CompiledAttention(torch.autograd.Function):
    """See `compiled_attention` and, where `shared` is given, `shared_attention`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, shared: Tensor | None, options: _Options) -> Tensor:
        """Attend; kept are inputs, outputs and the logarithms of the sums of weights."""
        where = drawing.places(len(q)) if options.limit else None
        seed = drawing.seed(where) if options.limit else 0
        rows = None if where is None else where.rows
        n_images, n_tokens, *_, n_heads, width = q.shape
        out = q.new_empty(n_images, n_tokens, n_heads, width)
        log_sums = q.new_empty(n_images, n_heads, n_tokens, dtype=torch.float32)
        variant = chosen_variant()
        _run(variant, options, seed, rows, q, shared, out, log_sums)
        ctx.save_for_backward(q, shared, out, log_sums)
        ctx.options, ctx.seed, ctx.rows, ctx.variant = options, seed, rows, variant
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Gradients of queries, keys and values."""
        q, shared, out, log_sums = ctx.saved_tensors
        same = (ctx.variant, ctx.options, ctx.seed, ctx.rows, q, shared, out, log_sums)
        grads = (grad.to(q.dtype).contiguous(), torch.empty_like(q))
        if shared is None:
            _run(*same, *grads)
            return grads[1], None, None
        n_images, n_tokens, n_heads, width = q.shape
        by_head = q.new_empty(n_images, n_heads, n_tokens, width)
        _run(*same, *grads, by_head)
        return grads[1], by_head.sum(1), None


def _run(
    variant: str,
    options: _Options,
    seed: int,
    rows: Tensor | None,
    q: Tensor,
    shared: Tensor | None,
    out: Tensor,
    log_sums: Tensor,
    grad: Tensor | None = None,
    q_grad: Tensor | None = None,
    shared_grad: Tensor | None = None,
) -> None:
    """Have the kernel do its work for all heads of all images, backward if there is `grad`."""
    n_images, n_tokens, n_heads, width = shape = tuple(out.shape)
    if out.numel() == 0:
        return
    tensors = (q, shared, out, log_sums, grad, q_grad, shared_grad)
    assert all(x is None or x.is_contiguous() for x in tensors)
    name, n_units = TYPES[q.dtype], n_images * n_heads
    worth_it = worth_threads(n_units * n_tokens**2 * width, _PRODUCTS_WORTH_THREADS)
    n_threads = min(torch.get_num_threads(), n_units) if worth_it else 1
    size = kernel.memory_size(variant, name, shape[1:], grad is not None)
    memory = _own_memory(n_threads * size)
    addresses = (0 if tensor is None else tensor.data_ptr() for tensor in (*tensors, memory))
    places = 0 if rows is None else rows.data_ptr()
    kernel.run(variant, name, shape, tuple(options), seed, *addresses, n_threads, places)


_own = threading.local()


def _own_memory(n_bytes: int) -> Tensor:
    """Memory of this thread, kept: the system would give new pages every time."""
    n_bytes += 64  # to begin with a cache line
    memory = getattr(_own, "memory", None)
    if memory is None or memory.numel() < n_bytes:
        _own.memory = memory = torch.empty(n_bytes, dtype=torch.uint8, device="cpu")
    return memory[-memory.data_ptr() % 64 :]
