import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.metrics import single_trial_correlation
from v1tlearn.metrics.tensors import (
    CorrelationSums,
    VarianceSums,
    correlation,
    variance_explained,
)


def brute_force(prediction, target):
    """Per neuron, over recorded trials, in float64."""
    out = []
    for x, y in zip(prediction.T.astype(float), target.T.astype(float), strict=True):
        x, y = x[~np.isnan(y)], y[~np.isnan(y)]
        if len(y) < 2:
            out.append(np.nan)
        elif np.ptp(x) == 0 or np.ptp(y) == 0:
            out.append(0.0)
        else:
            out.append(np.corrcoef(x, y)[0, 1])
    return np.array(out)


def make_data(n=60, neurons=7, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((n, neurons)) + offset
    prediction = target + rng.standard_normal((n, neurons))
    return prediction.astype(np.float32), target.astype(np.float32)


@given(st.integers(0, 1000), st.integers(1, 60))
def test_it_agrees_with_brute_force(seed, n):
    rng = np.random.default_rng(seed)
    prediction, target = make_data(n, 6, seed)
    target[rng.random(target.shape) < 0.3] = np.nan
    target[:, 4] = 0.3
    prediction[:, 5] = 0.1
    got = correlation(torch.tensor(prediction), torch.tensor(target)).numpy()
    np.testing.assert_allclose(got, brute_force(prediction, target), atol=1e-10)


def test_a_mask_leaves_trials_out():
    prediction, target = make_data()
    mask = np.random.default_rng(1).random(target.shape) < 0.6
    got = correlation(*map(torch.tensor, (prediction, target, mask)))
    expected = brute_force(prediction, np.where(mask, target, np.nan))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_large_means_do_not_cancel():
    prediction, target = make_data(400, 5, offset=3e4)
    got = correlation(torch.tensor(prediction), torch.tensor(target)).numpy()
    np.testing.assert_allclose(got, brute_force(prediction, target), atol=1e-10)


def test_a_constant_is_zero_whatever_the_rounding():
    prediction, target = make_data(101, 2)
    target[:, 0] = 0.1
    assert correlation(torch.tensor(prediction), torch.tensor(target))[0] == 0


@pytest.mark.parametrize(("dtype", "wiggle"), [("float32", 2e-7), ("float64", 2e-13)])
def test_constant_up_to_rounding_counts_0_as_in_arrays(dtype, wiggle):
    prediction, target = (a.astype(dtype) for a in make_data(90, 3))
    prediction[:, 0] = 0.01 * (1 + wiggle * np.sign(target[:, 0]))
    target[:, 1] = -300 * (1 + wiggle * np.sign(prediction[:, 1]))
    prediction[:, 2] = 0.01 * (1 + 1e3 * wiggle * prediction[:, 2])
    assert (np.ptp(prediction, axis=0) > 0).all()
    assert (np.ptp(target, axis=0) > 0).all()
    got = correlation(torch.tensor(prediction), torch.tensor(target)).numpy()
    assert got[:2].tolist() == [0, 0]
    assert got[2] > 0.5
    of_arrays = single_trial_correlation(target, prediction, multioutput="raw_values")
    np.testing.assert_allclose(got, of_arrays, atol=1e-10)


def test_bfloat16_predictions_are_accumulated_in_float64():
    prediction, target = map(torch.tensor, make_data())
    half = prediction.bfloat16()
    got = correlation(half, target)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(
        got.numpy(), brute_force(half.float().numpy(), target.numpy()), atol=1e-12
    )


def test_predictions_that_are_not_finite_count_0():
    prediction, target = map(torch.tensor, make_data())
    prediction[3, 0], prediction[4, 1] = torch.nan, torch.inf
    got = correlation(prediction, target)
    assert got[:2].tolist() == [0, 0]
    assert (got[2:] > 0).all()


def test_no_trial_has_no_correlation():
    assert torch.isnan(correlation(torch.zeros(0, 3), torch.zeros(0, 3))).tolist() == [True] * 3


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        correlation(torch.zeros(3, 2), torch.zeros(3, 4))


@pytest.mark.gpu
def test_the_device_is_not_waited_for():
    prediction, target = (torch.tensor(a, device="cuda") for a in make_data())
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = correlation(prediction, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = brute_force(prediction.cpu().numpy(), target.cpu().numpy())
    np.testing.assert_allclose(got.cpu().numpy(), expected, atol=1e-10)


# ---------------------------------------------------------------------------------- part by part


@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    mean_and_std=st.sampled_from([(0.0, 1.0), (3e4, 1.0), (-1e6, 1.0), (1e6, 1e-3)]),
    masked=st.booleans(),
    n_holders=st.integers(1, 3),
)
def test_scores_of_parts_are_those_of_all_trials(seed, cuts, mean_and_std, masked, n_holders):
    rng, (offset, std) = np.random.default_rng(seed), mean_and_std
    target = std * rng.standard_normal((40, 6)) + offset
    prediction = target + std * rng.standard_normal((40, 6))
    target[rng.random(target.shape) < 0.3] = np.nan
    target[:20, 2] = np.nan  # not recorded in the first parts
    target[:, 3], target[:, 4], prediction[:, 5] = np.nan, offset + 0.1, 0.1
    mask = torch.tensor(rng.random(target.shape) < 0.8) if masked else None
    whole = torch.tensor(prediction), torch.tensor(target)
    borders = [0, *sorted(cuts), 40]
    for sums, at_once in ((CorrelationSums, correlation), (VarianceSums, variance_explained)):
        holders = [sums() for _ in range(n_holders)]
        for number, (start, stop) in enumerate(itertools.pairwise(borders)):
            some = slice(start, stop)
            part = [values[some] for values in whole]
            holders[number % n_holders].add(*part, None if mask is None else mask[some])
        for holder in holders[len(borders) - 1 :]:  # who had none
            holder.add(*(values[:0] for values in whole))
        joined = holders[0]
        joined.join([holder.parts() for holder in holders])
        expected = at_once(*whole, mask)
        torch.testing.assert_close(joined.value(), expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    seen = target if mask is None else np.where(mask, target, np.nan)
    about_0 = brute_force(prediction - offset, seen - offset)
    np.testing.assert_allclose(correlation(*whole, mask), about_0, atol=1e-9)


def test_a_constant_stays_one_over_parts():
    sums, values = CorrelationSums(), torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    for part in values.split(2):
        sums.add(part, torch.full_like(part, 0.1))
    assert sums.value().tolist() == [0, 0]
    assert sums.add(torch.full((1, 2), torch.nan), torch.ones(1, 2)).value().tolist() == [0, 0]
