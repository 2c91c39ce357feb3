"""Recordings that see coarse structure alone: what is said of them is so."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from v1tlearn.datasets.simulate.coarse import low_passed

SMALL = {
    "n_mice": 2,
    "n_neurons": 12,
    "n_trials": 40,
    "n_test_images": 6,
    "n_repeats": 3,
    "image_shape": (20, 32),
}


@pytest.fixture(scope="module")
def small():
    return v1.make_coarse_recordings(**SMALL, n_categories=3, random_state=0)


@pytest.fixture(scope="module")
def repeated():
    """Many images, shown twice, of which few neurons see much and others nothing."""
    return v1.make_coarse_recordings(1, 60, 2, 1200, 2, (20, 32), 0, cutoff=3.0)["A"]


def by_repeat(mouse, name):
    """The test tier as (images, repeats, neurons)."""
    test = mouse.to_dataset().isel(trial=mouse["tier"].values == "test")
    order = np.lexsort((test["trial_id"].values, test["image_id"].values))
    values = test[name].values[order].astype(np.float64)
    return values.reshape(len(np.unique(test["image_id"])), -1, values.shape[-1])


def correlations(a, b):
    """Per column."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def power(images, at_least):
    """Largest Fourier amplitude from a frequency on, in cycles per image height."""
    height, width = images.shape[-2:]
    frequency = height * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return np.abs(np.fft.fft2(images.astype(np.float64)))[..., frequency >= at_least].max()


class TestSchema:
    def test_recordings_follow_the_schema(self, small):
        v1.validate_recordings(small)
        for mouse in small.children.values():
            assert mouse["stimuli"].shape == (58, 1, 20, 32)
            assert mouse["stimuli"].dtype == np.uint8
            assert mouse["responses"].shape == mouse["expected_responses"].shape == (58, 12)
            assert mouse["responses"].dtype == mouse["expected_responses"].dtype == np.float32
            tiers, counts = np.unique(mouse["tier"], return_counts=True)
            assert dict(zip(tiers.tolist(), counts.tolist(), strict=True)) == {
                "train": 36,
                "validation": 4,
                "test": 18,
            }
            assert mouse.attrs["cutoff"] == 4.0
            assert mouse.attrs["n_categories"] == 3

    def test_an_id_is_one_image_in_all_mice(self, small):
        seen = {}
        for mouse in small.children.values():
            assert set(mouse["image_id"].values.tolist()) == set(range(46))
            for image_id, image in zip(
                mouse["image_id"].values, mouse["stimuli"].values, strict=True
            ):
                np.testing.assert_array_equal(image, seen.setdefault(image_id, image))
        assert len({image.tobytes() for image in seen.values()}) == 46

    def test_labels_come_through_a_file_and_selections(self, small, tmp_path):
        trials = v1.Trials(small)
        trials.to_netcdf(tmp_path / "coarse.nc")
        opened = v1.Trials.open(tmp_path / "coarse.nc")
        assert opened["A"].attrs["cutoff"] == 4.0
        chosen = opened.sel(category="60 deg", informative=True, mouse_id="B")
        expected = small["B"]["category"].values == "60 deg"
        assert len(chosen) == expected.sum()
        mouse = chosen["B"]
        assert mouse["informative"].values.tolist() == [True] * 6
        assert set(mouse["category"].values.tolist()) == {"60 deg"}
        np.testing.assert_array_equal(
            mouse["reliability"].values,
            small["B"]["reliability"].values[small["B"]["informative"].values],
        )

    def test_numbers_of_neurons_and_shares_per_mouse(self):
        recordings = v1.make_coarse_recordings(
            2, [4, 10], 10, 2, 2, (8, 12), 0, informative=0.3, cutoff=2
        )
        assert [int(m["informative"].sum()) for m in recordings.children.values()] == [1, 3]
        everyone = v1.make_coarse_recordings(1, 4, 10, 2, 2, (8, 12), 0, informative=1, cutoff=2)
        assert everyone["A"]["informative"].values.all()


