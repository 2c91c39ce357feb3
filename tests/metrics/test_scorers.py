import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
import xarray as xr
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from v1tlearn import metrics
from v1tlearn.trials import Responses, Trials

NAMES = (
    "single_trial_correlation",
    "average_correlation",
    "feve",
    "fraction_oracle",
    "normalized_correlation",
)


class Cheat(RegressorMixin, BaseEstimator):
    """Predicts the very responses, plus noise of standard deviation `alpha`."""

    def __init__(self, alpha=0.5):
        self.alpha = alpha

    def fit(self, X, y=None):
        self.mice_ = X.mice
        return self

    def predict(self, X):
        rng = np.random.default_rng(0)
        truth = {mouse: X.get("responses", mouse) for mouse in X.mice}
        noisy = {m: r + self.alpha * rng.standard_normal(r.shape) for m, r in truth.items()}
        return Responses.from_arrays(noisy, like=X)


def make_trials():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(12), 4)
    recordings = {}
    for mouse, n in (("A", 4), ("B", 6)):
        signal = rng.standard_normal((12, n))[ids]
        recordings[mouse] = xr.Dataset(
            {
                "stimuli": (("trial", "channel", "height", "width"), np.zeros((48, 1, 2, 2), "u1")),
                "responses": (("trial", "neuron"), signal + rng.standard_normal((48, n))),
            },
            {"image_id": ("trial", ids)},
        )
    return Trials(recordings)


TRIALS = make_trials()


def test_names():
    assert tuple(metrics.scorers) == (*NAMES, "feve_strict")


def test_the_strict_threshold_has_a_scorer_of_its_own():
    responses = [[0.0], [1.0], [2.0], [0.0], [6.0], [5.0]]  # fev is .15, as the threshold is
    trials = Trials.from_arrays(
        np.zeros((6, 1, 2, 2), "u1"), responses=np.array(responses), image_ids=[0, 1, 2, 0, 1, 2]
    )
    estimator = Cheat(0.0).fit(trials)
    assert metrics.scorers["feve"](estimator, trials) > 1
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(metrics.scorers["feve_strict"](estimator, trials))


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_the_metric_of_the_predictions(name):
    estimator = Cheat().fit(TRIALS)
    pred = estimator.predict(TRIALS)
    expected = getattr(metrics, name)(TRIALS.responses, pred)
    scorer = metrics.scorers[name]
    assert scorer(estimator, TRIALS) == expected
    assert scorer(estimator, TRIALS, None) == expected
    assert scorer(estimator, TRIALS, TRIALS.responses) == expected
    assert scorer(estimator, TRIALS, np.asarray(TRIALS.responses)) == pytest.approx(expected)
    pipeline = make_pipeline(FunctionTransformer(), Cheat()).fit(TRIALS)
    assert scorer(pipeline, TRIALS) == expected


@pytest.mark.parametrize("name", [*NAMES, "feve_strict"])
def test_scorers_survive_pickle_and_clone(name):
    scorer = metrics.scorers[name]
    assert repr(scorer) == f"v1tlearn.metrics.scorers['{name}']"
    assert pickle.loads(pickle.dumps(scorer)) == scorer
    assert hash(pickle.loads(pickle.dumps(scorer))) == hash(scorer)
    assert get_scorer(scorer) is scorer
    assert check_scoring(Cheat(), scoring=scorer) is scorer
    search = GridSearchCV(Cheat(), {}, scoring=scorer)
    assert clone(search).scoring == scorer
    assert name in repr(search)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("y", [None, TRIALS.responses], ids=["without_y", "with_y"])
def test_searches_and_cross_validation(routing, y):
    scoring = metrics.scorers["average_correlation"]
    groups = TRIALS.image_ids
    cv = GroupKFold(3)
    grid = {"alpha": [0.0, 3.0]}
    with sklearn.config_context(enable_metadata_routing=routing):
        labels = {"params": {"groups": groups}} if routing else {"groups": groups}
        scores = cross_val_score(Cheat(0.0), TRIALS, y, cv=cv, scoring=scoring, **labels)
        np.testing.assert_allclose(scores, 1)
        options = {"scoring": scoring, "cv": cv, "error_score": "raise"}
        search = GridSearchCV(Cheat(), grid, **options).fit(TRIALS, y, groups=groups)
        assert search.best_params_ == {"alpha": 0.0}
        assert search.score(TRIALS, y) == pytest.approx(1)
        random = RandomizedSearchCV(Cheat(), grid, n_iter=2, random_state=0, **options)
        assert random.fit(TRIALS, y, groups=groups).best_score_ == pytest.approx(1)
        both = cross_validate(Cheat(), TRIALS, y, cv=cv, scoring=metrics.scorers, **labels)
        assert {f"test_{name}" for name in NAMES} <= set(both)
        assert all(np.isfinite(both[f"test_{name}"]).all() for name in NAMES)


@pytest.mark.slow
def test_multimetric_search_with_two_processes():
    search = GridSearchCV(
        Cheat(),
        {"alpha": [0.0, 3.0]},
        scoring=metrics.scorers,
        refit="feve",
        cv=GroupKFold(2),
        n_jobs=2,
        error_score="raise",
    )
    search.fit(TRIALS, groups=TRIALS.image_ids)
    assert search.best_params_ == {"alpha": 0.0}


