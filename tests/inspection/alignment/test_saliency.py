"""Saliency on the image: gradients against finite differences, occlusion against brute force."""

import copy

import numpy as np
import pytest
import torch

import v1tlearn as v1
from tests.alignments import Identity, Squares, as_trials, known_aligner, noise_images, unit
from v1tlearn.inspection import gradient_saliency, occlusion_saliency


def seen(n=5, size=(8, 10), repeats=2, noise=30.0, core=Squares, **parameters):
    images = noise_images(n, size).round()
    shown = np.random.default_rng(0).permutation(np.arange(n).repeat(repeats))
    rng = np.random.default_rng(1)
    responses = images[shown] + noise * rng.normal(size=(len(shown), 1, *size))
    trials = as_trials(images[shown], responses, shown)
    return known_aligner(trials, core, **parameters), trials


def cosine(est, response_map, image):
    """Of one pair, in float64, by the public parts of the model."""
    statistics = est.statistics_["A"]
    pixels = (torch.as_tensor(image) - statistics["image_mean"]) / statistics["image_std"]
    with torch.no_grad():
        maps = est.module_.encode_images(pixels[None]).numpy()
    return float(unit(maps)[0] @ unit(response_map[None])[0])


@pytest.fixture
def precise():
    """An alignment that computes in float64, of images that it crops, and trials."""
    est, trials = seen()
    est = copy.deepcopy(est)
    est.module_.double()
    return est, trials


def test_gradients_are_those_of_finite_differences(precise):
    est, trials = precise
    found = gradient_saliency(est, trials, method="gradient", batch_size=3)
    maps = est.transform_responses(trials).values.astype(float)
    images = trials.get("stimuli", "A").astype(float)
    assert found["saliency"].dims == ("trial", "channel", "height", "width")
    for trial, row, column in [(0, 0, 0), (3, 4, 5), (9, 7, 9)]:
        step = np.zeros(images.shape[1:])
        step[0, row, column] = 1e-3
        up, down = (cosine(est, maps[trial], images[trial] + s * step) for s in (1, -1))
        expected = (up - down) / 2e-3
        got = float(found["saliency"][trial, 0, row, column])
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_gradient_times_input_is_what_the_image_adds_to_the_fill(precise):
    est, trials = precise
    plain = gradient_saliency(est, trials, method="gradient")["saliency"].values
    images = trials.get("stimuli", "A").astype(float)
    by_mean = gradient_saliency(est, trials)["saliency"].values
    added = images - images.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(by_mean, plain * added, rtol=1e-5, atol=1e-9)
    by_level = gradient_saliency(est, trials, fill=100)["saliency"].values
    np.testing.assert_allclose(by_level, plain * (images - 100), rtol=1e-5, atol=1e-9)


def test_the_control_is_the_image_with_responses_to_another():
    est, trials = seen(noise=0.0, repeats=1)
    found = gradient_saliency(est, trials, method="gradient")
    maps = est.transform_responses(trials)
    candidates = []
    for other in range(len(trials)):
        # every image with the responses to one other image
        swapped = as_trials(
            trials.get("stimuli", "A"),
            np.repeat(trials.get("responses", "A")[[other]], len(trials), 0),
            trials.image_ids,
        )
        candidates.append(gradient_saliency(est, swapped, method="gradient")["saliency"].values)
    assert len(maps) == len(candidates)
    for trial, control in enumerate(found["control"].values):
        same = [np.allclose(control, c[trial], atol=1e-7) for c in candidates]
        assert sum(same) == 1
        assert not same[trial]


def test_smoothed_gradients_are_means_over_noisy_images(precise):
    est, trials = precise
    plain = gradient_saliency(est, trials, method="gradient")["saliency"]
    still = gradient_saliency(est, trials, method="gradient", n_samples=3, noise=0.0)["saliency"]
    np.testing.assert_allclose(still, plain, rtol=1e-5)
    smooth = [
        gradient_saliency(est, trials, method="gradient", n_samples=n, random_state=1)["saliency"]
        for n in (2, 200)
    ]
    again = gradient_saliency(
        est, trials, method="gradient", n_samples=200, random_state=2, batch_size=7
    )["saliency"]
    assert np.corrcoef(smooth[1].values.ravel(), again.values.ravel())[0, 1] > 0.95
    assert not np.allclose(smooth[0], smooth[1], rtol=0.05)
    with pytest.raises(ValueError, match="n_samples=0"):
        gradient_saliency(est, trials, n_samples=0)


