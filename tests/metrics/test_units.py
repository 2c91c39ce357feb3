"""No metric depends on the unit of the responses, from 1e-30 to 1e30, nor overflows on the way."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import v1tlearn as v1
from v1tlearn import metrics
from v1tlearn.metrics.tensors import correlation, variance_explained

RAW = {"multioutput": "raw_values"}


def compared(true, pred, ids):
    """Scores, their difference, and its interval, of predictions and such of other trials."""
    black = np.zeros((len(ids), 1, 2, 2), np.uint8)
    trials = v1.Trials.from_arrays(black, responses=true, image_ids=ids)
    models = {"shifted": np.roll(pred, 1, axis=0), "in place": pred}
    table = v1.compare_scores(models, trials, metric="average_correlation", n_bootstrap=20)
    names = ["value", "reference_value", "difference", "low", "high", "improved", "improved_low"]
    return table[names].to_numpy()


METRICS = {
    "single_trial_correlation": lambda true, pred, _: metrics.single_trial_correlation(
        true, pred, **RAW
    ),
    "weighted": lambda true, pred, ids: metrics.single_trial_correlation(
        true, pred, sample_weight=1.0 + ids, **RAW
    ),
    "average_correlation": lambda true, pred, ids: metrics.average_correlation(
        true, pred, image_ids=ids, **RAW
    ),
    "jackknife": lambda true, _, ids: metrics.oracle_correlation(true, image_ids=ids, **RAW),
    "conservative": lambda true, _, ids: metrics.oracle_correlation(
        true, image_ids=ids, kind="conservative", **RAW
    ),
    "fraction_oracle": lambda true, pred, ids: metrics.fraction_oracle(
        true, pred, image_ids=ids, **RAW
    ),
    "fev": lambda true, _, ids: metrics.fev(true, image_ids=ids, **RAW),
    "feve": lambda true, pred, ids: metrics.feve(true, pred, image_ids=ids, **RAW),
    "variance explained": lambda true, pred, _: metrics.feve(true, pred, noise_term=False, **RAW),
    "normalized_correlation": lambda true, pred, ids: metrics.normalized_correlation(
        true, pred, image_ids=ids, **RAW
    ),
    "noise_ceiling": lambda true, _, ids: metrics.noise_ceiling(
        true, image_ids=ids, n_bootstrap=5
    ).to_array(),
    "fecv": lambda true, _, ids: metrics.fecv(true, categories=ids % 2, image_ids=ids, **RAW),
    "compare_scores": lambda true, pred, ids: compared(true, pred, ids),
    "correlation_over_time": lambda true, pred, _: metrics.correlation_over_time(true, pred, **RAW),
}
OF_ONE_UNIT = ("feve", "variance explained")  # predictions in the unit of the responses


def recorded(seed=0, counts=(4,) * 12):
    """Responses, predictions and images, with a constant, a silent and a partly recorded neuron."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(counts)), counts)
    signal = rng.gamma(2, size=(len(counts), 5))[ids]
    true = signal + 0.5 * rng.random(signal.shape)
    true[:, 0], true[:, 1], true[3, 2] = 3, 0, np.nan
    return true, 0.8 * signal + 0.2 * rng.random(signal.shape), ids


EQUAL, UNEQUAL = recorded(), recorded(1, (3, 5, 2, 2, 4, 3, 2))


@pytest.mark.parametrize("name", METRICS)
@given(
    exponents=st.tuples(*[st.floats(-30, 30)] * 2),
    dtype=st.sampled_from(["float32", "float64"]),
    data=st.sampled_from([EQUAL, UNEQUAL]),
)
@settings(max_examples=6, deadline=None)
def test_any_unit_gives_one_score(name, exponents, dtype, data):
    true, pred, ids = data
    expected = np.asarray(METRICS[name](true, pred, ids))
    one, other = (10.0**e for e in exponents)
    other = one if name in OF_ONE_UNIT else other
    found = METRICS[name]((true * one).astype(dtype), (pred * other).astype(dtype), ids)
    assert np.isfinite(expected).any()
    rtol = 2e-5 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", METRICS)
@given(exponent=st.integers(-900, 900))
@settings(max_examples=4, deadline=None)
def test_powers_of_two_change_no_bit(name, exponent):
    true, pred, ids = UNEQUAL
    expected, unit = METRICS[name](true, pred, ids), 2.0**exponent
    np.testing.assert_array_equal(METRICS[name](true * unit, pred * unit, ids), expected)


@given(exponent=st.integers(-90, 90))
@settings(max_examples=10, deadline=None)
def test_scores_of_tensors_too(exponent):
    true, pred, _ = EQUAL
    one = [torch.tensor(values, dtype=torch.float32) for values in (pred, true)]
    other = [values * 2.0**exponent for values in one]
    for score in (correlation, variance_explained):
        torch.testing.assert_close(score(*other), score(*one), rtol=0, atol=0, equal_nan=True)


IMAGES = {
    "pixel_correlation": metrics.pixel_correlation,
    "ssim": lambda one, other, high=1.0: metrics.ssim(one, other, high=high),
    "sd_kl": lambda one, other, high=1.0: metrics.sd_kl(
        one.reshape(-1, 4), other.reshape(-1, 4), ceiling=high, multioutput="raw_values"
    ),
    "seen_ranks": lambda one, other: metrics.seen_ranks(one.reshape(16, -1)),
}


@pytest.mark.parametrize("name", IMAGES)
@given(exponent=st.floats(-30, 30))
@settings(max_examples=5, deadline=None)
def test_nor_does_any_measure_of_images_and_of_peaks(name, exponent):
    one, other = np.random.default_rng(0).random((2, 3, 1, 12, 16))
    one[0], other[1] = 0.5, 0.25
    unit = 10.0**exponent
    scaled = {"high": unit} if name in ("ssim", "sd_kl") else {}
    expected = IMAGES[name](one, other)
    found = IMAGES[name](one * unit, other * unit, **scaled)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
