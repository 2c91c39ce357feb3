"""Categories: confusions within them, galleries of them, and how they are read off maps."""

from itertools import combinations

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.alignments import as_trials, known_aligner, noise_images, unit
from v1tlearn.inspection import class_confusions, class_decoding, class_galleries

KINDS = np.repeat(["cat", "dog", "fox"], [12, 9, 12])


def trials_of_kinds(strength, noise=100.0, kinds=KINDS, repeats=3, seed=0, coordinate=True):
    """Images are noise and what their category has in common; responses are noisy images."""
    images = noise_images(len(kinds), (8, 8), seed)
    common = np.random.default_rng(5).normal(size=(len(set(kinds)), 1, 8, 8))
    images += 20 * strength * common[np.unique(kinds, return_inverse=True)[1]]
    shown = np.random.default_rng(seed).permutation(np.arange(len(kinds)).repeat(repeats))
    rng = np.random.default_rng(seed + 1)
    responses = images[shown] + noise * rng.normal(size=(len(shown), 1, 8, 8))
    labels = {"category": kinds[shown]} if coordinate else {}
    return as_trials(images[shown], responses, shown, **labels)


def cosines_of(est, trials):
    """Cosines of trials and images, which image each trial shows, and the images' ids."""
    ids, first, shown = np.unique(trials.image_ids, return_index=True, return_inverse=True)
    gallery = unit(est.transform_images(trials.get("stimuli", "A")[first]))
    return unit(est.transform_responses(trials)) @ gallery.T, shown, ids


def test_confusions_within_categories_are_counted_and_chance_is_exact():
    trials = trials_of_kinds(1.0)
    est = known_aligner(trials)
    cosines, shown, _ = cosines_of(est, trials)
    same, chance = [], []
    for row, right in zip(cosines, shown, strict=True):
        if row.argmax() != right:
            same.append(KINDS[row.argmax()] == KINDS[right])
            others = np.delete(np.arange(len(KINDS)), right)
            chance.append(np.mean(KINDS[others] == KINDS[right]))
    found = class_confusions(est, trials).sel(mouse="A")
    assert int(found["n_wrong"]) == len(same) > 5
    assert int(found["n_trials"]) == 99
    assert float(found["estimate"]) == pytest.approx(np.mean(same))
    assert float(found["chance"]) == pytest.approx(np.mean(chance))
    assert float(found["sum_of_squares"]) == pytest.approx((12**2 + 9**2 + 12**2) / 33**2)
    assert float(found["low"]) < np.mean(same) < float(found["high"])
    assert float(found["estimate"]) > float(found["chance"]) + 0.1
    assert float(found["p_value"]) < 0.02


def test_an_image_that_is_just_as_similar_is_a_confusion_whatever_its_place():
    images = np.tile(noise_images(3, (8, 8)), (2, 1, 1, 1))
    trials = as_trials(images, images, category=np.array(["a", "b", "c", "a", "c", "b"]))
    est = known_aligner(trials_of_kinds(0.0))
    found = class_confusions(est, trials).sel(mouse="A")
    assert int(found["n_wrong"]) == 6  # each has a twin
    assert float(found["estimate"]) == pytest.approx(2 / 6)  # of its category for the first


def test_without_common_traits_confusions_are_at_chance():
    kinds = np.repeat(["a", "b", "c"], 20)
    trials = trials_of_kinds(0.0, kinds=kinds, noise=300.0)
    found = class_confusions(known_aligner(trials), trials).sel(mouse="A")
    assert float(found["estimate"]) == pytest.approx(float(found["chance"]), abs=0.1)
    assert float(found["chance"]) == pytest.approx(19 / 59)
    assert float(found["p_value"]) > 0.05


def test_labels_by_the_caller_are_those_of_trials():
    trials = trials_of_kinds(1.0)
    est = known_aligner(trials)
    named = class_confusions(est, trials)
    bare = trials_of_kinds(1.0, coordinate=False)
    labels = KINDS[trials.image_ids]
    assert named.identical(class_confusions(est, bare, labels))
    numbers = np.unique(labels, return_inverse=True)[1]
    assert named.identical(class_confusions(est, bare, numbers))
    order = np.random.default_rng(0).permutation(len(trials))
    moved = class_confusions(est, bare[order], labels[order])
    assert float(moved["estimate"][0]) == pytest.approx(float(named["estimate"][0]))


