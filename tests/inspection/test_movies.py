"""Displays of movies: what is drawn of their frames."""

import numpy as np

import v1tlearn as v1


def test_predictions_are_drawn_with_a_dot_per_frame():
    recordings = v1.make_movie_recordings(1, 3, 2, 2, 3, n_frames=(8, 12), random_state=0)
    test = v1.Trials(recordings).sel(tier="test")
    true, pred = test.responses, test.expected_responses
    every = v1.inspection.PredictionDisplay.from_predictions(true, pred, average=False)
    assert np.isfinite(every.recorded).sum() == test.n_frames.sum() * 3
    means = v1.inspection.PredictionDisplay.from_predictions(true, pred, neuron=2)
    averaged = true.mean("image_id").get("A")[..., 1]
    wanted = np.sort(averaged[np.isfinite(averaged)])
    np.testing.assert_allclose(np.sort(means.recorded), wanted, rtol=1e-6)
