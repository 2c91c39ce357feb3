import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.metrics import single_trial_correlation
from v1tlearn.metrics.tensors import correlation


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
