"""Dropout of elements: rate, scale, gradient, seeds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.nn.fast.attending import NO_KERNEL, WAYS, torch_threads, using
from v1tlearn import nn
from v1tlearn.nn.layers.dropout import Dropout


@pytest.fixture(autouse=True, scope="module", params=WAYS)
def each_way(request):
    """Draw by each variant of the kernel, if there is one, and by NumPy, as where there is none."""
    if request.param == "compiled":
        pytest.skip(NO_KERNEL)
    with using(request.param, parts=1):
        yield


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", ["inputs", "gradient", "both"])
def test_memory_layout_does_not_matter(turned, dtype):
    images, grad = torch.randn(2, 2, 3, 4, 5).to(dtype)
    if turned != "gradient":
        images = images.to(memory_format=torch.channels_last)
    if turned != "inputs":
        grad = grad.to(memory_format=torch.channels_last)
    out = Dropout(0.5)(images.requires_grad_())
    out.backward(grad)
    assert out.stride() == images.stride()
    torch.testing.assert_close(out, torch.where(out != 0, images * 2, 0))
    torch.testing.assert_close(images.grad, torch.where(out != 0, grad * 2, 0))


def test_inputs_that_overlap_or_have_gaps():
    for inputs in (torch.randn(4, 1).expand(4, 6), torch.randn(4, 12)[:, ::2]):
        out = Dropout(0.5)(inputs)
        assert 0 < (out != 0).sum() < out.numel()
        torch.testing.assert_close(out, torch.where(out != 0, inputs * 2, 0))


def test_threads_do_not_matter():
    inputs, grad = torch.randn(2, 2, 200_001)  # ends amid a vector
    results = []
    for n_threads in (1, 2, 3, 40):
        with torch_threads(n_threads):
            torch.manual_seed(2)
            leaf = inputs.clone().requires_grad_()
            out = Dropout(0.3)(leaf)
            out.backward(grad)
        results.append((out.detach(), leaf.grad))
    for out, found in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(found, results[0][1])


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


def test_plain_dropout_drops_and_scales_up_as_often():
    torch.manual_seed(0)
    with nn.plain():
        out = Dropout(0.25)(torch.ones(400, 500))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out == 0).double().mean().item() == pytest.approx(0.25, abs=0.005)
