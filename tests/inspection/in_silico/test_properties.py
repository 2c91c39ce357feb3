"""Properties of curves that are made by their formulas."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn.inspection import tuning_properties

ANGLES = np.arange(0, 180, 15.0)
PHASES = np.arange(0, 360, 45.0)


def curves(values, **coords):
    return xr.DataArray(np.atleast_2d(values), dims=("neuron", *coords), coords=coords)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 179.9), st.floats(0.05, 1), st.floats(0.5, 20))
def test_orientation_of_a_cosine(angle, depth, mean):
    tuned = mean * (1 + depth * np.cos(2 * np.deg2rad(ANGLES - angle)))
    found = tuning_properties(curves(tuned, orientation=ANGLES))
    away = (found["preferred_orientation"].values - angle + 90) % 180 - 90
    np.testing.assert_allclose(away, 0, atol=1e-4)
    np.testing.assert_allclose(found["global_osi"], depth / 2, rtol=1e-6)
    top, across = tuned.max(), tuned[(tuned.argmax() + 6) % 12]
    np.testing.assert_allclose(found["osi"], (top - across) / (top + across))
    assert "dsi" not in found  # still gratings have no direction


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 360), st.floats(0.1, 5), st.floats(0.1, 5))
def test_modulation_over_phases(phase, mean, first):
    wave = mean + first * np.cos(np.deg2rad(PHASES - phase))
    found = tuning_properties(curves(wave, phase=PHASES))
    np.testing.assert_allclose(found["f0"], mean, rtol=1e-6)
    np.testing.assert_allclose(found["f1"], first, rtol=1e-6)
    np.testing.assert_allclose(found["modulation_ratio"], first / mean, rtol=1e-6)
    np.testing.assert_allclose(found["peak_response"], mean + first, rtol=1e-6)
    less = tuning_properties(curves(wave, phase=PHASES), blank=[mean / 2])
    np.testing.assert_allclose(less["modulation_ratio"], 2 * first / mean, rtol=1e-6)


def test_a_half_rectified_wave_is_simple():
    phases = np.arange(0, 360, 1.0)
    found = tuning_properties(curves(np.maximum(np.cos(np.deg2rad(phases)), 0), phase=phases))
    np.testing.assert_allclose(found["modulation_ratio"], np.pi / 2, rtol=1e-3)


def test_direction_of_movies():
    angles, time = np.arange(0, 360, 30.0), np.arange(30) / 30
    rates = 3 + 2 * np.cos(np.deg2rad(angles - 210))
    values = rates[:, None] * (1 + 0.5 * np.cos(2 * np.pi * 2 * time))
    shown = curves(values[None], orientation=angles, time=time).assign_coords(temporal_frequency=2)
    found = tuning_properties(shown)
    assert found["preferred_direction"] == 210
    np.testing.assert_allclose(found["dsi"], (5 - 1) / (5 + 1))
    np.testing.assert_allclose(found["modulation_ratio"], 0.5)
    with pytest.raises(ValueError, match="cycles of the gratings are left"):
        tuning_properties(shown, onset=0.25)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.15), st.floats(0.5, 1.5))
def test_best_spatial_frequency_of_a_parabola(best, width):
    at = np.geomspace(0.02, 0.32, 9)
    values = 10 - (np.log2(at / best) / width) ** 2
    found = tuning_properties(curves(values, spatial_frequency=at))
    np.testing.assert_allclose(found["preferred_spatial_frequency"], best, rtol=1e-5)
    assert not found["spatial_frequency_at_edge"]
    assert tuning_properties(curves(at, spatial_frequency=at))["spatial_frequency_at_edge"]


def test_suppression_by_size():
    at = [2.0, 4, 8, 16]
    found = tuning_properties(curves([[1.0, 4, 3, 1], [1, 2, 3, 3.5], [0, 0, 0, 0]], diameter=at))
    np.testing.assert_allclose(found["preferred_diameter"][:2], [4, 16])
    np.testing.assert_allclose(found["suppression_index"], [0.75, 0, np.nan])


@pytest.mark.parametrize(("half", "power"), [(0.2, 1.5), (0.5, 3.0)])
def test_contrast_of_half_the_response(half, power):
    c = np.array([0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
    rates = 1 + 5 * c**power / (c**power + half**power)
    noise = np.random.default_rng(0).normal(size=len(c))
    found = tuning_properties(curves([rates, noise, np.ones(len(c))], contrast=c))
    np.testing.assert_allclose(found["c50"][0], half, rtol=1e-2)
    np.testing.assert_allclose(found["contrast_exponent"][0], power, rtol=1e-2)
    assert list(found["contrast_fits"].values) == [True, False, False]
    assert np.isnan(found["c50"][1:]).all()


def test_each_property_is_taken_at_the_best_of_all_others():
    at = np.array([0.05, 0.1, 0.2])
    gain = np.array([1.0, 3, 1])
    angle = np.array([0.0, 60, 120])  # another orientation at each frequency
    tuned = gain * (1 + 0.5 * np.cos(2 * np.deg2rad(ANGLES[:, None] - angle)))
    found = tuning_properties({"A": curves(tuned[None], orientation=ANGLES, spatial_frequency=at)})
    np.testing.assert_allclose(found["A"]["preferred_orientation"], 60, atol=1e-6)
    np.testing.assert_allclose(found["A"]["peak_response"], 4.5)


def test_curves_without_meaning_are_refused():
    with pytest.raises(TypeError, match="expected a DataArray"):
        tuning_properties(np.ones((3, 4)))
    with pytest.raises(ValueError, match="expected neuron, and others"):
        tuning_properties(xr.DataArray(np.ones(3), dims="neuron"))
    with pytest.raises(ValueError, match="evenly spread over 180"):
        tuning_properties(curves([1.0, 2, 3], orientation=[0, 10, 20]))
    with pytest.raises(ValueError, match="evenly spread over 360"):
        tuning_properties(curves([1.0, 2, 3], phase=[0, 90, 180]))
    with pytest.raises(ValueError, match="same mice"):
        tuning_properties({"A": curves(ANGLES, orientation=ANGLES)}, blank={"B": [0.0]})
