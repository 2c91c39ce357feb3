"""Kinds of simulated cells and scenes: what is told of them is what they do."""

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.datasets import make_movie_recordings

SMALL = {"behavior": False, "validation_fraction": 0}


def convolved(kernels, in_space):
    """Sums over lags written out, (frames, neurons)."""
    out = np.zeros(in_space.shape)
    for lag in range(kernels.shape[1]):
        out[lag:] += kernels[:, lag] * in_space[: len(in_space) - lag]
    return out


def drives(mouse, movie):
    """Rectified output of the filters that are told, to a movie of contrasts."""
    even = np.einsum("thw,nhw->tn", movie, mouse["receptive_field"].values)
    first = mouse["temporal_filter"].values
    drive = convolved(first, even)
    if "receptive_field_odd" in mouse:
        odd = np.einsum("thw,nhw->tn", movie, mouse["receptive_field_odd"].values)
        second = mouse["temporal_filter_odd"].values
        real = convolved(first, even) - convolved(second, odd)
        energy = real**2 + (convolved(second, even) + convolved(first, odd)) ** 2
        drive = np.where(mouse["cell_kind"].values == "motion", np.sqrt(energy), drive)
    return np.maximum(drive, 0)


def contrast(mouse, trial):
    n = int(mouse["n_frames"].values[trial])
    return (mouse["stimuli"].values[trial, :n, 0].astype(float) - 127.5) / 127.5


def test_rates_of_all_kinds_are_those_of_the_filters_that_are_told():
    mouse = make_movie_recordings(
        1, 6, 3, 1, 1, 60, cells=["retina", "motion", "simple"], random_state=0, **SMALL
    )["A"]
    assert mouse["cell_kind"].values.tolist() == ["retina", "motion", "simple"] * 2
    for trial in range(mouse.sizes["trial"]):
        drive = drives(mouse, contrast(mouse, trial))
        rates = mouse["expected_responses"].values[trial]
        for neuron in range(6):
            driven = drive[:, neuron] > 1e-3
            if driven.sum() < 5:
                continue
            slope, baseline = np.polyfit(drive[driven, neuron], rates[driven, neuron], 1)
            expected = baseline + slope * drive[:, neuron]
            np.testing.assert_allclose(rates[:, neuron], expected, atol=1e-3)


def grating(mouse, neuron, direction, frame_rate=30.0):
    """A grating of the cell's own spatial frequency that drifts at its speed."""
    field = mouse["receptive_field"].values[neuron]
    spectrum = np.abs(np.fft.fft2(field, (128, 128)))
    fy, fx = np.unravel_index(spectrum.argmax(), spectrum.shape)
    frequency = np.hypot(*(np.fft.fftfreq(128)[[fy, fx]]))
    y, x = np.mgrid[: field.shape[0], : field.shape[1]]
    along = x * np.cos(direction) + y * np.sin(direction)
    time = np.arange(90)[:, None, None] / frame_rate
    hertz = np.nan_to_num(mouse["preferred_frequency"].values[neuron], nan=3.0)
    return np.cos(2 * np.pi * (frequency * along - hertz * time))


def test_motion_cells_prefer_the_direction_that_is_told_and_others_have_none():
    mouse = make_movie_recordings(
        1, 12, 2, 1, 1, 20, cells=["motion", "simple"], random_state=1, **SMALL
    )["A"]
    direction = mouse["preferred_direction"].values
    assert np.isnan(direction[1::2]).all()
    for neuron in range(0, 12, 2):
        to, fro = (
            drives(mouse, grating(mouse, neuron, direction[neuron] + turn))[30:, neuron].mean()
            for turn in (0, np.pi)
        )
        assert (to - fro) / (to + fro) > 0.5
    # a single phase of a separable cell cannot tell one direction from the other
    for neuron in range(1, 12, 2):
        field = mouse["receptive_field"].values[neuron]
        assert np.abs(field).max() > 0
        angle = 0.3
        to, fro = (
            drives(mouse, grating(mouse, neuron, angle + turn))[30:, neuron].mean()
            for turn in (0, np.pi)
        )
        assert abs(to - fro) < 0.15 * (to + fro) + 1e-3


def test_retinal_cells_have_a_centre_and_a_surround_and_are_on_or_off():
    mouse = make_movie_recordings(
        1, 20, 2, 1, 1, 5, image_shape=(40, 40), cells="retina", random_state=0, **SMALL
    )["A"]
    signs = set()
    for field in mouse["receptive_field"].values:
        centre = np.unravel_index(np.abs(field).argmax(), field.shape)
        sign = np.sign(field[centre])
        signs.add(sign)
        distance = np.hypot(*(np.indices(field.shape) - np.array(centre)[:, None, None]))
        assert (sign * field[distance < 2] > 0).all()
        assert sign * field[(distance > 7) & (distance < 10)].mean() < 0
    assert signs == {-1, 1}


