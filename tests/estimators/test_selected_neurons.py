"""Models of selected neurons are, to the last bit, those of recordings that were cut by hand."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from tests.sweeps import quick
from v1tlearn.metrics import average_correlation, feve, single_trial_correlation
from v1tlearn.preprocessing import TrialStandardizer
from v1tlearn.trials import Responses, Trials

PLACES = {"A": [3, 0, 4], "B": [5, 1, 2, 0]}


@pytest.fixture(scope="module")
def cut(recordings):
    return Trials({m: recordings[m].to_dataset().isel(neuron=PLACES[m]) for m in PLACES})


@pytest.fixture(scope="module", params=["memory", "file"])
def selected(request, recordings, tmp_path_factory):
    trials = Trials(recordings)
    if request.param == "file":
        path = tmp_path_factory.mktemp("selected") / "r.nc"
        trials.to_netcdf(path)
        trials = Trials.open(path)
    return trials.sel(neuron={m: recordings[m]["neuron"].values[p] for m, p in PLACES.items()})


@pytest.mark.parametrize("kind", quick([v1.CNNRegressor, v1.V1TRegressor], 0))
def test_fit_predict_and_score(kind, small, selected, cut, equal):
    train, test = (
        {
            "train": [t.sel(tier="train") for t in (selected, cut)],
            "test": [t.sel(tier="test") for t in (selected, cut)],
        }[tier]
        for tier in ("train", "test")
    )
    models = [small(kind).fit(trials) for trials in train]
    assert models[0].n_neurons_ == {"A": 3, "B": 4}
    for mouse in PLACES:
        np.testing.assert_array_equal(models[0].positions_[mouse], models[1].positions_[mouse])
    predictions = [model.predict(trials) for model, trials in zip(models, test, strict=True)]
    assert equal(*predictions)
    np.testing.assert_array_equal(predictions[0]["A"]["neuron"], test[1].recordings["A"]["neuron"])
    assert models[0].score(test[0]) == models[1].score(test[1])
    for metric in (single_trial_correlation, average_correlation, feve):
        values = [
            np.asarray(metric(t.responses, p, multioutput="raw_values"))
            for t, p in zip(test, predictions, strict=True)
        ]
        np.testing.assert_array_equal(*values)
    with_target = small(kind).fit(train[0], train[0].responses)
    assert equal(with_target.predict(test[0]), predictions[1])
    again = small(kind).fit(train[0], np.asarray(train[0].responses))
    assert equal(again.predict(test[0]), predictions[1])


def test_pipelines_and_searches(small, selected, cut, equal):
    train, test = ([t.sel(tier=tier) for t in (selected, cut)] for tier in ("train", "test"))
    pipes = [make_pipeline(TrialStandardizer(), small(standardize=False)) for _ in range(2)]
    answers = [p.fit(a).predict(b) for p, a, b in zip(pipes, train, test, strict=True)]
    assert equal(*answers)
    scores = [
        cross_val_score(small(max_epochs=1), t, groups=t.image_ids, cv=GroupKFold(2)) for t in train
    ]
    np.testing.assert_array_equal(*scores)


def test_predictions_of_all_neurons_are_selected_like_the_responses(fitted, test_trials):
    predictions = fitted.predict(test_trials)
    assert predictions.name == predictions["A"].name == "predictions"
    assert predictions["A"].attrs == test_trials.responses["A"].attrs
    ids = test_trials.neuron_ids("A")[[4, 1]]
    some = predictions.sel(mouse_id="A", neuron=ids)
    np.testing.assert_array_equal(some.get("A"), predictions.get("A")[:, [4, 1]])
    both = single_trial_correlation(test_trials.responses.sel(mouse_id="A", neuron=ids), some)
    whole = single_trial_correlation(
        test_trials.responses.sel(mouse_id="A"),
        predictions.sel(mouse_id="A"),
        multioutput="raw_values",
    )
    assert both == pytest.approx(np.mean(np.asarray(whole)[[4, 1]]))
    residuals = test_trials.responses - predictions
    np.testing.assert_array_equal(
        residuals.get("B"), test_trials.get("responses", "B") - predictions.get("B")
    )


def test_targets_of_other_neurons_are_refused(small, trials):
    ids = trials.neuron_ids("A")
    one = trials.sel(mouse_id="A", neuron=ids[[0, 1]])
    with pytest.raises(ValueError, match="mouse 'A': the unit ids differ, first at place 0"):
        small().fit(one, trials.sel(mouse_id="A", neuron=ids[[1, 0]]).responses)
    with pytest.raises(ValueError, match="y has vectors of 5 responses, but the mouse has 2"):
        small().fit(one, trials.sel(mouse_id="A").responses)
    permuted = one.responses[np.random.default_rng(0).permutation(len(one))]
    assert isinstance(permuted, Responses)
    small(max_epochs=1).fit(one, permuted)
    model = small(max_epochs=1).fit(one)
    with pytest.raises(ValueError, match=r"mouse 'A'.* 5 neurons, the model was fitted on 2"):
        model.predict(trials.sel(mouse_id="A"))


def test_joined_trials_give_the_model_of_the_whole(small, recordings, trials, test_trials, equal):
    parts = [
        Trials({m: recordings[m].to_dataset().isel(trial=trials.rows(m)[1][s]) for m in PLACES})
        for s in (slice(15), slice(15, None))
    ]
    by_mouse = np.concatenate(
        [np.flatnonzero(v1.concat(parts).mouse_ids == mouse) for mouse in PLACES]
    )
    whole, joined = small().fit(trials), small().fit(v1.concat(parts)[by_mouse])
    assert equal(whole.predict(test_trials), joined.predict(test_trials))
