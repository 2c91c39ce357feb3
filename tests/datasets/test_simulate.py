"""The simulator: schema, determinism, natural images, known truth, and the noise of real data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from v1tlearn.datasets import make_v1_recordings
from v1tlearn.datasets.schema import BEHAVIOR_NAMES, validate_recordings
from v1tlearn.datasets.simulate.behavior import MAX_SHIFT, behavior_in_time, draw_eye, eye_shift
from v1tlearn.datasets.simulate.cells import Evoked, draw_cells, shift_images
from v1tlearn.datasets.simulate.dead_leaves import dead_leaves

SMALL = {
    "n_mice": 2,
    "n_neurons": 12,
    "n_trials": 40,
    "n_test_images": 5,
    "n_repeats": 4,
    "image_shape": (18, 32),
}
TINY = {
    "n_mice": 1,
    "n_neurons": 2,
    "n_trials": 2,
    "n_test_images": 1,
    "n_repeats": 1,
    "image_shape": (8, 8),
}


@pytest.fixture(scope="module")
def small():
    return make_v1_recordings(**SMALL, random_state=0)


@pytest.fixture(scope="module", params=[0, 1, 2])
def realistic(request):
    """Default noise, few training trials: tests look at the test tier."""
    return make_v1_recordings(2, 150, 50, random_state=request.param)


def correlation(a, b):
    """Per column, float64."""
    a = a.astype(np.float64) - a.mean(axis=0, dtype=np.float64)
    b = b.astype(np.float64) - b.mean(axis=0, dtype=np.float64)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def of_tier(dataset, *tiers):
    return dataset.isel(trial=np.isin(dataset["tier"].values, tiers))


def by_repeat(dataset, name):
    """Test tier as (images, repeats, neurons); repeats in time order."""
    test = of_tier(dataset, "test")
    order = np.lexsort((test["trial_id"].values, test["image_id"].values))
    values = test[name].values[order]
    return values.reshape(len(np.unique(test["image_id"])), -1, values.shape[-1])


def spectral_slope(images):
    """Exponent of the radially averaged power of (images, height, width)."""
    images = images.astype(float) - images.mean(axis=(1, 2), keepdims=True)
    height, width = images.shape[1:]
    power = np.abs(np.fft.fft2(images * np.outer(np.hanning(height), np.hanning(width)))) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    edges = np.geomspace(2.5 / height, 0.45, 10)
    ring = np.digitize(frequency, edges)
    rings = [ring == k for k in range(1, len(edges)) if (ring == k).any()]
    mean_power = [power.mean(axis=0)[r].mean() for r in rings]
    return np.polyfit(np.log([frequency[r].mean() for r in rings]), np.log(mean_power), 1)[0]


class TestSchema:
    def test_recordings_follow_the_schema(self, small):
        validate_recordings(small)
        assert isinstance(small, xr.DataTree)
        assert list(small.children) == ["A", "B"]
        mouse = small["A"]
        assert dict(mouse.sizes) == {
            "trial": 60,
            "channel": 1,
            "height": 18,
            "width": 32,
            "neuron": 12,
            "behavior": 5,
            "axis": 3,
        }
        assert mouse["stimuli"].dtype == np.uint8
        for name in ("behaviors", "responses", "expected_responses"):
            assert mouse[name].dtype == np.float32
        assert mouse["behavior"].values.tolist() == list(BEHAVIOR_NAMES)
        assert mouse["behaviors"].attrs["units"]
        assert mouse["position"].attrs["units"] == "um"
        for name in ("area", "layer", "animal_id", "session", "scan", "cell_type"):
            assert mouse[name].dims == ("neuron",)

    def test_tiers_hold_the_numbers_asked_for(self, small):
        for mouse in small.children.values():
            tiers, counts = np.unique(mouse["tier"], return_counts=True)
            assert dict(zip(tiers.tolist(), counts.tolist(), strict=True)) == {
                "train": 36,
                "validation": 4,
                "test": 20,
            }
            ids = of_tier(mouse.to_dataset(), "train", "validation")["image_id"].values
            assert len(np.unique(ids)) == 40

    def test_trials_have_a_time_order_which_is_not_the_file_order(self, small):
        trial_id = small["A"]["trial_id"].values
        assert sorted(trial_id) == list(range(60))
        assert (np.diff(trial_id) < 0).any()

    def test_test_repeats_are_interleaved_in_time(self, small):
        for mouse in small.children.values():
            test = of_tier(mouse.to_dataset(), "test").sortby("trial_id")
            rounds = test["image_id"].values.reshape(4, 5)
            assert all(len(set(images)) == 5 for images in rounds)
            other = of_tier(mouse.to_dataset(), "train")["trial_id"].values
            assert other.min() < test["trial_id"].max()
            assert other.max() > test["trial_id"].min()

    def test_neurons_one_number_per_mouse(self):
        recordings = make_v1_recordings(3, [3, 7, 1], 10, 2, 2, (8, 8), random_state=0)
        assert [mouse.sizes["neuron"] for mouse in recordings.children.values()] == [3, 7, 1]

    def test_without_behavior(self):
        recordings = make_v1_recordings(**SMALL, behavior=False, random_state=0)
        validate_recordings(recordings)
        assert "behaviors" not in recordings["A"]
        assert "behavior" not in recordings["A"].coords
        rates = by_repeat(recordings["A"].to_dataset(), "expected_responses")
        np.testing.assert_allclose(rates, np.repeat(rates[:, :1], 4, axis=1), rtol=1e-5)

    def test_with_behavior_rates_vary_over_repeats(self, small):
        for mouse in small.children.values():
            rates = by_repeat(mouse.to_dataset(), "expected_responses")
            assert (rates.std(axis=1).mean(axis=0) > 0.02 * rates.mean(axis=(0, 1))).all()

    def test_two_channels(self):
        recordings = make_v1_recordings(**SMALL, n_channels=2, random_state=0)
        validate_recordings(recordings)
        stimuli = recordings["A"]["stimuli"].values
        assert stimuli.shape[1] == 2
        shared = np.corrcoef(stimuli[:, 0].ravel(), stimuli[:, 1].ravel())[0, 1]
        assert 0.5 < shared < 0.95

    @pytest.mark.parametrize(
        "image_shape",
        [pytest.param((144, 256), marks=pytest.mark.slow), (18, 32), (40, 40), (8, 30)],
    )
    def test_other_image_shapes(self, image_shape):
        recordings = make_v1_recordings(1, 8, 6, 2, 2, image_shape, random_state=0)
        validate_recordings(recordings)
        mouse = recordings["A"]
        assert mouse["stimuli"].shape[2:] == image_shape
        assert mouse["responses"].values.any(axis=0).all()
        assert (mouse["receptive_field_y"] <= image_shape[0] - 1).all()
        assert (mouse["receptive_field_x"] <= image_shape[1] - 1).all()


class TestRandomness:
    @pytest.mark.parametrize("make", [int, np.random.RandomState, np.random.default_rng])
    def test_equal_seeds_give_equal_recordings(self, make):
        first, second = (make_v1_recordings(**TINY, random_state=make(3)) for _ in range(2))
        xr.testing.assert_identical(first, second)

    def test_other_seeds_give_other_recordings(self, small):
        other = make_v1_recordings(**SMALL, random_state=1)
        assert (other["A"]["stimuli"].values != small["A"]["stimuli"].values).any()
        fresh = [make_v1_recordings(**TINY)["A"]["stimuli"].values for _ in range(2)]
        assert (fresh[0] != fresh[1]).any()

    def test_a_generator_moves_on(self):
        rng = np.random.default_rng(0)
        first, second = (make_v1_recordings(**TINY, random_state=rng) for _ in range(2))
        assert (first["A"]["stimuli"].values != second["A"]["stimuli"].values).any()

    def test_global_generator_is_left_as_found(self):
        np.random.seed(0)  # noqa: NPY002
        expected = np.random.random()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002
        make_v1_recordings(**TINY, random_state=0)
        assert np.random.random() == expected  # noqa: NPY002

    def test_first_mice_do_not_depend_on_how_many_follow(self, small):
        alone = make_v1_recordings(**{**SMALL, "n_mice": 1}, random_state=0)
        xr.testing.assert_identical(alone["A"].to_dataset(), small["A"].to_dataset())


class TestImages:
    @pytest.mark.parametrize(("image_shape", "n"), [((36, 64), 300), ((144, 256), 12)])
    def test_power_falls_as_in_natural_images(self, image_shape, n):
        images = dead_leaves(np.random.default_rng(0), n, image_shape)
        assert -2.6 < spectral_slope(images[:, 0]) < -1.6

    def test_images_use_the_range_of_grey_levels(self):
        images = dead_leaves(np.random.default_rng(0), 200, (36, 64))
        assert 95 < images.mean() < 130
        assert 30 < images.mean(axis=1).std() < 65
        assert np.isin(images, (0, 255)).mean() < 0.05

    def test_edges_make_contrast_sparse(self):
        """Differences of neighbours have heavier tails than in noise of the same spectrum."""
        images = dead_leaves(np.random.default_rng(0), 200, (36, 64))[:, 0].astype(float)
        difference = np.diff(images, axis=2) / images.std(axis=(1, 2), keepdims=True)
        assert (difference**4).mean() / (difference**2).mean() ** 2 > 6.0

    def test_images_do_not_wrap_around(self):
        images = dead_leaves(np.random.default_rng(0), 300, (36, 64))[:, 0].astype(float)
        images -= images.mean(axis=(1, 2), keepdims=True)
        columns = images.transpose(2, 0, 1).reshape(64, -1)
        neighbours = np.corrcoef(columns[10], columns[11])[0, 1]
        ends = np.corrcoef(columns[0], columns[-1])[0, 1]
        assert neighbours > 0.7
        assert abs(ends) < 0.25

    def test_an_id_is_one_image_in_all_mice(self):
        recordings = make_v1_recordings(**SMALL, shared_fraction=0.25, random_state=0)
        seen, tiers, common = {}, {}, []
        for mouse in recordings.children.values():
            ids, images = mouse["image_id"].values, mouse["stimuli"].values
            common.append(set(ids.tolist()))
            for image_id, image, tier in zip(ids, images, mouse["tier"].values, strict=True):
                np.testing.assert_array_equal(image, seen.setdefault(image_id, image))
                assert tier == tiers.setdefault(image_id, tier)
        assert len({image.tobytes() for image in seen.values()}) == len(seen)
        common = [tiers[i] for i in set.intersection(*common)]
        assert {tier: common.count(tier) for tier in set(common)} == {
            "train": 9,
            "validation": 1,
            "test": 5,
        }

    @pytest.mark.parametrize(("shared_fraction", "n_common"), [(0.0, 5), (1.0, 45)])
    def test_shared_fraction(self, shared_fraction, n_common):
        recordings = make_v1_recordings(**SMALL, shared_fraction=shared_fraction, random_state=0)
        a, b = (set(mouse["image_id"].values.tolist()) for mouse in recordings.children.values())
        assert len(a & b) == n_common


class TestBehavior:
    def test_derivative_is_that_of_dilation_in_time(self, small):
        for mouse in small.children.values():
            behaviors = mouse["behaviors"].sortby(mouse["trial_id"]).values.astype(np.float64)
            dilation, derivative = behaviors[:, 0], behaviors[:, 1]
            central = (dilation[2:] - dilation[:-2]) / (2 * 2.5)
            np.testing.assert_allclose(derivative[1:-1], central, atol=1e-4)

    def test_processes_are_slow_and_correlated(self):
        behavior = behavior_in_time(np.random.default_rng(0), 6000)
        for column in (0, 2, 3, 4):
            later = np.corrcoef(behavior[:-1, column], behavior[1:, column])[0, 1]
            assert later > 0.6
        assert np.corrcoef(behavior[:, 0], behavior[:, 2])[0, 1] > 0.4
        assert (behavior[:, 0] > 0).all()
        assert (behavior[:, 2] >= 0).all()
        assert 0.2 < (behavior[:, 2] > 1.0).mean() < 0.7

    def test_arousal_drives_every_mouse(self, realistic):
        for mouse in realistic.children.values():
            test = of_tier(mouse.to_dataset(), "test")
            awake = test["behaviors"].values[:, [0, 2]].sum(axis=1)
            population = test["responses"].values / test["responses"].values.mean(axis=0)
            assert np.corrcoef(awake, population.mean(axis=1))[0, 1] > 0.25

    def test_eye_shift_is_bounded_and_follows_the_pupil(self):
        rng = np.random.default_rng(0)
        behavior, eye = behavior_in_time(rng, 3000), draw_eye(rng)
        shift = eye_shift(behavior, eye, pixel=2.0)
        assert np.abs(shift).max() <= 2.0 * MAX_SHIFT
        assert (shift.std(axis=0) > 0.5 * 2.0).all()
        assert abs(np.corrcoef(shift[:, 0], behavior[:, 3])[0, 1]) > 0.8
        behavior[:, 3:] *= 1e3
        assert np.abs(eye_shift(behavior, eye, pixel=2.0)).max() <= 2.0 * MAX_SHIFT

    def test_a_shift_by_whole_pixels_moves_the_image(self):
        images = np.random.default_rng(0).standard_normal((2, 2, 9, 12)).astype(np.float32)
        seen = shift_images(images, np.array([[2.0, -1.0], [0.0, 0.0]]))
        np.testing.assert_array_equal(seen[0, :, 1:, :-2], images[0, :, :-1, 2:])
        assert not seen[0, :, 0].any()
        assert not seen[0, :, :, -2:].any()
        np.testing.assert_array_equal(seen[1], images[1])

    def test_a_shift_by_parts_of_a_pixel_is_bilinear(self):
        y, x = np.mgrid[:9, :12].astype(np.float32)
        images = (3 * x + 5 * y + 2 * x * y)[None, None]
        seen = shift_images(images, np.array([[0.25, -0.5]]))[0, 0]
        moved_x, moved_y = x + 0.25, y - 0.5
        expected = 3 * moved_x + 5 * moved_y + 2 * moved_x * moved_y
        np.testing.assert_allclose(seen[1:, :-1], expected[1:, :-1], rtol=1e-5)


class TestCells:
    def test_receptive_fields_follow_cortical_position(self, realistic):
        for mouse in realistic.children.values():
            position = mouse["position"].values.astype(float)[:, :2]
            design = np.column_stack([np.ones(len(position)), position])
            for name in ("receptive_field_x", "receptive_field_y"):
                centre = mouse[name].values.astype(float)
                fitted = design @ np.linalg.lstsq(design, centre, rcond=None)[0]
                assert 0.8 < np.corrcoef(fitted, centre)[0, 1] < 0.999  # with scatter

    def test_both_types_of_cells_and_their_share(self):
        for fraction in (0.0, 0.5, 1.0):
            cells = draw_cells(np.random.default_rng(0), 400, (36, 64), 1, fraction)
            assert abs(cells.is_complex.mean() - fraction) < 0.08

    def test_complex_cells_do_not_mind_the_phase_of_a_grating(self):
        cells = draw_cells(np.random.default_rng(0), 60, (36, 64), 1, 0.5)
        evoked = Evoked(cells, dead_leaves(np.random.default_rng(1), 100, (36, 64)), None)
        y, x = np.mgrid[:36, :64]
        modulation = np.empty(len(cells))
        for k in range(len(cells)):
            angle = cells.orientation[k]
            along = x * np.cos(angle) + y * np.sin(angle)
            phase = np.arange(8)[:, None, None] * np.pi / 4
            grating = 127 + 60 * np.cos(2 * np.pi * cells.frequency[k] * along + phase)
            response = evoked(np.rint(grating)[:, None].astype(np.uint8), None)[:, k]
            modulation[k] = np.ptp(response) / response.mean()
        assert np.median(modulation[cells.is_complex]) < 0.6
        assert np.median(modulation[~cells.is_complex]) > 2.0

    def test_an_orthogonal_grating_suppresses(self):
        """Cross-orientation suppression, which no cell without normalisation shows."""
        cells = draw_cells(np.random.default_rng(0), 60, (36, 64), 1, 1.0)
        evoked = Evoked(cells, dead_leaves(np.random.default_rng(1), 100, (36, 64)), None)
        y, x = np.mgrid[:36, :64]
        ratio = []
        for k in range(0, len(cells), 3):
            angle, frequency = cells.orientation[k], 2 * np.pi * cells.frequency[k]
            preferred = 50 * np.cos(frequency * (x * np.cos(angle) + y * np.sin(angle)))
            orthogonal = 50 * np.cos(frequency * (y * np.cos(angle) - x * np.sin(angle)))
            images = np.rint([127 + preferred, 127 + preferred + orthogonal])[:, None]
            alone, both = evoked(images.astype(np.uint8), None)[:, k]
            ratio.append(both / alone)
        assert np.median(ratio) < 0.85

    def test_cells_look_only_where_their_receptive_field_lies(self):
        """Brute force: white noise beyond 4 s.d. of a field and its pool changes nothing."""
        cells = draw_cells(np.random.default_rng(0), 40, (36, 64), 1, 0.5)
        images = dead_leaves(np.random.default_rng(1), 50, (36, 64))
        evoked = Evoked(cells, images, None)
        far = np.abs(np.arange(64) - cells.x[:, None]) > 16 + 4 * cells.pool_size[:, None]
        tested = np.nonzero(far.sum(axis=1) >= 8)[0]
        assert len(tested) >= 5
        before = evoked(images[:4], None)
        noise = np.random.default_rng(2).integers(0, 256, (4, 1, 36, 64))
        for k in tested:
            changed = images[:4].copy()
            changed[..., far[k]] = noise[..., far[k]]
            after = evoked(changed, None)[:, k]
            np.testing.assert_allclose(after, before[:, k], atol=0.02 * (1 + before[:, k].max()))

    def test_memory_blocks_do_not_change_the_answer(self):
        cells = draw_cells(np.random.default_rng(0), 11, (18, 32), 2, 0.5)
        images = dead_leaves(np.random.default_rng(1), 23, (18, 32), 2)
        shift = np.random.default_rng(2).uniform(-2, 2, (23, 2))
        whole = Evoked(cells, images, shift)(images, shift)
        blocks = Evoked(cells, images, shift, block_bytes=2 * 10**5)(images, shift)
        np.testing.assert_allclose(blocks, whole, rtol=1e-3, atol=1e-4)


class TestResponses:
    def test_noise_lies_where_recordings_lie(self, realistic):
        rate, half, explained = [], [], []
        for mouse in realistic.children.values():
            dataset = mouse.to_dataset()
            responses = by_repeat(dataset, "responses").astype(np.float64)
            expected = by_repeat(dataset, "expected_responses")
            n_neurons = responses.shape[-1]
            trials = responses.reshape(-1, n_neurons)
            rate.append(correlation(expected.reshape(-1, n_neurons), trials).mean())
            odd, even = responses[:, 0::2].mean(axis=1), responses[:, 1::2].mean(axis=1)
            half.append(correlation(odd, even).mean())
            total = trials.var(axis=0, ddof=1)
            noise = responses.var(axis=1, ddof=1).mean(axis=0)
            explained.append(np.median((total - noise) / total))
        assert 0.40 < np.mean(rate) < 0.55
        assert 0.50 < np.mean(half) < 0.65
        assert 0.15 < np.mean(explained) < 0.30

    def test_responses_scatter_around_the_rate(self, realistic):
        """Mean residual of a neuron within 5 standard errors; the rate explains its share."""
        for mouse in realistic.children.values():
            residual = (mouse["responses"] - mouse["expected_responses"]).values.astype(float)
            error = residual.std(axis=0) / np.sqrt(len(residual))
            assert (np.abs(residual.mean(axis=0)) < 5 * error).all()

    def test_responses_are_non_negative_overdispersed_and_not_silent(self, realistic):
        for mouse in realistic.children.values():
            responses = mouse["responses"].values.astype(np.float64)
            assert np.isfinite(responses).all()
            assert (responses >= 0).all()
            assert (responses.max(axis=0) > 0).all()
            assert (responses.var(axis=0) > responses.mean(axis=0)).all()
            assert (mouse["expected_responses"].values > 0).all()

    def test_image_explains_more_of_the_rate_than_behavior(self, realistic):
        for mouse in realistic.children.values():
            rates = by_repeat(mouse.to_dataset(), "expected_responses").astype(np.float64)
            image = rates.mean(axis=1).var(axis=0)
            assert np.median(image / rates.var(axis=(0, 1))) > 0.6

    def test_explainable_variance_sets_the_noise(self):
        correlations = []
        for share in (0.1, 0.5):
            tree = make_v1_recordings(
                1, 60, 10, image_shape=(18, 32), random_state=0, explainable_variance=share
            )
            test = of_tier(tree["A"].to_dataset(), "test")
            correlations.append(
                correlation(test["expected_responses"].values, test["responses"].values).mean()
            )
        assert correlations[0] < 0.45
        assert correlations[1] > 0.65


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"n_mice": 0}, ValueError, "n_mice must be at least 1"),
            ({"n_mice": 27}, ValueError, "at most 26, got 27"),
            ({"n_mice": 1.0}, TypeError, "n_mice must be an integer, got 1.0"),
            ({"n_neurons": [3, 4]}, ValueError, "holds 2 numbers for 3 mice"),
            ({"n_neurons": [3, 0, 4]}, ValueError, "n_neurons of mouse 'B' must be at least 1"),
            ({"n_neurons": "many"}, TypeError, "one integer per mouse, got 'many'"),
            ({"n_neurons": 2.5}, TypeError, "one integer per mouse, got 2.5"),
            ({"n_trials": 1}, ValueError, "n_trials must be at least 2"),
            ({"n_test_images": 0}, ValueError, "n_test_images must be at least 1"),
            ({"n_repeats": True}, TypeError, "n_repeats must be an integer"),
            ({"image_shape": 36}, ValueError, r"must be \(height, width\), got 36"),
            ({"image_shape": (1, 36, 64)}, ValueError, "colour is n_channels"),
            ({"image_shape": (36, 4)}, ValueError, "width must be at least 8, got 4"),
            ({"n_channels": 0}, ValueError, "n_channels must be at least 1"),
            ({"behavior": "yes"}, TypeError, "behavior must be True or False, got 'yes'"),
            ({"validation_fraction": 1.0}, ValueError, r"must lie in \[0, 1\), got 1.0"),
            (
                {"validation_fraction": 0.9, "n_trials": 3},
                ValueError,
                "leaves none of 3 trials for the train tier",
            ),
            ({"shared_fraction": 1.1}, ValueError, r"shared_fraction must lie in \[0, 1\]"),
            ({"complex_fraction": None}, TypeError, "complex_fraction must be a number"),
            ({"explainable_variance": 0}, ValueError, r"must lie in \(0, 1\), got 0"),
            ({"explainable_variance": np.nan}, ValueError, "got nan"),
            ({"random_state": -1}, ValueError, "must not be negative"),
            ({"random_state": "seed"}, TypeError, "random_state must be an integer"),
        ],
    )
    def test_errors_say_what_came_and_what_was_expected(self, arguments, error, message):
        with pytest.raises(error, match=message):
            make_v1_recordings(**arguments)
