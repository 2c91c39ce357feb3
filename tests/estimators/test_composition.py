"""The estimators in scikit-learn's tools, on `Trials` in memory and in files."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    train_test_split,
    validation_curve,
)
from sklearn.pipeline import Pipeline, make_pipeline

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.metrics import scorers, single_trial_correlation
from v1tlearn.model_selection import tier_split
from v1tlearn.preprocessing import TrialStandardizer
from v1tlearn.trials import Trials

FOLDS = GroupKFold(2)
WITH_Y = pytest.mark.parametrize("with_y", quick([False, True], 0))


@pytest.fixture(scope="module")
def cnn(small):
    return small(max_epochs=1, validation_fraction=0)


@pytest.fixture(scope="module")
def scores(cnn, trials):
    """What the folds should score, by hand."""
    out = []
    for train, test in FOLDS.split(trials, groups=trials.image_ids):
        est = clone(cnn).fit(trials[train])
        out.append(est.score(trials[test]))
    return out


def y_of(trials, with_y):
    return trials.responses if with_y else None


# ------------------------------------------------------------------------------- cross-validation


@WITH_Y
def test_cross_val_score(with_y, cnn, trials, scores):
    found = cross_val_score(
        cnn, trials, y_of(trials, with_y), groups=trials.image_ids, cv=FOLDS, error_score="raise"
    )
    assert found.tolist() == scores


@WITH_Y
def test_cross_val_predict_keeps_the_order(with_y, cnn, trials):
    found = cross_val_predict(cnn, trials, y_of(trials, with_y), groups=trials.image_ids, cv=FOLDS)
    assert [len(v) for v in found] == [trials.n_neurons[m] for m in trials.mouse_ids]
    for train, test in FOLDS.split(trials, groups=trials.image_ids):
        expected = np.asarray(clone(cnn).fit(trials[train]).predict(trials[test]))
        assert all(map(np.array_equal, found[test], expected))
    assert np.isfinite(single_trial_correlation(trials.responses, found))


def test_no_image_is_on_both_sides_across_mice(trials):
    shared = set(trials.sel(mouse_id="A").image_ids) & set(trials.sel(mouse_id="B").image_ids)
    assert shared
    for train, test in FOLDS.split(trials, groups=trials.image_ids):
        assert not set(trials[train].image_ids) & set(trials[test].image_ids)


def test_hashes_of_images_are_groups_too(trials, arrays):
    plain = Trials.from_arrays(arrays["stimuli"], None, arrays["responses"])
    for split, by_hash in zip(
        FOLDS.split(trials, groups=trials.image_ids),
        FOLDS.split(plain, groups=plain.image_ids),
        strict=True,
    ):
        assert not set(plain[by_hash[0]].image_ids) & set(plain[by_hash[1]].image_ids)
        assert not set(trials[split[0]].image_ids) & set(trials[split[1]].image_ids)


def test_tiers_as_a_predefined_split(cnn, recordings):
    trials = Trials(recordings).sel(tier=["train", "test"])
    found = cross_val_score(cnn, trials, cv=tier_split(trials, test="test"), error_score="raise")
    expected = clone(cnn).fit(trials.sel(tier="train")).score(trials.sel(tier="test"))
    assert found.tolist() == [expected]


@WITH_Y
@pytest.mark.filterwarnings("ignore:.* trials that are scored show images")
def test_train_test_split(with_y, cnn, trials):
    if with_y:
        train, test, y_train, y_test = train_test_split(trials, trials.responses, random_state=0)
        est = clone(cnn).fit(train, y_train)
        assert est.score(test, y_test) == clone(cnn).fit(train).score(test)
    else:
        train, test = train_test_split(trials, test_size=0.25, random_state=0)
        assert len(train) + len(test) == len(trials)
        assert isinstance(test, Trials)


@pytest.mark.slow
def test_learning_and_validation_curves(cnn, trials):
    keywords = {"groups": trials.image_ids, "cv": FOLDS, "error_score": "raise"}
    sizes, train, test = learning_curve(
        cnn, trials, None, train_sizes=[0.5, 1.0], shuffle=True, random_state=0, **keywords
    )
    assert sizes[1] > sizes[0]
    assert np.isfinite(train).all()
    assert test.shape == (2, 2)
    _, test = validation_curve(
        cnn, trials, None, param_name="lr", param_range=[1e-3, 2e-3], **keywords
    )
    assert np.isfinite(test).all()


def test_permutation_test_for_one_mouse(cnn, trials):
    one = trials.sel(mouse_id="A")
    score, permuted, p = permutation_test_score(
        cnn, one, one.responses, cv=KFold(2), n_permutations=3, random_state=0
    )
    assert np.isfinite(score)
    assert len(set(permuted)) == 3
    assert 0 < p <= 1


def test_permuting_over_mice_is_refused(cnn, trials):
    with pytest.raises(ValueError, match="Was y permuted"):
        permutation_test_score(
            cnn,
            trials,
            trials.responses,
            groups=trials.image_ids,
            cv=FOLDS,
            n_permutations=2,
            random_state=0,
        )


# ------------------------------------------------------------------------------- searches


@WITH_Y
def test_grid_search(with_y, cnn, trials, scores):
    search = GridSearchCV(
        cnn, {"hidden_channels": [4, 6], "lr": [2e-3, 1e-3]}, cv=FOLDS, error_score="raise"
    ).fit(trials, y_of(trials, with_y), groups=trials.image_ids)
    first = [search.cv_results_[f"split{k}_test_score"][0] for k in range(2)]
    assert first == scores
    assert search.best_estimator_.mice_ == ["A", "B"]
    assert search.score(trials) == search.best_estimator_.score(trials)
    assert len(search.predict(trials)) == len(trials)


@WITH_Y
def test_randomized_search(with_y, cnn, trials):
    search = RandomizedSearchCV(
        cnn, {"lr": [1e-3, 2e-3, 4e-3]}, n_iter=2, cv=FOLDS, random_state=0, error_score="raise"
    ).fit(trials, y_of(trials, with_y), groups=trials.image_ids)
    assert search.best_params_["lr"] in (1e-3, 2e-3, 4e-3)


@pytest.mark.slow
@WITH_Y
def test_halving_search(with_y, cnn, trials):
    search = HalvingGridSearchCV(
        cnn,
        {"lr": [1e-3, 2e-3]},
        cv=FOLDS,
        factor=2,
        resource="max_epochs",
        max_resources=2,
        min_resources=1,
        error_score="raise",
    ).fit(trials, y_of(trials, with_y), groups=trials.image_ids)
    assert search.n_iterations_ == 2
    assert search.best_estimator_.n_iter_ == 2


@pytest.mark.filterwarnings("ignore:.* trials that are scored show images")
def test_halving_over_trials(cnn, trials):
    search = HalvingGridSearchCV(
        cnn,
        {"lr": [1e-3, 2e-3]},
        cv=KFold(2, shuffle=True, random_state=0),
        factor=2,
        min_resources=40,
        random_state=0,
        error_score="raise",
    ).fit(trials, trials.responses)
    assert search.n_resources_ == [40, 80]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["memory", "file"])
def test_two_processes(where, cnn, trials, scores, tmp_path):
    if where == "file":
        trials.to_netcdf(tmp_path / "trials.nc")
        trials = Trials.open(tmp_path / "trials.nc")
    search = GridSearchCV(
        cnn, {"lr": [2e-3, 1e-3]}, cv=FOLDS, n_jobs=2, error_score="raise", refit=False
    ).fit(trials, groups=trials.image_ids)
    found = [search.cv_results_[f"split{k}_test_score"][0] for k in range(2)]
    assert found == pytest.approx(scores, abs=1e-6)


# ------------------------------------------------------------------------------- scorers


@pytest.fixture(scope="module")
def repeats(test_trials):
    """Images shown four times, without tiers, so that they can be fitted."""
    names = ("stimuli", "behaviors", "responses")
    parts = [{m: test_trials.get(name, m) for m in test_trials.mice} for name in names]
    ids = {m: test_trials.image_ids[test_trials.rows(m)[0]] for m in test_trials.mice}
    return Trials.from_arrays(*parts, image_ids=ids)


@WITH_Y
@pytest.mark.parametrize("name", ["single_trial_correlation", "average_correlation"])
def test_named_scorers(name, with_y, cnn, repeats):
    found = cross_val_score(
        cnn,
        repeats,
        y_of(repeats, with_y),
        groups=repeats.image_ids,
        cv=FOLDS,
        scoring=scorers[name],
        error_score="raise",
    )
    for score, (train, test) in zip(
        found, FOLDS.split(repeats, groups=repeats.image_ids), strict=True
    ):
        answer = clone(cnn).fit(repeats[train]).predict(repeats[test])
        metric = getattr(v1.metrics, name)
        assert score == pytest.approx(metric(repeats[test].responses, answer), abs=1e-12)


@WITH_Y
def test_several_and_callable_scorers(with_y, cnn, repeats):
    scoring = {
        "single": scorers["single_trial_correlation"],
        "average": scorers["average_correlation"],
        "own": lambda est, X, y=None: est.score(X, y),
    }
    if with_y:
        scoring["made"] = make_scorer(single_trial_correlation)
    search = GridSearchCV(
        cnn, {"lr": [1e-3, 2e-3]}, cv=FOLDS, scoring=scoring, refit="average", error_score="raise"
    ).fit(repeats, y_of(repeats, with_y), groups=repeats.image_ids)
    results = search.cv_results_
    assert np.allclose(results["mean_test_single"], results["mean_test_own"])
    if with_y:
        assert np.allclose(results["mean_test_single"], results["mean_test_made"])
    assert search.best_score_ == results["mean_test_average"].max()


@pytest.mark.parametrize("name", ["r2", "neg_mean_squared_error"])
@WITH_Y
def test_scorers_of_scikit_learn_are_refused_in_words(name, with_y, cnn, trials):
    with pytest.raises((TypeError, ValueError)) as caught:
        cross_val_score(
            cnn,
            trials,
            y_of(trials, with_y),
            groups=trials.image_ids,
            cv=FOLDS,
            scoring=name,
            error_score="raise",
        )
    message = str(caught.value)
    if with_y:
        assert "v1tlearn.metrics.scorers" in message
    else:
        assert "y_true" in message


@pytest.mark.parametrize("kind", ["model", "pipeline", "decoder"])
def test_folds_that_hold_out_whole_mice_are_told_of_ahead_of_the_training(kind, cnn, pipe, trials):
    # two mice, one after the other, and KFold cuts in the middle: every score is NaN
    est = {"model": cnn, "pipeline": pipe, "decoder": v1.RidgeDecoder()}[kind]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = cross_val_score(est, trials, cv=2)
    assert np.isnan(found).all()
    told = [str(one.message) for one in caught if "this fold" in str(one.message)]
    assert ["['A']" in text for text in told] == [True, False]
    assert ["['B']" in text for text in told] == [False, True]
    assert all("GroupKFold(5) with groups=trials.image_ids" in text for text in told)
    assert str(caught[0].message) == told[0]


def test_splits_by_responses_are_refused_with_those_by_mouse(trials):
    for split in (
        lambda: next(StratifiedKFold(2).split(trials, trials.responses)),
        lambda: train_test_split(trials, stratify=trials.responses),
    ):
        with pytest.raises(TypeError, match=r"StratifiedGroupKFold\(5\)\.split\(trials, trials"):
            split()
    folds = StratifiedGroupKFold(2).split(trials, trials.mouse_ids, trials.image_ids)
    for train, test in folds:
        assert trials[train].mice == trials[test].mice == trials.mice
        assert not set(trials[train].image_ids) & set(trials[test].image_ids)


# ------------------------------------------------------------------------------- pipelines


@pytest.fixture(scope="module")
def pipe(small):
    return Pipeline(
        [
            ("standardize", TrialStandardizer()),
            ("crop", v1.CenterCrop(0.8)),
            ("resize", v1.ResizeStimuli((10, 12))),
            ("model", small(max_epochs=1, validation_fraction=0, standardize=False)),
        ]
    )


class Recorder(TrialStandardizer):
    """Remembers the trials of every fit."""

    seen = []  # noqa: RUF012

    def fit(self, X, y=None):
        self.seen.append(X)
        return super().fit(X, y)


@WITH_Y
def test_statistics_come_from_the_training_fold_only(with_y, pipe, trials):
    recording = clone(pipe).set_params(standardize=Recorder())
    Recorder.seen.clear()
    cross_val_score(
        recording,
        trials,
        y_of(trials, with_y),
        groups=trials.image_ids,
        cv=FOLDS,
        error_score="raise",
    )
    folds = [train for train, _ in FOLDS.split(trials, groups=trials.image_ids)]
    assert len(Recorder.seen) == len(folds)
    for seen, train in zip(Recorder.seen, folds, strict=True):
        assert np.array_equal(seen._index, trials[train]._index)


@WITH_Y
def test_search_over_a_pipeline(with_y, pipe, trials):
    search = GridSearchCV(
        pipe,
        {"crop__scale": [1.0, 0.8], "model__lr": [1e-3]},
        cv=FOLDS,
        error_score="raise",
    ).fit(trials, y_of(trials, with_y), groups=trials.image_ids)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    answer = cross_val_predict(search.best_estimator_, trials, groups=trials.image_ids, cv=FOLDS)
    assert len(answer) == len(trials)


def test_a_pipeline_answers_in_data_units(pipe, trials):
    answer = clone(pipe).set_params(model__max_epochs=5, model__readout_bias="mean").fit(trials)
    for mouse in trials.mice:
        ratio = answer.predict(trials).get(mouse).mean() / trials.get("responses", mouse).mean()
        assert 0.5 < ratio < 2


def test_the_validation_set_passes_through_the_transformers(pipe, small, trials, test_trials):
    with sklearn.config_context(enable_metadata_routing=True):
        model = small(max_epochs=3, standardize=False, image_size=(9, 12))
        whole = Pipeline(
            [
                ("standardize", TrialStandardizer()),
                ("model", model.set_fit_request(validation=True)),
            ],
            transform_input=["validation"],
        ).fit(trials, validation=test_trials)
    best = max(record["validation_correlation"] for record in whole[-1].history_)
    assert whole.score(test_trials) == pytest.approx(best, abs=1e-5)
    inside = small(max_epochs=3, image_size=(9, 12)).fit(trials, validation=test_trials)
    assert inside.history_[-1]["validation_correlation"] == pytest.approx(
        whole[-1].history_[-1]["validation_correlation"], abs=1e-5
    )


# ------------------------------------------------------------------------------- metadata routing


@pytest.mark.slow
@pytest.mark.parametrize("routing", [False, True])
def test_groups_with_and_without_routing(routing, pipe, cnn, trials, scores):
    groups = trials.image_ids
    with sklearn.config_context(enable_metadata_routing=routing):
        params = {"params": {"groups": groups}} if routing else {"groups": groups}
        found = cross_validate(cnn, trials, cv=FOLDS, error_score="raise", **params)
        assert found["test_score"].tolist() == scores
        search = GridSearchCV(cnn, {"lr": [2e-3]}, cv=FOLDS, error_score="raise")
        assert search.fit(trials, groups=groups).best_score_ == pytest.approx(np.mean(scores))
        assert len(cross_val_predict(cnn, trials, cv=FOLDS, **params)) == len(trials)
        search = GridSearchCV(pipe, {"model__lr": [2e-3]}, cv=FOLDS, error_score="raise")
        assert np.isfinite(search.fit(trials, groups=groups).best_score_)


def test_sample_weight_is_routed_to_score(small, trials):
    with sklearn.config_context(enable_metadata_routing=True):
        weights = (np.arange(len(trials)) % 3 > 0).astype(float)
        model = small(max_epochs=1).set_score_request(sample_weight=True)
        found = make_pipeline(model).fit(trials).score(trials, sample_weight=weights)
        keep = trials[np.flatnonzero(weights)]
        assert found == pytest.approx(model.fit(trials).score(keep), abs=1e-6)


# ------------------------------------------------------------------------------- parameters, repr


@pytest.mark.parametrize(
    "kind",
    [v1.CNNRegressor, v1.FullModelRegressor, v1.LNRegressor, v1.ViTRegressor, v1.V1TRegressor],
)
def test_clone_and_parameters(kind, small, trials):
    est = small(kind, max_epochs=0).fit(trials)
    copy = clone(est)
    assert copy.get_params() == est.get_params()
    assert not hasattr(copy, "module_")
    assert not hasattr(copy, "history_")
    for name, value in kind().get_params().items():
        assert getattr(kind(**{name: value}), name) is value  # stored untouched
    assert est.set_params(lr=0.5).lr == 0.5
    given = ["running_speed"]
    assert kind(behavior_columns=given).behavior_columns is given


def test_repr(pipe, trials, cnn):
    assert repr(v1.CNNRegressor(hidden_channels=8)) == "CNNRegressor(hidden_channels=8)"
    assert "CNNRegressor" in v1.CNNRegressor()._repr_html_()
    html = clone(pipe).fit(trials)._repr_html_()
    for name in ("TrialStandardizer", "CenterCrop", "ResizeStimuli", "CNNRegressor"):
        assert name in html
