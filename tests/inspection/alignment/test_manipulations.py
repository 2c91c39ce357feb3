"""Curves over manipulated images: what is measured, what chance is, and where they end."""

import numpy as np
import pytest

import v1tlearn as v1
from tests.alignments import Coarse, Squares, as_trials, known_aligner, noise_images, unit
from v1tlearn.inspection import cutoff_of, manipulation_curve
from v1tlearn.preprocessing import low_pass, scramble_phases

QUICK = {"n_bootstrap": 50, "n_permutations": 50}
MEASURES = ["top1", "reciprocal_rank", "two_way", "similarity"]


def noisy_trials(n=12, repeats=2, noise=10.0, seed=0):
    """Responses are the pixels of images, and noise; repeats in another order than images."""
    images = noise_images(n, seed=seed)
    shown = np.random.default_rng(seed).permutation(np.arange(n).repeat(repeats))
    rng = np.random.default_rng(seed + 1)
    responses = images[shown] + noise * rng.normal(size=(len(shown), *images.shape[1:]))
    return as_trials(images[shown], responses, shown)


def by_loops(aligner, trials, change):
    """The four measures, trial by trial and image by image."""
    ids, first = np.unique(trials.image_ids, return_index=True)
    gallery = unit(aligner.transform_images(change(trials.get("stimuli", "A")[first])))
    rows = []
    for query, seen in zip(
        unit(aligner.transform_responses(trials)), trials.image_ids, strict=True
    ):
        cosines = [float(query @ image) for image in gallery]
        right = cosines[list(ids).index(seen)]
        rank = sum(cosine >= right for cosine in cosines)
        rows.append([rank == 1, 1 / rank, (len(ids) - rank) / (len(ids) - 1), right])
    return np.mean(rows, axis=0)


def test_measures_are_those_of_a_search_by_hand():
    trials = noisy_trials(noise=300.0)
    est = known_aligner(trials)
    curve = manipulation_curve(est, trials, "low_pass", [2, 4], **QUICK)
    assert curve["measure"].values.tolist() == MEASURES
    for value in (2, 4):
        expected = by_loops(est, trials, lambda x, v=value: low_pass(x, v))
        found = curve["estimate"].sel(mouse="A", value=value)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    whole = by_loops(est, trials, lambda x: x)
    np.testing.assert_allclose(curve["unchanged"].sel(mouse="A"), whole, rtol=1e-5)
    score = est.score(trials)
    assert 0.2 < score < 1
    assert float(curve["unchanged"].sel(mouse="A", measure="top1")) == pytest.approx(score)


def test_shuffled_pairs_are_at_chance():
    trials = noisy_trials(n=10)
    est = known_aligner(trials)
    curve = manipulation_curve(est, trials, "low_pass", [8], n_bootstrap=5, n_permutations=3000)
    control = curve["control"].sel(mouse="A", value=8)
    chance = [1 / 10, np.mean(1 / np.arange(1, 11)), 0.5]
    np.testing.assert_allclose(control[:3], chance, atol=0.01)
    assert abs(float(control[3])) < 0.02
    assert float(curve["p_value"].sel(mouse="A", value=8, measure="top1")) < 0.001
    shuffled = as_trials(
        trials.get("stimuli", "A"), trials.get("responses", "A")[::-1], trials.image_ids
    )
    nothing = manipulation_curve(est, shuffled, "low_pass", [8], **QUICK)
    assert float(nothing["p_value"].sel(mouse="A", value=8, measure="two_way")) > 0.01