def test_curves():
    options = {"scoring": metrics.scorers["single_trial_correlation"], "cv": GroupKFold(2)}
    groups = TRIALS.image_ids
    _, _, test = learning_curve(
        Cheat(0.0), TRIALS, None, groups=groups, train_sizes=[0.5, 1.0], **options
    )
    np.testing.assert_allclose(test, 1)
    _, test = validation_curve(
        Cheat(),
        TRIALS,
        None,
        groups=groups,
        param_name="alpha",
        param_range=[0.0, 3.0],
        **options,
    )
    assert (test[0] > test[1]).all()


def test_cross_val_predict_against_responses():
    pred = cross_val_predict(Cheat(0.0), TRIALS, cv=GroupKFold(2), groups=TRIALS.image_ids)
    assert metrics.single_trial_correlation(TRIALS.responses, pred) == pytest.approx(1)


class Constant:
    def predict(self, X):
        return X[:, :2]


def test_plain_arrays():
    X = np.random.default_rng(0).standard_normal((9, 4))
    assert metrics.scorers["single_trial_correlation"](Constant(), X, X[:, :2]) == pytest.approx(1)
    with pytest.raises(ValueError, match="image_ids is missing"):
        metrics.scorers["average_correlation"](Constant(), X, X[:, :2])
    with pytest.raises(ValueError, match=r"scorers\['feve'\] needs responses"):
        metrics.scorers["feve"](Constant(), X)


# By name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_scikit_learn_knows_the_names(name):
    assert name in get_scorer_names()
    assert get_scorer(name) == metrics.scorers[name]
    assert check_scoring(Cheat(), scoring=name) == metrics.scorers[name]


@pytest.mark.parametrize("routing", [False, True])
def test_searches_and_cross_validation_by_name(routing):
    groups, cv = TRIALS.image_ids, GroupKFold(3)
    with sklearn.config_context(enable_metadata_routing=routing):
        labels = {"params": {"groups": groups}} if routing else {"groups": groups}
        options = {"cv": cv, "error_score": "raise"} | labels
        scorer = metrics.scorers["average_correlation"]
        by_name = cross_val_score(Cheat(), TRIALS, scoring="average_correlation", **options)
        np.testing.assert_array_equal(
            by_name, cross_val_score(Cheat(), TRIALS, scoring=scorer, **options)
        )
        several = cross_validate(Cheat(), TRIALS, scoring=list(NAMES), **options)
        np.testing.assert_array_equal(several["test_average_correlation"], by_name)
        assert all(f"test_{name}" in several for name in NAMES)
        for search in (GridSearchCV, RandomizedSearchCV):
            fitted = search(
                Cheat(),
                {"alpha": [0.0, 3.0]},
                scoring="single_trial_correlation",
                cv=cv,
                error_score="raise",
                **({} if search is GridSearchCV else {"n_iter": 2, "random_state": 0}),
            ).fit(TRIALS, groups=groups)
            assert fitted.best_params_ == {"alpha": 0.0}
            assert fitted.score(TRIALS) == pytest.approx(1)


def test_nested_searches_by_name_in_processes():
    inner = GridSearchCV(
        Cheat(),
        {"alpha": [0.0, 3.0]},
        scoring="normalized_correlation",
        cv=KFold(2, shuffle=True, random_state=0),
        error_score="raise",
    )
    scores = cross_val_score(
        inner,
        TRIALS,
        groups=TRIALS.image_ids,
        cv=GroupKFold(2),
        scoring="average_correlation",
        n_jobs=2,
        error_score="raise",
    )
    np.testing.assert_allclose(scores, 1)


def test_names_of_scikit_learn_are_as_before():
    X = np.random.default_rng(0).standard_normal((20, 3))
    found = permutation_importance(
        LinearRegression().fit(X, X[:, 0]), X, X[:, 0], scoring="r2", random_state=0
    )
    assert found.importances_mean.argmax() == 0
    with pytest.raises(ValueError, match="'scoring' parameter of cross_val_score must be"):
        cross_val_score(LinearRegression(), X, X[:, 0], scoring="correlation_average")


def test_without_the_table_of_scikit_learn_the_scorers_remain(monkeypatch, caplog):
    monkeypatch.delattr("sklearn.metrics._scorer._SCORERS")
    with caplog.at_level(logging.INFO, logger="v1tlearn"):
        sys.modules[type(metrics.scorers["feve"]).__module__].register()
    assert "use v1tlearn.metrics.scorers" in caplog.text
    assert cross_val_score(Cheat(0.0), TRIALS, scoring=metrics.scorers["feve"], cv=2).shape == (2,)


IMPORTED_LATE = """
import numpy as np
import sklearn.metrics._scorer as module
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GridSearchCV, cross_val_score

theirs = module._SCORERS["feve"] = module.get_scorer("r2")
import v1tlearn as v1

class First(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        return self
    def predict(self, X):
        return X[:, :2]

X = np.random.default_rng(0).standard_normal((30, 3))
assert np.allclose(cross_val_score(First(), X, X[:, :2], scoring="single_trial_correlation"), 1)
search = GridSearchCV(First(), {}, scoring="single_trial_correlation").fit(X, X[:, :2])
assert np.isclose(search.best_score_, 1)
assert module._SCORERS["feve"] is theirs
assert v1.metrics.scorers["feve"].metric is v1.metrics.feve
"""


@pytest.mark.slow
def test_tools_imported_before_know_the_names_and_taken_ones_stay_with_their_owner():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTED_LATE],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "scoring='feve' is a scorer of another package" in done.stderr
