"""Learning curves: what is fitted to what, scored on what, and drawn."""

import numpy as np
import pandas as pd
import pytest

import v1tlearn as v1
from v1tlearn import metrics
from v1tlearn.inspection import LearningCurveDisplay


class Counting:
    """Predicts the true rates, and tells what it was fitted to."""

    fits = None

    def get_params(self, deep=True):
        return {}

    def fit(self, trials):
        type(self).fits.append(trials)
        return self

    def predict(self, trials):
        return trials.expected_responses


@pytest.fixture
def counting():
    Counting.fits = []
    return Counting()


@pytest.fixture(scope="module")
def train(recordings):
    return v1.Trials(recordings).sel(tier="train")


def test_parts_grow_by_images_within_each_other(counting, train, test_trials, figures):
    display = LearningCurveDisplay.from_estimator(
        {"m": counting}, train, test=test_trials, sizes=(0.2, 0.5, 1.0), cv=2
    )
    fits = [set(fit.image_ids.tolist()) for fit in Counting.fits]
    assert len(fits) == 6
    n_images = len(set(train.image_ids.tolist()))
    for small, middle, all_ in (fits[:3], fits[3:]):
        assert small < middle < all_
        assert len(middle) == round(0.5 * n_images)
        assert len(all_) == n_images
    expected = metrics.single_trial_correlation(
        test_trials.responses, test_trials.expected_responses
    )
    assert display.table["score"].tolist() == pytest.approx([expected] * 6)
    assert display.ceiling == pytest.approx(expected)
    assert display.table["n_trials"].max() == len(train) / 2


def test_without_a_test_set_folds_are_of_images(counting, train, figures):
    LearningCurveDisplay.from_estimator(counting, train, sizes=(1.0,), cv=3)
    fits = [set(fit.image_ids.tolist()) for fit in Counting.fits]
    left_out = [set(train.image_ids.tolist()) - own for own in fits]
    assert all(left_out)
    assert set().union(*left_out) == set(train.image_ids.tolist())


def test_neurons_grow_and_the_same_ones_are_scored(counting, train, test_trials, figures):
    display = LearningCurveDisplay.from_estimator(
        counting, train, test=test_trials, over="neurons", sizes=(0.5, 1.0), cv=2
    )
    assert [list(fit.n_neurons.values()) for fit in Counting.fits] == [[2, 2], [4, 3]] * 2
    scores = display.table.pivot_table("score", "fold", "size")
    assert scores[0.5].tolist() == pytest.approx(scores[1.0].tolist())
    assert scores[1.0].nunique() == 2  # other neurons in the other order
    assert display.x == "n_neurons"


def test_models_are_refitted_not_changed(models, train, test_trials, figures):
    before = {name: model.module_ for name, model in models.items()}
    display = LearningCurveDisplay.from_estimator(
        models, train, test=test_trials, sizes=(0.5, 1.0), cv=1
    )
    assert all(models[name].module_ is module for name, module in before.items())
    assert display.means_.index.tolist() == ["LN", "CNN"]
    assert display.means_.shape == (2, 2)


def test_a_table_is_drawn_with_its_ceiling(figures):
    table = pd.DataFrame(
        {
            "model": ["A", "A", "A", "B"],
            "n_trials": [10, 10, 100, 100],
            "score": [0.1, 0.3, 0.4, 0.5],
        }
    )
    display = LearningCurveDisplay(table, ceiling=0.8).plot()
    assert display.means_.loc["A"].tolist() == pytest.approx([0.2, 0.4])
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in display.ax_.get_lines()}
    np.testing.assert_allclose(lines["A"], [0.2, 0.4])
    assert set(np.ravel(lines["oracle"])) == {0.8}
    assert display.ax_.get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"over": "mice"}, "over='mice'"),
        ({"sizes": (0.5, 2)}, "sizes"),
        ({"cv": 1}, "test is missing"),
        ({"over": "neurons"}, "test is missing"),
    ],
)
def test_wrong_options_are_refused(counting, train, options, match):
    with pytest.raises(ValueError, match=match):
        LearningCurveDisplay.from_estimator(counting, train, **options)


@pytest.mark.parametrize("other", [v1.CNNRegressor, v1.DINAAligner()])
def test_what_predicts_nothing_is_refused(train, other):
    with pytest.raises(TypeError, match="expected an estimator, such as"):
        LearningCurveDisplay.from_estimator(other, train)


def test_tables_without_their_columns_are_refused():
    with pytest.raises(ValueError, match="expected rows with 'model', 'n_trials'"):
        LearningCurveDisplay(pd.DataFrame({"model": ["A"], "score": [1.0]}))
