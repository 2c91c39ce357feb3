"""MATLAB files with a stimulus and spikes, in bins."""

import numpy as np
import pytest

import v1tlearn as v1
from tests.datasets.stimulus_spikes_files import (
    N_NEURONS,
    N_REPEATS,
    N_TRIALS,
    make_bins,
    write,
    write_v73,
)


@pytest.fixture
def held():
    """Arrays of both files, as MATLAB shows them."""
    return make_bins()


@pytest.fixture
def files(held, tmp_path):
    return {tier: write(tmp_path / f"{tier}.mat", arrays) for tier, arrays in held.items()}


def check(recording, held):
    train, test = (recording.isel(trial=(recording.tier == t).values) for t in ("train", "test"))
    stimulus, spikes = held["train"]["stimulus"], held["train"]["spikes_train"]
    shown = train["stimuli"].values[:, :, 0]
    np.testing.assert_array_equal(shown, stimulus.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(train["responses"].values, spikes.transpose(2, 1, 0))
    assert len(set(train["image_id"].values.tolist())) == N_TRIALS
    for trial in range(N_REPEATS):
        shown = test["stimuli"].values[trial, :16, 0]
        np.testing.assert_array_equal(shown, held["test"]["stimulus_test"].transpose(2, 0, 1))
    assert len(set(test["image_id"].values.tolist())) == 1
    found = test["responses"].values
    expected = held["test"]["spikes_test"].transpose(2, 1, 0)
    np.testing.assert_array_equal(found[:, :16], expected)
    assert np.isnan(found[:, 16:]).all()
    assert test["n_frames"].values.tolist() == [16] * N_REPEATS


def test_sequences_become_trials_and_one_stimulus_of_many_trials_their_repeats(files, held):
    recordings = v1.read_stimulus_spikes(files, 0.01, name="retina")
    v1.validate_recordings(recordings)
    recording = recordings["retina"].to_dataset()
    assert recording["stimuli"].dtype == np.uint8
    assert recording["time"].values[1] == pytest.approx(0.01)
    check(recording, held)


def test_files_of_version_7_3_read_alike(held, tmp_path):
    paths = {tier: write_v73(tmp_path / f"{tier}.mat", arrays) for tier, arrays in held.items()}
    check(v1.read_stimulus_spikes(paths, 0.01)["recording"].to_dataset(), held)


def test_bins_are_summed_up_to_frames_and_the_stimulus_averaged(files, held):
    recording = v1.read_stimulus_spikes(files["train"], 0.01, bins_per_frame=4)["recording"]
    assert "tier" not in recording.coords
    assert recording["time"].values[1] == pytest.approx(0.04)
    spikes = held["train"]["spikes_train"].transpose(2, 1, 0)
    expected = spikes.reshape(N_TRIALS, 6, 4, N_NEURONS).sum(axis=2)
    np.testing.assert_array_equal(recording["responses"].values, expected)
    stimulus = held["train"]["stimulus"].transpose(3, 2, 0, 1).astype(float)
    means = stimulus.reshape(N_TRIALS, 6, 4, 6, 4).mean(axis=2)
    np.testing.assert_allclose(recording["stimuli"].values[:, :, 0], means)


def test_dimensions_may_be_in_any_order_and_equal_stimuli_share_an_id(held, tmp_path):
    stimulus = held["train"]["stimulus"].transpose(2, 1, 0, 3)
    stimulus[..., 3] = stimulus[..., 0]
    spikes = held["train"]["spikes_train"].transpose(1, 0, 2)
    path = write(tmp_path / "other.mat", {"movie": stimulus, "n": spikes})
    recording = v1.read_stimulus_spikes(
        path,
        0.01,
        stimulus="movie",
        spikes="n",
        stimulus_dims=("time", "width", "height", "trial"),
        spikes_dims=("time", "neuron", "trial"),
    )["recording"]
    shown = recording["stimuli"].values[:, :, 0]
    np.testing.assert_array_equal(shown, stimulus.transpose(3, 0, 2, 1))
    assert recording["image_id"].values.tolist() == [0, 1, 2, 0, 3]


def test_files_of_several_types_are_read_in_one_that_holds_them(held, tmp_path):
    held["test"]["stimulus_test"] = held["test"]["stimulus_test"] - 0.25
    files = {tier: write(tmp_path / f"{tier}.mat", arrays) for tier, arrays in held.items()}
    recording = v1.read_stimulus_spikes(files, 0.01)["recording"].to_dataset()
    assert recording["stimuli"].dtype == np.float32
    check(recording, held)


def test_unrecorded_bins_stay_unrecorded(held, tmp_path):
    held["train"]["spikes_train"][1, 5] = np.nan
    path = write(tmp_path / "gaps.mat", held["train"])
    recording = v1.read_stimulus_spikes(path, 0.01, bins_per_frame=4)["recording"]
    missing = np.isnan(recording["responses"].values)
    assert missing[:, 1, 1].all()
    assert missing.sum() == N_TRIALS


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"bins_per_frame": 5}, "24 bins do not make whole frames of 5"),
        ({}, {"stimulus": "sti*_other"}, r"'sti\*_other' fits nothing of the arrays"),
        ({}, {"spikes": "*s*"}, "expected one: name it"),
        ({}, {"stimulus_dims": ("height", "time", "trial")}, "expected height, time, width"),
        ({}, {"spikes_dims": ("trial", "time", "neuron")}, "expected 'trial' as the last one"),
        ({"spikes_train": np.zeros((3, 20, 5))}, {}, "has 20 bins, the stimulus 24"),
        ({"spikes_train": np.zeros((3, 24, 4))}, {}, "has 4 trials, the stimulus 5"),
        ({"spikes_train": np.full((3, 24, 5), -1.0)}, {}, "negative numbers"),
        ({"spikes_train": np.full((3, 24, 5), np.inf)}, {}, "holds Inf"),
        ({"stimulus": np.zeros((6, 24))}, {}, r"stimulus has shape \(6, 24\); expected dimensions"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(held, tmp_path, changes, options, message):
    path = write(tmp_path / "odd.mat", held["train"] | changes)
    with pytest.raises(ValueError, match=message):
        v1.read_stimulus_spikes(path, 0.01, **options)


def test_other_neurons_in_another_file_are_refused(files, held, tmp_path):
    held["test"]["spikes_test"] = held["test"]["spikes_test"][:2]
    files["test"] = write(tmp_path / "other.mat", held["test"])
    with pytest.raises(ValueError, match="spikes_test has 2 neurons, the first file 3"):
        v1.read_stimulus_spikes(files, 0.01)


def test_spikes_without_a_stimulus_are_refused(held, tmp_path):
    path = write(tmp_path / "bare.mat", {"spikes": held["train"]["spikes_train"]})
    with pytest.raises(ValueError, match="fits nothing of the arrays"):
        v1.read_stimulus_spikes(path, 0.01)
    with pytest.raises(FileNotFoundError, match="is missing"):
        v1.read_stimulus_spikes(tmp_path / "away.mat", 0.01)


@pytest.mark.slow
def test_the_rat_retina_reads_and_its_averages_predict_other_stimuli(real_recordings):
    """Reverse correlation of 50 sequences predicts the average over 54 repeats of another."""
    folder = real_recordings / "rat_retina"
    recordings = v1.read_stimulus_spikes(
        {"train": folder / "nonrepeat_data_bars.mat", "test": folder / "test_data_bars.mat"},
        1 / 600,
        bins_per_frame=10,
    )
    v1.validate_recordings(recordings)
    trials = v1.Trials(recordings)
    train, test = trials.sel(tier="train"), trials.sel(tier="test")
    assert (len(train), len(test)) == (50, 54)
    assert np.unique(test.image_ids).size == 1
    averages = v1.inspection.spike_triggered_average(train, 20, ridge=0.02)["recording"]
    psth = test.responses["recording"].values[:, :400].mean(axis=0)
    shown = test.get("stimuli", "recording")[0, :400].reshape(400, -1).astype(float)
    scores = []
    for neuron in range(6):
        kernel = averages.values[neuron].reshape(20, -1)
        drive = sum(shown[19 - lag : 400 - lag] @ kernel[lag] for lag in range(20))
        scores.append(np.corrcoef(drive, psth[19:, neuron])[0, 1])
    assert min(scores) > 0.35