class TestRandomness:
    def test_equal_seeds_give_equal_recordings(self, small):
        again = v1.make_coarse_recordings(**SMALL, n_categories=3, random_state=0)
        xr.testing.assert_identical(small, again)
        other = v1.make_coarse_recordings(**SMALL, n_categories=3, random_state=1)
        assert (other["A"]["stimuli"].values != small["A"]["stimuli"].values).any()

    def test_first_mice_do_not_depend_on_how_many_follow(self, small):
        alone = v1.make_coarse_recordings(**{**SMALL, "n_mice": 1}, n_categories=3, random_state=0)
        xr.testing.assert_identical(alone["A"].to_dataset(), small["A"].to_dataset())


class TestWhatNeuronsSee:
    def test_nothing_above_the_cut_off_is_left(self):
        images = np.random.default_rng(0).integers(0, 256, (3, 1, 21, 32)).astype(np.uint8)
        low = low_passed(images, 4.0)
        assert power(low, 4.0 + 1e-9) < 1e-5 * power(images, 0.0)
        difference = images - low.astype(np.float64)
        assert power(difference, 4.0 + 1e-9) == pytest.approx(power(images, 4.0 + 1e-9), rel=1e-6)
        np.testing.assert_allclose(low_passed(low, 4.0), low, atol=1e-3)

    def test_rates_follow_low_passed_images_and_need_all_up_to_the_cut_off(self, repeated):
        """A rectified linear neuron is linear where it is active: weights are found there."""
        mouse = repeated.to_dataset().isel(trial=repeated["tier"].values == "test")
        rates = mouse["expected_responses"].values.astype(np.float64)
        images = mouse["stimuli"].values[:, 0].astype(np.float64)

        def explained(cutoff):
            pixels = low_passed(images, cutoff).reshape(len(images), -1).astype(np.float64)
            spectrum = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)
            inputs = spectrum[0][:, spectrum[1] > 1e-4 * spectrum[1][0]]
            inputs = np.column_stack([np.ones(len(inputs)), inputs])
            shares = []
            for neuron in np.flatnonzero(mouse["informative"].values):
                active = rates[:, neuron] > 1.001 * rates[:, neuron].min()
                assert active.sum() > 4 * inputs.shape[1]
                target, x = rates[active, neuron], inputs[active]
                rest = target - x @ np.linalg.lstsq(x, target, rcond=None)[0]
                shares.append(1 - rest.var() / target.var())
            return np.array(shares)

        assert explained(3.0).min() > 0.9999
        assert explained(2.4).mean() < 0.95

    def test_no_repeat_of_an_image_differs_in_what_it_evokes(self, small):
        for mouse in small.children.values():
            rates = by_repeat(mouse, "expected_responses")
            np.testing.assert_array_equal(rates, np.repeat(rates[:, :1], 3, axis=1))

    def test_neurons_that_see_nothing_evoke_one_rate(self, repeated):
        sees, rates = repeated["informative"].values, repeated["expected_responses"].values
        assert (np.ptp(rates[:, ~sees], axis=0) == 0).all()
        assert (rates[:, sees].std(axis=0) > 0.3 * rates[:, sees].mean(axis=0)).all()
        mean = repeated["responses"].values.mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(mean, rates.mean(axis=0, dtype=np.float64), rtol=0.25)

    def test_correlation_of_repeats_is_the_reliability_that_is_told(self, repeated):
        responses = by_repeat(repeated, "responses")
        found = correlations(responses[:, 0], responses[:, 1])
        sees, told = repeated["informative"].values, repeated["reliability"].values
        assert (told[~sees] == 0).all()
        assert (told[sees] > 0).all()
        assert np.abs(found[~sees]).max() < 4.5 / np.sqrt(1200)
        np.testing.assert_allclose(found[sees], told[sees], atol=0.15)
        assert np.corrcoef(found[sees], told[sees])[0, 1] > 0.9
        assert np.ptp(told[sees]) > 0.4

    def test_neurons_that_see_nothing_are_distributed_like_the_others(self):
        """In mean, in spread, in skewness: none tells which neuron sees."""
        mouse = v1.make_coarse_recordings(1, 400, 2, 400, 1, (8, 12), 0, cutoff=2)["A"]
        sees, responses = mouse["informative"].values, mouse["responses"].values.astype(np.float64)
        mean, sd = responses.mean(axis=0), responses.std(axis=0)
        skew = (((responses - mean) / sd) ** 3).mean(axis=0)
        for statistic in (mean, sd / mean, skew):
            a, b = np.log(statistic[sees]), np.log(statistic[~sees])
            error = np.sqrt(a.var() / len(a) + b.var() / len(b))
            assert abs(a.mean() - b.mean()) < 3 * error

    def test_noise_grows_as_less_is_to_be_explained(self):
        told = [
            np.median(mouse["reliability"].values)
            for share in (0.1, 0.5, 0.9)
            for mouse in v1.make_coarse_recordings(
                1, 301, 2, 2, 1, (8, 12), 0, cutoff=2, informative=1, explainable_variance=share
            ).children.values()
        ]
        np.testing.assert_allclose(told, [0.1, 0.5, 0.9], atol=0.05)


