"""Small models with behaviour, and an estimator whose answers are known."""

import numpy as np
import pytest

import v1tlearn as v1
from tests.mice import two_mice

SMALL = {"n_layers": 2, "hidden_channels": 2, "input_kernel": 5, "hidden_kernel": 3}
SMALL |= {"max_epochs": 1, "batch_size": 16, "random_state": 0, "device": "cpu"}
VIT = {"patch_size": 4, "patch_stride": 4, "n_blocks": 3, "n_heads": 1, "embed_dim": 6}
VIT |= {"mlp_dim": 4, "max_epochs": 1, "batch_size": 16, "random_state": 0, "device": "cpu"}


class Known:
    """Predicts exp(weights @ behaviour / spread) of each neuron, whatever the image."""

    def __init__(self, weights, noise=0.0):
        self.weights, self.noise = weights, noise

    def fit(self, trials):
        return self

    def predict(self, trials):
        values = {}
        for mouse in trials.mice:
            behaviors = trials.get("behaviors", mouse).astype(float) / (30, 3, 10, 60, 45)
            values[mouse] = np.exp(behaviors @ self.weights[mouse])
        return v1.Responses.from_arrays(values, like=trials)


@pytest.fixture(scope="session")
def trials():
    """Mice A (5 neurons) and B (7), 30 trials for training and 40 for tests."""
    return v1.Trials(two_mice(n_trials=33, n_test_images=10))


@pytest.fixture(scope="session")
def test(trials):
    return trials.sel(tier="test")


@pytest.fixture(scope="session")
def weights():
    rng = np.random.default_rng(0)
    return {"A": rng.normal(size=(5, 5)), "B": rng.normal(size=(5, 7))}


@pytest.fixture(scope="session")
def cnn(trials):
    return v1.CNNRegressor(**SMALL).fit(trials.sel(tier="train"))


@pytest.fixture(scope="session")
def blind(trials):
    model = v1.CNNRegressor(**SMALL, behavior_mode="none", shift="none")
    return model.fit(trials.sel(tier="train"))


@pytest.fixture(scope="session")
def known(weights):
    return Known(weights)
