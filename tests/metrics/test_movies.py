"""Correlation over time, against the numbers of the published code and numpy."""

import numpy as np
import pytest

from tests.nn.movies.published_vist import load
from v1tlearn.metrics import correlation_over_time, single_trial_correlation

FILES = ("correlation", "correlation_three")
each_file = pytest.mark.parametrize("name", FILES)


def movies(arrays):
    """Recorded and predicted responses (sequences, frames, cells)."""
    return (arrays[k].transpose(0, 2, 1) for k in ("target", "prediction"))


@each_file
def test_values_and_summaries_are_the_published_ones(name):
    arrays = load(name)
    target, prediction = movies(arrays)
    r = correlation_over_time(target, prediction, multioutput="raw_values")
    np.testing.assert_allclose(r, arrays["published/r"], atol=1e-12)
    for summary, key in (
        ("signed", "stated/mean_signed"),
        ("absolute", "published/mean_absolute"),
        ("positive", "published/mean_positive"),
    ):
        found = correlation_over_time(target, prediction, summary=summary)
        assert found == pytest.approx(float(arrays[key]), rel=1e-7)
    assert r[r > 0].std(ddof=1) == pytest.approx(float(arrays["published/std_positive"]), rel=1e-7)


@each_file
def test_movies_are_joined_along_time_and_may_differ_in_length(name):
    target, prediction = movies(load(name))
    whole = correlation_over_time(
        np.concatenate(target), np.concatenate(prediction), multioutput="raw_values"
    )
    parts = [list(target), list(prediction)]
    assert np.array_equal(correlation_over_time(*parts, multioutput="raw_values"), whole)
    for movie in parts:
        movie[0] = movie[0][:17]
    found = correlation_over_time(*parts, multioutput="raw_values")
    true, pred = map(np.concatenate, parts)
    varying = np.flatnonzero(np.ptp(true, axis=0) * np.ptp(pred, axis=0))
    assert len(varying) > 3
    for neuron in varying:
        expected = np.corrcoef(true[:, neuron], pred[:, neuron])[0, 1]
        assert found[neuron] == pytest.approx(expected)


def test_a_wrong_sign_counts_only_where_signs_do():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(50, 2))
    pred = true * [1, -1]
    assert correlation_over_time(true, pred) == pytest.approx(0)
    assert correlation_over_time(true, pred, summary="absolute") == pytest.approx(1)
    assert correlation_over_time(true, pred, summary="positive") == pytest.approx(1)
    assert np.isnan(correlation_over_time(true, -true, summary="positive"))


def test_constant_traces_count_zero_and_neurons_without_frames_are_left_out():
    rng = np.random.default_rng(0)
    true, pred = rng.normal(size=(2, 30, 3))
    true[:, 0] = 4.0
    true[1:, 1] = np.nan
    r = correlation_over_time(true, pred, multioutput="raw_values")
    assert r[0] == 0
    assert np.isnan(r[1])
    assert correlation_over_time(true, pred, summary="absolute") == pytest.approx(abs(r[2]) / 2)


def test_frames_that_were_not_recorded_do_not_exist():
    rng = np.random.default_rng(0)
    true, pred = rng.normal(size=(2, 3, 20, 4))
    true[1, 12:] = np.nan  # a shorter movie
    short = [[movie[:12] if i == 1 else movie for i, movie in enumerate(y)] for y in (true, pred)]
    assert correlation_over_time(true, pred) == pytest.approx(correlation_over_time(*short))
    assert correlation_over_time(*short) == pytest.approx(
        single_trial_correlation(np.concatenate(short[0]), np.concatenate(short[1]))
    )


def test_other_forms_and_options_are_refused():
    y = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match=r"y_true has movies of the shapes \[\(10, 3\)\]"):
        correlation_over_time(y, y[:9])
    assert correlation_over_time(y.tolist(), y.tolist()) == pytest.approx(1)
    for nothing in ([], y[0]):
        with pytest.raises(ValueError, match="expected the same ones"):
            correlation_over_time(nothing, nothing)
    with pytest.raises(ValueError, match="of the same neurons"):
        correlation_over_time([y, y[:, :2]], [y, y[:, :2]])
    with pytest.raises(ValueError, match="summary='mean'"):
        correlation_over_time(y, y, summary="mean")
    with pytest.raises(ValueError, match="multioutput='mice'"):
        correlation_over_time(y, y, multioutput="mice")
    with pytest.raises(ValueError, match="y_pred holds NaN or Inf"):
        correlation_over_time(y, y * np.nan)
