"""Tiny models, hardly trained: what is tested is what they are asked, not what they learned."""

import pytest

import v1tlearn as v1

SHAPE = (12, 16)
CNN = {"n_layers": 2, "hidden_channels": 4, "input_kernel": 5, "hidden_kernel": 3}
COMMON = {"batch_size": 16, "max_epochs": 2, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="session")
def trials():
    """Mice A (4 neurons) and B (3)."""
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=[4, 3], n_trials=40, image_shape=SHAPE, random_state=0
    )
    return v1.Trials(recordings).sel(tier="train")


@pytest.fixture(scope="session")
def fit(trials):
    """Fit tiny models, each once; not to be changed."""
    made = {}

    def get(kind=v1.CNNRegressor, **params):
        key = (kind, *sorted(params.items()))
        if key not in made:
            sizes = CNN if kind in (v1.CNNRegressor, v1.LNRegressor) else {}
            made[key] = kind(**{**COMMON, **sizes, **params}).fit(trials)
        return made[key]

    return get
