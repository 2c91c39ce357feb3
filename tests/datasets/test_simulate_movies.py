"""Simulated movies: the truth they tell, and what is refused."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.datasets import make_movie_recordings


@pytest.fixture(scope="module")
def recordings():
    return make_movie_recordings(2, [4, 6], 8, 2, 3, n_frames=(20, 40), random_state=0)


def test_recordings_follow_the_schema_and_end_at_lengths_of_their_own(recordings):
    v1.validate_recordings(recordings)
    for mouse in recordings.children.values():
        counts = mouse["n_frames"].values
        assert 20 <= counts.min() < counts.max() <= 40
        assert mouse.sizes["time"] == counts.max()
        found = np.isfinite(mouse["responses"].values).all(axis=2).sum(axis=1)
        np.testing.assert_array_equal(found, counts)


def test_repeats_show_one_movie_and_differ_in_their_noise(recordings):
    mouse = recordings["B"].to_dataset()
    test = mouse.isel(trial=(mouse.tier == "test").values)
    for image in np.unique(test["image_id"]):
        repeats = test.isel(trial=(test.image_id == image).values)
        assert repeats.sizes["trial"] == 3
        assert (repeats["stimuli"].values == repeats["stimuli"].values[:1]).all()
        assert (repeats["responses"].values[0] != repeats["responses"].values[1]).any()


def test_test_movies_are_common_to_all_mice(recordings):
    shown = []
    for mouse in ("A", "B"):
        one = recordings[mouse].to_dataset()
        chosen = one.isel(trial=(one.image_id == 0).values).isel(trial=0)
        shown.append(chosen["stimuli"].values[: int(chosen["n_frames"])])
    np.testing.assert_array_equal(*shown)


def test_rates_are_the_rectified_output_of_the_filters_that_are_told():
    mouse = make_movie_recordings(
        1, 3, 2, 1, 1, n_frames=30, behavior=False, validation_fraction=0, random_state=1
    )["A"]
    contrast = (mouse["stimuli"].values[:, :, 0].astype(float) - 127.5) / 127.5
    fields, kernels = mouse["receptive_field"].values, mouse["temporal_filter"].values
    for neuron in range(3):
        drive = np.zeros(contrast.shape[:2])
        for lag in range(kernels.shape[1]):
            seen = (contrast[:, : 30 - lag] * fields[neuron]).sum(axis=(2, 3))
            drive[:, lag:] += kernels[neuron, lag] * seen
        rates = mouse["expected_responses"].values[:, :, neuron]
        positive = drive > 1e-3
        slope, baseline = np.polyfit(drive[positive], rates[positive], 1)
        np.testing.assert_allclose(rates, baseline + slope * np.maximum(drive, 0), atol=1e-4)


def test_temporal_filters_peak_at_the_latency():
    mouse = make_movie_recordings(1, 10, 2, 1, 1, frame_rate=200.0, random_state=2)["A"]
    peak = mouse["lag"].values[mouse["temporal_filter"].values.argmax(axis=1)]
    # the second, slower phase pulls the peak forwards
    assert (peak <= mouse["latency"].values + 1 / 200).all()
    assert (peak > 0.5 * mouse["latency"].values).all()


def test_responses_scatter_around_the_rate_as_noise_tells():
    mouse = make_movie_recordings(1, 5, 30, 1, 1, n_frames=100, noise=0.5, random_state=3)["A"]
    rate, responses = mouse["expected_responses"].values, mouse["responses"].values
    assert np.nanmean(responses / rate) == pytest.approx(1, abs=0.05)
    assert np.nanmean((responses - rate) ** 2 / rate) == pytest.approx(0.5, rel=0.1)


def test_equal_seeds_give_equal_recordings(recordings):
    again = make_movie_recordings(2, [4, 6], 8, 2, 3, n_frames=(20, 40), random_state=0)
    assert again.identical(recordings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_frames": (5, 4)}, "n_frames must be .fewest, most."),
        ({"n_frames": 1}, "n_frames must be at least 2"),
        ({"frame_rate": 0}, "frame_rate must be above 0"),
        ({"noise": -1.0}, "noise must be above 0"),
        ({"validation_fraction": 0.99}, "leaves none of 30 trials"),
    ],
)
def test_wrong_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_movie_recordings(**arguments)
