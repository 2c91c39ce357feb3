"""Maps times weights of space and of channels, image by image, against one sum over all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn import nn
from v1tlearn.nn.fast.contraction import contract_separable, worth_contracting

SIZES = st.tuples(*[st.integers(1, 5)] * 5)


def inputs(sizes, channels_last=True, seed=0):
    n_images, n_channels, height, width, n_kernels = sizes
    rng = torch.Generator().manual_seed(seed)
    shapes = (n_images, n_channels, height, width), (n_kernels, height * width)
    made = [
        torch.randn(shape, generator=rng, dtype=torch.float64)
        for shape in (*shapes, (n_kernels, n_channels))
    ]
    if channels_last:
        made[0] = made[0].contiguous(memory_format=torch.channels_last)
    return [tensor.requires_grad_() for tensor in made]


@given(SIZES, st.booleans(), st.integers(0, 20), st.integers(1, 7), st.sampled_from([1.0, 1e-12]))
def test_sums_and_gradients(sizes, channels_last, seed, wanted, parts):
    given_ = inputs(sizes, channels_last, seed)
    maps, space, channels = given_
    expected = torch.einsum("bcp,mp,mc->bm", maps.flatten(2), space, channels)
    with nn.fast.using("auto", parts=parts):  # below 1, nothing is kept
        found = contract_separable(maps, space, channels)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    some = [tensor for i, tensor in enumerate(given_) if wanted >> i & 1]  # any of the three
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), some),
        torch.autograd.grad((expected * weights).sum(), some),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_what_needs_no_gradient_gets_none():
    maps, space, channels = inputs((2, 3, 4, 5, 2))
    found = contract_separable(maps.detach(), space, channels.detach())
    (gradient,) = torch.autograd.grad(found.sum(), [space])
    assert gradient.shape == space.shape
    with torch.no_grad():
        assert not contract_separable(maps, space, channels).requires_grad


def test_second_derivatives_are_refused():
    maps, space, channels = inputs((1, 2, 2, 2, 3))
    found = contract_separable(maps, space, channels).square().sum()
    (gradient,) = torch.autograd.grad(found, [space], create_graph=True)
    with pytest.raises(RuntimeError, match=r"nn\.plain"):
        gradient.sum().backward()


def test_it_is_for_large_sums_on_a_cpu():
    maps = torch.zeros(2, 3, 4, 5)
    assert not worth_contracting(maps, 7)
    with nn.fast.using("auto", parts=1e-6):
        assert worth_contracting(maps, 7)
    with nn.plain():
        assert not worth_contracting(torch.zeros(1, 1, 1, 1).expand(2**12, 2**5, 1, 1), 2**10)
    assert worth_contracting(torch.zeros(1, 1, 1, 1).expand(2**12, 2**5, 1, 1), 2**10)


@given(SIZES, st.integers(1, 3))
def test_the_factorised_readout_is_the_same_either_way(sizes, rank):
    n_images, *shape, n_neurons = sizes
    torch.manual_seed(0)
    readout = nn.FactorizedReadout(tuple(shape), n_neurons, rank=rank).double()
    for parameter in readout.parameters():
        parameter.data.normal_()
    maps = torch.randn(n_images, *shape, dtype=torch.float64, requires_grad=True)
    both = []
    for parts in (1.0, 1e-9):
        with nn.fast.using("auto", parts=parts):
            out = readout(maps)
        both.append((out, *torch.autograd.grad(out.square().sum(), [maps, *readout.parameters()])))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)
