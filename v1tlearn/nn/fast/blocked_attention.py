"""Attention with dropout for any CPU that holds the weights of a few queries at a time.

The backward pass computes the weights again, block by block, and drops the same ones.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import sized, worth_threads
from v1tlearn.nn.fast.derivatives import differentiable_once

# Weights that a thread works on at once: small enough for caches, large enough for quick products.
_BLOCK_BYTES = 2_800_000
# Below, starting threads costs more than they save.
_WEIGHTS_WORTH_THREADS = 2_000_000
# Matrix products are quickest where rows begin at multiples of a cache line.
_ALIGNED = 16
# Integers as wide as the numbers: bits times 0 or 1 is cheaper than a product of floats.
_BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16}
# Above, a byte per weight does not tell which are dropped.
_MAX_DROPOUT = 255 / 256

_Group = tuple[slice, slice]


def takes(qkv: Tensor, dropout: float) -> bool:
    """Tell whether `blocked_attention` is made for these tensors and this dropout."""
    return qkv.device.type == "cpu" and qkv.dtype in _BITS and 0 <= dropout <= _MAX_DROPOUT


def blocked_attention(
    qkv: Tensor, *, scale: float = 1.0, dropout: float = 0.0, local: bool = False
) -> Tensor:
    """Attend with dropout on the weights: ``dropout(softmax(scale q k^T)) v``.

    Parameters
    ----------
    qkv : Tensor of shape (n_images, n_tokens, 3, n_heads, head_dim)
        Queries, keys and values, on the CPU.
    scale : float, default=1.0
        Factor of the products of queries and keys.
    dropout : float, default=0.0
        Probability of dropping a weight; the others are divided by one minus it.
    local : bool, default=False
        No token attends to itself.

    Returns
    -------
    Tensor of shape (n_images, n_tokens, n_heads, head_dim)
        What each token has gathered.

    Notes
    -----
    As in Dao et al. (2022), weights are never kept, but computed again when gradients are needed.
    One byte decides on each weight, and the bytes that drop it are chosen for each query so that
    the rate is exact on the whole. Torch's generator gives one seed per call, whatever the sizes.
    Results are the same bit for bit at an equal number of threads.

    References
    ----------
    Dao et al., "FlashAttention: Fast and memory-efficient exact attention with IO-awareness",
    NeurIPS, 2022.
    """
    return BlockedAttention.apply(qkv, _Options(scale, dropout, local))


class _Options(NamedTuple):
    scale: float
    dropout: float
    local: bool


class BlockedAttention(torch.autograd.Function):
    """See `blocked_attention`."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, options: _Options) -> Tensor:
        """Attend; only queries, keys and values are kept."""
        seed = int(torch.randint(2**62, (), device="cpu")) if options.dropout else 0
        plan = _plan(qkv)
        ctx.save_for_backward(qkv)
        ctx.options, ctx.seed, ctx.plan = options, seed, plan
        out = torch.empty_like(qkv[:, :, 0], memory_format=torch.contiguous_format)
        _share_out(lambda: _Forward(plan, qkv, out, options), plan, seed)
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Gradients of queries, keys and values."""
        (qkv,) = ctx.saved_tensors
        plan = ctx.plan  # whatever the number of threads is by now: it decides on random numbers
        qkv_grad = torch.empty_like(qkv, memory_format=torch.contiguous_format)
        _share_out(lambda: _Backward(plan, qkv, grad, qkv_grad, ctx.options), plan, ctx.seed)
        return qkv_grad, None


def _heads_first(qkv: Tensor) -> Tensor:
    """View (..., images, heads, tokens, head_dim) of (images, tokens, ..., heads, head_dim)."""
    return qkv.movedim((0, 1), (-4, -2))


# -- what is worked on at once -------------------------------------------------------------------


class _Plan(NamedTuple):
    """Groups of heads, blocks of queries, and the lengths to which tokens and heads are padded."""

    groups: list[_Group]
    heads: int  # per group
    rows: int  # per block
    n_tokens: int
    tokens: int
    width: int
    n_threads: int

    def blocks(self) -> Iterator[slice]:
        """Queries of each block."""
        for row in range(0, self.n_tokens, self.rows):
            yield slice(row, min(row + self.rows, self.n_tokens))


def _plan(qkv: Tensor) -> _Plan:
    n_images, n_tokens, _, n_heads, head_dim = qkv.shape
    tokens, width = n_tokens + -n_tokens % _ALIGNED, head_dim + -head_dim % _ALIGNED
    at_once = max(1, sized(_BLOCK_BYTES) // qkv.dtype.itemsize)
    heads = max(1, at_once // (n_tokens * tokens))  # whose weights are one block
    n_threads = torch.get_num_threads()
    if not worth_threads(n_images * n_heads * n_tokens * tokens, _WEIGHTS_WORTH_THREADS):
        n_threads = 1
    heads = min(heads, -(-n_images * n_heads // n_threads))
    images_per_group, heads_per_group = max(1, heads // n_heads), min(heads, n_heads)
    rows = -(-n_tokens // -(-n_tokens * tokens // at_once))
    return _Plan(
        [
            (slice(image, image + images_per_group), slice(head, head + heads_per_group))
            for image in range(0, n_images, images_per_group)
            for head in range(0, n_heads, heads_per_group)
        ],
        images_per_group * heads_per_group,
        min(n_tokens, rows + -rows % _ALIGNED),
        n_tokens,
        tokens,
        width,
        n_threads,
    )


def _share_out(make_worker: Callable[[], Callable[..., None]], plan: _Plan, seed: int) -> None:
    """Have the work of all groups done, by one worker per thread.

    Where each thread has groups of its own, blocks stay in the cache of its core, and threads do
    not wait for one another after every operation.
    """
    seeds = np.random.SeedSequence(seed).spawn(len(plan.groups))
    if plan.n_threads == 1 or len(plan.groups) < 2:
        with torch.autocast("cpu", enabled=False):
            worker = make_worker()
            for group, own_seed in zip(plan.groups, seeds, strict=True):
                worker(group, own_seed)
        return
    inference = torch.is_inference_mode_enabled()
    own = threading.local()

    def work(group: _Group, own_seed: np.random.SeedSequence) -> None:
        """Do the work of one group."""
        with torch.inference_mode() if inference else torch.no_grad():
            if not hasattr(own, "worker"):
                own.worker = make_worker()
            own.worker(group, own_seed)

    list(_pool(plan.n_threads).map(work, plan.groups, seeds))


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads whose operations stay in them, made when they are first needed.

    Torch has no such setting for single threads: what one sets also holds for threads that use
    torch for the first time later, so that it is put back as soon as all of these have begun.
    """
    with _pools_lock:
        if n_threads not in _pools:
            n_before = torch.get_num_threads()
            all_began = threading.Barrier(n_threads)

            def begin() -> None:
                """Keep torch's operations in this thread."""
                torch.get_num_threads()  # what a thread's first look sets would undo the next line
                torch.set_num_threads(1)
                with suppress(threading.BrokenBarrierError):
                    all_began.wait()

            pool = ThreadPoolExecutor(n_threads, "v1tlearn-attention", begin)
            try:
                list(pool.map(int, range(n_threads)))
            except BaseException:  # there may be no room for all of them
                all_began.abort()  # or the others would wait for ever
                pool.shutdown()
                raise
            finally:
                torch.set_num_threads(n_before)
            _pools[n_threads] = pool
        return _pools[n_threads]


