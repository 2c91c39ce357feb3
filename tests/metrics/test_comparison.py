"""Comparisons of models: what they say of equal ones, of better ones, and of whom."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn.exceptions import NotFittedError

import v1tlearn as v1
from v1tlearn import compare_scores, metrics

METRICS = ["single_trial_correlation", "average_correlation", "feve", "normalized_correlation"]


def simulated(seed, *, n_images=60, n_neurons=30, n_repeats=2, less_error=0.0, shared=True):
    """Trials and two models: each errs by image and neuron, for some neurons more.

    Which neurons a model is good for is drawn anew for each, so that over all neurons that might
    have been recorded both are equally good, unless one errs less.
    """
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_images, n_neurons))
    ids = np.repeat(np.arange(n_images), n_repeats)
    common = rng.normal(size=(len(ids), 1))  # noise that neurons share
    y = means[ids] + rng.normal(size=(len(ids), n_neurons)) + 0.5 * common
    models = {}
    for name, scale in (("one", 1.0), ("other", 1 - less_error)):
        error = rng.normal(size=means.shape) * np.exp(0.3 * rng.normal(size=n_neurons))
        if shared:  # images that a model gets wrong for all neurons
            error = 0.7 * error + 0.7 * rng.normal(size=(n_images, 1))
        models[name] = (means + scale * error)[ids]
    stimuli = np.zeros((len(ids), 1, 2, 2), "f4")
    return v1.Trials.from_arrays(stimuli, None, y, image_ids=ids), models


def p_values(n, **params):
    found = []
    for seed in range(n):
        trials, models = simulated(seed, **params)
        table = compare_scores(models, trials, n_bootstrap=400, random_state=seed)
        found.append(table["p_value"].item())
    return np.array(found)


@pytest.mark.slow
def test_equal_models_are_seldom_told_apart_and_better_ones_are():
    assert (p_values(60) < 0.05).mean() < 0.12
    assert (p_values(20, less_error=0.5) < 0.05).mean() > 0.9


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("shared", "n_images", "n_neurons"), [(True, 60, 30), (False, 200, 5), (True, 200, 5)]
)
def test_false_positives_in_a_thousand_comparisons_are_as_rare_as_stated(
    shared, n_images, n_neurons
):
    p = p_values(1000, shared=shared, n_images=n_images, n_neurons=n_neurons)
    assert (p < 0.05).mean() < 0.05
    assert (p < 0.01).mean() < 0.01
    assert (p < 0.5).mean() > 0.1  # a p-value that says something


@pytest.mark.parametrize("metric", METRICS)
def test_values_are_those_of_the_metric(metric):
    trials, models = simulated(0)
    table = compare_scores(models, trials, metric=metric, n_bootstrap=50)
    row = table.iloc[0]
    function, options = getattr(metrics, metric), {"image_ids": trials.image_ids}
    for column, name in (("value", "other"), ("reference_value", "one")):
        assert row[column] == pytest.approx(function(trials.responses, models[name]))
    raw = {
        name: np.asarray(function(trials.responses, y, multioutput="raw_values", **options))
        for name, y in models.items()
    }
    assert row["improved"] == pytest.approx((raw["other"] > raw["one"]).mean())
    assert row["difference"] == pytest.approx((raw["other"] - raw["one"]).mean())
    assert row["low"] < row["difference"] < row["high"]
    assert 0 <= row["improved_low"] <= row["improved"] <= row["improved_high"] <= 1


def test_nothing_is_said_of_chance_without_draws():
    trials, models = simulated(0, n_images=20)
    row = compare_scores(models, trials, n_bootstrap=0).iloc[0]
    assert np.isnan(row[["low", "high", "p_value"]].astype(float)).all()
    assert np.isfinite(row["difference"])


def test_neurons_that_improve_are_a_share():
    """All improve as recorded, and not in every draw."""
    trials, models = simulated(0, n_neurons=5, less_error=0.5)
    row = compare_scores(models, trials, n_bootstrap=200).iloc[0]
    assert row["improved"] == row["improved_high"] == 1
    assert 0 < row["improved_low"] < 1


def test_intervals_are_those_of_all_draws_of_images_and_of_neurons():
    """Three images and three neurons: every draw can be made, and what few of them lack told."""
    rng = np.random.default_rng(0)
    n, level = 3, 0.5
    means = rng.normal(size=(n, n))
    ids = np.repeat(np.arange(n), 4)
    y = means[ids] + 0.3 * rng.normal(size=(len(ids), n))
    models = {name: means[ids] + rng.normal(size=(n, n))[ids] for name in ("one", "other")}
    every = [list(draw) for draw in product(range(n), repeat=n)]

    def difference(images):
        rows = np.concatenate([np.flatnonzero(ids == i) for i in images])
        options = {"multioutput": "raw_values"}
        one, other = (
            np.asarray(metrics.single_trial_correlation(y[rows], models[name][rows], **options))
            for name in ("one", "other")
        )
        return other - one

    by_images = np.array([difference(images) for images in every])  # (draws, neurons)
    recorded = difference(range(n))
    both = np.array([[one[neurons].mean() for neurons in every] for one in by_images]).ravel()
    parts = by_images.mean(1).var(), np.array([recorded[own].mean() for own in every]).var()
    wider = np.sqrt(1 + sum(parts) / (n - 1) / both.var())
    df = sum(parts) ** 2 / (sum(v**2 for v in parts) / (n - 1))
    wider *= stats.t.ppf(0.75, df) / stats.norm.ppf(0.75)
    low, middle, high = np.quantile(both, [0.25, 0.5, 0.75])
    trials = v1.Trials.from_arrays(np.zeros((len(y), 1, 2, 2)), None, y, image_ids=ids)
    row = compare_scores(models, trials, n_bootstrap=40_000, level=level).iloc[0]
    value = recorded.mean()
    assert row["difference"] == pytest.approx(value)
    assert row["low"] == pytest.approx(value + wider * (low - middle), abs=0.02)
    assert row["high"] == pytest.approx(value + wider * (high - middle), abs=0.02)


def test_a_model_equals_itself():
    trials, models = simulated(0, n_images=20)
    row = compare_scores({"a": models["one"], "b": models["one"]}, trials, n_bootstrap=50).iloc[0]
    assert row[["difference", "low", "high", "p_value", "improved"]].tolist() == [0, 0, 0, 1, 0.5]


def test_the_order_of_models_turns_the_sign_alone():
    trials, models = simulated(1, n_images=20)
    there = compare_scores(models, trials, n_bootstrap=99).iloc[0]
    back = compare_scores(dict(reversed(models.items())), trials, n_bootstrap=99).iloc[0]
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["low"] == pytest.approx(-back["high"])
    assert there["p_value"] == back["p_value"]
    assert there["improved"] == pytest.approx(1 - back["improved"])


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_v1_recordings(
            n_mice=2,
            n_neurons=[4, 6],
            n_trials=30,
            n_test_images=6,
            n_repeats=4,
            image_shape=(12, 16),
            random_state=0,
        )
    )


def test_fitted_models_of_several_mice_are_compared_pair_by_pair(trials):
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    params = {"n_layers": 1, "input_kernel": 5, "random_state": 0}
    models = {n: v1.LNRegressor(max_epochs=n, **params).fit(train) for n in (1, 2)}
    models["truth"] = test.expected_responses
    table = compare_scores(models, test, n_bootstrap=20)
    pairs = [("2", "1"), ("truth", "1"), ("truth", "2")]
    assert list(zip(table["model"], table["reference"], strict=True))[::3] == pairs
    assert table["mouse"].tolist() == [*test.mice, "mean"] * 3
    assert table["n_neurons"].tolist() == [4, 6, 10] * 3
    of_mice = table["difference"].to_numpy().reshape(3, 3)
    np.testing.assert_allclose(of_mice[:, :2].mean(axis=1), of_mice[:, 2])


def test_neurons_without_a_score_are_left_out_of_both(trials):
    test = trials.sel(tier="test")
    rates = {m: test.get("expected_responses", m) for m in test.mice}
    responses = {m: test.get("responses", m).copy() for m in test.mice}
    responses[test.mice[0]][:, 1] = np.nan
    stimuli = {m: test.get("stimuli", m) for m in test.mice}
    ids = {m: test.image_ids[test.rows(m)[0]] for m in test.mice}
    broken = v1.Trials.from_arrays(stimuli, None, responses, image_ids=ids)
    half = {m: 0.5 * r + 1 for m, r in rates.items()}
    table = compare_scores({"a": half, "b": rates}, broken, n_bootstrap=20)
    assert table["n_neurons"].tolist() == [3, 6, 9]
    assert table["difference"].abs().max() < 1e-6  # of float32 rates
    responses[test.mice[0]][:] = np.nan
    silent = v1.Trials.from_arrays(stimuli, None, responses, image_ids=ids)
    with pytest.raises(ValueError, match=f"mouse '{test.mice[0]}': no neuron has a score"):
        compare_scores({"a": half, "b": rates}, silent, n_bootstrap=20)


def test_what_cannot_be_compared_is_refused(trials):
    test = trials.sel(tier="test")
    rates = test.expected_responses
    with pytest.raises(ValueError, match="at least two"):
        compare_scores({"a": rates}, test)
    with pytest.raises(ValueError, match="metric='fev'"):
        compare_scores({"a": rates, "b": rates}, test, metric="fev")
    with pytest.raises(TypeError, match="trials is a Responses"):
        compare_scores({"a": rates, "b": rates}, test.responses)
    with pytest.raises(NotFittedError, match="'b'"):
        compare_scores({"a": rates, "b": v1.LNRegressor()}, test)
    train = trials.sel(tier="train")
    rates = train.expected_responses
    with pytest.raises(ValueError, match=r"mouse '.*': no image is repeated, which feve needs"):
        compare_scores({"a": rates, "b": rates}, train, metric="feve")
