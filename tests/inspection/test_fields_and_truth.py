"""Receptive fields and readout positions against the cells that a recording was simulated with."""

import warnings

import numpy as np
import pytest

import v1tlearn as v1
from v1tlearn.inspection import (
    fit_gaussians,
    readout_positions,
    receptive_fields,
    retinotopy_smoothness,
)

pytestmark = pytest.mark.slow
SMALL = {"n_layers": 2, "hidden_channels": 16, "input_kernel": 9, "hidden_kernel": 5}
SMALL |= {"batch_size": 64, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def recordings():
    return v1.make_v1_recordings(
        n_mice=1,
        n_neurons=100,
        n_trials=2000,
        n_test_images=20,
        n_repeats=5,
        image_shape=(18, 32),
        explainable_variance=0.5,
        random_state=0,
    )


@pytest.fixture(scope="module")
def train(recordings):
    return v1.Trials(recordings).sel(tier=["train", "validation"])


@pytest.fixture(scope="module")
def reliable(train):
    """Neurons whose rate explains at least a quarter of the variance of their single trials."""
    rates, responses = train.expected_responses["A"].values, train.responses["A"].values
    pairs = zip(rates.T, responses.T, strict=True)
    return np.array([np.corrcoef(*pair)[0, 1] for pair in pairs]) > 0.5


def fitted(train, **params):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*validation.*")  # tiers that are trained on
        return v1.CNNRegressor(**{**SMALL, "max_epochs": 12, **params}).fit(train)


def correlations(found, truth, counted):
    return [
        np.corrcoef(found[side].values[counted], truth[f"receptive_field_{side}"][counted])[0, 1]
        for side in "xy"
    ]


def test_centres_are_those_of_the_cells(recordings, train, reliable):
    truth, model = recordings["A"], fitted(train)
    assert reliable.sum() >= 90
    fields = receptive_fields(model, method="gradient", images=train[:40], average="rms")["A"]
    fits = fit_gaussians(fields)
    counted = fits["good"].values & reliable
    assert counted.sum() >= 80
    found = correlations(fits, truth, counted)
    looked = correlations(readout_positions(model)["A"], truth, reliable)
    assert min(found) > 0.9, found
    assert min(looked) > 0.9, looked
    order = np.random.default_rng(0).permutation(100)
    shuffled = correlations(fits.isel(neuron=order), truth, counted & counted[order])
    assert np.abs(shuffled).max() < 0.4


def test_retinotopy_is_learned_from_responses(train):
    """Readouts that know nothing of cortical positions; before the training there is no map."""
    learned = retinotopy_smoothness(readout_positions(fitted(train, position_network=False))["A"])
    assert float(learned["p_value"]) < 0.005
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "max_epochs is 0")
        untrained = fitted(train, position_network=False, max_epochs=0)
    before = retinotopy_smoothness(readout_positions(untrained)["A"])
    assert float(before["p_value"]) > 0.05
    assert float(learned["relative"]) < 0.8 < float(before["relative"])
