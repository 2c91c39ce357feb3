import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.metrics import single_trial_correlation
from v1tlearn.metrics.tensors import CorrelationSums, correlation


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


@given(st.integers(0, 1000), st.lists(st.integers(1, 25), min_size=1, max_size=5))
def test_batches_agree_with_brute_force(seed, sizes):
    rng = np.random.default_rng(seed)
    prediction, target = make_data(sum(sizes), 6, seed)
    target[rng.random(target.shape) < 0.3] = np.nan
    target[:, 4] = 0.3
    prediction[:, 5] = 0.1
    sums, start = CorrelationSums(), 0
    for size in sizes:
        stop = start + size
        sums.update("A", torch.tensor(prediction[start:stop]), torch.tensor(target[start:stop]))
        start = stop
    expected = brute_force(prediction, target)
    np.testing.assert_allclose(sums.compute()["A"].numpy(), expected, atol=1e-10)
    whole = correlation(torch.tensor(prediction), torch.tensor(target)).numpy()
    np.testing.assert_allclose(whole, expected, atol=1e-10)


def test_a_mask_leaves_trials_out():
    prediction, target = make_data()
    mask = np.random.default_rng(1).random(target.shape) < 0.6
    got = correlation(*map(torch.tensor, (prediction, target, mask)))
    expected = brute_force(prediction, np.where(mask, target, np.nan))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_large_means_do_not_cancel():
    prediction, target = make_data(400, 5, offset=3e4)
    sums = CorrelationSums()
    for start in range(0, 400, 16):
        rows = slice(start, start + 16)
        sums.update("A", torch.tensor(prediction[rows]), torch.tensor(target[rows]))
    got = sums.compute()["A"].numpy()
    np.testing.assert_allclose(got, brute_force(prediction, target), atol=1e-10)


def test_a_constant_is_zero_whatever_the_rounding():
    prediction, target = make_data(101, 2)
    target[:, 0] = 0.1
    sums = CorrelationSums()
    for rows in np.array_split(np.arange(101), 9):
        sums.update("A", torch.tensor(prediction[rows]), torch.tensor(target[rows]))
    assert sums.compute()["A"][0] == 0


@pytest.mark.parametrize(("dtype", "wiggle"), [("float32", 2e-7), ("float64", 2e-13)])
def test_constant_up_to_rounding_counts_0_as_in_arrays(dtype, wiggle):
    prediction, target = (a.astype(dtype) for a in make_data(90, 3))
    prediction[:, 0] = 0.01 * (1 + wiggle * np.sign(target[:, 0]))
    target[:, 1] = -300 * (1 + wiggle * np.sign(prediction[:, 1]))
    prediction[:, 2] = 0.01 * (1 + 1e3 * wiggle * prediction[:, 2])
    assert (np.ptp(prediction, axis=0) > 0).all()
    assert (np.ptp(target, axis=0) > 0).all()
    sums = CorrelationSums()
    for rows in np.array_split(np.arange(90), 4):
        sums.update("A", torch.tensor(prediction[rows]), torch.tensor(target[rows]))
    got = sums.compute()["A"].numpy()
    assert got[:2].tolist() == [0, 0]
    assert got[2] > 0.5
    of_arrays = single_trial_correlation(target, prediction, multioutput="raw_values")
    np.testing.assert_allclose(got, of_arrays, atol=1e-10)


def test_mean_over_neurons_then_mice():
    sums, expected = CorrelationSums(), []
    for mouse, neurons in (("A", 3), ("B", 11)):
        prediction, target = make_data(30, neurons, neurons)
        target[:, 1] = np.nan
        sums.update(mouse, torch.tensor(prediction), torch.tensor(target))
        expected.append(np.nanmean(brute_force(prediction, target)))
    assert sums.mean().item() == pytest.approx(np.mean(expected), abs=1e-12)


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


def test_an_empty_batch_changes_nothing():
    prediction, target = map(torch.tensor, make_data())
    sums = CorrelationSums()
    sums.update("A", prediction[:0], target[:0])
    assert sums.compute() == {}
    sums.update("A", prediction, target)
    sums.update("A", prediction[:0], target[:0])
    np.testing.assert_array_equal(sums.compute()["A"], correlation(prediction, target))


def test_different_shapes_name_the_mouse():
    with pytest.raises(ValueError, match=r"mouse 'A'.*\(3, 2\).*\(3, 4\)"):
        CorrelationSums().update("A", torch.zeros(3, 2), torch.zeros(3, 4))


@pytest.mark.gpu
def test_the_device_is_not_waited_for():
    prediction, target = (torch.tensor(a, device="cuda") for a in make_data())
    sums = CorrelationSums()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sums.update("A", prediction, target)
        sums.update("A", prediction, target)
        score = sums.mean()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = brute_force(prediction.cpu().numpy(), target.cpu().numpy()).mean()
    assert score.item() == pytest.approx(expected, abs=1e-10)
