from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning

from v1tlearn import metrics
from v1tlearn.metrics import (
    average_correlation,
    fraction_oracle,
    oracle_correlation,
    single_trial_correlation,
)

REFERENCE = Path(__file__).parents[1] / "reference"
ARGUMENTS = {
    single_trial_correlation: lambda d: (d["true"], d["pred"]),
    average_correlation: lambda d: (d["true"], d["pred"]),
    fraction_oracle: lambda d: (d["true"], d["pred"]),
    oracle_correlation: lambda d: (d["true"],),
}


def make_data(seed=0, n_images=12, neurons=5, max_repeats=6, noise=1.0):
    """Shuffled trials of images that are repeated 2 to `max_repeats` times."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(
        np.repeat(np.arange(n_images), rng.integers(2, max_repeats + 1, n_images))
    )
    signal = rng.standard_normal((n_images, neurons))[ids]
    true = 3 + signal + noise * rng.standard_normal(signal.shape)
    pred = signal + 0.5 * rng.standard_normal(signal.shape)
    return {"true": true, "pred": pred, "ids": ids, "rng": rng}


def raw(metric, data, **kwargs):
    kwargs = {"image_ids": data["ids"], "multioutput": "raw_values", **kwargs}
    return np.asarray(metric(*ARGUMENTS[metric](data), **kwargs))


def corr(x, y):
    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else np.corrcoef(x, y)[0, 1]


# Brute force, one neuron at a time ------------------------------------------------------------


def loop_single(true, pred, ids):
    return corr(true, pred)


def loop_average(true, pred, ids):
    images = np.unique(ids)
    return corr(
        np.array([true[ids == i].mean() for i in images]),
        np.array([pred[ids == i].mean() for i in images]),
    )


def loop_jackknife(true, pred, ids):
    x, y = [], []
    for i in np.unique(ids):
        repeats = true[ids == i]
        if len(repeats) > 1:
            x += list(repeats)
            y += [np.delete(repeats, k).mean() for k in range(len(repeats))]
    return corr(np.array(x), np.array(y))


def loop_conservative(true, pred, ids):
    repeated = [true[ids == i] for i in np.unique(ids) if (ids == i).sum() > 1]
    signal = np.var([r.mean() for r in repeated])
    noise = np.mean([r.var() for r in repeated])
    return np.sqrt(signal / (signal + noise))


LOOPS = {
    (single_trial_correlation, None): loop_single,
    (average_correlation, None): loop_average,
    (oracle_correlation, "jackknife"): loop_jackknife,
    (oracle_correlation, "conservative"): loop_conservative,
}


@pytest.mark.parametrize(("metric", "kind"), LOOPS)
@given(seed=st.integers(0, 10_000), once=st.booleans())
def test_agrees_with_a_loop(metric, kind, seed, once):
    data = make_data(seed)
    if once:  # images shown once
        data["ids"][:3] = [100, 101, 102]
    got = raw(metric, data, **({"kind": kind} if kind else {}))
    expected = [
        LOOPS[metric, kind](t, p, data["ids"])
        for t, p in zip(data["true"].T, data["pred"].T, strict=True)
    ]
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("repeats", ["equal", "unequal"])
@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (single_trial_correlation, "single_trial_correlation"),
        (average_correlation, "correlation_to_average"),
    ],
)
def test_agrees_with_the_published_implementation(metric, name, repeats):
    with np.load(REFERENCE / f"metrics_{repeats}_repeats.npz") as file:
        got = metric(
            file["responses"],
            file["predictions"],
            image_ids=file["image_ids"],
            multioutput="raw_values",
        )
        np.testing.assert_allclose(got, file[name], atol=1e-6)
        assert got[-1] == 0  # the silent neuron


# Properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ARGUMENTS)
@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(0.01, 100),
    offset=st.floats(-100, 100),
)
def test_positive_affine_maps_change_nothing(metric, seed, gain, offset):
    data = make_data(seed)
    mapped = {**data, "pred": gain * data["pred"] + offset, "true": gain * data["true"] - offset}
    np.testing.assert_allclose(raw(metric, mapped), raw(metric, data), atol=1e-8)


@pytest.mark.parametrize("metric", ARGUMENTS)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_trials_does_not_matter(metric, seed):
    data = make_data(seed)
    order = data["rng"].permutation(len(data["ids"]))
    shuffled = {name: data[name][order] for name in ("true", "pred", "ids")}
    np.testing.assert_allclose(raw(metric, shuffled), raw(metric, data), atol=1e-12)


@pytest.mark.parametrize("metric", ARGUMENTS)
@given(seed=st.integers(0, 10_000))
def test_a_response_not_recorded_is_a_dropped_trial(metric, seed):
    data = make_data(seed)
    missing = data["rng"].random(data["true"].shape) < 0.2
    got = raw(metric, {**data, "true": np.where(missing, np.nan, data["true"])})
    for neuron in range(data["true"].shape[1]):
        keep = ~missing[:, neuron]
        alone = {
            "true": data["true"][keep][:, [neuron]],
            "pred": data["pred"][keep][:, [neuron]],
            "ids": data["ids"][keep],
        }
        np.testing.assert_allclose(got[neuron], raw(metric, alone)[0], atol=1e-12)


@pytest.mark.parametrize("metric", ARGUMENTS)
def test_neurons_without_a_record_are_nan_and_left_out(metric):
    data = make_data()
    expected = np.mean(raw(metric, data)[:3])
    data["true"][:, 3] = np.nan
    data["true"][1:, 4] = np.nan
    assert np.isnan(raw(metric, data)[3:]).all()
    if metric is not fraction_oracle:
        mean = metric(*ARGUMENTS[metric](data), image_ids=data["ids"])
        assert mean == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e5 / 3])
def test_a_silent_neuron_counts_0(value):
    data = make_data()
    data["true"][:, 0] = value
    for metric in (single_trial_correlation, average_correlation, oracle_correlation):
        values = raw(metric, data)
        assert values[0] == 0
        mean = metric(*ARGUMENTS[metric](data), image_ids=data["ids"])
        assert mean == pytest.approx(values.sum() / 5)
    assert raw(oracle_correlation, data, kind="conservative")[0] == 0
    assert np.isnan(raw(fraction_oracle, data)[0])


def test_constant_predictions_count_0():
    data = make_data()
    data["pred"][:, 1] = 0.1
    for metric in (single_trial_correlation, average_correlation, fraction_oracle):
        assert raw(metric, data)[1] == 0


@pytest.mark.parametrize("metric", [single_trial_correlation, average_correlation])
@pytest.mark.parametrize(("dtype", "wiggle"), [(np.float32, 2e-7), (np.float64, 2e-13)])
@pytest.mark.parametrize("level", [0.01, 5.0, 3e4])
def test_predictions_constant_up_to_rounding_count_0(metric, dtype, wiggle, level):
    data = make_data(1)
    data["pred"] = (level * (1 + wiggle * np.sign(data["true"] - 3))).astype(dtype)
    assert np.ptp(data["pred"]) > 0
    assert raw(metric, data).tolist() == [0.0] * 5


@pytest.mark.parametrize(("dtype", "share"), [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_small_modulations_around_a_mean_count(dtype, share):
    data = make_data(1)
    expected = raw(single_trial_correlation, data)
    data["pred"] = (7 + 7 * share * data["pred"]).astype(dtype)
    np.testing.assert_allclose(raw(single_trial_correlation, data), expected, atol=1e-3)


def test_large_means_do_not_cancel():
    data = make_data()
    shifted = {**data, "true": data["true"] + 1e7, "pred": data["pred"] - 1e7}
    for metric in ARGUMENTS:
        np.testing.assert_allclose(raw(metric, shifted), raw(metric, data), atol=1e-7)


# Closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_repeats", [2, 5, 20])
def test_oracles_of_a_known_noise_level(n_repeats):
    # Signal variance 1, noise variance 3, N repeats. Leave-one-out mean: variance 1 + 3/(N-1),
    # covariance 1 with the trial. Conservative: V_mu = 1 + 3/N and V_eps = 3 (N-1)/N, sum 4.
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(40_000), n_repeats)
    signal = rng.standard_normal((40_000, 1))[ids]
    true = signal + np.sqrt(3) * rng.standard_normal(signal.shape)
    jackknife = 1 / np.sqrt(4 * (1 + 3 / (n_repeats - 1)))
    conservative = np.sqrt((1 + 3 / n_repeats) / 4)
    assert oracle_correlation(true, image_ids=ids) == pytest.approx(jackknife, abs=0.01)
    got = oracle_correlation(true, image_ids=ids, kind="conservative")
    assert got == pytest.approx(conservative, abs=0.01)


def test_fraction_oracle_is_the_slope_through_the_origin():
    data = make_data(neurons=30, noise=3.0)
    model = raw(single_trial_correlation, data)
    oracle = raw(oracle_correlation, data)
    slope = np.linalg.lstsq(oracle[:, None], model, rcond=None)[0][0]
    got = fraction_oracle(data["true"], data["pred"], image_ids=data["ids"])
    assert got == pytest.approx(slope)
    ratios = raw(fraction_oracle, data)
    np.testing.assert_allclose(ratios, model / oracle)
    assert np.average(ratios, weights=oracle**2) == pytest.approx(slope)


def test_fraction_oracle_uses_the_trials_of_repeated_images_only():
    data = make_data()
    n = len(data["ids"])
    more = {
        "true": np.concatenate([data["true"], data["rng"].standard_normal((9, 5))]),
        "pred": np.concatenate([data["pred"], data["rng"].standard_normal((9, 5))]),
        "ids": np.concatenate([data["ids"], 1000 + np.arange(9)]),
    }
    assert len(more["ids"]) == n + 9
    np.testing.assert_allclose(raw(fraction_oracle, more), raw(fraction_oracle, data))


def test_the_oracle_itself_has_fraction_1():
    data = make_data()
    others = np.empty_like(data["true"])
    for trial, image in enumerate(data["ids"]):
        same = data["ids"] == image
        same[trial] = False
        others[trial] = data["true"][same].mean(axis=0)
    got = fraction_oracle(data["true"], others, image_ids=data["ids"])
    assert got == pytest.approx(1)


@given(st.integers(0, 10_000))
def test_integer_weights_are_repeated_trials(seed):
    data = make_data(seed)
    weights = data["rng"].integers(0, 4, len(data["ids"]))
    weights[:4] = 1
    rows = np.repeat(np.arange(len(weights)), weights)
    got = single_trial_correlation(
        data["true"], data["pred"], sample_weight=weights, multioutput="raw_values"
    )
    expected = single_trial_correlation(
        data["true"][rows], data["pred"][rows], multioutput="raw_values"
    )
    np.testing.assert_allclose(got, expected, atol=1e-12)


# Means and errors -----------------------------------------------------------------------------


def test_mean_over_neurons_then_over_mice():
    a, b = make_data(1, neurons=2), make_data(2, neurons=40)
    true, pred = {"a": a["true"], "b": b["true"]}, {"a": a["pred"], "b": b["pred"]}
    got = single_trial_correlation(true, pred)
    means = [raw(single_trial_correlation, d).mean() for d in (a, b)]
    assert isinstance(got, float)
    assert got == pytest.approx(np.mean(means))


def test_a_mouse_without_records_is_left_out_with_a_warning():
    a, b = make_data(1), make_data(2)
    true = {"a": a["true"], "b": np.full_like(b["true"], np.nan)}
    pred = {"a": a["pred"], "b": b["pred"]}
    with pytest.warns(UndefinedMetricWarning, match=r"mice \['b'\]"):
        got = single_trial_correlation(true, pred)
    assert got == pytest.approx(raw(single_trial_correlation, a).mean())


def test_errors_name_the_mouse():
    data = make_data()
    nan = np.where(np.arange(5) == 2, np.nan, data["pred"])
    with pytest.raises(ValueError, match="mouse 'mouse': y_pred holds NaN or Inf"):
        single_trial_correlation(data["true"], nan)
    inf = np.where(np.arange(5) == 2, np.inf, data["true"])
    with pytest.raises(ValueError, match="mouse 'mouse': y_true holds Inf"):
        single_trial_correlation(inf, data["pred"])
    with pytest.raises(ValueError, match=r"mouse 'b'.*at least 2 trials, got 1"):
        single_trial_correlation({"b": [[1.0, 2.0]]}, {"b": [[1.0, 2.0]]})
    nothing = np.zeros(len(data["true"]))
    with pytest.raises(ValueError, match=r"got 0\. \d+ more have a sample_weight of 0"):
        single_trial_correlation(data["true"], data["pred"], sample_weight=nothing)
    with pytest.raises(ValueError, match=r"mouse 'b'.*at least 2 images, got 1"):
        average_correlation({"b": data["true"][:3]}, {"b": data["pred"][:3]}, image_ids=[7, 7, 7])
    with pytest.raises(ValueError, match=r"mouse 'b'.*no image is repeated"):
        oracle_correlation({"b": data["true"][:3]}, image_ids=[1, 2, 3])


def test_unknown_options():
    data = make_data()
    with pytest.raises(ValueError, match="kind is 'mean'"):
        oracle_correlation(data["true"], image_ids=data["ids"], kind="mean")
    with pytest.raises(ValueError, match="multioutput is 'sum'"):
        single_trial_correlation(data["true"], data["pred"], multioutput="sum")
    with pytest.raises(ValueError, match="sample_weight must be finite and not negative"):
        single_trial_correlation([[1], [2]], [[1], [2]], sample_weight=[1, -1])


def test_predictions_where_nothing_was_recorded_do_not_matter():
    data = make_data()
    data["true"][4, 2] = np.nan
    expected = raw(single_trial_correlation, data)
    data["pred"][4, 2] = np.nan
    np.testing.assert_array_equal(raw(single_trial_correlation, data), expected)


# ------------------------------------------------------------------------- very large, very small

SCALE_IDS = np.repeat(np.arange(6), 3)
SMALL = np.random.default_rng(11).integers(0, 50, (18, 3))
GUESSES = SMALL + np.random.default_rng(12).integers(0, 20, (18, 3))
OF_ANY_SCALE = {
    "single_trial_correlation": {},
    "average_correlation": {"image_ids": SCALE_IDS},
    "oracle_correlation": {"image_ids": SCALE_IDS},
    "fraction_oracle": {"image_ids": SCALE_IDS},
    "fev": {"image_ids": SCALE_IDS},
    "feve": {"image_ids": SCALE_IDS, "threshold": -np.inf},
    "normalized_correlation": {"image_ids": SCALE_IDS},
}
ODD_SCALES = {
    "large": lambda y: y * 2.0**570,
    "largest": lambda y: (y - 25) * 2.0**1017,
    "small": lambda y: y * 2.0**-570,
    "smallest": lambda y: y * 2.0**-1070,
    "far": lambda y: y.astype(np.int64) + 2**60,
    "unsigned": lambda y: y.astype(np.uint64) + np.uint64(2**63),
}


@pytest.mark.parametrize("scale", ODD_SCALES)
@pytest.mark.parametrize("name", OF_ANY_SCALE)
def test_no_scale_makes_a_neuron_silent(name, scale):
    function, of_scale = getattr(metrics, name), ODD_SCALES[scale]
    alone = name in ("fev", "oracle_correlation")
    given = (SMALL,) if alone else (SMALL, GUESSES)
    expected = function(*(y.astype(float) for y in given), **OF_ANY_SCALE[name])
    got = function(*map(of_scale, given), **OF_ANY_SCALE[name])
    assert got == pytest.approx(expected, rel=1e-9)
    assert expected != 0


def test_weights_of_any_scale_weigh_alike():
    weights = np.random.default_rng(13).random(18) + 0.5
    expected = metrics.single_trial_correlation(SMALL, GUESSES, sample_weight=weights)
    for scale in (2.0**1023, 2.0**-1022):
        got = metrics.single_trial_correlation(SMALL, GUESSES, sample_weight=weights * scale)
        assert got == pytest.approx(expected, rel=1e-12)


def test_averages_that_are_equal_but_for_the_rounding_of_sums_are_constant():
    spikes = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], float).reshape(-1, 1)
    ids = np.repeat(np.arange(3), 5)
    predicted = np.array([[0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 1]], float).reshape(-1, 1)
    assert metrics.average_correlation(spikes, predicted, image_ids=ids) == 0

    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(rng.random(7), (6, 1)), axis=1).reshape(-1, 1)
    ids = np.repeat(np.arange(6), 7)
    true = ids[:, None] ** 2 + rng.random(orders.shape)
    assert metrics.average_correlation(true, orders, image_ids=ids) == 0
    assert metrics.normalized_correlation(true, orders, image_ids=ids) == 0
    silent = metrics.fecv(orders, categories=ids % 2, image_ids=ids, multioutput="raw_values")
    assert np.isnan(silent).all()
