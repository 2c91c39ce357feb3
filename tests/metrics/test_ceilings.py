"""Noise ceilings against closed forms, and their draws against resampled recordings."""

import itertools

import numpy as np
import pytest
import scipy.stats

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn import metrics
from v1tlearn.metrics import noise_ceiling

NAMES = ["oracle", "explainable_variance", "single_trial_ceiling", "average_ceiling"]
METRICS = [
    "single_trial_correlation",
    "average_correlation",
    "feve",
    "fraction_oracle",
    "normalized_correlation",
]


def simulated(signal, counts, n_neurons, seed=0):
    """Responses of signal variance `signal` and noise variance 1, counts[i] repeats of image i."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(len(counts), n_neurons)) * np.sqrt(signal)
    ids = np.repeat(np.arange(len(counts)), counts)
    return means[ids] + rng.normal(size=(len(ids), n_neurons)), means[ids], ids


def values(ceilings, name, estimate="value"):
    return ceilings[name].sel(estimate=estimate).values


@pytest.mark.parametrize("counts", [[10] * 400, [2] * 600, [3, 5, 12] * 150])
@pytest.mark.parametrize("signal", [0.2, 1.0])
def test_ceilings_are_the_known_ones(counts, signal):
    y, _, ids = simulated(signal, counts, 60)
    ceilings = noise_ceiling(y, image_ids=ids, n_bootstrap=0)
    n = np.array(counts)
    expected = {
        "explainable_variance": signal / (signal + 1),
        "single_trial_ceiling": np.sqrt(signal / (signal + 1)),
        "average_ceiling": np.sqrt(signal / (signal + np.mean(1 / n))),
        # over trials: an image with n repeats stands for n of them
        "oracle": signal / np.sqrt((signal + 1) * (signal + np.average(1 / (n - 1), weights=n))),
    }
    for name, known in expected.items():
        found = values(ceilings, name)
        error = found.std() / np.sqrt(len(found))
        assert abs(found.mean() - known) < 4 * error + 0.003, (name, found.mean(), known)


def test_a_model_that_knows_the_truth_reaches_them():
    y, truth, ids = simulated(0.5, [6] * 500, 40)
    ceilings = noise_ceiling(y, image_ids=ids, n_bootstrap=0, multioutput="uniform_average")
    for name in ("single_trial", "average"):
        reached = getattr(metrics, f"{name}_correlation")(y, truth, image_ids=ids)
        assert reached == pytest.approx(float(values(ceilings, f"{name}_ceiling")), abs=0.01)
    assert values(ceilings, "oracle") < reached


@pytest.mark.parametrize("counts", [[4] * 8, [2, 5, 1, 3, 4, 1, 2, 2]])
def test_oracle_and_explainable_variance_are_the_metrics(counts):
    y, _, ids = simulated(1.0, counts, 5)
    y[:, 1] = 2.5
    y[3:7, 2] = np.nan
    ceilings = noise_ceiling(y, image_ids=ids, n_bootstrap=0)
    for name, metric in [("oracle", "oracle_correlation"), ("explainable_variance", "fev")]:
        expected = getattr(metrics, metric)(y, image_ids=ids, multioutput="raw_values")
        np.testing.assert_allclose(values(ceilings, name), expected, atol=1e-12)


def test_a_constant_neuron_has_no_ceiling():
    y, _, ids = simulated(1.0, [4] * 20, 3)
    y[:, 1] = 1.7
    ceilings = noise_ceiling(y, image_ids=ids, n_bootstrap=50)
    for estimate in ("value", "low", "high"):
        for name in ("oracle", "single_trial_ceiling", "average_ceiling"):
            assert values(ceilings, name, estimate)[1] == 0
        assert np.isnan(values(ceilings, "explainable_variance", estimate)[1])
    # and is left out of means of what is not there, as in the metrics
    means = noise_ceiling(y, image_ids=ids, n_bootstrap=0, multioutput="mice")
    expected = np.nanmean(values(ceilings, "explainable_variance"))
    assert values(means, "explainable_variance").item() == pytest.approx(expected)


def test_noise_alone_has_a_ceiling_of_zero_where_its_estimate_is_negative():
    y, _, ids = simulated(0.0, [4] * 20, 30)
    ceilings = noise_ceiling(y, image_ids=ids, n_bootstrap=0)
    negative = values(ceilings, "explainable_variance") < 0
    assert negative.any()
    assert (values(ceilings, "single_trial_ceiling")[negative] == 0).all()


def test_a_neuron_without_repeats_has_nothing():
    y, _, ids = simulated(1.0, [2] * 10, 3)
    y[1::2, 0] = np.nan
    ceilings = noise_ceiling(y, image_ids=ids, n_bootstrap=20)
    for name in NAMES:
        assert np.isnan(ceilings[name].values[:, 0]).all()
        assert np.isfinite(ceilings[name].values[:, 1:]).all()


def test_one_repeat_is_refused_with_the_name_of_the_mouse():
    y, _, ids = simulated(1.0, [3] * 5, 3)
    with pytest.raises(ValueError, match="mouse 'B': no image is repeated"):
        noise_ceiling({"A": y, "B": y[:5]}, image_ids={"A": ids, "B": np.arange(5)})


def resampled(drawn, *arrays, ids):
    """Trials of drawn images, each under an id of its own."""
    rows = [np.flatnonzero(ids == image) for image in drawn]
    new = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
    return [array[np.concatenate(rows)] for array in arrays], new


@pytest.mark.parametrize("counts", [[3, 3], [2, 4]])
def test_a_draw_is_the_ceiling_of_the_trials_of_the_drawn_images(counts):
    """With two images there are three draws: all of them come, and nothing else."""
    y, _, ids = simulated(2.0, counts, 2, seed=3)
    expected = []
    for drawn in itertools.combinations_with_replacement(range(2), 2):
        (again,), new = resampled(drawn, y, ids=ids)
        ceilings = noise_ceiling(again, image_ids=new, n_bootstrap=0)
        expected.append([values(ceilings, name)[0] for name in NAMES])
    expected = np.array([np.abs(np.subtract(*two)) for two in itertools.combinations(expected, 2)])
    expected = np.concatenate([expected, [np.zeros(len(NAMES))]])
    found = []
    for seed in range(24):  # of two draws the interval at level 1/8 is an eighth of their distance
        one = noise_ceiling(y, image_ids=ids, n_bootstrap=2, level=0.125, random_state=seed)
        ends = (np.array([values(one, n, end)[0] for n in NAMES]) for end in ("high", "low"))
        found.append(8 * np.subtract(*ends))
    distance = np.abs(np.array(found)[:, None] - expected).max(axis=2)
    assert (distance.min(axis=1) < 1e-9).all()
    assert (distance.min(axis=0) < 1e-9).all()


@pytest.mark.filterwarnings("ignore:no neuron of mice:sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize(
    ("metric", "multioutput"),
    [
        pair
        for pair in itertools.product(METRICS, ["raw_values", "mice", "uniform_average"])
        if pair != ("normalized_correlation", "raw_values")  # see below
    ],
)
@pytest.mark.parametrize("counts", quick([[3, 3, 3], [2, 4, 3]], 0))
def test_draws_of_scores_are_scores_of_drawn_trials(metric, counts, multioutput):
    y, truth, ids = simulated(9.0, counts, 3, seed=3)
    pred = truth + 3 * np.random.default_rng(1).normal(size=truth.shape)
    function = getattr(metrics, metric)

    def scored(*arrays, ids):
        own = function(*arrays, image_ids=ids, multioutput=multioutput)
        return np.atleast_1d(np.asarray(own))

    expected = []
    for drawn in itertools.combinations_with_replacement(range(3), 3):
        again, new = resampled(drawn, y, pred, ids=ids)
        expected.append(scored(*again, ids=new))
    distances = [np.abs(np.subtract(*two)) for two in itertools.combinations(expected, 2)]
    expected = np.array([*distances, np.zeros_like(distances[0])])
    trials = v1.Trials.from_arrays(np.zeros((len(y), 1, 2, 2)), None, y, image_ids=ids)

    class Known:
        def predict(self, trials):
            return pred

    for seed in range(12):
        table = v1.score_table(
            {"m": Known()},
            trials,
            metrics=metric,
            multioutput=multioutput,
            n_bootstrap=2,
            level=0.125,
            random_state=seed,
        )
        assert table["value"].notna().all()  # without a value there is no interval
        np.testing.assert_allclose(table["value"], scored(y, pred, ids=ids))
        found = 8 * (table["high"] - table["low"]).to_numpy()  # the distance of the two draws
        ends = table[["low", "high"]].abs().max(axis=1).to_numpy()
        # of two draws both of which have a value, and whose interval ends before 1
        known = ~np.isnan(found) & (found > 0) & (ends < 1)
        same = np.isclose(expected, found, rtol=1e-6, atol=1e-9) | ~known
        assert same.all(axis=1).any()
        middle = ((table["high"] + table["low"]) / 2).to_numpy()
        np.testing.assert_allclose(middle[known], table["value"].to_numpy()[known])


def test_intervals_hold_the_truth_as_often_as_they_say():
    """A little less, as percentiles of draws of few images do."""
    y, _, ids = simulated(0.5, [8] * 100, 400)
    ceilings = noise_ceiling(y, image_ids=ids, n_bootstrap=400)
    known = {"single_trial_ceiling": np.sqrt(0.5 / 1.5), "average_ceiling": np.sqrt(0.5 / 0.625)}
    for name, value in known.items():
        low, high = (values(ceilings, name, end) for end in ("low", "high"))
        assert 0.88 < ((low <= value) & (value <= high)).mean() < 0.98
    narrow = noise_ceiling(y, image_ids=ids, n_bootstrap=400, level=0.5)
    low, high = (values(narrow, "average_ceiling", end) for end in ("low", "high"))
    assert 0.42 < ((low <= 0.8944) & (high >= 0.8944)).mean() < 0.58


def predicted(n_images, n_repeats, n_neurons, seed=0, share=0.7, explainable=(0.1, 0.6)):
    """Responses, predictions of which the true correlation with the signal is known, image ids."""
    rng = np.random.default_rng(seed)
    signal, other = rng.normal(size=(2, n_images, n_neurons))
    noise = np.sqrt(1 / rng.uniform(*explainable, n_neurons) - 1)  # by the explainable variance
    ids = np.repeat(np.arange(n_images), n_repeats)
    y = signal[ids] + noise * rng.normal(size=(len(ids), n_neurons))
    return y, (share * signal + np.sqrt(1 - share**2) * other)[ids], ids


def bounds_of_neurons(y, pred, ids, n_bootstrap, **options):
    trials = v1.Trials.from_arrays(np.zeros((len(y), 1, 2, 2)), None, y, image_ids=ids)

    class Known:
        def predict(self, trials):
            return pred

    options |= {"metrics": "normalized_correlation", "multioutput": "raw_values"}
    return v1.score_table({"m": Known()}, trials, n_bootstrap=n_bootstrap, **options)


@pytest.mark.parametrize(("n_images", "n_repeats"), [(20, 3), (60, 3), (60, 5), (60, 10)])
def test_intervals_of_the_normalized_correlation_hold_the_truth(n_images, n_repeats):
    """Of neurons of little explainable variance, too, some draws of which have no value."""
    found = bounds_of_neurons(*predicted(n_images, n_repeats, 500), 400)
    known = found[found["value"].notna()]
    assert len(known) > 450
    assert 0.92 < ((known["low"] <= 0.7) & (known["high"] >= 0.7)).mean() < 0.98
    assert (known["low"] <= known["value"] + 1e-9).all()
    assert (known["value"] <= known["high"] + 1e-9).all()
    assert np.isfinite(known[["low", "high"]]).all(axis=None)


def test_intervals_of_the_normalized_correlation_are_those_of_scipy():
    y, pred, ids = predicted(40, 4, 1, seed=2, explainable=(0.6, 0.7))
    images = np.arange(40)

    def statistic(drawn):
        (again, given), new = resampled(drawn, y, pred, ids=ids)
        return float(metrics.normalized_correlation(again, given, image_ids=new))

    options = {"n_resamples": 1500, "method": "BCa", "vectorized": False}
    options["random_state"] = np.random.default_rng(0)  # which is `rng` only from SciPy 1.15 on
    expected = scipy.stats.bootstrap((images,), statistic, **options).confidence_interval
    found = bounds_of_neurons(y, pred, ids, 4000).iloc[0]
    width = expected.high - expected.low
    assert found["low"] == pytest.approx(expected.low, abs=0.08 * width)
    assert found["high"] == pytest.approx(expected.high, abs=0.08 * width)


# ------------------------------------------------------------------------------ labels and movies


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_v1_recordings(
            n_mice=2,
            n_neurons=[4, 6],
            n_trials=10,
            n_test_images=6,
            n_repeats=4,
            image_shape=(12, 16),
            random_state=0,
        )
    ).sel(tier="test")


def test_neurons_keep_their_labels(trials):
    ceilings = noise_ceiling(trials, n_bootstrap=10)
    assert ceilings.sizes == {"estimate": 3, "unit": 10}
    own = ceilings.sel(mouse=trials.mice[1])
    assert own.sizes["neuron"] == 6
    alone = noise_ceiling(trials.sel(mouse_id=trials.mice[1]), n_bootstrap=10)
    for name in NAMES:  # the same draws for both, whoever else is there
        np.testing.assert_array_equal(own[name].values, alone[name].values)
    mice = noise_ceiling(trials, n_bootstrap=10, multioutput="mice")
    assert mice["mouse"].values.tolist() == trials.mice
    mean = noise_ceiling(trials, n_bootstrap=10, multioutput="uniform_average")
    for name in NAMES:
        assert values(mean, name) == pytest.approx(values(mice, name).mean())


def movies(n_movies, n_frames, n_repeats, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_movies, n_frames, 5))
    ids = np.repeat(np.arange(n_movies), n_repeats)
    return means[ids] + rng.normal(size=(len(ids), n_frames, 5)), ids


def test_every_frame_of_a_movie_is_an_image():
    y, ids = movies(4, 20, 3)
    found = noise_ceiling(y, image_ids=ids, n_bootstrap=0)
    flat = y.reshape(-1, 5)
    frames = (ids[:, None] * 20 + np.arange(20)).ravel()
    expected = noise_ceiling(flat, image_ids=frames, n_bootstrap=0)
    for name in NAMES:
        np.testing.assert_allclose(values(found, name), values(expected, name))


def test_movies_are_drawn_as_wholes_or_in_blocks():
    """Two movies: a draw is one of three, and half of the draws hold both."""
    y, ids = movies(2, 20, 3)
    one = [noise_ceiling(y[ids == i], image_ids=ids[ids == i], n_bootstrap=0) for i in (0, 1)]
    both = noise_ceiling(y, image_ids=ids, n_bootstrap=0)
    for seed in range(8):
        drawn = noise_ceiling(y, image_ids=ids, n_bootstrap=1, random_state=seed)
        found = values(drawn, "explainable_variance", "low")
        # a movie that is drawn twice: the same but for the ddof of the variance over trials
        near = [np.abs(found - values(c, "explainable_variance")).max() for c in (*one, both)]
        assert min(near) < 0.01
    with pytest.raises(ValueError, match="set block_frames"):
        noise_ceiling(y[ids == 0], image_ids=ids[ids == 0])
    blocks = noise_ceiling(y[ids == 0], image_ids=ids[ids == 0], block_frames=4, n_bootstrap=50)
    assert (values(blocks, "oracle", "low") < values(blocks, "oracle", "high")).all()


@pytest.mark.parametrize(
    "options",
    [
        {"n_bootstrap": -1},
        {"n_bootstrap": 2.5},
        {"level": 1.0},
        {"block_frames": 0},
        {"multioutput": "means"},
    ],
)
def test_wrong_options_are_refused(trials, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        noise_ceiling(trials, **options)


# ------------------------------------------------------------------------------------- in the table


class Truth:
    def predict(self, trials):
        return trials.expected_responses


@pytest.mark.parametrize("multioutput", ["raw_values", "mice", "uniform_average"])
def test_the_table_has_intervals_and_ceilings(trials, multioutput):
    options = {"multioutput": multioutput, "ceilings": True, "n_bootstrap": 200}
    table = v1.score_table({"truth": Truth()}, trials, oracle=False, **options)
    known = table["value"].notna()
    assert (table["low"] <= table["value"] + 1e-12)[known].mean() > 0.9
    assert (table["value"] <= table["high"] + 1e-12)[known].mean() > 0.9
    ceilings = noise_ceiling(trials, n_bootstrap=0, multioutput=multioutput)
    for metric in ("single_trial_correlation", "average_correlation"):
        own = table.loc[table["metric"] == metric, "ceiling"]
        name = metric.replace("correlation", "ceiling")
        np.testing.assert_allclose(own, np.atleast_1d(values(ceilings, name)))
    limits = table.groupby("metric")["ceiling"].first()
    assert limits[["feve", "normalized_correlation", "share_of_oracle"]].eq(1).all()
    assert np.isnan(limits["fraction_oracle"])
    share = table[table["metric"] == "share_of_oracle"]
    np.testing.assert_allclose(share[["value", "low", "high"]].dropna(), 1)


def test_mice_without_repeats_have_no_ceiling_and_no_interval_of_it(trials):
    first = trials.mice[0]
    ids = trials.image_ids.astype(object)
    ids[trials.mouse_ids == first] = [f"own {i}" for i in range((trials.mouse_ids == first).sum())]
    own = {m: ids[trials.rows(m)[0]] for m in trials.mice}
    parts = [{m: trials.get(n, m) for m in trials.mice} for n in ("stimuli", "responses")]
    once = v1.Trials.from_arrays(parts[0], None, parts[1], image_ids=own)

    class Known:
        def predict(self, trials):
            return v1.Responses.from_arrays(parts[1], like=trials)

    with pytest.warns(UserWarning, match="no image is repeated"):
        table = v1.score_table({"m": Known()}, once, ceilings=True, n_bootstrap=20)
    rows = table.set_index(["mouse", "metric"])
    assert np.isnan(rows.loc[(first, "single_trial_correlation"), "ceiling"])
    assert np.isnan(
        rows.loc[(first, "normalized_correlation"), ["low", "high"]].astype(float)
    ).all()
    assert rows.loc[(trials.mice[1], "average_correlation"), "ceiling"] > 0
    assert np.isfinite(rows.loc[(first, "single_trial_correlation"), "low"])


def test_intervals_of_what_has_none_are_refused(trials):
    own = {"feve": metrics.feve}
    with pytest.raises(ValueError, match="no intervals of the metrics \\['feve'\\]"):
        v1.score_table(Truth(), trials, metrics=own, n_bootstrap=10)
    table = v1.score_table(Truth(), trials, metrics=own, ceilings=True, oracle=False)
    assert table["ceiling"].isna().all()  # of a function nothing is known, whatever its name