def _forget_pools() -> None:
    """Start anew in a process that was forked: its threads are not there."""
    global _pools_lock
    _pools.clear()
    _pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


# -- the work ------------------------------------------------------------------------------------


class _Worker:
    """Memory for one group and one block, and what both directions do with it.

    Products are quickest where both operands are contiguous, so tokens are laid out one after the
    other (heads, tokens, width) where they are summed over, otherwise side by side
    (heads, width, tokens).
    """

    def __init__(self, plan: _Plan, qkv: Tensor, options: _Options) -> None:
        self.plan, self.dtype = plan, (dtype := qkv.dtype)
        self.inputs = _heads_first(qkv)
        self.scale, dropout, self.local = options
        self.rate = dropout * 256  # in bytes
        self.upscale = 1 / (1 - dropout)
        self.tokens = torch.zeros(plan.heads, plan.tokens, plan.width, dtype=dtype, device="cpu")
        self.scores, self.weights = self.block(), self.block()
        self.mixed = self._empty(plan.heads * plan.rows * plan.width)

    def block(self, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for one block of weights, flat."""
        return self._empty(self.plan.heads * self.plan.rows * self.plan.tokens, dtype=dtype)

    def columns(self, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for the tokens of one group side by side."""
        return self._empty(self.plan.heads, self.plan.width, self.plan.tokens, dtype=dtype)

    def _empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(shape, dtype=dtype or self.dtype, device="cpu")

    def fill(self, part: Tensor, scale: float = 1.0) -> Tensor:
        """Lay out a group (images, heads, tokens, head_dim) one after the other, with padding."""
        n_tokens, head_dim = part.shape[-2:]
        out = self.tokens[: part.shape[0] * part.shape[1]]
        inner = out.unflatten(0, part.shape[:2])[..., :n_tokens, :head_dim]
        torch.mul(part, scale, out=inner) if scale != 1 else inner.copy_(part)
        return out

    def fill_columns(self, columns: Tensor, part: Tensor, scale: float = 1.0) -> Tensor:
        """Lay out a group side by side."""
        tokens = self.fill(part, scale)
        out = columns[: len(tokens)]
        if len(tokens) == 1:  # torch is quicker with matrices than with stacks of one
            out[0].copy_(tokens[0].t())
        else:
            out.copy_(tokens.transpose(1, 2))
        return out

    def weigh(self, queries: Tensor, keys: Tensor, row: int) -> tuple[Tensor, Tensor]:
        """Attention weights of queries (heads, rows, width), the first of which is token `row`.

        The first tensor is the memory of the scores, which are not needed any more.
        """
        shape = (*queries.shape[:2], self.plan.tokens)
        scores, weights = _shaped(self.scores, shape), _shaped(self.weights, shape)
        torch.bmm(queries, keys, out=scores)
        scores[..., self.plan.n_tokens :] = -torch.inf
        if self.local:
            scores.diagonal(row, -2, -1).fill_(-torch.inf)
        torch.softmax(scores, -1, out=weights)
        return scores, weights

    def draw(self, random: np.random.SFC64, memory: Tensor) -> Tensor:
        """Draw 1 where a weight (heads, rows, tokens) is kept and 0 where it is dropped.

        The integers take the place of scores that are not needed any more.
        """
        shape, n_weights = memory.shape, memory.numel()
        n_queries = shape[0] * shape[1]
        words = random.random_raw(n_weights // 8 + n_queries)
        below = int(self.rate)
        upper = (words[-n_queries:] >> 11) < (self.rate - below) * 2.0**53
        limits = torch.from_numpy((below + upper).astype(np.uint8)).view(*shape[:2], 1)
        numbers = torch.from_numpy(words[:-n_queries].view(np.uint8)).view(shape)
        return memory.view(_BITS[self.dtype]).copy_(torch.ge(numbers, limits, out=numbers))


class _Forward(_Worker):
    """Attend, one group after the other."""

    def __init__(self, plan: _Plan, qkv: Tensor, out: Tensor, options: _Options) -> None:
        super().__init__(plan, qkv, options)
        self.out = _heads_first(out)
        self.queries, self.keys = self.columns(), self.columns()

    def __call__(self, group: _Group, seed: np.random.SeedSequence) -> None:
        q, k, v = (tensor[group] for tensor in self.inputs)
        queries = self.fill_columns(self.queries, q, self.scale)
        keys = self.fill_columns(self.keys, k)
        values, out = self.fill(v), self.out[group]
        random = np.random.SFC64(seed)
        for rows in self.plan.blocks():
            scores, weights = self.weigh(queries[..., rows].transpose(1, 2), keys, rows.start)
            if self.rate:
                _drop(weights, self.draw(random, scores))
            mixed = _shaped(self.mixed, (*weights.shape[:2], self.plan.width))
            _put(out[..., rows, :], torch.bmm(weights, values, out=mixed), self.upscale)


class _Backward(_Worker):
    """Compute the gradients of queries, keys and values, one group after the other."""

    def __init__(
        self, plan: _Plan, qkv: Tensor, grad: Tensor, qkv_grad: Tensor, options: _Options
    ) -> None:
        super().__init__(plan, qkv, options)
        self.grad, self.grads = _heads_first(grad), _heads_first(qkv_grad)
        self.queries, self.keys, self.values, self.outputs = (self.columns() for _ in range(4))
        self.weight_grads = self.block()
        # Sums over blocks, in bfloat16 too, are float32.
        wide = torch.promote_types(self.dtype, torch.float32)
        self.key_sums, self.value_sums = self.columns(wide), self.columns(wide)
        self.product = self.columns() if wide != self.dtype else None

    def __call__(self, group: _Group, seed: np.random.SeedSequence) -> None:
        q, k, v = (tensor[group] for tensor in self.inputs)
        dq, dk, dv = (tensor[group] for tensor in self.grads)
        queries = self.fill_columns(self.queries, q, self.scale)
        values = self.fill_columns(self.values, v)
        outputs = self.fill_columns(self.outputs, self.grad[group], self.upscale)
        keys = self.fill_columns(self.keys, k)
        key_rows = self.tokens[: len(keys)]  # the same, one after the other
        key_sums = self.key_sums[: len(keys)].zero_()
        value_sums = self.value_sums[: len(keys)].zero_()
        random = np.random.SFC64(seed)
        for rows in self.plan.blocks():
            q_block, g_block = queries[..., rows], outputs[..., rows]
            scores, weights = self.weigh(q_block.transpose(1, 2), keys, rows.start)
            grads = _shaped(self.weight_grads, weights.shape)
            torch.bmm(g_block.transpose(1, 2), values, out=grads)
            if self.rate:
                kept = self.draw(random, scores)
                _drop(grads, kept)
            # Row by row, so that gradients of scores may take the place of those of weights.
            torch._softmax_backward_data(grads, weights, -1, self.dtype, grad_input=grads)
            if self.rate:
                _drop(weights, kept)
            self.add_product(value_sums, g_block, weights)
            self.add_product(key_sums, q_block, grads)
            mixed = _shaped(self.mixed, (*weights.shape[:2], self.plan.width))
            _put(dq[..., rows, :], torch.bmm(grads, key_rows, out=mixed), self.scale)
        _put(dk, key_sums.transpose(1, 2))
        _put(dv, value_sums.transpose(1, 2))

    def add_product(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        """Add a product (heads, width, tokens) to a sum."""
        if self.product is None:
            total.baddbmm_(left, right)
        else:
            total.add_(torch.bmm(left, right, out=self.product[: len(total)]))


def _shaped(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Beginning of flat memory in some shape."""
    return flat[: math.prod(shape)].view(shape)


def _drop(weights: Tensor, kept: Tensor) -> None:
    """Set weights to zero where `kept` is."""
    weights.view(kept.dtype).mul_(kept)


def _put(out: Tensor, padded: Tensor, scale: float = 1.0) -> None:
    """Copy (heads, rows, width) without its padding to a group (images, heads, rows, head_dim)."""
    inner = padded[:, : out.shape[2], : out.shape[3]].unflatten(0, out.shape[:2])
    torch.mul(inner, scale, out=out) if scale != 1 else out.copy_(inner)
