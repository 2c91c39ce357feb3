"""Receptive fields and retinotopy of published models of a real mouse, 100 of its neurons.

The models stay outside the repository, in the folder that V1TLEARN_TEST_DATA names.
"""

import copy

import numpy as np
import pytest
import torch

import v1tlearn as v1
from v1tlearn.inspection import (
    fit_gaussians,
    readout_positions,
    receptive_fields,
    retinotopy_smoothness,
)

pytestmark = pytest.mark.slow  # half a minute of a processor
PLACES = np.arange(0, 7776, 78)[:100]


@pytest.fixture(scope="module", params=["sota", "ln"])
def model(request, real_recordings):
    path = real_recordings / f"sensorium_models/sensorium_{request.param}_model.pth"
    return v1.load_sensorium(path, linear=request.param == "ln")


@pytest.fixture(scope="module")
def fields(model):
    (mouse,) = model.mice_
    return receptive_fields(model, method="gradient", neurons={mouse: PLACES})[mouse]


def test_of_the_linear_model_they_are_its_filters(model, fields):
    """What is linear in the image is the product with its filter, of whatever image."""
    if not isinstance(model, v1.LNRegressor):
        pytest.skip("of the LN model alone")
    (mouse,) = model.mice_
    module = copy.deepcopy(model.module_).double().eval()
    images = torch.randn(48, 1, 36, 64, generator=torch.Generator().manual_seed(0)).double()
    images[0] = 0
    with torch.no_grad(), v1.nn.plain():
        drive = module.respond(mouse, module.encode(mouse, images), activate=False)[:, PLACES]
    slope = torch.where(drive[0] > 0, 1, drive[0].exp())  # of ELU + 1, at grey
    expected = ((drive - drive[0]) * slope).numpy()
    found = images.flatten(1).numpy() @ fields.values.reshape(100, -1).T
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_they_are_localized(fields):
    """Nine tenths of the energy of most neurons lie in a sixth of the image."""
    energy = np.sort(fields.values.reshape(100, -1) ** 2, axis=1)[:, ::-1]
    share = energy.cumsum(1) / energy.sum(1, keepdims=True)
    area = (share < 0.9).mean(1)
    assert np.median(area) < 0.08
    assert np.quantile(area, 0.9) < 1 / 6
    scrambled = np.random.default_rng(0).normal(size=fields.shape).reshape(100, -1) ** 2
    scrambled = np.sort(scrambled, axis=1)[:, ::-1]
    assert ((scrambled.cumsum(1) / scrambled.sum(1, keepdims=True)) < 0.9).mean(1).min() > 0.4


@pytest.mark.filterwarnings("ignore:the model computes these places from cortical positions")
def test_they_follow_readouts_and_the_cortex(model, fields):
    """Up to a constant, which filters that all neurons share may have learned."""
    (mouse,) = model.mice_
    fits = fit_gaussians(fields)
    good = fits["good"].values
    assert good.sum() >= 80
    places = readout_positions(model)[mouse].isel(neuron=PLACES)
    for side in "xy":
        slope, _ = np.polyfit(places[side][good], fits[side][good], 1)
        assert np.corrcoef(places[side][good], fits[side][good])[0, 1] > 0.88
        assert slope == pytest.approx(1, abs=0.15)
    smooth = retinotopy_smoothness(fits, places["position"])
    assert float(smooth["p_value"]) < 0.01
    assert float(smooth["relative"]) < 0.6
    order = np.random.default_rng(0).permutation(100)
    shuffled = retinotopy_smoothness(fits, places["position"].values[order])
    assert float(shuffled["relative"]) > 0.85