def test_where_nothing_is_confused_there_is_no_share():
    trials = trials_of_kinds(1.0, noise=0.0)
    found = class_confusions(known_aligner(trials), trials).sel(mouse="A")
    assert int(found["n_wrong"]) == 0
    assert np.isnan(float(found["estimate"]))
    assert np.isnan(float(found["p_value"]))


@pytest.mark.parametrize("size", [2, 3])
def test_galleries_are_averaged_over_all_that_there_are(size):
    trials = trials_of_kinds(1.0)
    est = known_aligner(trials)
    cosines, shown, _ = cosines_of(est, trials)
    expected = []
    for row, right in zip(cosines, shown, strict=True):
        others = np.delete(np.arange(len(KINDS)), right)
        same = KINDS[others] == KINDS[right]
        expected.append(
            [
                np.mean([all(row[i] < row[right] for i in c) for c in combinations(pool, size - 1)])
                for pool in (others[same], others[~same])
            ]
        )
    same, other = np.mean(expected, axis=0)
    found = class_galleries(est, trials, gallery_size=size, n_permutations=200).sel(mouse="A")
    assert float(found["same_class"]) == pytest.approx(same)
    assert float(found["other_classes"]) == pytest.approx(other)
    assert float(found["difference"]) == pytest.approx(other - same)
    assert float(found["chance"]) == 1 / size
    assert other - same > 0.05
    assert float(found["p_value"]) < 0.05


def test_trials_without_enough_images_of_their_category_do_not_count():
    kinds = np.array(["a"] * 5 + ["b"] * 5 + ["c"])
    trials = trials_of_kinds(1.0, kinds=kinds)
    est = known_aligner(trials)
    found = class_galleries(est, trials, n_permutations=20)
    assert int(found["n_trials"].sel(mouse="A")) == 30
    with pytest.raises(ValueError, match=r"categories of \[5, 5, 1\] images: lower gallery_size"):
        class_galleries(est, trials, gallery_size=7)


def test_categories_are_read_off_both_kinds_of_maps():
    kinds = np.repeat(["a", "b"], 20)
    trials = trials_of_kinds(1.0, kinds=kinds, noise=20.0)
    est = known_aligner(trials)
    found = class_decoding(est, trials, n_permutations=9).sel(mouse="A")
    assert float(found["chance"]) == 0.5
    for space in ("images", "responses"):
        own = found.sel(space=space)
        assert float(own["accuracy"]) > 0.9
        assert float(own["control"]) == pytest.approx(0.5, abs=0.12)
        assert float(own["p_value"]) == pytest.approx(1 / 10)
    blank = trials_of_kinds(0.0, kinds=kinds, noise=20.0)
    nothing = class_decoding(known_aligner(blank), blank, n_permutations=9).sel(mouse="A")
    assert (nothing["p_value"] > 0.1).all()


def test_responses_that_tell_nothing_leave_categories_unread():
    kinds = np.repeat(["a", "b"], 20)
    trials = trials_of_kinds(1.5, kinds=kinds, noise=20.0)
    est = known_aligner(trials)
    rng = np.random.default_rng(0)
    deaf = as_trials(
        trials.get("stimuli", "A"),
        rng.normal(128, 20, size=(len(trials), 64)),
        trials.image_ids,
        category=kinds[trials.image_ids],
    )
    found = class_decoding(est, deaf, n_permutations=2).sel(mouse="A")
    assert float(found["accuracy"].sel(space="images")) > 0.9
    assert float(found["accuracy"].sel(space="responses")) < 0.75


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("function", [class_confusions, class_galleries, class_decoding])
def test_categories_that_are_none_are_refused(function):
    trials = trials_of_kinds(1.0, coordinate=False)
    est = known_aligner(trials)
    labels = KINDS[trials.image_ids]
    with pytest.raises(ValueError, match="no coordinate 'category', and no labels came"):
        function(est, trials)
    with pytest.raises(ValueError, match=r"shape \(98,\) for 99 trials"):
        function(est, trials, labels[:-1])
    with pytest.raises(ValueError, match=r"several categories, \['\w+', '\w+'\]: expected one"):
        function(est, trials, np.where(np.arange(99) == 98, "wolf", labels))
    with pytest.raises(ValueError, match=r"all images that count are of the categories \['cat'\]"):
        function(est, trials, np.full(99, "cat"))
    missing = labels.astype(object)
    missing[4] = None
    with pytest.raises(ValueError, match="missing"):
        function(est, trials, missing)
    one = trials.image_ids == 0
    with pytest.raises(ValueError, match="the trials show one image"):
        function(est, trials[one], labels[one])


