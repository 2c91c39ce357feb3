"""Alignments of simulated recordings whose truth is known, and of pairs that were shuffled."""

import logging

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import v1tlearn as v1
from v1tlearn.inspection import (
    alignment_map,
    attention_masking,
    manipulation_curve,
    neuron_importance,
    neurons_for_performance,
)

logger = logging.getLogger(__name__)


def recorded(**options):
    """Neurons that are rectified filters of low-passed images."""
    sizes = {"n_neurons": 150, "n_trials": 900, "n_test_images": 80, "image_shape": (16, 24)}
    sizes |= {"cutoff": 3.0, "explainable_variance": 0.7, "random_state": 0}
    return v1.make_coarse_recordings(**sizes | options)


def share_of_observer(recording, test):
    """Images found by an observer who knows all rates, and how noise grows with them.

    It takes noise for normal, its variance for proportional to the rate.
    """
    ids, first = np.unique(test.image_ids, return_index=True)
    sees = recording["informative"].values
    rates = test.get("expected_responses", "A")[first][:, sees].astype(float)  # (images, neurons)
    responses = test.get("responses", "A")[:, sees].astype(float)
    reliability = recording["reliability"].values[sees]
    noise = rates.var(0) * (1 - reliability) / reliability
    variance = noise * rates / rates.mean(0)
    surprise = (responses[:, None] - rates) ** 2 / variance + np.log(variance)
    return float((ids[surprise.sum(2).argmin(1)] == test.image_ids).mean())


@pytest.mark.slow
def test_images_are_found_nearly_as_often_as_the_ceiling_allows():
    recordings = recorded()
    trials = v1.Trials(recordings)
    train, validation, test = (trials.sel(tier=t) for t in ("train", "validation", "test"))
    est = v1.DINAAligner(
        max_epochs=20, map_size=(8, 12), map_channels=8, hidden_channels=16, image_lr=3e-3,
        neural_lr=1e-3, random_state=0,
    ).fit(train, validation=validation)  # fmt: skip
    table = v1.decoding_table(est, test, n_bootstrap=200, n_permutations=200)
    (found,) = table.query(
        "metric == 'top_1' and gallery_size == 80 and direction == 'response_to_image'"
    ).itertuples()
    ideal = share_of_observer(recordings["A"], test)
    logger.info("found %.3f, repeats %.3f, observer %.3f", found.value, found.ceiling, ideal)
    assert found.p_value == 1 / 201
    assert found.low > 40 * found.chance
    assert found.value > found.ceiling - 0.15  # what two responses to an image tell of each other
    assert found.value > ideal - 0.25


# ------------------------------------------------------------------------------------- the control


@pytest.fixture(scope="module", params=["mlp", "attention"])
def of_shuffled_pairs(request):
    """An alignment of images and responses to other images, and true test trials."""
    recordings = recorded(
        n_neurons=40, n_trials=300, n_test_images=60, image_shape=(12, 16), cutoff=2.0,
    )  # fmt: skip
    train = v1.Trials(recordings).sel(tier="train")
    mixed = np.random.default_rng(0).permutation(train.get("responses", "A"))
    dataset = train["A"].assign(responses=(("trial", "neuron"), mixed))
    est = v1.DINAAligner(
        neural_tower=request.param, max_epochs=20, map_size=(4, 6), map_channels=8,
        hidden_channels=16, n_layers=2, input_kernel=5, hidden_units=(64,), embed_dim=16,
        grid=(4, 6), image_lr=3e-3, neural_lr=2e-3, batch_size=64, random_state=0,
    )  # fmt: skip
    return (
        recordings["A"],
        est.fit(v1.Trials({"A": dataset})),
        v1.Trials(recordings).sel(tier="test"),
    )


@pytest.mark.slow
def test_shuffled_pairs_give_chance_everywhere(of_shuffled_pairs):
    recording, est, test = of_shuffled_pairs
    table = v1.decoding_table(est, test, n_bootstrap=200, n_permutations=200)
    assert (table.p_value.dropna() > 0.005).all()
    top = table[table.metric == "top_1"]
    assert (top.low <= top.chance).all()
    two_way = table[table.metric == "two_way_identification"]
    assert (abs(two_way.value - 0.5) < 0.1).all()

    curve = manipulation_curve(est, test, n_bootstrap=100, n_permutations=200)
    of = curve.sel(mouse="A", measure=["top1", "reciprocal_rank", "two_way"])
    assert (of["p_value"] > 0.005).all()

    sees = recording["informative"].values
    importance = neuron_importance(est, test)["A"]
    for name in ("signed", "absolute"):
        assert (
            abs(roc_auc_score(sees, importance[name]) - 0.5) < 0.25
        )  # of chance the spread is .09

    by_rank = neurons_for_performance(est, test, n_seeds=4)["A"]
    assert float(by_rank["top1"].mean("seed").max()) < 4 * float(by_rank["chance"].mean())

    assert float(alignment_map(est, test)["p_value"].sel(mouse="A")) > 0.005


@pytest.mark.slow
@pytest.mark.parametrize("of_shuffled_pairs", ["attention"], indirect=True)
def test_masking_finds_nothing_in_shuffled_pairs(of_shuffled_pairs):
    _, est, test = of_shuffled_pairs
    found = attention_masking(est, test, fractions=[0.1, 0.5, 1.0], n_random=3)["A"]
    assert float(found["top1"].max()) < 0.1  # chance is 1/60
