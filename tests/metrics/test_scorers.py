import pickle

import numpy as np
import pytest
import sklearn
import xarray as xr
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.metrics import check_scoring, get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
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
    assert tuple(metrics.scorers) == NAMES


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


@pytest.mark.parametrize("name", NAMES)
def test_scorers_survive_pickle_and_clone(name):
    scorer = metrics.scorers[name]
    assert repr(scorer) == f"v1tlearn.metrics.scorers['{name}']"
    assert pickle.loads(pickle.dumps(scorer)) == scorer
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
