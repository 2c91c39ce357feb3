"""Responses without spontaneous components, held against the published formula in float64."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import v1tlearn as v1
from v1tlearn.preprocessing import CenterCrop, SpontaneousProjector

N_FRAMES = 30


def with_spontaneous(recordings, n_frames=N_FRAMES, seed=0):
    """Recordings with activity of a few components, and noise, beside the trials."""
    rng = np.random.default_rng(seed)
    out = {}
    for mouse, recording in recordings.children.items():
        n = recording.sizes["neuron"]
        frames = rng.gamma(1.0, 2.0, (n_frames, 3)) @ rng.gamma(1.0, 2.0, (3, n))
        frames += rng.gamma(1.0, 3.0, (n_frames, n))
        out[mouse] = recording.to_dataset()
        out[mouse]["spontaneous"] = ("frame", "neuron"), frames.astype("f4")
    return out


@pytest.fixture(scope="module")
def trials():
    recordings = v1.make_coarse_recordings(
        2, [20, 45], 40, 6, 3, (12, 16), 0, cutoff=3.0, n_categories=2
    )
    return v1.Trials(with_spontaneous(recordings))


def published(responses, spontaneous, n_components, training):
    """Z-score, take out singular vectors of the whole decomposition, centre; all in float64."""
    r, s = responses.astype(np.float64), spontaneous.astype(np.float64)
    mean, sd = s.mean(axis=0), s.std(axis=0) + 1e-6
    vectors = np.linalg.svd((s - mean) / sd, full_matrices=False)[2][:n_components].T
    z = (r - mean) / sd
    x = z - (z @ vectors) @ vectors.T
    return x - x[training].mean(axis=0)


@pytest.mark.parametrize("n_components", [1, 4, 16])
def test_it_is_the_published_formula_with_the_mean_of_the_training_trials(trials, n_components):
    train = trials.sel(tier="train")
    found = SpontaneousProjector(n_components).fit(train).transform(trials)
    for mouse in trials.mice:  # of fewer and of more neurons than frames
        recording = trials[mouse]
        expected = published(
            recording["responses"].values,
            recording["spontaneous"].values,
            n_components,
            recording["tier"].values == "train",
        )
        values = found[mouse]["responses"]
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_nothing_of_the_components_is_left_and_they_are_orthonormal(trials):
    projector = SpontaneousProjector(8).fit(trials.sel(tier="train"))
    found = projector.transform(trials)
    for mouse in trials.mice:
        components = projector.components_[mouse]
        np.testing.assert_allclose(components @ components.T, np.eye(8), atol=1e-10)
        centred = found[mouse]["responses"].values + projector.center_[mouse]
        assert np.abs(centred @ components.T).max() < 1e-4


def test_every_repeat_stays_a_trial_with_its_labels(trials):
    found = SpontaneousProjector(4).fit(trials.sel(tier="train")).transform(trials)
    np.testing.assert_array_equal(found.image_ids, trials.image_ids)
    np.testing.assert_array_equal(found.tiers, trials.tiers)
    for mouse in trials.mice:
        for name in ("category", "trial_id", "informative", "position"):
            np.testing.assert_array_equal(found[mouse][name], trials[mouse][name])
        np.testing.assert_array_equal(found[mouse]["stimuli"], trials[mouse]["stimuli"])
        assert found[mouse]["responses"].attrs["units"].startswith("standard deviations")
        assert "spontaneous" not in found[mouse]


def test_the_trials_of_test_do_not_change_what_is_learned(trials):
    train = trials.sel(tier="train")
    recordings = {mouse: trials[mouse].copy(deep=True) for mouse in trials.mice}
    for recording in recordings.values():
        other = recording["tier"].values != "train"
        recording["responses"][other] = 1000.0
    changed = v1.Trials(recordings).sel(tier="train")
    found = SpontaneousProjector(4).fit_transform(train)
    again = SpontaneousProjector(4).fit_transform(changed)
    for mouse in trials.mice:
        np.testing.assert_array_equal(found[mouse]["responses"], again[mouse]["responses"])


def test_parts_and_orders_of_trials_are_transformed_alike(trials):
    projector = SpontaneousProjector(4).fit(trials.sel(tier="train"))
    whole = projector.transform(trials)
    order = np.random.default_rng(0).permutation(len(trials))[:31]
    part = projector.transform(trials[order])
    np.testing.assert_array_equal(part.image_ids, trials.image_ids[order])
    for mouse in trials.mice:
        np.testing.assert_allclose(
            part.responses.get(mouse), whole[order].responses.get(mouse), rtol=0, atol=1e-5
        )


def test_expected_responses_are_what_transformed_responses_are_on_average(trials):
    projector = SpontaneousProjector(4).fit(trials.sel(tier="train"))
    recordings = {mouse: trials[mouse] for mouse in trials.mice}
    noiseless = v1.Trials(
        {m: r.assign(responses=r["expected_responses"]) for m, r in recordings.items()}
    )
    found, expected = projector.transform(trials), projector.transform(noiseless)
    for mouse in trials.mice:
        np.testing.assert_array_equal(
            found[mouse]["expected_responses"], expected[mouse]["responses"]
        )


def test_what_was_not_recorded_stays_so_and_counts_as_the_spontaneous_mean(trials):
    recording = trials["A"].copy(deep=True)
    lost = np.random.default_rng(1).random(recording["responses"].shape) < 0.1
    mean = recording["spontaneous"].values.mean(axis=0, dtype=np.float64)
    filled = recording.assign(
        responses=recording["responses"].where(~lost, mean.astype("f4")[None])
    )
    gaps = recording.assign(responses=recording["responses"].where(~lost))
    projector = SpontaneousProjector(4).fit(v1.Trials({"A": gaps}))
    found = projector.transform(v1.Trials({"A": gaps}))["A"]["responses"].values
    expected = projector.transform(v1.Trials({"A": filled}))["A"]["responses"].values
    np.testing.assert_array_equal(np.isnan(found), lost)
    np.testing.assert_allclose(found[~lost], expected[~lost], rtol=0, atol=1e-4)


def test_without_components_recordings_without_spontaneous_activity_are_scaled(trials):
    bare = v1.Trials({"A": trials["A"].drop_vars("spontaneous")})
    found = SpontaneousProjector(0).fit_transform(bare)["A"]["responses"].values
    values = trials["A"]["responses"].values.astype(np.float64)
    expected = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="mouse 'A' has no spontaneous activity, of which n_comp"):
        SpontaneousProjector(2).fit(bare)


def test_selected_neurons_are_projected_on_components_of_their_own(trials):
    some = trials.sel(mouse_id="A", neuron={"A": [7, 2, 11, 3, 20]})
    found = SpontaneousProjector(2).fit_transform(some)
    recording = some["A"]
    expected = published(
        recording["responses"].values, recording["spontaneous"].values, 2, slice(None)
    )
    np.testing.assert_allclose(found["A"]["responses"], expected, rtol=0, atol=1e-4)
    assert found.neuron_ids("A").tolist() == [7, 2, 11, 3, 20]


def test_it_works_lazily_from_a_file_in_a_pipeline_and_after_other_steps(trials, tmp_path):
    trials.to_netcdf(tmp_path / "trials.nc")
    opened = v1.Trials.open(tmp_path / "trials.nc")
    found = make_pipeline(CenterCrop(0.5), SpontaneousProjector(4)).fit_transform(opened)
    expected = SpontaneousProjector(4).fit_transform(trials)
    for mouse in trials.mice:
        np.testing.assert_allclose(
            found.responses.get(mouse), expected.responses.get(mouse), rtol=0, atol=1e-5
        )
        assert found.get("stimuli", mouse).shape[2:] == (6, 8)
    found.to_netcdf(tmp_path / "projected.nc")
    again = v1.Trials.open(tmp_path / "projected.nc")
    np.testing.assert_array_equal(again.responses.get("A"), found.responses.get("A"))


def test_a_pipeline_aligns_the_transformed_responses(trials):
    aligner = v1.DINAAligner(
        map_size=(4, 4), map_channels=2, hidden_channels=4, max_epochs=1, random_state=0
    )
    pipeline = make_pipeline(SpontaneousProjector(4), aligner).fit(trials.sel(tier="train"))
    assert 0 <= pipeline.score(trials.sel(tier="test")) <= 1
    with pytest.raises(ValueError, match=r"y would stay as it is: call fit\(trials\) without y"):
        pipeline.fit(trials, trials.responses)


def test_it_is_pickled_and_cloned(trials):
    projector = SpontaneousProjector(3).fit(trials.sel(tier="train"))
    again = pickle.loads(pickle.dumps(projector)).transform(trials)
    np.testing.assert_array_equal(
        again.responses.get("B"), projector.transform(trials).responses.get("B")
    )
    with pytest.raises(NotFittedError):
        clone(projector).transform(trials)


class TestWrongInput:
    def test_more_components_than_there_are_dimensions(self, trials):
        with pytest.raises(ValueError, match="of 30 frames and 20 neurons has fewer than n_comp"):
            SpontaneousProjector(21).fit(trials.sel(mouse_id="A"))
        with pytest.raises(ValueError, match="of 30 frames and 45 neurons has fewer"):
            SpontaneousProjector(30).fit(trials.sel(mouse_id="B"))  # their mean is subtracted

    def test_responses_in_too_large_a_unit_are_told(self, trials):
        recording = trials["A"].copy(deep=True)
        recording["spontaneous"] = 1e-8 * recording["spontaneous"]
        with pytest.warns(UserWarning, match="'A': 20 of 20 neurons have standard deviations belo"):
            SpontaneousProjector(3).fit(v1.Trials({"A": recording}))

    def test_silent_neurons_are_told(self, trials):
        recording = trials["A"].copy(deep=True)
        recording["spontaneous"][:, 3] = 0.0
        with pytest.warns(UserWarning, match="mouse 'A': 1 of 20 neurons did not vary in spont"):
            SpontaneousProjector(2).fit(v1.Trials({"A": recording}))

    def test_neurons_that_were_never_recorded(self, trials):
        recording = trials["A"].copy(deep=True)
        recording["responses"][:, 3] = np.nan
        with pytest.raises(ValueError, match="mouse 'A': 1 neurons were never recorded in these"):
            SpontaneousProjector(2).fit(v1.Trials({"A": recording}))

    def test_other_mice_and_neurons(self, trials):
        projector = SpontaneousProjector(2).fit(trials.sel(mouse_id="A"))
        with pytest.raises(ValueError, match="unknown mouse 'B': this SpontaneousProjector was"):
            projector.transform(trials)
        with pytest.raises(ValueError, match=r"'A' has 2 neurons that are not those of fit \(20\)"):
            projector.transform(trials.sel(mouse_id="A", neuron={"A": [2, 1]}))

    @pytest.mark.parametrize("wrong", [1.5, "2", True, None])
    def test_numbers_of_components_that_are_none(self, trials, wrong):
        with pytest.raises(TypeError, match="n_components"):
            SpontaneousProjector(wrong).fit(trials)

    def test_negative_numbers_of_components(self, trials):
        with pytest.raises(ValueError, match="n_components=-1: expected 0 or more"):
            SpontaneousProjector(-1).fit(trials)

    def test_what_is_no_trials(self, trials):
        with pytest.raises(TypeError, match=r"fit was given a DataTree .*Trials\(recordings\)"):
            SpontaneousProjector(2).fit(trials.recordings)
        with pytest.raises(TypeError, match="fit was given a ndarray: expected Trials"):
            SpontaneousProjector(2).fit(np.ones((3, 4)))

    def test_responses_that_are_infinite(self, trials):
        recording = trials["A"].copy(deep=True)
        recording["responses"][2, 3] = np.inf
        with pytest.raises(ValueError, match="mouse 'A': responses hold infinite values"):
            SpontaneousProjector(2).fit(v1.Trials({"A": recording}))
