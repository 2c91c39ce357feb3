"""Dropout of elements: rate, scale, gradient, seeds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.nn.dropout import Dropout


@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=4),
    rate=st.floats(0.01, 0.95),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_elements_are_dropped_or_scaled_up_and_so_is_the_gradient(shape, rate, dtype):
    inputs = torch.randn(shape).to(dtype).requires_grad_()
    out = Dropout(rate)(inputs)
    grad = torch.randn(shape).to(dtype)
    out.backward(grad)
    kept = (out != 0) | (inputs == 0)
    assert out.dtype == inputs.grad.dtype == dtype
    torch.testing.assert_close(out, torch.where(kept, inputs / (1 - rate), 0))
    torch.testing.assert_close(inputs.grad, torch.where(kept, grad / (1 - rate), 0))


@pytest.mark.parametrize("rate", [0.0229, 0.2544, 0.5, 0.99])
def test_rate_and_independence(rate):
    torch.manual_seed(0)
    kept = Dropout(rate)(torch.ones(1500, 1501)) != 0
    n = kept.numel()
    assert abs(1 - kept.double().mean().item() - rate) < 4 * math.sqrt(rate * (1 - rate) / n)
    kept = kept.double() - (1 - rate)
    for step in (1, 2, 4, 1501):
        flat = kept.flatten()
        correlation = (flat[step:] * flat[:-step]).mean() / (rate * (1 - rate))
        assert abs(correlation) < 4 / math.sqrt(n)


def test_memory_layout_is_kept():
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    out = Dropout(0.5)(images)
    torch.testing.assert_close(out, torch.where(out != 0, images * 2, 0))


def test_seeds():
    inputs = torch.ones(100)
    torch.manual_seed(1)
    first, second = (Dropout(0.5)(inputs) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.5)(inputs), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.7, False)])
def test_nothing_happens_in_evaluation_or_at_rate_zero(rate, training):
    inputs = torch.randn(5)
    state = torch.get_rng_state()
    assert Dropout(rate).train(training)(inputs) is inputs
    assert torch.equal(torch.get_rng_state(), state)


def test_rate_one_drops_everything():
    assert (Dropout(1.0)(torch.randn(50)) == 0).all()
