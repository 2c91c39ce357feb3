"""Preprocessing of movies: frame by frame, whatever stands behind their last frame."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.preprocessing import CenterCrop, Grayscale, ResizeStimuli, TrialStandardizer


@pytest.fixture(scope="module")
def trials():
    tree = v1.make_movie_recordings(2, 3, 5, 1, 2, n_frames=(8, 14), random_state=0)
    mice = {mouse: one.to_dataset() for mouse, one in tree.items()}
    stimuli = mice["A"]["stimuli"].values.astype("f4")
    for trial, count in enumerate(mice["A"]["n_frames"].values):
        stimuli[trial, count:] = np.nan  # padding of floats
    mice["A"] = mice["A"].assign(stimuli=(mice["A"]["stimuli"].dims, stimuli))
    return v1.Trials(mice)


def frames(view, mouse, name="stimuli"):
    """All frames that there are, one after the other."""
    values, counts = view.get(name, mouse), view.n_frames[view.rows(mouse)[0]]
    return np.concatenate([one[:count] for one, count in zip(values, counts, strict=True)])


def test_statistics_are_those_of_the_frames_that_there_are(trials):
    scaled = TrialStandardizer().fit_transform(trials)
    for mouse in trials.mice:
        own = frames(scaled, mouse)
        assert own.mean() == pytest.approx(0, abs=1e-4)
        assert own.std() == pytest.approx(1, rel=1e-4)
        behaviors = frames(trials, mouse, "behaviors").astype(float)
        wanted = behaviors / behaviors.std(axis=0)
        np.testing.assert_allclose(frames(scaled, mouse, "behaviors"), wanted, rtol=1e-4)


def test_standardised_movies_go_back(trials):
    step = TrialStandardizer().fit(trials)
    again = step.inverse_transform(step.transform(trials))
    np.testing.assert_allclose(frames(again, "B"), frames(trials, "B"), atol=1e-3)


@pytest.mark.parametrize(
    "step", [CenterCrop(0.5), ResizeStimuli((9, 16)), Grayscale()], ids=lambda s: type(s).__name__
)
def test_steps_do_to_each_frame_what_they_do_to_images(trials, step):
    done = step.fit_transform(trials)
    for mouse in trials.mice:
        wanted = step.fit_transform(frames(trials, mouse))
        np.testing.assert_array_equal(frames(done, mouse), wanted)
    assert done.stimuli["B"].dims == ("trial", "time", "channel", "height", "width")
    array = step.fit_transform(trials.get("stimuli", "B"))
    np.testing.assert_array_equal(array, done.get("stimuli", "B"))


def test_arrays_of_movies_are_standardised():
    movies = np.random.default_rng(0).integers(0, 256, (3, 5, 1, 4, 6)).astype("u1")
    scaled = TrialStandardizer().fit_transform(movies)
    np.testing.assert_allclose(scaled, (movies - movies.mean()) / movies.std(), atol=1e-5)


def test_steps_follow_views_of_movies(trials):
    done = ResizeStimuli((9, 16)).fit_transform(TrialStandardizer().fit_transform(trials))
    part = done.sel(tier="test", mouse_id="B")
    whole = done.get("stimuli", "B")[done.tiers[done.rows("B")[0]] == "test"]
    np.testing.assert_array_equal(part.get("stimuli", "B"), whole)
    assert part["B"]["stimuli"].shape == whole.shape
