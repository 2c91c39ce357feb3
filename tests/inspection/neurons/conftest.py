"""Aligners of two mice with either tower, tiny and hardly trained."""

import copy

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.mice import two_mice

TINY = {"map_size": (4, 6), "map_channels": 2, "hidden_channels": 4, "n_layers": 2}
TINY |= {"input_kernel": 3, "hidden_units": (12,), "neural_channels": 4, "embed_dim": 6}
TINY |= {"max_epochs": 4, "random_state": 0, "device": "cpu", "batch_size": 16, "n_heads": 2}
TINY |= {"neural_lr": 0.05}


@pytest.fixture(scope="session")
def alignments_trials():
    """Mice A (9 neurons) and B (6), with 6 test images shown 3 times."""
    return v1.Trials(two_mice(n_neurons=[9, 6], n_trials=40, n_test_images=6, n_repeats=3))


@pytest.fixture(scope="session")
def seen(alignments_trials):
    """Test trials of both mice."""
    return alignments_trials.sel(tier="test")


def _double(est):
    """The aligner with neural towers in double precision."""
    est = copy.deepcopy(est)
    for tower in est.module_.readouts:
        tower.double()
    return est


@pytest.fixture(scope="session")
def aligners(alignments_trials):
    """By tower; not to be changed."""
    train = alignments_trials.sel(tier="train")
    return {
        tower: v1.DINAAligner(neural_tower=tower, **TINY).fit(train)
        for tower in ("mlp", "attention")
    }


@pytest.fixture(scope="session")
def precise(aligners):
    """The same with neural towers in double precision."""
    return {tower: _double(est) for tower, est in aligners.items()}


@pytest.fixture
def scaled():
    """Scaled responses of a mouse to trials (n, neurons) in float64; NaN is at the mean."""

    def scale(est, trials, mouse):
        own, values = est.statistics_[mouse], trials.get("responses", mouse)
        units = torch.from_numpy(values / own["response_scale"]).float().double()
        return est.module_.scale_responses(mouse, units.nan_to_num(), ~units.isnan())

    return scale


@pytest.fixture
def image_vectors():
    """Flat maps of length 1 (trials, features) of the images that a mouse saw, in float64."""

    def vectors(est, trials, mouse):
        own = trials.sel(mouse_id=mouse)
        maps = est.transform_images(own).values.astype(np.float64).reshape(len(own), -1)
        return torch.from_numpy(maps / np.linalg.norm(maps, axis=1, keepdims=True))

    return vectors


@pytest.fixture
def with_responses():
    """Make trials of one mouse with other responses."""

    def make(trials, mouse, responses):
        own = trials.sel(mouse_id=mouse)
        return v1.Trials.from_arrays(
            {mouse: own.get("stimuli", mouse)},
            None,
            {mouse: responses},
            image_ids={mouse: own.image_ids},
        )

    return make
