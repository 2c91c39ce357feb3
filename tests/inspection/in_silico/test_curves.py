"""Tuning curves are what `predict` gives, in the order of the stimuli."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.inspection import gratings, tuning_curves

SHAPE = (12, 16)


def predicted(estimator, mouse, stimuli):
    flat = np.asarray(stimuli).reshape(-1, 1, *SHAPE)
    row = estimator.statistics_[mouse].get("behavior_shift")
    behaviors = None if row is None else {mouse: np.tile(row, (len(flat), 1))}
    return estimator.predict({mouse: flat}, behaviors)[mouse]


@pytest.mark.parametrize("params", [{}, {"behavior_mode": "none", "shift": "none"}])
def test_curves_are_predictions(fit, params):
    estimator = fit(**params)
    stimuli = gratings(SHAPE, orientation=[0, 45, 90], phase=[0, 180])
    found = tuning_curves(estimator, stimuli)
    assert list(found) == ["A", "B"]
    for mouse, curves in found.items():
        assert curves.dims == ("neuron", "orientation", "phase")
        expected = predicted(estimator, mouse, stimuli).T.reshape(curves.shape)
        np.testing.assert_allclose(curves.values, expected, rtol=1e-4)
        np.testing.assert_array_equal(curves["neuron"], estimator.neurons_[mouse]["neuron"])
        assert curves["spatial_frequency"] == 0.05


def test_neurons_are_chosen_by_their_ids(fit):
    stimuli = gratings(SHAPE, orientation=[0, 90], phase=0)
    whole = tuning_curves(fit(), stimuli)["A"]
    some = tuning_curves(fit(), stimuli, {"A": [3, 1]})
    assert list(some) == ["A"]
    np.testing.assert_allclose(some["A"].values, whole.sel(neuron=[3, 1]).values, rtol=1e-5)


def test_each_neuron_may_see_its_own_stimuli(fit):
    ids = [4, 2]
    all_see = gratings(SHAPE, orientation=[10, 70], phase=[0, 90])
    own = all_see.rename(orientation="neuron").assign_coords(neuron=ids)
    found = tuning_curves(fit(), {"A": own})["A"]
    whole = tuning_curves(fit(), all_see)["A"]
    assert found.dims == ("neuron", "phase")
    for neuron, angle in zip(ids, (10, 70), strict=True):
        expected = whole.sel(neuron=neuron, orientation=angle)
        np.testing.assert_allclose(found.sel(neuron=neuron), expected, rtol=1e-4)


def test_arrays_and_trials_are_stimuli_too(fit, trials):
    estimator = fit()
    images = np.random.default_rng(0).uniform(0, 255, (5, 1, *SHAPE))
    found = tuning_curves(estimator, images)["B"]
    assert found.dims == ("neuron", "stimulus")
    np.testing.assert_allclose(found.values.T, predicted(estimator, "B", images), rtol=1e-4)
    some = trials[:12]
    of_trials = tuning_curves(estimator, some)
    for mouse in some.mice:
        expected = predicted(estimator, mouse, some.get("stimuli", mouse))
        np.testing.assert_allclose(of_trials[mouse].values.T, expected, rtol=1e-4)
        assert len(of_trials[mouse]["image_id"]) == len(expected)


def test_ensembles_are_shown_stimuli_too(fit):
    members = [fit(validation_fraction=0), fit(validation_fraction=0, random_state=1)]
    ensemble = v1.EnsembleRegressor.from_members(members)
    stimuli = gratings(SHAPE, orientation=[0, 90], phase=0)
    row = members[0].statistics_["A"]["behavior_shift"]
    expected = ensemble.predict({"A": stimuli.values}, {"A": np.tile(row, (2, 1))})["A"]
    found = tuning_curves(ensemble, stimuli)["A"].values
    np.testing.assert_allclose(found.T, expected, rtol=1e-4)


def test_movies_are_shown_to_models_that_see_time():
    recordings = v1.make_movie_recordings(
        n_mice=1, n_neurons=3, n_movies=6, n_frames=40, image_shape=SHAPE, random_state=0
    )
    model = v1.MovieLNRegressor(n_lags=3, max_epochs=1, random_state=0, device="cpu")
    model.fit(v1.Trials(recordings).sel(tier="train"))
    rate = model.fitted_.frame_rate
    movie = gratings(
        SHAPE, orientation=[0, 90], phase=0, temporal_frequency=2.0, n_frames=15, frame_rate=rate
    )
    curves = tuning_curves(model, movie)["A"]
    assert curves.dims == ("neuron", "orientation", "time")
    assert curves.sizes["time"] == 15
    assert np.isfinite(curves.values).all()
    with pytest.raises(ValueError, match="temporal_frequency"):
        tuning_curves(model, gratings(SHAPE))
    with pytest.raises(ValueError, match="frames per second came"):
        tuning_curves(
            model, gratings(SHAPE, temporal_frequency=2.0, n_frames=15, frame_rate=rate * 2)
        )


def test_stimuli_that_do_not_fit_are_refused(fit):
    with pytest.raises(ValueError, match="this model takes"):
        tuning_curves(fit(), gratings((10, 10)))
    with pytest.raises(ValueError, match="not finite"):
        tuning_curves(fit(), np.full((1, 1, *SHAPE), np.nan))
    with pytest.raises(ValueError, match="stimuli have the shape"):
        tuning_curves(fit(), np.zeros(SHAPE))
    movie = gratings(SHAPE, temporal_frequency=1, n_frames=3, frame_rate=30)
    with pytest.raises(ValueError, match="stimuli are movies"):
        tuning_curves(fit(), movie)
    with pytest.raises(TypeError, match="tuning curves need a fitted model"):
        tuning_curves(object(), gratings(SHAPE))