@pytest.mark.parametrize("function", [class_confusions, class_galleries, class_decoding])
def test_images_of_unknown_and_of_other_categories_are_left_out(function):
    kinds = np.where(np.arange(len(KINDS)) % 4, KINDS, "unknown")
    trials = trials_of_kinds(1.0, kinds=kinds)
    est = known_aligner(trials)
    known = trials.sel(category=["cat", "dog", "fox"])
    options = {"n_permutations": 20, "random_state": 0}
    if function is class_decoding:
        options |= {"n_permutations": 2}
    xr.testing.assert_identical(function(est, trials, **options), function(est, known, **options))
    labels = kinds[trials.image_ids]
    two = trials.sel(category=["cat", "fox"])
    found = function(est, trials, labels, among=["fox", "cat"], **options)
    xr.testing.assert_identical(found, function(est, two, **options))
    whole = function(est, trials, labels, among=np.unique(kinds), **options)
    assert not whole.equals(function(est, trials, labels, **options))
    with pytest.raises(ValueError, match=r"no image is of the categories \['wolf'\] of among"):
        function(est, trials, among=["wolf", "cat"])
    with pytest.raises(ValueError, match=r"of the categories \['dog'\]: expected at least 2"):
        function(est, trials, among=["dog"])


def test_more_folds_than_images_of_a_category_are_refused():
    trials = trials_of_kinds(1.0)
    with pytest.raises(ValueError, match="n_folds=10, but a category has 9 images"):
        class_decoding(known_aligner(trials), trials, n_folds=10)
    with pytest.raises(ValueError, match="n_folds=1"):
        class_decoding(known_aligner(trials), trials, n_folds=1)


def test_categories_of_simulated_recordings_come_along():
    trials = v1.Trials(
        v1.make_coarse_recordings(
            n_mice=2, n_neurons=8, n_trials=20, n_test_images=12, image_shape=(12, 16),
            n_categories=3, random_state=0,
        )
    )  # fmt: skip
    est = v1.DINAAligner(map_size=(4, 6), map_channels=2, max_epochs=1, random_state=0)
    est.fit(trials.sel(tier="train"), validation=trials.sel(tier="validation"))
    found = class_confusions(est, trials.sel(tier="test"), n_bootstrap=20, n_permutations=20)
    assert found["mouse"].values.tolist() == ["A", "B"]
    np.testing.assert_allclose(found["sum_of_squares"], 1 / 3, atol=0.05)  # alike in number


def test_maps_that_are_all_the_same_decode_as_well_as_guessing():
    kinds = np.repeat(["a", "b"], 10)
    trials = trials_of_kinds(1.0, kinds=kinds, repeats=1)
    same = np.repeat(trials.get("responses", "A")[:1], len(trials), 0)
    deaf = as_trials(
        trials.get("stimuli", "A"), same, trials.image_ids, category=kinds[trials.image_ids]
    )
    found = class_decoding(known_aligner(trials), deaf, n_permutations=3).sel(mouse="A")
    assert float(found["accuracy"].sel(space="responses")) == pytest.approx(0.5, abs=0.1)
    assert float(found["p_value"].sel(space="responses")) > 0.1