def test_intervals_are_those_of_images_drawn_with_replacement():
    trials = noisy_trials(n=20, repeats=3, noise=60.0)
    est = known_aligner(trials)
    curve = manipulation_curve(est, trials, "low_pass", [4], n_bootstrap=4000, n_permutations=5)
    own = curve.sel(mouse="A", value=4, measure="similarity")
    ids, first = np.unique(trials.image_ids, return_index=True)
    gallery = unit(est.transform_images(low_pass(trials.get("stimuli", "A")[first], 4)))
    queries = unit(est.transform_responses(trials))
    cosines = np.array([q @ gallery[i] for q, i in zip(queries, trials.image_ids, strict=True)])
    per_image = np.array([cosines[trials.image_ids == i].mean() for i in ids])
    assert float(own["resampled"].std()) == pytest.approx(per_image.std() / np.sqrt(20), rel=0.05)
    low, high = np.quantile(own["resampled"], [0.025, 0.975])
    assert (float(own["low"]), float(own["high"])) == pytest.approx((low, high))
    assert low < float(own["estimate"]) < high


def test_the_mean_over_mice_is_one_more_mouse():
    first, second = noisy_trials(seed=0), noisy_trials(n=8, seed=1)
    recordings = {"A": first["A"].drop_attrs(), "B": second["A"].drop_attrs()}
    trials = v1.Trials(recordings)
    est = known_aligner(trials)
    curve = manipulation_curve(est, trials, "low_pass", [2, 4], **QUICK)
    assert curve["mouse"].values.tolist() == ["A", "B", "mean"]
    for name in ("estimate", "unchanged", "control", "resampled"):
        both = curve[name].sel(mouse=["A", "B"]).mean("mouse")
        np.testing.assert_allclose(curve[name].sel(mouse="mean"), both)
    alone = manipulation_curve(est, trials.sel(mouse_id="B"), "low_pass", [2, 4], **QUICK)
    np.testing.assert_allclose(
        alone["estimate"].sel(mouse="B"), curve["estimate"].sel(mouse="B"), rtol=1e-5
    )
    assert curve["n_images"].values[:2].tolist() == [12, 8]


def test_functions_of_your_own_and_random_ones():
    trials = noisy_trials()
    est = known_aligner(trials)

    def darker(images, value):
        return images - value

    curve = manipulation_curve(est, trials, darker, [0, 50], **QUICK)
    assert curve.attrs["manipulation"] == "darker"
    # maps are centred
    np.testing.assert_allclose(curve["estimate"].sel(mouse="A", value=50), curve["unchanged"][:, 0])
    scrambled = manipulation_curve(est, trials, "scramble_phases", [0, 1], **QUICK)
    np.testing.assert_allclose(
        scrambled["estimate"].sel(mouse="A", value=0), scrambled["unchanged"][:, 0], rtol=1e-5
    )
    assert float(scrambled["estimate"].sel(mouse="A", value=1, measure="similarity")) < 0.1
    again = manipulation_curve(est, trials, "scramble_phases", [0, 1], **QUICK)
    assert scrambled.identical(again)
    expected = by_loops(est, trials, lambda x: scramble_phases(x, 0.5, random_state=5))
    own = manipulation_curve(
        est, trials, lambda x, v: scramble_phases(x, v, random_state=5), [0.5], **QUICK
    )
    np.testing.assert_allclose(own["estimate"].sel(mouse="A", value=0.5), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["low_pass", "high_pass", "downsample", "shuffle_patches", "edges", "silhouettes"]
)
def test_every_manipulation_has_values_and_units(name):
    trials = noisy_trials(n=4)
    curve = manipulation_curve(known_aligner(trials), trials, name, **QUICK)
    assert curve.sizes["value"] >= 3
    expected = "cycles per image height" if name.endswith("pass") else "pixel"
    assert curve["value"].attrs["units"] == expected
    assert curve["estimate"].notnull().all()


# -------------------------------------------------------------------------------------- cut-offs


def coarse_curve(manipulation, values, size=(32, 48)):
    """Of towers that both look below 6 cycles per height, at white noise."""
    images = noise_images(300, size)
    trials = as_trials(images, low_pass(images, Coarse.cutoff))
    est = known_aligner(trials, Coarse)
    return manipulation_curve(est, trials, manipulation, values, n_bootstrap=200, n_permutations=50)