@pytest.mark.parametrize(
    ("patch_size", "stride", "fill"), [(3, None, "mean"), ((2, 4), (1, 3), 90.0), (8, 8, 128)]
)
def test_occlusion_is_what_covering_patches_by_hand_gives(patch_size, stride, fill):
    est, trials = seen()
    found = occlusion_saliency(
        est, trials, patch_size=patch_size, stride=stride, fill=fill, batch_size=5
    )
    high, wide = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    down, right = stride if isinstance(stride, tuple) else (stride or -(-high // 2),) * 2
    images = trials.get("stimuli", "A").astype(float)
    queries = unit(est.transform_responses(trials))
    tops = [*range(0, 8 - high, down), 8 - high]
    lefts = [*range(0, 10 - wide, right), 10 - wide]
    for trial in (0, 4, 9):
        image = images[trial]
        whole = queries[trial] @ unit(est.transform_images(image[None]))[0]
        sums, counts = np.zeros((8, 10)), np.zeros((8, 10))
        for top in tops:
            for left in lefts:
                covered = image.copy()
                level = image.mean() if fill == "mean" else fill
                covered[0, top : top + high, left : left + wide] = level
                drop = whole - queries[trial] @ unit(est.transform_images(covered[None]))[0]
                sums[top : top + high, left : left + wide] += drop
                counts[top : top + high, left : left + wide] += 1
        np.testing.assert_allclose(found["saliency"][trial], sums / counts, atol=2e-6)
        assert float(found["similarity"][trial]) == pytest.approx(whole, abs=1e-6)
    assert counts.min() >= 1


@pytest.mark.parametrize("saliency", [occlusion_saliency, gradient_saliency])
def test_saliency_lies_where_responses_see_and_shuffled_pairs_have_none(saliency):
    images = noise_images(40, (12, 16))
    responses = images.copy()
    responses[..., 8:] = 128 + np.random.default_rng(1).normal(size=responses[..., 8:].shape)
    trials = as_trials(images, responses)
    found = saliency(known_aligner(trials, Identity), trials)
    both = [found[name] for name in ("saliency", "control")]
    both = [own.sum("channel") if "channel" in own.dims else own for own in both]
    (seen_side, blind), control = (
        [float(own.isel(width=side).mean()) for side in (slice(0, 8), slice(8, 16))] for own in both
    )
    assert seen_side > 0
    assert seen_side - blind > 10 * abs(control[0] - control[1])
    by_column = both[0].mean(("trial", "height"))
    assert float(by_column[:7].min()) > float(by_column[9:].max())


@pytest.mark.parametrize("saliency", [occlusion_saliency, gradient_saliency])
def test_maps_are_in_the_coordinates_of_the_stimuli(saliency):
    recordings = v1.make_v1_recordings(
        n_mice=2, n_neurons=6, n_trials=24, n_test_images=4, n_repeats=2, image_shape=(24, 36),
        random_state=0,
    )  # fmt: skip
    trials = v1.Trials(recordings)
    est = v1.DINAAligner(
        crop_scale=0.5, image_size=(8, 12), map_size=(4, 6), map_channels=2, max_epochs=1,
        validation_fraction=0, random_state=0,
    )  # fmt: skip
    est.fit(trials.sel(tier="train"))
    test = trials.sel(tier="test")
    found = saliency(est, test)
    assert found["mouse_id"].values.tolist() == test.mouse_ids.tolist()
    assert found["image_id"].values.tolist() == test.image_ids.tolist()
    values = found["saliency"].values.reshape(len(test), -1, 24, 36)
    assert values.shape[2:] == (24, 36)
    if saliency is gradient_saliency:  # what the crop leaves out has no part in it
        assert (values[:, :, :5] == 0).all()
        assert (values[..., :8] == 0).all()
    order = np.random.default_rng(0).permutation(len(test))
    moved = saliency(est, test[order])["saliency"]
    np.testing.assert_allclose(moved, found["saliency"][order], atol=1e-6)
    for name, expected in (("height", np.arange(24)), ("width", np.arange(36))):
        assert np.array_equal(found[name], expected)
    similarity = np.concatenate(
        [np.diag(est.similarity(test.sel(mouse_id=m), test.sel(mouse_id=m))) for m in test.mice]
    )
    by_mouse = np.argsort(test.mouse_ids, kind="stable")
    np.testing.assert_allclose(found["similarity"][by_mouse], similarity, atol=1e-5)


def test_batches_of_any_size_give_the_same():
    est, trials = seen()
    for saliency in (occlusion_saliency, gradient_saliency):
        whole, parts = (saliency(est, trials, batch_size=size) for size in (1000, 1))
        for name in ("saliency", "control", "similarity"):
            np.testing.assert_allclose(whole[name], parts[name], atol=1e-6)


def test_the_model_is_left_as_it_was():
    est, trials = seen()
    before = {n: w.clone() for n, w in est.module_.state_dict().items()}
    generator = torch.get_rng_state()
    occlusion_saliency(est, trials)
    gradient_saliency(est, trials, n_samples=2)
    assert all(torch.equal(w, before[n]) for n, w in est.module_.state_dict().items())
    assert all(p.grad is None for p in est.module_.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("saliency", "options", "match"),
    [
        (occlusion_saliency, {"patch_size": 9}, "from 1 to those of the image, 8 x 10"),
        (occlusion_saliency, {"patch_size": 3, "stride": 4}, "from 1 to those of the patch, 3 x 3"),
        (occlusion_saliency, {"fill": "median"}, "fill='median': expected 'mean' or"),
        (occlusion_saliency, {"batch_size": 0}, "batch_size=0"),
        (gradient_saliency, {"method": "lime"}, "method='lime'"),
        (gradient_saliency, {"noise": -1, "n_samples": 2}, "noise is -1"),
        (gradient_saliency, {"fill": np.nan}, "fill=nan"),
    ],
)
def test_wrong_options_are_named(saliency, options, match):
    est, trials = seen()
    with pytest.raises(ValueError, match=match):
        saliency(est, trials, **options)


@pytest.mark.parametrize("saliency", [occlusion_saliency, gradient_saliency])
def test_one_image_has_no_control(saliency):
    est, trials = seen()
    with pytest.raises(ValueError, match="the trials show one image"):
        saliency(est, trials[trials.image_ids == 0])


def test_gradients_do_not_depend_on_the_mode_of_the_caller():
    est, trials = seen()
    expected = gradient_saliency(est, trials)["saliency"]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            np.testing.assert_array_equal(gradient_saliency(est, trials)["saliency"], expected)


def test_images_that_were_resized_before_have_maps_of_their_own_size():
    trials = v1.Trials(
        v1.make_v1_recordings(
            n_mice=1, n_neurons=6, n_trials=24, n_test_images=4, n_repeats=2,
            image_shape=(24, 36), random_state=0,
        )
    )  # fmt: skip
    est = v1.DINAAligner(
        image_size=(8, 12), map_size=(4, 6), map_channels=2, max_epochs=1, validation_fraction=0,
        random_state=0,
    )  # fmt: skip
    test = trials.sel(tier="test")
    est.fit(trials.sel(tier="train"))
    small = v1.preprocessing.ResizeStimuli((8, 12)).fit_transform(test)
    found = gradient_saliency(est, small, method="gradient")["saliency"]
    assert found.shape[2:] == (8, 12)
    # interpolation hands on the gradient of each of its pixels to those that it was made of
    whole = gradient_saliency(est, test, method="gradient")["saliency"]
    sums = [own.sum(("height", "width")) for own in (found, whole)]
    np.testing.assert_allclose(*sums, rtol=1e-3, atol=1e-6)
    for shown, rows in ((small, [0.5, 2.5, 4.5, 6.5]), (test, [2.5, 8.5, 14.5, 20.5])):
        places = v1.inspection.alignment_map(est, shown, n_permutations=5)["height"]
        np.testing.assert_allclose(places, rows)
