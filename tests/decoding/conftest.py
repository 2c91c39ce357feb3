"""Small simulated mice."""

import pytest

import v1tlearn as v1
from tests.mice import two_mice


@pytest.fixture(scope="session")
def recordings():
    return two_mice(n_test_images=6)


@pytest.fixture(scope="session")
def trials(recordings):
    """The training tier of both mice."""
    return v1.Trials(recordings).sel(tier="train")


@pytest.fixture(scope="session")
def test_trials(recordings):
    return v1.Trials(recordings).sel(tier="test")


@pytest.fixture(scope="session")
def arrays(trials):
    """Plain dicts per mouse: stimuli, behaviors, responses."""
    names = ("stimuli", "behaviors", "responses")
    return {name: {m: trials.get(name, m) for m in trials.mice} for name in names}


@pytest.fixture(scope="session")
def aligner(trials):
    """Fitted to both mice for two epochs; not to be changed."""
    sizes = {"map_size": (4, 6), "map_channels": 3, "hidden_channels": 4, "n_layers": 2}
    sizes |= {"input_kernel": 3, "hidden_units": (12,), "neural_channels": 4}
    return v1.DINAAligner(**sizes, max_epochs=2, random_state=0, device="cpu").fit(trials)
