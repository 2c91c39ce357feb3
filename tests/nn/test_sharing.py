"""Batches that several processes compute together: all of them have the same maps here."""

from copy import deepcopy

import pytest
import torch
from torch import nn as torch_nn

from v1tlearn import nn
from v1tlearn.nn import fast, sharing
from v1tlearn.nn.layers.normalization import batch_norm, normalized_together

# two processes with the same trials: what one has, twice
TWICE = sharing.Shared(0, 2, lambda values: 2 * values)


def maps(seed=0, *, far=0.0):
    return torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed)) * 2 + far


def in_halves(function, norm, images):
    """Value and gradient of a function of both processes' trials, and what it does to a norm."""
    images = images.clone().requires_grad_()
    out = function(norm, images)
    weights = torch.linspace(-1, 1, out[:3].numel()).view_as(out[:3])
    (out * weights.repeat(len(out) // 3, 1, 1, 1)).sum().backward()
    return out[:3], images.grad[:3], norm.running_mean, norm.running_var


def assert_close(one, other):
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("far", [0.0, 1e3])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_takes_the_statistics_of_all(far, momentum):
    own = torch_nn.BatchNorm2d(4, momentum=momentum)
    whole = deepcopy(own)
    expected = in_halves(lambda norm, x: norm(x), whole, maps(far=far).repeat(2, 1, 1, 1))
    with sharing.shared(TWICE):
        found = in_halves(normalized_together, own, maps(far=far))
    tolerance = max(1e-5, 2e-7 * far)  # of float32, in which maps far from zero are known less well
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=tolerance)
    assert own.num_batches_tracked == whole.num_batches_tracked == 1


def test_as_it_is_defined_too():
    own = torch_nn.BatchNorm2d(4)
    expected = in_halves(lambda norm, x: norm(x), deepcopy(own), maps().repeat(2, 1, 1, 1))
    with sharing.shared(TWICE), fast.plain():
        found = in_halves(lambda norm, x: batch_norm(x, norm), own, maps())
    assert_close(found, expected)


def test_a_norm_without_running_statistics_or_gain():
    own = torch_nn.BatchNorm1d(4, affine=False, track_running_stats=False)
    values = maps()[:, :, 0]  # (B, C, L)
    with sharing.shared(TWICE):
        found = normalized_together(own, values)
    torch.testing.assert_close(found, own(values.repeat(2, 1, 1))[:3])


@pytest.mark.parametrize(
    "core",
    [
        lambda: nn.Stacked2dCore((1, 12, 14), n_layers=2, hidden_channels=4, input_kernel=3),
        lambda: nn.TwoLayerCore((1, 12, 14), channels=(3, 4), kernels=(5, 3)),
    ],
)
def test_convolutions_in_parts_do_so(core):
    torch.manual_seed(0)
    own = core()
    whole, images = deepcopy(own), torch.randn(3, 1, 12, 14)
    expected = whole(images.repeat(2, 1, 1, 1))
    with sharing.shared(TWICE):
        found = own(images)
        torch.testing.assert_close(found, expected[:3], rtol=1e-5, atol=1e-5)
        # the same loss of both halves: in one process twice that of one
        found.square().sum().backward()
    expected.square().sum().backward()
    for (name, one), other in zip(own.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(2 * one.grad, other.grad, rtol=1e-4, atol=1e-3, msg=name)
    for (name, one), other in zip(own.named_buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


def test_a_single_image_of_each_process_can_be_normalised():
    core = nn.Stacked2dCore((1, 3, 3), n_layers=1, hidden_channels=2, input_kernel=3)
    with pytest.raises(ValueError, match="two values per channel"):
        core(torch.ones(1, 1, 3, 3))
    with sharing.shared(TWICE):
        assert core(torch.ones(1, 1, 3, 3)).shape == (1, 2, 1, 1)


def test_a_total_has_derivatives_of_any_order():
    values = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    with sharing.shared(TWICE):
        assert torch.autograd.gradcheck(lambda x: sharing.total(x) ** 3 / 2, values)
        assert torch.autograd.gradgradcheck(lambda x: sharing.total(x) ** 3 / 2, values)
    assert sharing.total(values) is values


def test_nothing_is_shared_afterwards():
    with sharing.shared(TWICE):
        assert sharing.now() is TWICE
        with sharing.shared(TWICE._replace(size=1)):
            assert sharing.now() is None
    assert sharing.now() is None
