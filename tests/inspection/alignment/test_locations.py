"""Where maps of images and of responses agree, against correlations by hand."""

import numpy as np
import pytest

import v1tlearn as v1
from tests.alignments import as_trials, known_aligner, noise_images
from v1tlearn.inspection import alignment_map


def left_half(n=40, noise=10.0, repeats=2, size=(8, 12)):
    """Responses tell the left half of images."""
    images = noise_images(n, size)
    shown = np.random.default_rng(0).permutation(np.arange(n).repeat(repeats))
    rng = np.random.default_rng(1)
    responses = images[shown] + noise * rng.normal(size=(len(shown), 1, *size))
    right = responses[..., size[1] // 2 :]
    right[:] = rng.normal(128, 20, size=right.shape)
    return as_trials(images[shown], responses, shown)


def test_correlations_are_those_over_images_at_each_location():
    trials = left_half()
    est = known_aligner(trials)
    found = alignment_map(est, trials, n_permutations=20).sel(mouse="A")
    ids, first, shown = np.unique(trials.image_ids, return_index=True, return_inverse=True)
    images = est.transform_images(trials.get("stimuli", "A")[first]).values
    maps = est.transform_responses(trials).values
    for row, column in [(0, 0), (3, 5), (7, 11)]:
        mean = [maps[shown == i, 0, row, column].mean() for i in range(len(ids))]
        expected = np.corrcoef(images[:, 0, row, column], mean)[0, 1]
        here = found.isel(height=row, width=column)
        assert float(here["correlation"].isel(channel=0)) == pytest.approx(expected, abs=1e-5)
        assert float(here["alignment"]) == pytest.approx(expected, abs=1e-5)


def test_the_area_above_the_threshold_is_where_responses_tell_something():
    trials = left_half()
    found = alignment_map(known_aligner(trials), trials).sel(mouse="A")
    above = (found["alignment"] > found["threshold"]).values
    assert above[:, :6].all()
    assert above[:, 6:].mean() < 0.05
    assert float(found["area"]) == pytest.approx(above.mean())
    assert float(found["control_area"]) < 0.005
    assert float(found["p_value"]) == pytest.approx(1 / 201)


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffle_that_leaves_all_pairs_together_is_as_good_as_they_are(seed):
    images = noise_images(4, (4, 5), seed)
    shown = np.array([0, 1, 1, 1, 2, 2, 3])
    noise = np.random.default_rng(seed).normal(size=(7, 1, 4, 5))
    trials = as_trials(images[shown], images[shown] + noise, shown)
    found = alignment_map(known_aligner(trials), trials, n_permutations=1000).sel(mouse="A")
    assert float(found["p_value"]) == pytest.approx(1 / 24, abs=0.02)  # one order in 24


def test_shuffled_pairs_align_nowhere():
    trials = left_half()
    ids = trials.image_ids
    images, responses = np.argsort(ids, kind="stable"), np.argsort((ids - 1) % 40, kind="stable")
    shuffled = as_trials(  # each image with the responses to the next one
        trials.get("stimuli", "A")[images],
        trials.get("responses", "A")[responses],
        ids[images],
    )
    found = alignment_map(known_aligner(trials), shuffled).sel(mouse="A")
    assert float(found["area"]) < 0.03
    assert float(found["p_value"]) > 0.02


def test_cells_have_their_places_in_the_image():
    recordings = v1.make_v1_recordings(
        n_mice=1, n_neurons=6, n_trials=24, n_test_images=4, n_repeats=2, image_shape=(24, 36),
        random_state=0,
    )  # fmt: skip
    trials = v1.Trials(recordings)
    options = {"map_channels": 2, "max_epochs": 1, "validation_fraction": 0, "random_state": 0}
    for parameters, rows, columns in [
        ({"map_size": (4, 6)}, 3 + 6 * np.arange(4) - 0.5, 3 + 6 * np.arange(6) - 0.5),
        ({"map_size": (4, 6), "image_size": (12, 18)}, np.arange(4) * 6 + 2.5, None),
        ({"map_size": (6, 9), "crop_scale": 0.5}, None, None),
    ]:
        est = v1.DINAAligner(**options, **parameters).fit(trials.sel(tier="train"))
        found = alignment_map(est, trials.sel(tier="test"), n_permutations=5)
        assert found["alignment"].dims == ("mouse", "height", "width")
        assert found["height"].attrs["units"] == "pixel"
        if rows is not None:
            np.testing.assert_allclose(found["height"], rows, atol=1e-6)
        if columns is not None:
            np.testing.assert_allclose(found["width"], columns, atol=1e-6)
    # the crop lies around the centre, and is half as high and wide, up to a pixel
    for name, side in (("height", 24), ("width", 36)):
        centres = found[name].values
        assert centres.mean() == pytest.approx((side - 1) / 2, abs=0.6)
        step = centres[1] - centres[0]
        assert step * len(centres) == pytest.approx(side / 2, rel=0.1)


def test_a_place_that_never_changes_has_no_alignment():
    trials = left_half()
    images, responses = trials.get("stimuli", "A").copy(), trials.get("responses", "A")
    images[:, 0, 0, 0] = 50
    still = as_trials(images, responses, trials.image_ids)
    # maps that are not centred keep the pixel as it is
    found = alignment_map(known_aligner(still, map_scale="none"), still).sel(mouse="A")
    assert np.isnan(found["alignment"].values).sum() == 1
    assert np.isnan(found["alignment"].values[0, 0])
    assert float(found["area"]) == pytest.approx(
        (found["alignment"] > found["threshold"]).values.sum() / (8 * 12 - 1)
    )


def test_too_few_images_are_refused():
    trials = left_half()
    with pytest.raises(ValueError, match="2 images came: expected at least 3"):
        alignment_map(known_aligner(trials), trials[np.isin(trials.image_ids, [0, 1])])
    with pytest.raises(ValueError, match="n_permutations=0"):
        alignment_map(known_aligner(trials), trials, n_permutations=0)
