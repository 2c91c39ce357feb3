"""Which weights the compiled attention of the CPU drops: how many, and independently."""

import itertools
import math

import numpy as np
import pytest
import torch

from tests.nn.attention_defined import make_qkv
from tests.nn.drawn import kept_weights
from tests.nn.kernels import skip_module_without_kernels
from v1tlearn.nn._compiled import kernel
from v1tlearn.nn._compiled_attention import compiled_attention

skip_module_without_kernels()


def kept_of(n_images, n_tokens, n_heads, *, dropout, seed=3):
    """What is kept of weights (B, H, N, N) after a seed."""
    torch.manual_seed(seed)
    shape = (n_images, n_tokens, n_heads, n_tokens)
    return kept_weights(*shape, torch.float32, dropout=dropout, attend=compiled_attention)


@pytest.mark.parametrize("dropout", [2**-16, 0.0009, 0.1, 0.2544, 0.5, 0.98])
def test_rate_of_dropped_weights(dropout):
    kept = kept_of(3, 400, 4, dropout=dropout)
    rate = 1 - kept.double().mean().item()
    assert abs(rate - dropout) < 4 * math.sqrt(dropout * (1 - dropout) / kept.numel())


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_rate_is_the_same_everywhere(dropout):
    """Counts per image, head, query, key, and pairs of these vary like those of single draws."""
    kept = kept_of(4, 400, 4, dropout=dropout).double() - (1 - dropout)
    for n_kept in (1, 2):
        for axes in itertools.combinations(range(4), n_kept):
            sums = kept.sum([axis for axis in range(4) if axis not in axes])
            n_each = kept.numel() / sums.numel()
            squares = sums.square().mean() / (n_each * dropout * (1 - dropout))
            assert abs(squares - 1) < 5 * math.sqrt(2 / sums.numel()), axes


@pytest.mark.parametrize("dropout", [0.25, 0.5])
def test_weights_are_dropped_independently(dropout):
    """Neighbours near and far along images, heads, queries, keys and diagonals, and two calls."""
    kept, other = (
        kept_of(3, kernel.QUERIES + 112, 3, dropout=dropout, seed=s).double() - (1 - dropout)
        for s in (0, 1)
    )
    # Vectors, panels and tiles.
    distances = (1, 2, 16, kernel.PANEL, 3 * kernel.PANEL, kernel.KEYS, kernel.QUERIES)
    steps = [(1, 0, 0, 0), (2, 0, 0, 0), (0, 1, 0, 0), (0, 2, 0, 0), (1, 1, 0, 0)]
    steps += [(0, 0, a, b) for a, b in itertools.product((0, *distances), repeat=2) if a or b]
    correlations = {"calls": (kept * other).mean() * math.sqrt(kept.numel())}
    for step in steps:
        left, right = kept, kept
        for axis, length in enumerate(step):
            n = kept.shape[axis] - length
            left, right = left.narrow(axis, 0, n), right.narrow(axis, length, n)
        correlations[step] = (left * right).mean() * math.sqrt(left.numel())
    for pair, correlation in correlations.items():
        assert abs(correlation) < 4.5 * dropout * (1 - dropout), pair


def test_no_query_repeats_another_one_shifted():
    """The largest correlation of any two rows at any shift is one of so many random ones."""
    n_rows, n_keys, least = 100, 400, 150
    kept = kept_of(1, n_keys, 1, dropout=0.5)[0, 0, :n_rows].double() * 2 - 1
    spectra = np.fft.rfft(kept.numpy(), 2 * n_keys)
    shifts = np.arange(least - n_keys, n_keys - least + 1)
    overlap = np.sqrt(n_keys - np.abs(shifts))
    for row, spectrum in enumerate(spectra):
        correlation = np.fft.irfft(spectra * spectrum.conj(), 2 * n_keys)[:, shifts] / overlap
        correlation[row] = 0
        assert np.abs(correlation).max() < 7


def test_mean_over_draws_is_attention_without_dropout():
    qkv = make_qkv(1, 12, 2, 4, torch.float32).detach()
    torch.manual_seed(0)
    many = compiled_attention(qkv.expand(4000, -1, -1, -1, -1), dropout=0.3)
    exact = compiled_attention(qkv)
    error = (many.mean(0) - exact[0]).abs()
    assert (error < 5 * many.std(0) / math.sqrt(4000)).all()


def test_same_seed_same_result_and_calls_differ():
    qkv = make_qkv(2, 30, 2, 5, torch.float32).detach()
    torch.manual_seed(5)
    first, second = (compiled_attention(qkv, dropout=0.4) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(compiled_attention(qkv, dropout=0.4), first)
    assert not torch.equal(first, second)


def test_without_dropout_no_random_number_is_drawn():
    state = torch.get_rng_state()
    compiled_attention(make_qkv(1, 6, 1, 2, torch.float32)).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)
