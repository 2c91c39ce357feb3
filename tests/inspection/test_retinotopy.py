"""Smoothness of retinotopy: against brute force, the laws of chance, and planted maps."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.mice import two_mice
from v1tlearn.inspection import (
    fit_gaussians,
    readout_positions,
    receptive_fields,
    retinotopy_smoothness,
)

UNITS = {"units": "pixel"}


def planted(n=80, noise=0.0, seed=0, axes=2):
    """A map with scatter: (places, cortex)."""
    rng = np.random.default_rng(seed)
    cortex = rng.uniform(0, 600, (n, axes))
    x, y = cortex.T[:2] / 20 + noise * rng.normal(size=(2, n))
    places = xr.Dataset(
        {"x": ("neuron", x, UNITS), "y": ("neuron", y, UNITS)},
        {"neuron": 100 + np.arange(n)},
        {"mouse_id": "A"},
    )
    return places, cortex


def test_scatter_is_that_of_brute_force():
    places, cortex = planted(noise=2.0, axes=3)
    found = retinotopy_smoothness(places, cortex, n_neighbors=4, n_permutations=1)
    looks = np.stack([places["x"], places["y"]], 1)
    distances = []
    for i in range(len(looks)):
        away = np.hypot(*(cortex[:, :2] - cortex[i, :2]).T)  # depth does not count
        nearest = [j for j in np.argsort(away) if j != i][:4]
        distances.append(np.hypot(*(looks[i] - looks[nearest].mean(0))))
    np.testing.assert_allclose(found["distance"], distances)
    assert float(found["scatter"]) == pytest.approx(np.sqrt(np.mean(np.square(distances))))
    assert found["distance"]["neuron"].values.tolist() == places["neuron"].values.tolist()


def test_a_map_is_smooth_and_shuffled_neurons_are_not():
    places, cortex = planted(noise=3.0)
    found = retinotopy_smoothness(places, cortex, n_permutations=200)
    assert float(found["p_value"]) == pytest.approx(1 / 201)
    assert float(found["relative"]) < 0.6
    assert found["shuffled"].sizes == {"permutation": 200}
    order = np.random.default_rng(1).permutation(80)
    other = retinotopy_smoothness(places, cortex[order], n_permutations=200)
    assert float(other["p_value"]) > 0.05
    assert float(other["relative"]) == pytest.approx(1, abs=0.1)


def test_p_values_of_no_map_are_uniform():
    """Of 100 maps of chance, at most 5 % + 4 standard errors are called smooth at 5 %."""
    values = []
    for seed in range(100):
        places, _ = planted(30, seed=seed)
        cortex = np.random.default_rng(1000 + seed).uniform(0, 600, (30, 2))
        found = retinotopy_smoothness(places, cortex, n_neighbors=5, n_permutations=99)
        values.append(float(found["p_value"]))
    assert np.mean(np.array(values) <= 0.05) <= 0.05 + 4 * (0.05 * 0.95 / 100) ** 0.5
    assert np.mean(values) == pytest.approx(0.5, abs=4 / 1200**0.5)


def test_neurons_without_a_good_place_are_left_out():
    places, cortex = planted()
    whole = retinotopy_smoothness(places.isel(neuron=slice(2, None)), cortex[2:], n_permutations=9)
    places["x"][0] = np.nan
    good = np.ones(80, bool)
    good[1] = False
    found = retinotopy_smoothness(places.assign(good=("neuron", good)), cortex, n_permutations=9)
    assert float(found["scatter"]) == float(whole["scatter"])
    assert found.sizes["neuron"] == 78


def test_positions_go_by_unit_ids():
    places, cortex = planted()
    labels = {"neuron": places["neuron"].values}
    position = xr.DataArray(cortex, labels, ("neuron", "axis"))[::-1]
    found = retinotopy_smoothness(places, position, n_permutations=9)
    expected = retinotopy_smoothness(places, cortex, n_permutations=9)
    xr.testing.assert_allclose(found, expected)
    with pytest.raises(ValueError, match="position lacks 1 of the 80 neurons of places"):
        retinotopy_smoothness(places, position[:-1])


def test_seed_decides():
    places, cortex = planted()
    one, same, other = (
        retinotopy_smoothness(places, cortex, n_permutations=9, random_state=seed)["shuffled"]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_places_that_are_computed_from_cortex_bring_a_warning():
    trials = v1.Trials(two_mice(n_neurons=20)).sel(tier="train")
    small = {"n_layers": 1, "hidden_channels": 4, "input_kernel": 5, "max_epochs": 1}
    model = v1.CNNRegressor(**small, random_state=0, device="cpu").fit(trials)
    with pytest.warns(UserWarning, match="smooth in an untrained model, too"):
        retinotopy_smoothness(readout_positions(model)["A"], n_permutations=9)
    fits = fit_gaussians(receptive_fields(model, method="gradient", mice="A")["A"], worst=0)
    for name in ("x", "y", "good"):  # whatever such tiny models see
        fits[name][:] = np.arange(20) + 1
    position = trials.recordings["A"]["position"]
    with pytest.warns(UserWarning, match="smooth in an untrained model, too"):
        retinotopy_smoothness(fits, position, n_permutations=9)
    free = v1.CNNRegressor(
        **small, random_state=0, device="cpu", position_network=False, shift="none"
    ).fit(trials)
    retinotopy_smoothness(readout_positions(free)["A"], n_permutations=9)


def test_errors():
    places, cortex = planted()
    with pytest.raises(TypeError, match="places is a dict: expected a Dataset"):
        retinotopy_smoothness({}, cortex)
    with pytest.raises(ValueError, match="places of mouse 'A' have no cortical position"):
        retinotopy_smoothness(places)
    with pytest.raises(ValueError, match=r"position has the shape \(3, 2\): expected \(80, 2"):
        retinotopy_smoothness(places, cortex[:3])
    with pytest.raises(ValueError, match="expected more than n_neighbors=80"):
        retinotopy_smoothness(places, cortex, n_neighbors=80)
    with pytest.raises(ValueError, match="n_permutations=0: expected a whole number from 1"):
        retinotopy_smoothness(places, cortex, n_permutations=0)
