"""Attention over neurons that are embedded along a line each, without embedding them.

Neuron i of a trial is the token ``a_i s_i + b_i``. Queries, keys and values are linear in the
response s_i, too, so that a score is a polynomial of two responses,

    x_ij = s_i s_j (a_i . a'_j) + s_i (a_i . b'_j) + s_j (b_i . a'_j) + b_i . b'_j,

whose products are those of all trials; and what is read of the values by a vector u_i per neuron
is ``sum_j softmax(x)_ij (s_j (u_i . a''_j) + u_i . b''_j)``. Six matrices of neurons x neurons
replace products of vectors for every trial, and are there in blocks of rows only: memory grows with
the number of neurons, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from v1tlearn.nn.fast.choice import sized
from v1tlearn.nn.fast.derivatives import differentiable_once

# Values that are worked on at a time: on a CPU such as stay in its caches.
_CPU_VALUES, _OTHER_VALUES = 2**18, 2**26
_LEAST_ROWS = 32  # for which keys and values are read anew from memory


class Lines(NamedTuple):
    """Slopes and offsets of what neurons are embedded as, all of shape (n_heads, n_neurons, d).

    Queries contain the factor of the scores.
    """

    query_slope: Tensor
    query_offset: Tensor
    key_slope: Tensor
    key_offset: Tensor
    value_slope: Tensor
    value_offset: Tensor
    reader: Tensor


def attend_neurons(responses: Tensor, lines: Lines, keep: Tensor | None = None) -> Tensor:
    """Sum over heads (B, N) of what each neuron reads of all, of responses (B, N).

    Where `keep` (B, H, N) is 0, a neuron is not attended to; the weights of the others stay.
    """
    if keep is None:
        return NeuronAttention.apply(responses, keep, *lines)
    return NeuronAttention.apply(responses, keep.to(responses.dtype), *lines)


@torch.no_grad()
def attend_subsets(responses: Tensor, lines: Lines, keep: Tensor) -> Tensor:
    """What neurons read (S, B, N) where only subsets `keep` (S, B, H, N) of them are attended to.

    Weights are computed once for all subsets; there are no gradients.
    """
    out = responses.new_zeros(len(keep), *responses.shape)
    blocks, chunks = _blocks(responses)
    for head in range(len(lines.reader)):
        for rows in blocks:
            products = _products(lines, head, rows)
            for b in chunks:
                weights, values = products.weights(responses[b, rows], responses[b])
                kept = keep[:, b, head].to(values.dtype).permute(1, 2, 0)  # (b, N, S)
                out[:, b, rows] += (weights.mul_(values) @ kept).permute(2, 0, 1)
    return out


@torch.no_grad()
def key_weights(responses: Tensor, lines: Lines) -> Tensor:
    """Mean over the neurons that attend (B, H, N) of the attention weights; without gradients."""
    n_heads, (n_trials, n) = len(lines.reader), responses.shape
    out = responses.new_zeros(n_trials, n_heads, n)
    blocks, chunks = _blocks(responses)
    for head in range(n_heads):
        for rows in blocks:
            products = _products(lines, head, rows)
            for b in chunks:
                out[b, head] += products.weights(responses[b, rows], responses[b])[0].sum(1)
    return out / n


@torch.no_grad()
def mean_weights(responses: Tensor, lines: Lines) -> Iterator[tuple[slice, Tensor]]:
    """Mean over trials (H, r, N) of the attention weights of neurons r, block by block."""
    n_heads, n = len(lines.reader), responses.shape[1]
    blocks, chunks = _blocks(responses)
    for rows in blocks:
        total = responses.new_zeros(n_heads, len(range(n)[rows]), n)
        for head in range(n_heads):
            products = _products(lines, head, rows)
            for b in chunks:
                total[head] += products.weights(responses[b, rows], responses[b])[0].sum(0)
        yield rows, total / len(responses)


class _Products(NamedTuple):
    """Those of a block of rows, (r, N) each: of slopes and offsets of queries and keys, values."""

    both: Tensor
    query: Tensor
    key: Tensor
    neither: Tensor
    slope: Tensor
    offset: Tensor

    def weights(self, own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Attention weights and values (b, r, N) of the responses of rows (b, r) and all (b, N)."""
        own, others = own[..., None], others[:, None]
        by_other = torch.addcmul(self.key, own, self.both)
        scores = torch.addcmul(self.neither, own, self.query)
        scores = torch.addcmul(scores, others, by_other, out=by_other)
        values = torch.addcmul(self.offset, others, self.slope)
        return scores.softmax(-1), values


def _products(lines: Lines, head: int, rows: slice) -> _Products:
    q_slope, q_offset, k_slope, k_offset, v_slope, v_offset, reader = (x[head] for x in lines)
    return _Products(
        q_slope[rows] @ k_slope.T,
        q_slope[rows] @ k_offset.T,
        q_offset[rows] @ k_slope.T,
        q_offset[rows] @ k_offset.T,
        reader[rows] @ v_slope.T,
        reader[rows] @ v_offset.T,
    )


