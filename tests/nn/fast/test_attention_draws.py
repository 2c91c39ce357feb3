"""Which weights attention on a CPU drops: how many, and independently."""

import itertools
import math

import numpy as np
import pytest
import torch

from tests.nn.fast.attending import ATTEND, each_way, kept_weights, make_qkv
from tests.sweeps import quick
from v1tlearn.nn.fast.variants import kernel


def kept_of(way, n_images, n_tokens, n_heads, *, dropout, seed=3):
    """What is kept of weights (B, H, N, N) after a seed."""
    torch.manual_seed(seed)
    shape = (n_images, n_tokens, n_heads, n_tokens)
    return kept_weights(*shape, torch.float32, dropout=dropout, way=way)


@each_way
@pytest.mark.parametrize("dropout", quick([2**-16, 0.0009, 0.1, 0.2544, 0.5, 0.98], 1, 3))
def test_rate_of_dropped_weights(dropout, way):
    """Also where the 256 steps of a byte would not tell the rates apart."""
    kept = kept_of(way, 3, 400, 4, dropout=dropout)
    rate = 1 - kept.double().mean().item()
    assert abs(rate - dropout) < 4 * math.sqrt(dropout * (1 - dropout) / kept.numel())


@each_way
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_rate_is_the_same_everywhere(dropout, way):
    """Counts per image, head, query, key, and pairs of these vary like those of single draws."""
    kept = kept_of(way, 4, 400, 4, dropout=dropout).double() - (1 - dropout)
    for n_kept in (1, 2):
        for axes in itertools.combinations(range(4), n_kept):
            sums = kept.sum([axis for axis in range(4) if axis not in axes])
            n_each = kept.numel() / sums.numel()
            squares = sums.square().mean() / (n_each * dropout * (1 - dropout))
            assert abs(squares - 1) < 5 * math.sqrt(2 / sums.numel()), axes


@each_way
@pytest.mark.parametrize("dropout", quick([0.25, 0.5], 0))
def test_weights_are_dropped_independently(dropout, way):
    """Neighbours near and far along images, heads, queries, keys and diagonals, and two calls."""
    # Vectors, panels and tiles.
    panel, keys, queries = (
        (kernel.PANEL, kernel.KEYS, kernel.QUERIES) if way != "blocked" else (16, 64, 128)
    )
    kept, other = (
        kept_of(way, 3, queries + 112, 3, dropout=dropout, seed=s).double() - (1 - dropout)
        for s in (0, 1)
    )
    distances = (1, 2, 16, panel, 3 * panel, keys, queries)
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


@each_way
def test_no_query_repeats_another_one_shifted(way):
    """The largest correlation of any two rows at any shift is one of so many random ones."""
    n_rows, n_keys, least = 100, 400, 150
    kept = kept_of(way, 1, n_keys, 1, dropout=0.5)[0, 0, :n_rows].double() * 2 - 1
    spectra = np.fft.rfft(kept.numpy(), 2 * n_keys)
    shifts = np.arange(least - n_keys, n_keys - least + 1)
    overlap = np.sqrt(n_keys - np.abs(shifts))
    for row, spectrum in enumerate(spectra):
        correlation = np.fft.irfft(spectra * spectrum.conj(), 2 * n_keys)[:, shifts] / overlap
        correlation[row] = 0
        assert np.abs(correlation).max() < 7


@each_way
def test_mean_over_draws_is_attention_without_dropout(way):
    qkv = make_qkv(1, 12, 2, 4, torch.float32).detach()
    torch.manual_seed(0)
    many = ATTEND[way](qkv.expand(4000, -1, -1, -1, -1), dropout=0.3)
    exact = ATTEND[way](qkv)
    error = (many.mean(0) - exact[0]).abs()
    assert (error < 5 * many.std(0) / math.sqrt(4000)).all()


@each_way
def test_same_seed_same_result_and_calls_differ(way):
    qkv = make_qkv(2, 30, 2, 5, torch.float32).detach()
    torch.manual_seed(5)
    first, second = (ATTEND[way](qkv, dropout=0.4) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(ATTEND[way](qkv, dropout=0.4), first)
    assert not torch.equal(first, second)


@each_way
def test_without_dropout_no_random_number_is_drawn(way):
    state = torch.get_rng_state()
    ATTEND[way](make_qkv(1, 6, 1, 2, torch.float32)).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)