class TestCategories:
    def test_there_are_none_unless_asked_for(self):
        mouse = v1.make_coarse_recordings(**SMALL, random_state=0)["A"]
        assert "category" not in mouse.coords
        assert mouse.attrs["n_categories"] == 0

    def test_an_image_has_one_class_and_classes_are_alike_in_number(self, small):
        ids, classes = small["A"]["image_id"].values, small["A"]["category"].values
        pairs = set(zip(ids.tolist(), classes.tolist(), strict=True))
        assert len(pairs) == 46
        names, counts = np.unique([name for _, name in pairs], return_counts=True)
        assert names.tolist() == ["0 deg", "120 deg", "60 deg"]
        assert np.ptp(counts) <= 1

    def test_leaves_lie_in_the_direction_of_their_class(self):
        """Brightness changes least along the leaves: the structure tensor tells the direction."""
        mouse = v1.make_coarse_recordings(
            1, 1, 40, 1, 1, (36, 64), 0, informative=1, n_categories=4
        )["A"]
        images = mouse["stimuli"].values[:, 0].astype(np.float64)
        down, right = np.gradient(images, axis=(1, 2))
        double = np.arctan2(2 * (down * right).sum((1, 2)), (right**2 - down**2).sum((1, 2)))
        along = np.degrees(double / 2 + np.pi / 2)
        told = np.array([float(name.split()[0]) for name in mouse["category"].values])
        away = (along - told + 90) % 180 - 90
        assert np.abs(away).max() < 22.5


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"cutoff": 0.5}, "cutoff must be at least 1 and at most 10 cycles per image height"),
            ({"cutoff": 11}, "at most 10 cycles per image height, what 20 rows of pixels hold"),
            ({"cutoff": np.nan}, "cutoff must be at least 1"),
            ({"informative": 0.01}, "informative=0.01 of 12 neurons are none that sees the image"),
            ({"informative": 1.5}, r"informative must lie in \[0, 1\], got 1.5"),
            ({"n_categories": 1}, "n_categories must be 0, for none, or at least 2"),
            ({"n_categories": 13}, "n_categories must be at least 0 and at most 12"),
            ({"explainable_variance": 1.0}, r"explainable_variance must lie in \(0, 1\)"),
            ({"n_neurons": [3]}, "n_neurons holds 1 numbers for 2 mice"),
            ({"n_trials": 10**13}, "makes recordings that no memory holds"),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            v1.make_coarse_recordings(**{**SMALL, **wrong})

    @pytest.mark.parametrize("wrong", [{"cutoff": "4"}, {"informative": None}, {"n_mice": 1.5}])
    def test_what_is_no_number_is_refused(self, wrong):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            v1.make_coarse_recordings(**{**SMALL, **wrong})
