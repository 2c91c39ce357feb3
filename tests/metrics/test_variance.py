from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning

from v1tlearn.metrics import fev, feve, normalized_correlation

REFERENCE = Path(__file__).parents[1] / "reference"


def make_data(seed=0, n_images=12, neurons=5, repeats=None, noise=1.0):
    """Shuffled trials; `repeats` of every image, or 2 to 6."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 7, n_images) if repeats is None else np.full(n_images, repeats)
    ids = rng.permutation(np.repeat(np.arange(n_images), counts))
    signal = rng.standard_normal((n_images, neurons))[ids]
    true = 3 + signal + noise * rng.standard_normal(signal.shape)
    pred = 3 + signal + 0.5 * rng.standard_normal(signal.shape)
    return true, pred, ids, rng


def loop_fev(true, ids):
    total = true.var(ddof=1)
    noise = np.mean([true[ids == i].var(ddof=1) for i in np.unique(ids)])
    return total, noise


def values(metric, true, pred, ids, **kwargs):
    arguments = (true,) if metric is fev else (true, pred)
    if metric is feve:
        kwargs.setdefault("threshold", -np.inf)
    return np.asarray(metric(*arguments, image_ids=ids, multioutput="raw_values", **kwargs))


ALL = (fev, feve, normalized_correlation)


@given(st.integers(0, 10_000))
def test_fev_and_feve_agree_with_a_loop(seed):
    true, pred, ids, _ = make_data(seed)
    for neuron, (got, got_e) in enumerate(
        zip(values(fev, true, pred, ids), values(feve, true, pred, ids), strict=True)
    ):
        total, noise = loop_fev(true[:, neuron], ids)
        mse = np.mean((true[:, neuron] - pred[:, neuron]) ** 2)
        assert got == pytest.approx((total - noise) / total)
        assert got_e == pytest.approx(1 - (mse - noise) / (total - noise), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("repeats", ["equal", "unequal"])
def test_fev_and_feve_agree_with_the_published_implementation(repeats):
    with np.load(REFERENCE / f"metrics_{repeats}_repeats.npz") as file:
        arrays = file["responses"], file["predictions"], file["image_ids"]
        got, got_e = values(fev, *arrays), values(feve, *arrays)
        np.testing.assert_allclose(got[:-1], file["fev"][:-1], rtol=1e-10)
        np.testing.assert_allclose(got_e[:-1], file["feve"][:-1], rtol=1e-10)
        assert np.isnan([got[-1], got_e[-1]]).all()  # the silent neuron


def test_images_shown_once_are_left_out():
    true, pred, ids, rng = make_data()
    more = np.concatenate([ids, 100 + np.arange(7)])
    true_more = np.concatenate([true, 50 * rng.standard_normal((7, 5))])
    pred_more = np.concatenate([pred, 50 * rng.standard_normal((7, 5))])
    for metric in ALL:
        np.testing.assert_allclose(
            values(metric, true_more, pred_more, more), values(metric, true, pred, ids)
        )


def test_feve_threshold():
    true, pred, ids, rng = make_data(repeats=10, n_images=40)
    true[:, 2] = rng.standard_normal(len(true))  # no signal
    explainable = values(fev, true, pred, ids)
    assert explainable[2] < 0.15 < explainable[[0, 1, 3, 4]].min()
    everything = values(feve, true, pred, ids)
    kept = values(feve, true, pred, ids, threshold=0.15)
    assert np.isfinite(everything).all()
    np.testing.assert_array_equal(np.isnan(kept), np.arange(5) == 2)
    mean = feve(true, pred, image_ids=ids)
    assert mean == pytest.approx(np.mean(everything[[0, 1, 3, 4]]))
    edge = explainable[0]
    assert np.isfinite(values(feve, true, pred, ids, threshold=edge)[0])


def test_a_perfect_and_a_constant_model():
    true, _, ids, _ = make_data()
    means = np.stack([true[ids == i].mean(axis=0) for i in ids])
    # The error of the mean of N repeats is that of its N trials: (N - 1)/N of the noise variance.
    total, noise = np.array([loop_fev(t, ids) for t in true.T]).T
    within = np.mean((true - means) ** 2, axis=0)
    np.testing.assert_allclose(
        values(feve, true, means, ids), 1 - (within - noise) / (total - noise)
    )
    constant = np.broadcast_to(true.mean(axis=0), true.shape)
    n = len(true)
    np.testing.assert_allclose(
        values(feve, true, constant, ids),
        1 - (total * (n - 1) / n - noise) / (total - noise),
        atol=1e-9,
    )


def schoppe(by_repeat, prediction):
    """CC_norm of one neuron from (images, repeats) and (images,), as published."""
    n = by_repeat.shape[1]
    power = (by_repeat.sum(axis=1).var(ddof=1) - by_repeat.var(axis=0, ddof=1).sum()) / (
        n * (n - 1)
    )
    if power <= 0:
        return np.nan
    covariance = np.cov(by_repeat.mean(axis=1), prediction)[0, 1]
    return covariance / np.sqrt(prediction.var(ddof=1) * power)


@given(seed=st.integers(0, 10_000), n_repeats=st.integers(2, 8))
def test_cc_norm_is_schoppes_for_equal_repeats(seed, n_repeats):
    true, pred, ids, _ = make_data(seed, repeats=n_repeats, noise=2.0)
    expected = []
    for t, p in zip(true.T, pred.T, strict=True):
        by_repeat = np.stack([t[ids == i] for i in range(12)])
        expected.append(schoppe(by_repeat, np.array([p[ids == i].mean() for i in range(12)])))
    got = values(normalized_correlation, true, pred, ids)
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_unequal_repeats_use_the_mean_over_all_orders_of_the_repeats():
    # The same images with equal repeats, in many orders: the mean signal power is the closed form.
    rng = np.random.default_rng(0)
    by_repeat = rng.standard_normal((6, 1)) + rng.standard_normal((6, 3))
    powers = []
    for _ in range(4000):
        shuffled = rng.permuted(by_repeat, axis=1)
        powers.append((shuffled.sum(axis=1).var(ddof=1) - shuffled.var(axis=0, ddof=1).sum()) / 6)
    closed = by_repeat.mean(axis=1).var(ddof=1) - by_repeat.var(axis=1, ddof=1).mean() / 3
    assert np.mean(powers) == pytest.approx(closed, abs=4 * np.std(powers) / np.sqrt(4000))

    # And that closed form is what unequal repeats give.
    true, pred, ids, _ = make_data(3, n_images=20)
    got = values(normalized_correlation, true, pred, ids)
    for neuron, (t, p) in enumerate(zip(true.T, pred.T, strict=True)):
        groups = [t[ids == i] for i in range(20)]
        means = np.array([g.mean() for g in groups])
        power = means.var(ddof=1) - np.mean([g.var(ddof=1) / len(g) for g in groups])
        prediction = np.array([p[ids == i].mean() for i in range(20)])
        expected = np.cov(means, prediction)[0, 1] / np.sqrt(prediction.var(ddof=1) * power)
        assert got[neuron] == pytest.approx(expected)


@pytest.mark.parametrize("repeats", [None, 4])
def test_cc_norm_of_the_true_signal_is_1(repeats):
    rng = np.random.default_rng(1)
    counts = rng.integers(2, 7, 30_000) if repeats is None else np.full(30_000, repeats)
    ids = np.repeat(np.arange(30_000), counts)
    signal = rng.standard_normal((30_000, 1))[ids]
    true = signal + 2 * rng.standard_normal(signal.shape)
    assert normalized_correlation(true, signal, image_ids=ids) == pytest.approx(1, abs=0.02)
    worse = signal + rng.standard_normal((30_000, 1))[ids]  # correlation 1/sqrt(2) with the signal
    assert normalized_correlation(true, worse, image_ids=ids) == pytest.approx(0.5**0.5, abs=0.02)


def test_cc_norm_without_signal_power():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(3), 4)
    # All images have one mean, so the power is negative.
    true = np.tile([-1.0, 1.0, -1.0, 1.0], 3)[:, None] * np.array([1.0, 2.0])
    true[:, 1] += 10 * ids
    pred = rng.standard_normal((12, 2))
    got = values(normalized_correlation, true, pred, ids)
    assert np.isnan(got[0])
    assert np.isfinite(got[1])
    constant = values(normalized_correlation, true, np.ones((12, 2)), ids)
    np.testing.assert_array_equal(constant, [np.nan, 0])


@pytest.mark.parametrize("counts", [[2] * 6, [5] * 12, [2, 3, 2, 5]], ids=str)
def test_a_neuron_that_responded_once_has_no_signal_power_to_divide_by(counts):
    # Its power is 0 in exact numbers, and its rounding would make a correlation of millions.
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(len(counts)), counts)
    true = np.zeros((len(ids), 50))
    true[rng.integers(0, len(ids), 50), np.arange(50)] = rng.lognormal(0, 3, 50)
    pred = rng.standard_normal(true.shape)
    assert np.isnan(values(normalized_correlation, true, pred, ids)).all()
    signal = np.concatenate([rng.standard_normal((len(counts), 1))[ids], true], axis=1)
    pred = np.concatenate([signal[:, :1], pred], axis=1)
    assert normalized_correlation(signal, pred, image_ids=ids) == pytest.approx(1)


def test_one_repeated_image_has_no_correlation_over_images():
    true, pred, _, _ = make_data()
    with pytest.warns(UndefinedMetricWarning, match="no neuron"):
        got = normalized_correlation(true[:4], pred[:4], image_ids=[1, 1, 1, 2])
    assert np.isnan(got)


@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(0.01, 100),
    offset=st.floats(-100, 100),
    metric=st.sampled_from(ALL),
)
def test_the_unit_of_the_responses_does_not_matter(seed, gain, offset, metric):
    true, pred, ids, _ = make_data(seed)
    mapped = values(metric, gain * true + offset, gain * pred + offset, ids)
    np.testing.assert_allclose(mapped, values(metric, true, pred, ids), rtol=1e-5, atol=1e-7)


@given(seed=st.integers(0, 10_000), metric=st.sampled_from(ALL))
def test_the_order_of_trials_does_not_matter(seed, metric):
    true, pred, ids, rng = make_data(seed)
    order = rng.permutation(len(ids))
    np.testing.assert_allclose(
        values(metric, true[order], pred[order], ids[order]),
        values(metric, true, pred, ids),
        rtol=1e-9,
        atol=1e-9,
    )


@given(seed=st.integers(0, 10_000), metric=st.sampled_from(ALL), repeats=st.sampled_from([None, 4]))
def test_a_response_not_recorded_is_a_dropped_trial(seed, metric, repeats):
    true, pred, ids, rng = make_data(seed, repeats=repeats)
    missing = rng.random(true.shape) < 0.15
    missing[:, 0] = ids == 3  # a whole image
    got = values(metric, np.where(missing, np.nan, true), pred, ids)
    for neuron in range(true.shape[1]):
        keep = ~missing[:, neuron]
        alone = values(metric, true[keep][:, [neuron]], pred[keep][:, [neuron]], ids[keep])
        np.testing.assert_allclose(got[neuron], alone[0], rtol=1e-9)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("value", [0.0, 0.1, np.nan])
def test_a_silent_or_unrecorded_neuron_is_nan_and_left_out(metric, value):
    true, pred, ids, _ = make_data(repeats=8)
    true[:, 1] = value
    got = values(metric, true, pred, ids)
    np.testing.assert_array_equal(np.isnan(got), np.arange(5) == 1)
    arguments = (true,) if metric is fev else (true, pred)
    mean = metric(*arguments, image_ids=ids)
    assert mean == pytest.approx(np.nanmean(got))


@pytest.mark.parametrize("metric", ALL)
def test_no_repeated_image_is_an_error(metric):
    true, pred, ids, _ = make_data()
    with pytest.raises(ValueError, match="mouse 'mouse': no image is repeated"):
        values(metric, true, pred, np.arange(len(ids)))


MINIMODEL = REFERENCE / "minimodel"


def as_trials(responses, predictions):
    """(image, repeat, neuron) with NaN where there was no repeat -> trials that were recorded."""
    ids = np.repeat(np.arange(len(responses)), responses.shape[1])
    true = responses.reshape(len(ids), -1)
    shown = ~np.isnan(true).all(axis=1)
    return true[shown], predictions[ids][shown], ids[shown]


def close(got, reference, tolerance):
    assert np.isnan(got[~np.isfinite(reference)]).all()  # published nan or -inf: a silent neuron
    defined = np.isfinite(reference)
    scale = np.abs(reference[defined]).max()
    assert np.abs(got - reference)[defined].max() <= tolerance * scale


@pytest.mark.parametrize("repeats", ["equal", "unequal"])
@pytest.mark.parametrize("case", ["", "with_missing/", "float32/"])
def test_fev_and_feve_agree_with_those_of_the_minimodels(repeats, case):
    with np.load(MINIMODEL / f"metrics_{repeats}_repeats.npz") as file:
        responses = file[f"{case}responses" if case == "with_missing/" else "responses"]
        kind, tolerance = ("f4", 1e-4) if case == "float32/" else ("f8", 1e-10)
        arrays = as_trials(responses.astype(kind), file["predictions"].astype(kind))
        options = {"shown_once": "counted"}
        close(values(fev, *arrays, **options), file[f"{case}fev"], tolerance)
        close(values(feve, *arrays, **options), file[f"{case}feve"], tolerance)
        if not case:
            included = values(feve, *arrays, threshold=0.15, strict=True)
            assert np.array_equal(~np.isnan(included), file["included_fev_above_0.15"])
            mean = file["mean_feve_of_included"]
            assert np.nanmean(included) == pytest.approx(mean, rel=1e-10)
            variance_explained = values(feve, *arrays, noise_term=False)
            close(variance_explained, file["no_noise_term/feve"], 1e-10)
            assert np.array_equal(~np.isnan(variance_explained), file["no_noise_term/fev"] == 1)


def test_first_repeats_agree_with_those_of_the_minimodels():
    with np.load(MINIMODEL / "metrics_first_repeats_only.npz") as file:
        arrays = as_trials(file["responses"].transpose(1, 0, 2), file["predictions"])
        options = {"first_repeats": file["repetitions"], "shown_once": "counted"}
        close(values(fev, *arrays, **options), file["fev"], 1e-10)
        close(values(feve, *arrays, **options), file["feve"], 1e-10)


def test_hand_cases_and_the_threshold_itself():
    with np.load(MINIMODEL / "metrics_hand_cases.npz") as file:
        arrays = as_trials(file["hand/responses"], file["hand/predictions"])
        assert values(fev, *arrays) == pytest.approx(0.7, rel=1e-10)
        assert values(feve, *arrays) == pytest.approx(17 / 14, rel=1e-10)
        arrays = as_trials(file["boundary/responses"], file["boundary/predictions"])
        assert values(fev, *arrays) == pytest.approx(0.15, rel=1e-10)
        at_least = values(feve, *arrays, threshold=0.15)
        assert at_least == pytest.approx(8 / 3, rel=1e-10)
        assert np.isnan(values(feve, *arrays, threshold=0.15, strict=True)).all()


@given(st.integers(0, 10_000))
def test_first_repeats_are_those_trials_alone(seed):
    true, pred, ids, rng = make_data(seed, repeats=4)
    kept = rng.integers(2, 5, true.shape[1])
    got = values(feve, true, pred, ids, first_repeats=kept)
    rank = np.array([np.sum(ids[:i] == image) for i, image in enumerate(ids)])
    for neuron, most in enumerate(kept):
        rows = rank < most
        alone = values(feve, true[rows], pred[rows], ids[rows])
        assert got[neuron] == pytest.approx(alone[neuron])
    by_mouse = {"A": kept, "B": 3}
    both = values(
        feve, {"A": true, "B": true}, {"A": pred, "B": pred}, {"A": ids, "B": ids},
        first_repeats=by_mouse,
    )  # fmt: skip
    np.testing.assert_array_equal(both[: len(kept)], got)
    np.testing.assert_array_equal(both[len(kept) :], values(feve, true, pred, ids, first_repeats=3))


@given(st.integers(0, 10_000))
def test_counting_images_shown_once_adds_them_to_the_variance_but_not_to_the_noise(seed):
    true, pred, ids, rng = make_data(seed)
    once = rng.standard_normal((3, true.shape[1])) + 3
    longer = np.concatenate([true, once])
    predicted, images = np.concatenate([pred, once - 0.3]), np.append(ids, [100, 101, 102])
    left_out = values(feve, longer, predicted, images)
    np.testing.assert_allclose(left_out, values(feve, true, pred, ids))
    got = values(fev, longer, predicted, images, shown_once="counted")
    total = longer.var(axis=0, ddof=1)
    noise = np.array([loop_fev(neuron, ids)[1] for neuron in true.T])
    np.testing.assert_allclose(got, (total - noise) / total)


def test_variance_explained_needs_no_repeats_and_no_images():
    true, pred, _, _ = make_data(2)
    got = feve(true, pred, noise_term=False)
    expected = 1 - np.mean((true - pred) ** 2, axis=0) / true.var(axis=0, ddof=1)
    assert got == pytest.approx(expected.mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shown_once": "kept"}, "shown_once is 'kept'"),
        ({"first_repeats": [2, 3]}, r"shape \(2,\), expected one number, or one for each of 5"),
        ({"first_repeats": 0}, "whole numbers from 1"),
        ({"first_repeats": 2.5}, "whole numbers from 1"),
        ({"first_repeats": {"B": 2}}, "has no entry"),
    ],
)
def test_wrong_options_are_refused(options, message):
    true, pred, ids, _ = make_data()
    with pytest.raises(ValueError, match=message):
        feve(true, pred, image_ids=ids, **options)


@pytest.mark.parametrize(
    ("option", "values", "error"),
    [
        ("strict", ["no", None, 1], TypeError),
        ("noise_term", [None, "yes", 0], TypeError),
        ("threshold", ["a", None, True, [0.1, 0.2], np.array([0.1])], TypeError),
        ("threshold", [np.nan], ValueError),
        ("shown_once", [["counted"], None], ValueError),
    ],
)
def test_options_of_feve_are_numbers_and_truth_values(option, values, error):
    true, pred, ids, _ = make_data()
    for value in values:
        with pytest.raises(error, match=f"{option} is .*expected"):
            feve(true, pred, image_ids=ids, **{option: value})


def test_options_of_feve_may_be_those_of_numpy():
    true, pred, ids, _ = make_data()
    options = {"threshold": np.float32(-np.inf), "strict": np.True_, "noise_term": np.bool_(True)}
    expected = feve(true, pred, image_ids=ids, threshold=-np.inf)
    assert feve(true, pred, image_ids=ids, **options) == expected


def test_one_repeat_alone_says_nothing_about_noise():
    true, _, ids, _ = make_data()
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(fev(true, image_ids=ids, first_repeats=1))
