"""Loss, penalties and output non-linearity against closed forms in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve2d

from v1tlearn import nn

EPS = np.finfo(np.float32).eps


def test_poisson_loss_is_the_published_sum():
    rng = np.random.default_rng(0)
    rate, response = rng.gamma(1, size=(5, 7)), rng.gamma(1, size=(5, 7))
    expected = ((rate + EPS) - (response + EPS) * np.log(rate + EPS)).sum()
    loss = nn.poisson_loss(torch.tensor(rate), torch.tensor(response))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_poisson_loss_is_smallest_at_the_response():
    response = torch.rand(4, 3, dtype=torch.float64)
    rate = response.clone().requires_grad_()
    nn.poisson_loss(rate, response).backward()
    torch.testing.assert_close(rate.grad, torch.zeros_like(rate))


def test_unrecorded_responses_reach_neither_loss_nor_gradient():
    rate = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(4, 3, dtype=torch.float64)
    mask = torch.rand(4, 3) > 0.4
    loss = nn.poisson_loss(rate, torch.where(mask, target, torch.nan), mask)
    loss.backward()
    kept = nn.poisson_loss(rate[mask].detach(), target[mask])
    assert loss.item() == pytest.approx(kept.item(), rel=1e-12)
    assert (rate.grad[~mask] == 0).all()
    assert rate.grad[mask].isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_poisson_loss_never_broadcasts(shape):
    with pytest.raises(ValueError, match="must have one shape"):
        nn.poisson_loss(torch.ones(3, 3), torch.ones(shape))
    with pytest.raises(ValueError, match="must have one shape"):
        nn.poisson_loss(torch.ones(3, 3), torch.ones(3, 3), torch.ones(shape).bool())


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.sampled_from([0, 1]))
def test_laplace_penalty(n_out, n_in, side, padding):
    side = max(side, 3 - 2 * padding)
    weight = np.random.default_rng(side).normal(size=(n_out, n_in, side, side))
    laplacian = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    mode = {0: "valid", 1: "same"}[padding]
    rough = sum((convolve2d(w, laplacian, mode) ** 2).sum() for out in weight for w in out)
    penalty = nn.laplace_penalty(torch.tensor(weight), padding)
    assert penalty.item() == pytest.approx(rough / (weight**2).sum(), rel=1e-10)
    scaled = nn.laplace_penalty(torch.tensor(-3 * weight), padding)
    assert scaled.item() == pytest.approx(penalty.item(), rel=1e-10)


def test_laplace_penalty_of_a_constant_filter():
    # Corners lack two neighbours, edges one: 4 corners of 2^2 and 28 edge pixels of 1 over 81.
    penalty = nn.laplace_penalty(torch.full((1, 1, 9, 9), 0.3, dtype=torch.float64))
    assert penalty.item() == pytest.approx((4 * 4 + 28) / 81)


def test_l1_penalty_and_its_gradient():
    tensors = [torch.randn(3, 2, requires_grad=True), torch.randn(4, requires_grad=True)]
    penalty = nn.l1_penalty(tensors)
    penalty.backward()
    expected = sum(np.abs(t.detach().numpy().astype(float)).sum() for t in tensors)
    assert penalty.item() == pytest.approx(expected, rel=1e-6)
    for t in tensors:
        assert torch.equal(t.grad, t.detach().sign())


@given(st.floats(-20, 20))
def test_elu_plus_one(x):
    rate = nn.elu_plus_one(torch.tensor(x, dtype=torch.float64)).item()
    assert rate == pytest.approx(x + 1 if x > 0 else math.exp(x), rel=1e-6, abs=1e-12)


@given(st.floats(0.01, 50))
def test_inverse_of_elu_plus_one(rate):
    rates = torch.tensor([rate], dtype=torch.float64)
    torch.testing.assert_close(nn.elu_plus_one(nn.inverse_elu_plus_one(rates)), rates)


def test_silent_neurons_get_a_finite_bias():
    assert nn.inverse_elu_plus_one(torch.zeros(1)).item() == pytest.approx(math.log(1e-3))


def test_rates_leave_half_precision():
    assert nn.elu_plus_one(torch.zeros(2, dtype=torch.bfloat16)).dtype == torch.float32
