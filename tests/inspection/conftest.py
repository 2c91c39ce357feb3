"""Displays draw without a screen, and leave no figure open."""

import numpy as np
import pytest

import v1tlearn as v1
from tests.mice import two_mice


@pytest.fixture(scope="session")
def plt():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


@pytest.fixture
def figures(plt):
    """Close what a test opened."""
    plt.close("all")
    yield plt
    plt.close("all")


@pytest.fixture(scope="session")
def recordings():
    """Mice A (4 neurons) and B (3), with 5 test images shown 4 times."""
    return two_mice(n_neurons=[4, 3], n_trials=30, n_test_images=5)


@pytest.fixture(scope="session")
def test_trials(recordings):
    return v1.Trials(recordings).sel(tier="test")


@pytest.fixture(scope="session")
def models(recordings):
    """An LN and a CNN, tiny and hardly trained."""
    train = v1.Trials(recordings).sel(tier="train")
    settings = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
    settings |= {"batch_size": 16, "max_epochs": 2, "random_state": 0, "device": "cpu"}
    return {
        "LN": v1.LNRegressor(**settings).fit(train),
        "CNN": v1.CNNRegressor(crop_scale=0.8, image_size=(6, 8), **settings).fit(train),
    }


@pytest.fixture
def noisy_predictions(test_trials):
    """Make predictions: the true rates of a view and some noise, the less the better."""

    def make(noise, trials=test_trials):
        rng = np.random.default_rng(0)
        truth = trials.expected_responses
        values = {
            m: truth.get(m) * np.exp(noise * rng.normal(size=truth.get(m).shape))
            for m in truth.mice
        }
        return type(truth).from_arrays(values, like=trials)

    return make
