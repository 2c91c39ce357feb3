"""Two mice, and a model that fits them in a tenth of a second."""

import pytest

import v1tlearn as v1
from tests.mice import two_mice


@pytest.fixture(scope="session")
def trials():
    return v1.Trials(two_mice()).sel(tier="train")


@pytest.fixture(scope="session")
def small():
    def make(**params):
        usual = {"n_layers": 1, "hidden_channels": 2, "input_kernel": 3, "batch_size": 16}
        usual |= {"max_epochs": 3, "random_state": 0, "device": "cpu"}
        return v1.CNNRegressor(**usual | params)

    return make


class Cut(Exception):
    """Ends a training as a crash would."""


@pytest.fixture
def cut():
    """Make an ``on_epoch`` that ends the training after an epoch, and the error it raises."""

    def make(epoch):
        def on_epoch(record):
            if record["epoch"] == epoch:
                raise Cut

        return on_epoch

    make.error = Cut
    return make
