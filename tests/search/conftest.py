"""Recordings that all tests of the search share."""

import pytest

import v1tlearn as v1


@pytest.fixture(scope="session")
def recordings():
    return v1.make_v1_recordings(
        n_mice=2,
        n_neurons=5,
        n_trials=36,
        n_test_images=4,
        n_repeats=3,
        image_shape=(16, 24),
        random_state=0,
    )


@pytest.fixture(scope="session")
def trials(recordings):
    return v1.Trials(recordings).sel(tier="train")
