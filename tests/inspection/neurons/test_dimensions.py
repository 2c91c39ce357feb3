"""How many neurons make a dimension, of towers that are known."""

import numpy as np
import pytest
import torch

import v1tlearn as v1
from v1tlearn.inspection import neurons_per_dimension


class LinearTower(v1.nn.NeuralTower):
    """Maps that are linear in the responses."""

    def __init__(self, weights, map_shape):
        super().__init__(len(weights), map_shape)
        self.weights = torch.nn.Parameter(torch.from_numpy(weights).float())

    def forward(self, responses):
        return (responses @ self.weights).unflatten(1, self.map_shape)


def linear(weights, n_images=60, seed=0):
    """An aligner whose maps are linear in responses of independent neurons, and its trials."""
    rng = np.random.default_rng(seed)
    stimuli = rng.integers(0, 255, (n_images, 1, 8, 8)).astype(np.uint8)
    trials = v1.Trials.from_arrays(stimuli, None, rng.random((n_images, len(weights))))
    est = v1.DINAAligner(
        neural_tower=lambda n_neurons, map_shape: LinearTower(weights, map_shape),
        map_size=(2, 3),
        map_channels=1,
        map_scale="none",
        max_epochs=0,
        device="cpu",
        random_state=0,
    )
    with pytest.warns(UserWarning, match="max_epochs is 0"):
        return est.fit(trials), trials


def test_a_dimension_of_two_neurons_needs_two():
    weights = np.zeros((12, 6))
    weights[3], weights[7], weights[5] = (
        [4, 4, 0, 0, 0, 0],
        [-4, -4, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    )
    est, trials = linear(weights)
    (found,) = neurons_per_dimension(est, trials, share=0.99).values()
    assert found.sizes["dimension"] == 2  # the rest is rounding
    # the first is the difference of neurons 3 and 7, and hardly any of the second
    assert (found["needed"].sel(dimension=0) == 2).all()
    assert (found["needed"].sel(dimension=1) <= 2).all()
    assert np.isnan(found["needed_shuffled"]).all()
    assert (found["explained_shuffled"] < 0.5).all()
    assert found["variance"].sum().item() == pytest.approx(1)


def test_what_is_explained_is_that_of_exhaustive_least_squares():
    weights = np.random.default_rng(1).normal(size=(4, 6)) * np.array([[8], [4], [2], [1]])
    est, trials = linear(weights)
    (found,) = neurons_per_dimension(est, trials, max_neurons=4, n_seeds=1).values()
    assert found["explained"].shape == (1, 4, 4)
    # with all four neurons a linear tower is explained entirely, whatever was left out
    np.testing.assert_allclose(found["explained"][..., -1], 1, atol=1e-6)
    assert (found["explained"].diff("count").mean("dimension") > 0).all()


def test_components_are_those_of_the_maps(aligners, seen):
    maps = aligners["mlp"].transform_responses(seen).sel(trial=seen.mouse_ids == "A")
    flat = maps.values.reshape(len(maps), -1).astype(np.float64)
    values = np.linalg.svd(flat - flat.mean(0), compute_uv=False) ** 2
    (found,) = neurons_per_dimension(
        aligners["mlp"], seen.sel(mouse_id="A"), n_dimensions=4
    ).values()
    np.testing.assert_allclose(found["variance"], (values / values.sum())[:4], rtol=1e-3)
    assert found["count"].values.tolist() == [1, 2, 3, 4]  # half of the nine trials of a half


def test_needed_is_the_first_count_that_reaches_the_share(aligners, seen):
    found = neurons_per_dimension(aligners["attention"], seen, share=0.5, random_state=1)
    assert found["A"].identical(
        neurons_per_dimension(aligners["attention"], seen, share=0.5, random_state=1)["A"]
    )
    curves, needed = found["B"]["explained"].values, found["B"]["needed"].values
    for curve, told in zip(curves.reshape(-1, curves.shape[-1]), needed.ravel(), strict=True):
        reached = np.flatnonzero(curve >= 0.5)
        assert (told == reached[0] + 1) if len(reached) else np.isnan(told)


def test_what_cannot_be_told_is_refused(aligners, seen):
    est, trials = linear(np.zeros((3, 6)))
    with pytest.raises(ValueError, match="the maps of its responses are the same in all trials"):
        neurons_per_dimension(est, trials)
    few = seen[np.isin(seen.image_ids, np.unique(seen.image_ids)[:3])]
    with pytest.raises(ValueError, match="mouse 'A' saw 3 images"):
        neurons_per_dimension(aligners["mlp"], few)
    for options in ({"share": -1}, {"n_dimensions": 0}, {"max_neurons": 1.5}, {"n_seeds": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            neurons_per_dimension(aligners["mlp"], seen, **options)