def test_the_sweep_finds_the_true_cutoff():
    values = [1, 2, 3, 4, 5, 6, 7, 8, 12]
    low = coarse_curve("low_pass", values)
    images = noise_images(300, (32, 48))
    images -= images.mean((2, 3), keepdims=True)  # as maps are centred
    amplitudes = [
        np.linalg.norm(low_pass(images, v).reshape(300, -1), axis=1)
        for v in [*values, Coarse.cutoff]
    ]
    expected = np.minimum(np.array(amplitudes) / amplitudes[-1], 1).mean(1)[:-1]
    similarity = low["estimate"].sel(measure="similarity", mouse="A")
    np.testing.assert_allclose(similarity, expected, atol=0.01)
    # amplitudes of white noise grow with the cut-off
    for share in (0.8, 0.9, 0.95):
        found = cutoff_of(low, measure="similarity", share=share).sel(mouse="A")
        assert float(found["cutoff"]) == pytest.approx(share * 6, abs=0.2)
        assert float(found["low"]) <= float(found["cutoff"]) <= float(found["high"])
        assert float(found["high"]) - float(found["low"]) < 0.2
    high = coarse_curve("high_pass", values)
    nothing = cutoff_of(high, measure="similarity", share=0.1).sel(mouse="A")
    assert 5 < float(nothing["cutoff"]) <= 6  # nothing is left from 6 on, but at 5


def test_a_cutoff_lies_between_values_linear_in_their_logarithm():
    curve = coarse_curve("low_pass", [2, 4, 8])
    own = curve.sel(measure="similarity", mouse="A")
    control, found = own["control"].values[:2], own["estimate"].values[:2]
    excess = found - control - 0.5 * (float(own["unchanged"]) - control)
    assert excess[0] < 0 < excess[1]
    part = -excess[0] / (excess[1] - excess[0])
    cutoff = cutoff_of(curve, measure="similarity", share=0.5)["cutoff"].sel(mouse="A")
    assert float(cutoff) == pytest.approx(2 * 2**part)


@pytest.mark.parametrize(
    ("values", "shares", "expected"),
    [
        ([1, 2, 4, 8, 16], [0.1, 0.6, 0.4, 0.8, 1.0], 2**0.8),  # rises: reached first
        ([1, 2, 4, 8, 16], [1.0, 0.8, 0.4, 0.6, 0.1], 2 * 2**0.75),  # falls: kept until then
        ([0, 1, 2, 3], [0.9, 0.7, 0.3, 0.2], 1.5),  # no logarithm of 0
    ],
)
def test_curves_cross_once_they_reach_a_share_or_leave_it(values, shares, expected):
    trials = noisy_trials(n=4)
    curve = manipulation_curve(known_aligner(trials), trials, lambda x, v: x, values, **QUICK)
    curve["control"][:] = 0.0
    curve["unchanged"][:] = curve["unchanged_resampled"][:] = 1.0
    curve["unchanged_control_high"][:] = 0.5
    curve["estimate"][:] = curve["resampled"][:] = shares
    found = cutoff_of(curve, share=0.5).sel(mouse="A")
    for name in ("cutoff", "low", "high"):
        assert float(found[name]) == pytest.approx(expected)
    assert found["cutoff"].attrs["units"] == "1"


def test_a_curve_that_does_not_cross_has_no_cutoff():
    curve = coarse_curve("low_pass", [8, 12])
    with pytest.warns(UserWarning, match="does not cross 90% .* between 8 and 12"):
        assert cutoff_of(curve).to_dataframe().isna().all(axis=None)
    images = noise_images(20)
    trials = as_trials(images, noise_images(20, seed=9))
    blind = manipulation_curve(known_aligner(trials), trials, values=[1, 2, 4], **QUICK)
    with pytest.warns(UserWarning, match="not found above chance"):
        assert cutoff_of(blind).to_dataframe().isna().all(axis=None)


