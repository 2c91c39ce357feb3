"""Neurons that see the image are found among those that see nothing."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import v1tlearn as v1
from v1tlearn.inspection import neuron_importance, neurons_for_performance

SIZES = {"map_size": (4, 6), "map_channels": 8, "hidden_channels": 16, "n_layers": 2}
SIZES |= {"input_kernel": 5, "hidden_units": (64,), "embed_dim": 16, "grid": (4, 6)}
SIZES |= {"image_lr": 3e-3, "neural_lr": 2e-3, "batch_size": 64, "device": "cpu"}


@pytest.fixture(scope="module")
def recordings():
    """Of 40 neurons, half see the image."""
    return v1.make_coarse_recordings(
        n_neurons=40,
        n_trials=300,
        n_test_images=60,
        n_repeats=2,
        image_shape=(12, 16),
        cutoff=2.0,
        informative=0.5,
        explainable_variance=0.7,
        random_state=0,
    )


def fit(recordings, tower, max_epochs, *, shuffled=False):
    trials = v1.Trials(recordings).sel(tier="train")
    if shuffled:  # every response belongs to another image
        responses = np.random.default_rng(0).permutation(trials.get("responses", "A"))
        trials = v1.Trials.from_arrays({"A": trials.get("stimuli", "A")}, None, {"A": responses})
    est = v1.DINAAligner(neural_tower=tower, max_epochs=max_epochs, random_state=0, **SIZES)
    return est.fit(trials)


def ranked(recordings, est, method):
    """How well importance tells who sees the image, and the same of shuffled pairs."""
    test = v1.Trials(recordings).sel(tier="test")
    (found,) = neuron_importance(est, test, method, n_shuffles=20).values()
    sees = recordings["A"]["informative"].values
    of_shuffled = [roc_auc_score(sees, own) for own in found["signed_shuffled"].values]
    return found, roc_auc_score(sees, found["signed"]), float(np.mean(of_shuffled))


def test_neurons_that_see_the_image_rank_first(recordings):
    est = fit(recordings, "mlp", 12)
    found, area, of_shuffled = ranked(recordings, est, "gradient")
    assert area > 0.9
    assert abs(of_shuffled - 0.5) < 0.2
    reliability = recordings["A"]["reliability"].values
    assert spearmanr(found["signed"], reliability)[0] > 0.6
    # what shuffled pairs add is small beside it
    assert found["signed_shuffled"].mean("shuffle").max() < found["signed"].max() / 3


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "ablation"])
@pytest.mark.parametrize("tower", ["mlp", "attention"])
def test_all_measures_rank_them_first(recordings, tower, method):
    est = fit(recordings, tower, 40)
    _, area, of_shuffled = ranked(recordings, est, method)
    assert area > 0.95
    assert abs(of_shuffled - 0.5) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["mlp", "attention"])
def test_a_tower_of_shuffled_pairs_ranks_by_chance(recordings, tower):
    est = fit(recordings, tower, 20, shuffled=True)
    found, area, _ = ranked(recordings, est, "gradient")
    sees = recordings["A"]["informative"].values
    assert abs(area - 0.5) < 0.25  # the spread of an area by chance is .09
    assert abs(roc_auc_score(sees, found["absolute"]) - 0.5) < 0.25


@pytest.mark.slow
def test_few_neurons_find_most_of_the_images(recordings):
    est = fit(recordings, "mlp", 40)
    test = v1.Trials(recordings).sel(tier="test")
    rankings = ("importance", "reliability", "random")
    found = neurons_for_performance(est, test, rankings=rankings, n_seeds=6)["A"]
    needed = found["needed"].median("seed")
    assert needed.sel(ranking="importance") <= 22  # 20 see the image
    assert needed.sel(ranking="importance") < needed.sel(ranking="random")
    assert needed.sel(ranking="reliability") < needed.sel(ranking="random")
