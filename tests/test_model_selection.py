import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import PredefinedSplit

from v1tlearn.model_selection import image_train_test_split, split_by_image, tier_split
from v1tlearn.trials import Trials


def make_trials(image_ids, tiers=None):
    """Recordings whose stimuli do not matter, one per entry of `image_ids`."""
    recordings = {}
    for mouse, ids in image_ids.items():
        n = len(ids)
        coords = {"image_id": ("trial", np.asarray(ids))}
        if tiers is not None:
            coords["tier"] = ("trial", np.asarray(tiers[mouse]))
        recordings[mouse] = xr.Dataset(
            {
                "stimuli": (("trial", "channel", "height", "width"), np.zeros((n, 1, 2, 2), "u1")),
                "responses": (("trial", "neuron"), np.ones((n, 3), "f4")),
            },
            coords,
        )
    return Trials(recordings)


class TestTierSplit:
    def test_fits_on_train_and_scores_on_validation(self):
        tiers = {"A": ["train", "validation", "train"], "B": ["validation", "train"]}
        trials = make_trials({"A": [1, 2, 3], "B": [4, 5]}, tiers)
        cv = tier_split(trials)
        assert isinstance(cv, PredefinedSplit)
        [(train, test)] = cv.split()
        assert train.tolist() == [0, 2, 4]
        assert test.tolist() == [1, 3]

    def test_other_tiers_and_several(self):
        cv = tier_split(["train", "validation", "test"], test="test", train=["train", "validation"])
        [(train, test)] = cv.split()
        assert (train.tolist(), test.tolist()) == ([0, 1], [2])

    def test_a_tier_on_no_side_would_be_fitted_on(self):
        with pytest.raises(ValueError, match=r"'test'.*neither.*sel\(tier="):
            tier_split(["train", "validation", "test"])

    @pytest.mark.parametrize("test", ["test", "validation"])
    def test_a_missing_tier_is_named(self, test):
        with pytest.raises(ValueError, match=f"no trial is of the test tier.*{test}"):
            tier_split(["train", "train"], test=test)

    def test_no_tier_on_both_sides(self):
        with pytest.raises(ValueError, match="both"):
            tier_split(["train"], test="train")


image_lists = st.lists(
    st.lists(st.integers(0, 30), min_size=8, max_size=60).filter(lambda ids: len(set(ids)) > 5),
    min_size=1,
    max_size=3,
)


