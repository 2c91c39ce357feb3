"""Attention over neurons without tokens, against the definition, and its memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.fast.attending import LargestTensor
from v1tlearn import nn
from v1tlearn.nn.fast.neuron_attention import Lines, attend_neurons


def definition(responses, lines, keep):
    """Softmax of products of queries and keys, values, and what reads them."""
    s = responses[:, None, :, None]
    q = s * lines.query_slope + lines.query_offset
    k = s * lines.key_slope + lines.key_offset
    v = s * lines.value_slope + lines.value_offset
    weights = (q @ k.transpose(-1, -2)).softmax(-1)
    if keep is not None:
        weights = weights * keep[:, :, None]
    return ((weights @ v) * lines.reader).sum((1, 3))


def make(n_trials, n_neurons, n_heads, width, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    lines = Lines(*(normal(n_heads, n_neurons, width) for _ in Lines._fields))
    keep = torch.rand(n_trials, n_heads, n_neurons, generator=generator, dtype=dtype) > 0.4
    return normal(n_trials, n_neurons), lines, keep


@given(
    st.integers(1, 5),
    st.integers(2, 70),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([1.0, 1e-2, 1e-5]),
    st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_values_and_gradients_are_those_of_the_definition(b, n, heads, width, masked, parts, seed):
    responses, lines, keep = make(b, n, heads, width, seed)
    keep = keep if masked else None
    with nn.fast.using("auto", parts=parts):
        read = attend_neurons(responses, lines, keep)
        cotangent = torch.cos(torch.arange(read.numel(), dtype=read.dtype)).reshape(read.shape)
        found = torch.autograd.grad((read * cotangent).sum(), [responses, *lines])
    expected = definition(responses, lines, keep)
    assert torch.allclose(read, expected, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad((expected * cotangent).sum(), [responses, *lines])
    for one, other in zip(found, gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-9)


def test_second_derivatives_are_refused_and_there_plainly():
    responses, lines, _ = make(2, 5, 1, 3, 0)
    read = attend_neurons(responses, lines).square().sum()
    (gradient,) = torch.autograd.grad(read, responses, create_graph=True)
    with pytest.raises(RuntimeError, match=r"nn\.plain"):
        gradient.sum().backward()


def test_no_tensor_grows_with_the_square_of_neurons():
    generator = torch.Generator().manual_seed(0)
    lines = Lines(*(torch.rand(1, 1000, 2, generator=generator) for _ in Lines._fields))
    lines.key_slope.requires_grad_()
    with LargestTensor() as seen:
        attend_neurons(torch.rand(2, 1000, generator=generator), lines).sum().backward()
    assert seen.largest <= 2**18  # of 2,000,000 weights