def _blocks(responses: Tensor) -> tuple[list[slice], list[slice]]:
    """Blocks of neurons, and the trials that pass at once."""
    n_trials, n = responses.shape
    values = sized(_CPU_VALUES if responses.device.type == "cpu" else _OTHER_VALUES)
    rows = min(n, max(_LEAST_ROWS, values // (2 * n)))
    trials = max(1, values // (rows * n))
    return list(_slices(n, rows)), list(_slices(n_trials, trials))


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(i, i + size) for i in range(0, n, size))


class NeuronAttention(torch.autograd.Function):
    """See `attend_neurons`; weights are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, responses: Tensor, keep: Tensor | None, *tensors: Tensor) -> Tensor:
        """Attend, block by block."""
        lines, by_head = Lines(*tensors), []
        blocks, chunks = _blocks(responses)
        for head in range(len(lines.reader)):
            out = torch.empty_like(responses)
            for rows in blocks:
                products = _products(lines, head, rows)
                for b in chunks:
                    weights, values = products.weights(responses[b, rows], responses[b])
                    if keep is not None:
                        values *= keep[b, head, None]
                    out[b, rows] = weights.mul_(values).sum(-1)
            by_head.append(out)
        heads = torch.stack(by_head, 1)  # (B, H, N)
        ctx.save_for_backward(responses, keep, *tensors, heads)
        return heads.sum(1)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of responses and lines."""
        responses, keep, *tensors, heads = ctx.saved_tensors
        lines = Lines(*tensors)
        grads = Lines(*(torch.zeros_like(x) for x in lines))
        of_responses = torch.zeros_like(responses) if ctx.needs_input_grad[0] else None
        blocks, chunks = _blocks(responses)
        for head in range(len(lines.reader)):
            for rows in blocks:
                products = _products(lines, head, rows)
                of_products = _Products(*(torch.zeros_like(x) for x in products))
                for b in chunks:
                    of_one = None if of_responses is None else of_responses[b]
                    _back(
                        products,
                        of_products,
                        responses[b],
                        rows,
                        None if keep is None else keep[b, head],
                        heads[b, head, rows],
                        grad[b, rows],
                        of_one,
                    )
                _to_lines(lines, grads, of_products, head, rows)
        return of_responses, None, *grads


def _back(
    products: _Products,
    grads: _Products,
    responses: Tensor,
    rows: slice,
    keep: Tensor | None,
    read: Tensor,
    grad: Tensor,
    of_responses: Tensor | None,
) -> None:
    """Add what some trials (b, N) give to the gradients of products, and of responses."""
    own, others = responses[:, rows, None], responses[:, None]
    weights, values = products.weights(responses[:, rows], responses)
    if keep is not None:
        values *= keep[:, None]
    weights *= grad[..., None]
    of_scores = values.sub_(read[..., None]).mul_(weights)  # (b, r, N)
    if keep is not None:
        weights *= keep[:, None]
    if of_responses is not None:
        of_responses += torch.einsum("brn,rn->bn", weights, products.slope)
        of_responses += torch.einsum("brn,brn->bn", of_scores, own * products.both + products.key)
        by_row = others * products.both + products.query
        of_responses[:, rows] += torch.einsum("brn,brn->br", of_scores, by_row)
    grads.offset.add_(weights.sum(0))
    grads.slope.add_(weights.mul_(others).sum(0))
    grads.neither.add_(of_scores.sum(0))
    by_own = torch.mul(of_scores, own, out=weights)
    grads.query.add_(by_own.sum(0))
    grads.both.add_(by_own.mul_(others).sum(0))
    grads.key.add_(of_scores.mul_(others).sum(0))


def _to_lines(lines: Lines, grads: Lines, of: _Products, head: int, rows: slice) -> None:
    """Add the gradients of a block of products to those of slopes and offsets."""
    one, into = Lines(*(x[head] for x in lines)), Lines(*(x[head] for x in grads))
    into.query_slope[rows] += of.both @ one.key_slope + of.query @ one.key_offset
    into.query_offset[rows] += of.key @ one.key_slope + of.neither @ one.key_offset
    into.key_slope.addmm_(of.both.T, one.query_slope[rows])
    into.key_slope.addmm_(of.key.T, one.query_offset[rows])
    into.key_offset.addmm_(of.query.T, one.query_slope[rows])
    into.key_offset.addmm_(of.neither.T, one.query_offset[rows])
    into.value_slope.addmm_(of.slope.T, one.reader[rows])
    into.value_offset.addmm_(of.offset.T, one.reader[rows])
    into.reader[rows] += of.slope @ one.value_slope + of.offset @ one.value_offset
