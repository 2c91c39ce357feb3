"""Small simulated mice."""

import pytest

import v1tlearn as v1


@pytest.fixture(scope="session")
def recordings():
    """Mice A (5 neurons) and B (7), 45 trials of 12 x 16 pixels and 6 test images x 4."""
    return v1.make_v1_recordings(
        n_mice=2,
        n_neurons=[5, 7],
        n_trials=45,
        n_test_images=6,
        n_repeats=4,
        image_shape=(12, 16),
        random_state=0,
    )


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