class TestSplitByImage:
    @given(image_lists, st.floats(0.05, 0.95), st.integers(0, 100))
    def test_no_image_is_on_both_sides_and_no_mouse_is_left_out(self, ids, fraction, seed):
        images = np.concatenate(ids)
        mice = np.repeat([f"m{k}" for k in range(len(ids))], [len(i) for i in ids])
        train, validation = split_by_image(images, fraction, seed, mice)
        np.testing.assert_array_equal(
            np.sort(np.concatenate([train, validation])), np.arange(len(images))
        )
        assert np.all(np.diff(train) > 0)
        assert np.all(np.diff(validation) > 0)
        assert not set(images[train]) & set(images[validation])
        assert set(mice[train]) == set(mice[validation]) == set(mice)

    @given(
        st.lists(st.integers(1, 10), min_size=20, max_size=60),
        st.floats(0.1, 0.9),
        st.integers(0, 100),
    )
    def test_one_mouse_gets_the_fraction_to_within_one_image(self, repeats, fraction, seed):
        images = np.repeat(np.arange(len(repeats)), repeats)
        _, validation = split_by_image(images, fraction, seed)
        wanted = np.clip(fraction * len(images), 2, len(images) - 2)
        assert abs(len(validation) - wanted) <= max(repeats)

    def test_every_mouse_gets_the_fraction(self):
        rng = np.random.default_rng(0)
        ids = [rng.permutation(400) + 200 * k for k in range(4)]  # half shared with the next
        ids.append(np.repeat(np.arange(5000, 5030), 10))  # repeated images of its own
        mice = np.repeat(list("ABCDE"), [len(i) for i in ids])
        _, validation = split_by_image(np.concatenate(ids), 0.1, 0, mice)
        for mouse in "ABCDE":
            share = (mice[validation] == mouse).sum() / (mice == mouse).sum()
            assert share == pytest.approx(0.1, abs=0.02)

    def test_images_with_more_repeats_than_wanted_trials(self):
        _, validation = split_by_image(np.repeat(np.arange(5), 20), 0.05, 0)
        assert len(validation) == 20

    def test_smallest_case(self):
        train, validation = split_by_image(["a", "b"], 0.1, 0)
        assert (len(train), len(validation)) == (1, 1)
        train, validation = split_by_image(list("aabb"), 0.1, 0)
        assert (len(train), len(validation)) == (2, 2)

    def test_two_trials_on_each_side_where_possible(self):
        mice = np.repeat(["big", "small"], [100, 6])
        ids = np.concatenate([np.arange(100), np.arange(200, 206)])
        for seed in range(10):
            _, validation = split_by_image(ids, 0.1, seed, mice)
            assert (mice[validation] == "small").sum() == 2

    def test_all_images_have_the_same_chance(self):
        chosen = np.zeros(20)
        for seed in range(500):
            chosen[split_by_image(np.arange(20), 0.2, seed)[1]] += 1
        # binomial(500, .2): mean 100, standard deviation 8.9
        assert np.abs(chosen - 100).max() < 4 * 8.9

    def test_the_seed_decides(self):
        ids = np.arange(50)
        first, same, other = (split_by_image(ids, 0.2, seed)[1] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, same)
        assert not np.array_equal(first, other)

    def test_names_of_images_and_mice_do_not_matter(self):
        ids, mice = np.array([5, 3, 3, 9, 5, 1, 2, 8]), np.array(list("BBBBAAAA"))
        _, validation = split_by_image(ids, 0.3, 0, mice)
        _, renamed = split_by_image([f"im{10 - i:02d}" for i in ids], 0.3, 0, mice == "B")
        np.testing.assert_array_equal(validation, renamed)

    def test_the_global_generator_is_left_alone(self):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        split_by_image(np.arange(10), 0.2)
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    def test_a_mouse_with_one_image_is_named(self):
        with pytest.raises(ValueError, match="mouse 'B': all 3 trials show one image"):
            split_by_image([1, 2, 3, 7, 7, 7], 0.3, 0, list("AAABBB"))

    def test_an_impossible_split_names_a_mouse(self):
        # Each pair of three images is one mouse: whichever way, two images are on one side.
        with pytest.raises(ValueError, match=r"mouse '[ABC]': found no split"):
            split_by_image([1, 2, 2, 3, 3, 1], 0.5, 0, list("AABBCC"))

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
    def test_fraction_between_0_and_1(self, fraction):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_by_image([1, 2, 3], fraction)

    def test_lengths_and_emptiness(self):
        with pytest.raises(ValueError, match="image_ids has 3 trials, mouse_ids has 2"):
            split_by_image([1, 2, 3], 0.5, 0, ["A", "A"])
        with pytest.raises(ValueError, match="no trials"):
            split_by_image([], 0.5, 0)


def test_image_train_test_split_of_trials():
    ids = {"A": np.arange(40), "B": np.repeat(np.arange(20, 40), 2)}
    trials = make_trials(ids)
    train, test = image_train_test_split(trials, test_size=0.25, random_state=0)
    assert isinstance(train, Trials)
    assert len(train) + len(test) == 80
    assert not set(train.image_ids) & set(test.image_ids)
    assert train.mice == test.mice == ["A", "B"]
    again = image_train_test_split(trials, test_size=0.25, random_state=0)[1]
    np.testing.assert_array_equal(test.image_ids, again.image_ids)