# ------------------------------------------------------------------------------------- bad input


def test_what_cannot_be_asked_is_refused():
    trials = noisy_trials(n=4)
    est = known_aligner(trials)
    with pytest.raises(ValueError, match="mouse 'A': the trials show one image"):
        manipulation_curve(est, trials[trials.image_ids == trials.image_ids[0]])
    alike = as_trials(np.full((4, 1, 16, 16), 9.0), trials.get("responses", "A")[:4])
    with pytest.raises(ValueError, match="all 4 images are the same"):
        manipulation_curve(est, alike)
    with pytest.raises(ValueError, match="trials is empty"):
        manipulation_curve(est, trials[:0])
    with pytest.raises(TypeError, match="expected Trials"):
        manipulation_curve(est, trials.get("stimuli", "A"))
    with pytest.raises(TypeError, match="expected a fitted DINAAligner"):
        manipulation_curve(v1.CNNRegressor(), trials)
    with pytest.raises(ValueError, match="expected one of"):
        manipulation_curve(est, trials, "blur")
    with pytest.raises(ValueError, match="no default ones"):
        manipulation_curve(est, trials, lambda x, v: x)
    with pytest.raises(ValueError, match="expected finite numbers that increase"):
        manipulation_curve(est, trials, values=[2, 1])
    with pytest.raises(ValueError, match="expected numbers of this shape"):
        manipulation_curve(est, trials, lambda x, v: x[:1], [1])
    with pytest.raises(ValueError, match="n_bootstrap=0"):
        manipulation_curve(est, trials, n_bootstrap=0)
    with pytest.raises(ValueError, match="level=95"):
        manipulation_curve(est, trials, level=95)
    mean = v1.Trials({"mean": trials["A"].drop_attrs()})
    with pytest.raises(ValueError, match="a mouse is called 'mean'"):
        manipulation_curve(known_aligner(mean), mean)
    curve = manipulation_curve(est, trials, values=[1], **QUICK)
    with pytest.raises(ValueError, match="one value"):
        cutoff_of(curve)
    with pytest.raises(ValueError, match="measure='rank'"):
        cutoff_of(curve, measure="rank")
    with pytest.raises(ValueError, match="share=90"):
        cutoff_of(curve, share=90)


def test_images_without_contrast_are_not_found():
    trials = noisy_trials(n=6)
    curve = manipulation_curve(
        known_aligner(trials), trials, lambda x, v: np.full_like(x, v), [7.0], **QUICK
    )
    found = curve["estimate"].sel(mouse="A", value=7)
    np.testing.assert_allclose(found, [0, 1 / 6, 0, 0], atol=1e-6)


def test_images_that_were_trained_on_are_warned_of():
    trials = noisy_trials(n=6)
    half = np.arange(12) % 2 == 0
    est = v1.DINAAligner(map_size=(4, 6), map_channels=2, max_epochs=1, validation_fraction=0)
    est.fit(trials[half])
    with pytest.warns(UserWarning, match="that the model was trained on"):
        manipulation_curve(est, trials[~half], values=[2], **QUICK)


@pytest.mark.filterwarnings("ignore:.*in another unit than at fit")  # they are made to be
def test_a_manipulation_in_place_changes_no_other_value():
    def darker(images, value):
        images *= value
        return images

    trials = as_trials(noise_images(6, (4, 5)), noise_images(6, (4, 5), 1))
    before = trials.get("stimuli", "A").copy()
    est = known_aligner(trials, Squares)
    curves = [
        manipulation_curve(est, trials, of, [0.25, 0.5], n_bootstrap=2, n_permutations=2)
        for of in (darker, lambda images, value: images * value)
    ]
    assert np.array_equal(curves[0]["estimate"], curves[1]["estimate"])
    assert np.array_equal(trials.get("stimuli", "A"), before)
