"""The table of scores against the metrics called by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn import metrics
from v1tlearn.search import HyperbandSearch

NAMES = [
    "single_trial_correlation",
    "average_correlation",
    "feve",
    "fraction_oracle",
    "normalized_correlation",
]
REPEATS = NAMES[2:]


class Blurred(RegressorMixin, BaseEstimator):
    """Predicts the recorded responses with noise, and counts how often."""

    def __init__(self, noise=0.5):
        self.noise = noise

    def fit(self, X, y=None):
        self.calls_ = 0
        return self

    def predict(self, X):
        self.calls_ += 1
        rng = np.random.default_rng(0)
        truth = {mouse: X.get("responses", mouse) for mouse in X.mice}
        noisy = {m: r + self.noise * rng.standard_normal(r.shape) for m, r in truth.items()}
        return v1.Responses.from_arrays(noisy, like=X)


class Sharp(Blurred):
    """Another model."""


@pytest.fixture(scope="module")
def trials():
    return v1.Trials(
        v1.make_v1_recordings(
            n_mice=2,
            n_neurons=[4, 6],
            n_trials=40,
            n_test_images=6,
            n_repeats=4,
            image_shape=(12, 16),
            random_state=0,
        )
    )


@pytest.fixture(scope="module")
def test_trials(trials):
    return trials.sel(tier="test")


@pytest.fixture(scope="module")
def recorded(test_trials):
    """The same trials as they would be if they were no simulation."""
    recordings = {m: r.to_dataset() for m, r in test_trials.recordings.children.items()}
    return v1.Trials({m: r.drop_vars("expected_responses") for m, r in recordings.items()})


def value(table, **labels):
    keep = np.logical_and.reduce([table[name] == label for name, label in labels.items()])
    return table.loc[keep, "value"].item()


def test_one_row_per_model_mouse_and_metric(recorded):
    models = {"blurred": Blurred().fit(recorded), "sharp": Blurred(0.1).fit(recorded)}
    table = v1.score_table(models, recorded)
    assert table.columns.tolist() == ["model", "mouse", "metric", "value"]
    assert table.index.equals(pd.RangeIndex(2 * 5 * 2))
    assert table["model"].unique().tolist() == ["blurred", "sharp"]
    assert table["metric"].unique().tolist() == NAMES
    assert [model.calls_ for model in models.values()] == [1, 1]
    for label, model in models.items():
        predicted = model.predict(recorded)
        for name in NAMES:
            by_hand = getattr(metrics, name)(recorded.responses, predicted, multioutput="mice")
            for mouse in recorded.mice:
                got = value(table, model=label, mouse=mouse, metric=name)
                assert got == by_hand.sel(mouse=mouse)


def test_the_true_rates_are_the_oracle(test_trials):
    model = Blurred().fit(test_trials)
    table = v1.score_table({"m": model}, test_trials)
    assert table["model"].unique().tolist() == ["m", "oracle"]
    assert table["metric"].unique().tolist() == [*NAMES, "share_of_oracle"]
    rates = test_trials.expected_responses
    best = metrics.single_trial_correlation(test_trials.responses, rates, multioutput="mice")
    reached = metrics.single_trial_correlation(
        test_trials.responses, model.predict(test_trials), multioutput="mice"
    )
    for mouse in test_trials.mice:
        labels = {"mouse": mouse, "metric": "share_of_oracle"}
        assert value(table, model="oracle", **labels) == 1
        share = (reached / best).sel(mouse=mouse)
        assert value(table, model="m", **labels) == pytest.approx(share.item())
        got = value(table, model="oracle", mouse=mouse, metric="single_trial_correlation")
        assert got == best.sel(mouse=mouse)
    without = v1.score_table({"m": model}, test_trials, oracle=False)
    pd.testing.assert_frame_equal(without, table[table["model"] == "m"])


def test_means_over_mice_are_those_of_the_metrics(test_trials):
    model = Blurred().fit(test_trials)
    means = v1.score_table(model, test_trials, multioutput="uniform_average")
    assert means.columns.tolist() == ["model", "metric", "value"]
    predicted, target = model.predict(test_trials), test_trials.responses
    for name in NAMES:
        expected = getattr(metrics, name)(target, predicted)
        assert value(means, model="Blurred", metric=name) == expected
    ceiling = metrics.single_trial_correlation(target, test_trials.expected_responses)
    share = metrics.single_trial_correlation(target, predicted) / ceiling
    assert value(means, model="Blurred", metric="share_of_oracle") == pytest.approx(share)
    per_mouse = v1.score_table(model, test_trials, metrics=NAMES)
    pivots = [t.pivot_table("value", "model", "metric", sort=False) for t in (per_mouse, means)]
    pd.testing.assert_frame_equal(pivots[0], pivots[1][NAMES])


def test_values_of_neurons_with_what_is_known_of_them(test_trials):
    model = Blurred().fit(test_trials)
    table = v1.score_table(model, test_trials, multioutput="raw_values", metrics="feve")
    assert table.columns[:3].tolist() == ["model", "mouse", "neuron"]
    assert table.columns[-2:].tolist() == ["metric", "value"]
    assert {"area", "layer"} <= set(table.columns)
    values = metrics.feve(
        test_trials.responses, model.predict(test_trials), multioutput="raw_values"
    )
    of_model = table[table["model"] == "Blurred"]
    np.testing.assert_array_equal(of_model["value"], values)
    assert list(zip(of_model["mouse"], of_model["neuron"], strict=True)) == list(
        values["unit"].values
    )


def test_pivots(test_trials):
    table = v1.score_table([Blurred().fit(0), Sharp(0.1).fit(0)], test_trials)
    wide = table.pivot(index=["model", "mouse"], columns="metric", values="value")
    assert wide.shape == (6, 6)
    assert not wide.isna().any(axis=None)


def test_names_come_from_the_classes():
    table = v1.score_table(
        [Blurred().fit(0), Sharp().fit(0), Blurred(0.1).fit(0)],
        small_trials().sel(mouse_id="A"),
        metrics="single_trial_correlation",
    )
    assert table["model"].tolist() == ["Blurred", "Sharp", "Blurred (2)"]


def small_trials(repeats=True, second_repeats=True):
    """Twelve trials of two mice, with and without repeated images."""
    rng = np.random.default_rng(0)
    recordings = {}
    for mouse, repeated in (("A", repeats), ("B", second_repeats)):
        recordings[mouse] = xr.Dataset(
            {
                "stimuli": (("trial", "channel", "height", "width"), np.zeros((12, 1, 2, 2), "u1")),
                "responses": (("trial", "neuron"), rng.random((12, 3))),
            },
            {"image_id": ("trial", np.arange(12) // (2 if repeated else 1))},
        )
    trials = v1.Trials(recordings)
    return trials if second_repeats == repeats else trials[np.random.default_rng(0).permutation(24)]


@pytest.mark.parametrize("multioutput", ["mice", "uniform_average", "raw_values"])
def test_without_repeated_images_their_metrics_are_nan_and_say_so(multioutput):
    trials, model = small_trials(repeats=False, second_repeats=False), Blurred().fit(0)
    with pytest.warns(UndefinedMetricWarning, match=r"no image is repeated for the mice \['A', 'B"):
        table = v1.score_table(model, trials, multioutput=multioutput)
    assert table["metric"].unique().tolist() == NAMES
    np.testing.assert_array_equal(table["value"].isna(), table["metric"].isin(REPEATS))
    with pytest.raises(ValueError, match="mouse 'A': no image is repeated"):
        v1.score_table(model, trials, metrics=["feve"])


@pytest.mark.parametrize("multioutput", ["mice", "uniform_average", "raw_values"])
def test_without_repeated_images_of_one_mouse(multioutput):
    trials, model = small_trials(repeats=False), Blurred().fit(0)
    with pytest.warns(UndefinedMetricWarning, match=r"no image is repeated for the mice \['A'\]"):
        table = v1.score_table(model, trials, multioutput=multioutput)
    at = np.flatnonzero(trials.mouse_ids == "B")
    target, predicted = trials.responses[at], model.predict(trials)[at]
    for name in REPEATS:
        rows = table[table["metric"] == name]
        expected = getattr(metrics, name)(target, predicted, multioutput=multioutput)
        if multioutput != "uniform_average":
            assert rows.loc[rows["mouse"] == "A", "value"].isna().all()
            rows = rows[rows["mouse"] == "B"]
        np.testing.assert_array_equal(rows["value"], np.atleast_1d(expected))


def test_own_metrics(test_trials):
    def every(y_true, y_pred, **options):
        return metrics.feve(y_true, y_pred, threshold=-np.inf, **options)

    model = Blurred().fit(0)
    own = {"feve of every neuron": every, "corr": metrics.single_trial_correlation}
    table = v1.score_table(model, test_trials, metrics=own, oracle=False)
    assert table["metric"].unique().tolist() == list(own)
    expected = every(test_trials.responses, model.predict(test_trials), multioutput="mice")
    np.testing.assert_array_equal(
        table[table["metric"] == "feve of every neuron"]["value"], expected
    )


@pytest.mark.slow
def test_pipelines_searches_and_ensembles(trials, test_trials):
    train = trials.sel(tier="train")
    model = v1.LNRegressor(
        n_layers=1, hidden_channels=2, input_kernel=5, max_epochs=1, device="cpu", random_state=0
    )
    pipeline = make_pipeline(v1.TrialStandardizer(), model)
    search = GridSearchCV(model, {"lr": [1e-3]}, cv=GroupKFold(2))
    hyperband = HyperbandSearch(model, {"lr": [1e-3]}, n_trials=1, random_state=0)
    ensemble = v1.EnsembleRegressor(model, n_candidates=1, n_members=1, random_state=0)
    models = [pipeline.fit(train), ensemble.fit(train), hyperband.fit(train)]
    models.append(search.fit(train, groups=train.image_ids))
    table = v1.score_table(models, test_trials, oracle=False)
    names = ["LN", "ensemble", "LN (2)", "LN (3)"]
    assert table["model"].unique().tolist() == names
    for name, fitted in zip(names, models, strict=True):
        expected = metrics.average_correlation(test_trials.responses, fitted.predict(test_trials))
        rows = table[(table["model"] == name) & (table["metric"] == "average_correlation")]
        assert rows["value"].mean() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("estimators", "error", "match"),
    [
        (
            v1.CNNRegressor,
            TypeError,
            "estimators: <class .*CNNRegressor'> came as 'CNN': expected a fitted",
        ),
        ({"a": 3}, TypeError, "estimators: a int came as 'a'"),
        ({"a": v1.CNNRegressor()}, NotFittedError, "'a', a CNNRegressor, is not fitted"),
        ([], ValueError, "estimators is empty"),
        ({"oracle": Blurred().fit(0)}, ValueError, "is called 'oracle'"),
        (
            {1: Blurred().fit(0), "1": Sharp().fit(0)},
            ValueError,
            "estimators: two are called '1'",
        ),
    ],
)
def test_wrong_models_are_refused(test_trials, estimators, error, match):
    with pytest.raises(error, match=match):
        v1.score_table(estimators, test_trials)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metrics": "fev"}, r"metrics is 'fev': expected names among \['single_trial"),
        ({"metrics": []}, "expected names among"),
        ({"metrics": np.array(1.0)}, "expected names among"),
        ({"metrics": np.ma.masked}, "expected names among"),
        ({"metrics": "share_of_oracle"}, "'share_of_oracle' for simulated recordings only"),
        ({"metrics": dict.fromkeys([1, "1"], metrics.feve)}, "metrics: two are called '1'"),
        ({"oracle": "yes"}, "oracle is 'yes'"),
        ({"oracle": True}, "no expected_responses"),
        ({"multioutput": "neurons"}, "multioutput is 'neurons'"),
    ],
)
def test_wrong_options_are_refused(recorded, options, match):
    with pytest.raises(ValueError, match=match):
        v1.score_table(Blurred().fit(0), recorded, **options)


def test_the_true_rates_are_scored_only_where_asked_for(test_trials):
    recordings = {m: r.to_dataset() for m, r in test_trials.recordings.children.items()}
    broken = v1.Trials(
        {
            m: r.assign(expected_responses=r["expected_responses"] * np.nan)
            for m, r in recordings.items()
        }
    )
    model = Blurred().fit(broken)
    table = v1.score_table(model, broken, metrics="feve", oracle=False)
    expected = metrics.feve(broken.responses, model.predict(broken), multioutput="mice")
    np.testing.assert_array_equal(table["value"], expected)
    with pytest.raises(ValueError, match="NaN"):
        v1.score_table(model, broken, metrics="share_of_oracle", oracle=False)


def test_the_name_oracle_is_free_where_there_is_none(recorded):
    assert set(v1.score_table({"oracle": Blurred().fit(0)}, recorded)["model"]) == {"oracle"}


def test_recordings_are_not_trials(recorded):
    with pytest.raises(TypeError, match="trials is a DataTree: expected Trials, such as"):
        v1.score_table(Blurred().fit(0), recorded.recordings)
