"""Dissimilarities in the space against those of pixels and of categories."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from tests.alignments import Coarse, as_trials, known_aligner, noise_images, unit
from v1tlearn.inspection import representational_similarity
from v1tlearn.preprocessing import low_pass

KINDS = np.repeat(["a", "b", "c"], 8)


def seen(responses_of, core=Coarse, repeats=2, noise=0.0, **labels):
    images = noise_images(len(KINDS), (16, 24))
    shown = np.random.default_rng(0).permutation(np.arange(len(images)).repeat(repeats))
    rng = np.random.default_rng(1)
    responses = responses_of(images)[shown]
    responses = responses + noise * rng.normal(size=responses.shape)
    trials = as_trials(images[shown], responses, shown, **{k: v[shown] for k, v in labels.items()})
    return known_aligner(trials, core), trials


def coarse(images):
    return low_pass(images, Coarse.cutoff)


def test_correlations_are_spearmans_over_pairs_of_images():
    est, trials = seen(coarse, noise=40.0, category=KINDS)
    ids, first, shown = np.unique(trials.image_ids, return_index=True, return_inverse=True)
    images = trials.get("stimuli", "A")[first].astype(float)
    maps = est.transform_responses(trials).values.astype(float)
    mean = np.stack([maps[shown == i].mean(0) for i in range(len(ids))])
    above = np.triu_indices(len(ids), 1)
    spaces = {
        "images": 1 - unit(est.transform_images(images)) @ unit(est.transform_images(images)).T,
        "responses": 1 - unit(mean) @ unit(mean).T,
    }
    others = {
        "pixels": 1 - np.corrcoef(images.reshape(len(ids), -1)),
        "low_passed": 1 - np.corrcoef(low_pass(images, 2.5).reshape(len(ids), -1)),
        "classes": (KINDS[:, None] != KINDS).astype(float),
    }
    found = representational_similarity(est, trials, cutoff=2.5, n_permutations=50)
    for space, own in spaces.items():
        table = {**others, "other": spaces["responses" if space == "images" else "images"]}
        for model, other in table.items():
            expected = spearmanr(own[above], other[above]).statistic
            got = float(found["correlation"].sel(mouse="A", space=space, model=model))
            assert got == pytest.approx(expected, abs=2e-4), (space, model)


def test_coarse_responses_resemble_coarse_pixels_and_no_category():
    est, trials = seen(coarse, category=KINDS)
    found = representational_similarity(est, trials, cutoff=Coarse.cutoff, n_permutations=200)
    own = found.sel(mouse="A", space="responses")
    assert float(own["correlation"].sel(model="low_passed")) > 0.9
    assert float(own["correlation"].sel(model="low_passed")) > float(
        own["correlation"].sel(model="pixels")
    )
    assert float(own["p_value"].sel(model="low_passed")) == pytest.approx(1 / 201)
    assert float(own["p_value"].sel(model="classes")) > 0.01
    assert float(own["correlation"].sel(model="classes")) < float(
        own["control_high"].sel(model="classes")
    )


def test_images_of_unknown_category_are_left_out_of_all_models():
    kinds = np.where(np.arange(len(KINDS)) % 4, KINDS, "unknown")
    est, trials = seen(coarse, category=kinds)
    known = trials.sel(category=sorted(set(KINDS.tolist())))
    first, second = (
        representational_similarity(est, t, n_permutations=20) for t in (trials, known)
    )
    xr.testing.assert_identical(first, second)
    assert int(first["n_images"][0]) < len(np.unique(trials.image_ids))
    bare = seen(coarse)[1]
    with pytest.raises(ValueError, match="among was given, but no categories"):
        representational_similarity(est, bare, among=["a", "b"])


def test_what_nothing_has_in_common_is_at_chance():
    est, trials = seen(lambda images: noise_images(len(images), images.shape[2:], seed=9))
    found = representational_similarity(est, trials, n_permutations=500)
    assert "classes" not in found["model"]
    assert (found["p_value"].sel(space="responses") > 0.01).all()


def test_dissimilarities_that_are_all_equal_have_no_correlation():
    est, trials = seen(coarse)
    responses = np.repeat(trials.get("responses", "A")[:1], len(trials), 0)
    same = as_trials(trials.get("stimuli", "A"), responses, trials.image_ids)
    found = representational_similarity(est, same, n_permutations=20)
    assert found["correlation"].sel(space="responses").isnull().all()
    assert found["p_value"].sel(space="responses").isnull().all()
    assert found["correlation"].sel(space="images", model="pixels").notnull().all()


def test_what_cannot_be_ranked_is_refused():
    est, trials = seen(coarse)
    few = trials[np.isin(trials.image_ids, [0, 1, 2])]
    with pytest.raises(ValueError, match="3 images came: expected at least 4"):
        representational_similarity(est, few)
    with pytest.raises(ValueError, match=r"shape \(3,\) for 48 trials"):
        representational_similarity(est, trials, ["a", "b", "c"])
    with pytest.raises(ValueError, match="cutoff=0"):
        representational_similarity(est, trials, cutoff=0)
