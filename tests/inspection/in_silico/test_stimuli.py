"""Stimuli are what their formulas say, with labels that tell which is which."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn.inspection import gabors, gratings, plaids

SHAPE = (12, 20)


def grid(x=9.5, y=5.5):
    return np.arange(20)[None] - x, np.arange(12)[:, None] - y


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 360),
    st.floats(0.01, 0.4),
    st.floats(0, 360),
    st.floats(0, 1),
    st.floats(0, 19),
    st.floats(0, 11),
)
def test_a_grating_is_a_wave_around_its_centre(angle, frequency, phase, contrast, x, y):
    found = gratings(
        SHAPE,
        orientation=angle,
        spatial_frequency=frequency,
        phase=phase,
        contrast=contrast,
        x=x,
        y=y,
    )
    right, down = grid(x, y)
    o = np.deg2rad(angle)
    along = right * np.cos(o) + down * np.sin(o)
    wave = np.cos(2 * np.pi * frequency * along + np.deg2rad(phase))
    np.testing.assert_allclose(found.values[0], 127.5 + 127.5 * contrast * wave, atol=0.01)


def test_sequences_become_dimensions_and_arrays_keep_theirs():
    angle = xr.DataArray([10.0, 40.0, 90.0], dims="neuron", coords={"neuron": [7, 8, 9]})
    found = gratings((2, *SHAPE), orientation=angle, phase=[0, 90], diameter=[4, 8, 12, 16])
    assert found.dims == ("neuron", "phase", "diameter", "channel", "height", "width")
    assert found.shape == (3, 2, 4, 2, *SHAPE)
    assert found["orientation"].dims == ("neuron",)
    assert list(found["neuron"].values) == [7, 8, 9]
    assert found["phase"].attrs["units"] == "degree"
    alone = gratings((2, *SHAPE), orientation=40, phase=90, diameter=8)
    np.testing.assert_array_equal(found.sel(neuron=8, phase=90, diameter=8).values, alone.values)


def test_degrees_are_pixels_at_one_pixel_per_degree_and_scale():
    by_pixel = gratings(SHAPE, orientation=30, phase=0, spatial_frequency=0.1, diameter=8, x=4, y=6)
    by_degree = gratings(
        SHAPE,
        orientation=30,
        phase=0,
        spatial_frequency=0.4,
        diameter=2,
        x=1,
        y=1.5,
        pixels_per_degree=4,
    )
    np.testing.assert_allclose(by_degree.values, by_pixel.values, atol=1e-3)
    assert by_degree["spatial_frequency"].attrs["units"] == "cycle per degree"
    assert by_pixel["spatial_frequency"].attrs["units"] == "cycle per pixel"


def test_disk_and_ring_make_the_whole():
    common = {"orientation": 20, "phase": 0, "background": 0, "amplitude": 1}
    disk = gratings(SHAPE, diameter=7, **common)
    ring = gratings(SHAPE, inner_diameter=7, **common)
    np.testing.assert_allclose((disk + ring).values, gratings(SHAPE, **common).values, atol=1e-6)
    right, down = grid()
    outside = np.hypot(right, down) > 4.1
    assert (disk.values[0][outside] == 0).all()
    assert (ring.values[0][np.hypot(right, down) < 2.9] == 0).all()


def test_movies_drift_along_the_wave_vector():
    movie = gratings(
        SHAPE,
        orientation=0,
        spatial_frequency=0.1,
        phase=0,
        temporal_frequency=2,
        n_frames=10,
        frame_rate=20.0,
    )
    assert movie.dims == ("time", "channel", "height", "width")
    np.testing.assert_allclose(movie["time"], np.arange(10) / 20)
    # a frame is a tenth of a cycle, which is one pixel here
    np.testing.assert_allclose(movie.values[1, 0, :, 1:], movie.values[0, 0, :, :-1], atol=0.01)
    still = gratings(SHAPE, orientation=0, spatial_frequency=0.1, phase=-36)
    np.testing.assert_allclose(movie.values[1], still.values, atol=0.01)


def test_gabors_have_their_envelope():
    found = gabors(
        SHAPE,
        orientation=90,
        spatial_frequency=0.15,
        phase=0,
        sigma=2,
        x=[5, 12],
        y=4,
        background=0,
        amplitude=1,
    )
    right, down = grid(12, 4)
    expected = np.exp(-(right**2 + down**2) / 8) * np.cos(2 * np.pi * 0.15 * down)
    np.testing.assert_allclose(found.sel(x=12).values[0], expected, atol=1e-5)


def test_plaids_are_sums_of_two_gratings():
    common = {"phase": [0, 90], "spatial_frequency": 0.1}
    found = plaids(SHAPE, orientation=[30, 60], angle=[90, 120], contrast=0.8, **common)
    assert found.dims == ("orientation", "angle", "phase", "channel", "height", "width")
    parts = [gratings(SHAPE, orientation=60 + a, contrast=0.4, **common) for a in (-60, 60)]
    expected = (parts[0] + parts[1]).values - 127.5
    np.testing.assert_allclose(found.sel(orientation=60, angle=120).values, expected, atol=1e-3)
    assert list(found["angle"].values) == [90, 120]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"spatial_frequency": 0}, "spatial_frequency holds 0"),
        ({"contrast": [-0.1, 1]}, "contrast holds -0.1"),
        ({"orientation": [np.nan]}, "orientation holds nan"),
        ({"phase": []}, "phase has the shape"),
        ({"temporal_frequency": 2}, "n_frames=None"),
        ({"n_frames": 10}, "temporal_frequency"),
        ({"pixels_per_degree": 0}, "pixels_per_degree=0"),
        ({"x": xr.DataArray([1.0], dims="width")}, r"\['width'\]"),
    ],
)
def test_what_makes_no_grating_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        gratings(SHAPE, **params)