def test_adaptation_divides_by_the_output_of_the_past():
    options = {"cells": ["retina", "simple"], "random_state": 4, **SMALL}
    plain = make_movie_recordings(1, 4, 2, 1, 1, 80, **options)["A"]
    adapted = make_movie_recordings(1, 4, 2, 1, 1, 80, adaptation=2.0, **options)["A"]
    assert (adapted["adaptation"].values == 2).all()
    kept = np.exp(-1 / (adapted["adaptation_time"].values * 30))
    np.testing.assert_array_equal(plain["receptive_field"], adapted["receptive_field"])
    by_image = dict(zip(adapted["image_id"].values, range(3), strict=True))
    checked = 0
    for trial, image in enumerate(plain["image_id"].values):
        rates = plain["expected_responses"].values[trial].astype(float)
        other = adapted["expected_responses"].values[by_image[image]]
        for neuron in range(4):
            drive = rates[:, neuron] - rates[:, neuron].min()
            if drive.max() < 0.5 or other[0, neuron] != rates[0, neuron]:
                continue
            past, expected = 0.0, []
            for value in drive:
                expected.append(value / (1 + 2 * past))
                past = kept[neuron] * past + (1 - kept[neuron]) * value
            found = other[:, neuron] - rates[:, neuron].min()
            np.testing.assert_allclose(found, expected, atol=1e-4)
            checked += 1
    assert checked >= 4


def test_saccades_jump_within_fixations_that_hardly_move():
    mouse = make_movie_recordings(1, 2, 4, 1, 1, 120, scene="saccades", random_state=0, **SMALL)
    shown = mouse["A"]["stimuli"].values[:, :, 0].astype(float)
    change = np.abs(np.diff(shown, axis=1)).mean((2, 3))  # (trial, frame)
    jumps = (change > 15).mean() * 30
    assert 1.5 < jumps < 5  # per second
    assert np.median(change) < 8


def test_noise_is_black_or_white_and_of_no_correlation():
    mouse = make_movie_recordings(1, 2, 2, 1, 1, 200, scene="noise", random_state=0, **SMALL)["A"]
    assert set(np.unique(mouse["stimuli"])) == {0, 255}
    pixels = mouse["stimuli"].values[0, :, 0].reshape(200, -1)[:, :100].astype(float)
    off = np.corrcoef(pixels.T)[~np.eye(100, dtype=bool)]
    assert abs(off.mean()) < 0.01
    assert np.corrcoef(pixels[1:].ravel(), pixels[:-1].ravel())[0, 1] == pytest.approx(0, abs=0.03)


def test_averages_of_noise_recover_the_fields_latencies_and_directions_that_are_told():
    recordings = make_movie_recordings(
        1,
        4,
        20,
        1,
        1,
        300,
        image_shape=(12, 12),
        scene="noise",
        cells=["retina", "simple"],
        random_state=0,
        **SMALL,
    )
    trials = v1.Trials(recordings)
    averages = v1.inspection.spike_triggered_average(trials, 12)["A"]
    parts = v1.inspection.space_time_components(averages)
    mouse = recordings["A"]
    for neuron in range(4):
        true = mouse["receptive_field"].values[neuron].ravel()
        found = parts["receptive_field"].values[neuron].ravel()
        assert abs(np.corrcoef(found, true)[0, 1]) > 0.8
        course = parts["temporal_filter"].values[neuron]
        assert abs(np.corrcoef(course, mouse["temporal_filter"].values[neuron])[0, 1]) > 0.9


def test_kinds_of_other_cells_do_not_change_simple_ones():
    options = {"n_frames": 20, "random_state": 0, **SMALL}
    alone = make_movie_recordings(1, 4, 2, 1, 1, **options)["A"]
    mixed = make_movie_recordings(1, 4, 2, 1, 1, cells=["motion", "simple"], **options)["A"]
    one, other = alone["receptive_field"].values, mixed["receptive_field"].values
    np.testing.assert_array_equal(one[1::2], other[1::2])
    assert "cell_kind" not in alone.coords


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scene": "rain"}, r"scene='rain': expected one of \['drifting', 'saccades', 'noise'\]"),
        ({"cells": "complex"}, "cells must be one or several of"),
        ({"cells": []}, "cells must be one or several of"),
        ({"adaptation": -0.1}, "adaptation must be 0 or more"),
    ],
)
def test_other_scenes_and_cells_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_movie_recordings(**arguments)
