"""Methods that are called with arguments they do not have."""

import inspect

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.search import HyperbandSearch


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("X", "fit has no argument 'X'. The data come first, without a name: fit(trials)."),
        ("y", "fit(trials, y)"),
        ("groups", "GridSearchCV(...).fit(trials, groups=trials.image_ids)"),
        ("sample_weight", "score(trials, sample_weight=...)"),
        ("validation_data", "did you mean validation?"),
        ("validatoin", "did you mean validation?"),
        ("eval_set", "did you mean validation?"),
        ("callback", "did you mean on_epoch?"),
        ("behaviours", "did you mean behaviors?"),
        ("images", "did you mean stimuli?"),
        ("mice", "did you mean mouse_ids?"),
        ("epochs", "max_epochs is a parameter of the model, CNNRegressor(max_epochs=...)."),
        ("batch_size", "batch_size is a parameter of the model, CNNRegressor(batch_size=...)."),
        ("validation_split", "validation_fraction is a parameter of the model"),
        ("tiers", "Trials.from_arrays(..., tiers=...)"),
        ("nonsense", "fit takes stimuli, behaviors, responses, mouse_ids"),
    ],
)
def test_words_that_fit_does_not_know(word, said, trials, small):
    with pytest.raises(TypeError, match=f"CNNRegressor.fit has no argument '{word}'") as error:
        small().fit(trials, **{word: 1})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("method", "word", "said"),
    [
        ("predict", "X", "predict(trials)"),
        ("predict", "batch_size", "a parameter of the model"),
        ("predict", "tier", "predict(trials.sel(tier=...))"),
        ("predict", "mouse_id", "predict(trials.sel(mouse_id=...))"),
        ("score", "metric", "v1tlearn.metrics.feve(trials.responses, model.predict(trials))"),
        ("score", "scoring", "v1tlearn.metrics.feve(trials.responses, model.predict(trials))"),
        ("score", "sample_weights", "did you mean sample_weight?"),
        ("partial_fit", "validation", "partial_fit takes stimuli"),
    ],
)
def test_words_of_the_other_methods(method, word, said, fitted, trials):
    with pytest.raises(TypeError, match=f"CNNRegressor.{method} has no argument") as error:
        getattr(fitted, method)(trials, **{word: 1})
    assert said in str(error.value)


def test_words_of_ensembles_and_searches(small, trials):
    for est in (v1.EnsembleRegressor(small()), HyperbandSearch(small())):
        with pytest.raises(TypeError, match=r"did you mean validation\?"):
            est.fit(trials, validation_data=trials)


def test_too_many_and_too_few(fitted, small, trials):
    stimuli, responses = trials.get("stimuli", "A"), trials.get("responses", "A")
    with pytest.raises(TypeError, match=r"3 arguments came by position; validation, on_epoch go"):
        fitted.transfer(stimuli, None, responses)
    with pytest.raises(
        TypeError, match=r"CNNRegressor.fit: missing a required argument: 'stimuli'"
    ):
        small().fit()


def test_a_class_is_no_model(trials):
    for method in ("fit", "predict", "score", "transfer"):
        with pytest.raises(
            TypeError, match=rf"{method} was called on a class: .*model\.{method}\("
        ):
            getattr(v1.CNNRegressor, method)(trials, trials.responses)


def test_callbacks_are_functions(small, trials):
    with pytest.raises(TypeError, match="on_epoch is a str: expected a function"):
        small().fit(trials, on_epoch="print")


def test_signatures_stay():
    takes = list(inspect.signature(v1.V1TRegressor().fit).parameters)
    assert takes[:4] == ["stimuli", "behaviors", "responses", "mouse_ids"]
    assert "validation" in takes
    assert "kwargs" not in takes
    assert hasattr(v1.V1TRegressor, "set_score_request")  # found in the signature


def test_a_warning_points_at_the_caller(recordings, small):
    with pytest.warns(UserWarning, match="tiers") as caught:
        small(max_epochs=1).fit(v1.Trials(recordings))
    assert caught[0].filename == __file__


def test_trials_given_twice(trials, test_trials, small, fitted):
    for call in (
        lambda: small().fit(trials, test_trials),
        lambda: small().fit(trials, trials.responses, test_trials),
    ):
        with pytest.raises(TypeError, match=r"Trials twice.*fit\(trials, validation=others\)"):
            call()
    with pytest.raises(TypeError, match=r"Trials twice.*score\(trials\)"):
        fitted.score(trials, test_trials)


def test_weights_in_the_place_of_y(fitted, test_trials):
    with pytest.raises(ValueError, match=r"score\(trials, sample_weight=weights\)"):
        fitted.score(test_trials, np.ones(len(test_trials)))
    with pytest.raises(TypeError, match="y is a float: expected trials"):
        fitted.score(test_trials, 1.0)
