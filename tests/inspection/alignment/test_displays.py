"""Displays of an alignment show what its analyses give."""

import numpy as np
import pytest
import xarray as xr

import v1tlearn as v1
from tests.alignments import Coarse, as_trials, known_aligner, noise_images
from v1tlearn.inspection import (
    AlignmentDisplay,
    ManipulationDisplay,
    RetrievalDisplay,
    alignment_map,
    gradient_saliency,
    manipulation_curve,
    occlusion_saliency,
)

pytestmark = pytest.mark.usefixtures("figures")
QUICK = {"n_bootstrap": 20, "n_permutations": 20}


@pytest.fixture(scope="module")
def seen():
    """A known alignment, and trials of 8 images, each shown twice."""
    images = noise_images(8, (12, 16)).round()
    shown = np.random.default_rng(0).permutation(np.arange(8).repeat(2))
    noise = 120 * np.random.default_rng(1).normal(size=(16, 1, 12, 16))
    trials = as_trials(images[shown], images[shown] + noise, shown)
    return known_aligner(trials, Coarse), trials


def pixels(axis):
    """The image on an axes."""
    (image,) = axis.get_images()
    return np.asarray(image.get_array())


# ------------------------------------------------------------------------------------ retrieval


def test_rows_show_the_seen_image_and_what_retrieve_finds(seen):
    est, trials = seen
    every = RetrievalDisplay.from_estimator(est, trials, shown=range(16), k=3)
    assert set(every.ranks) > {1, 2}  # found at once, found later
    display = RetrievalDisplay.from_estimator(est, trials, shown=[5, 0, -1], k=3)
    assert display.axes_.shape == (3, 4)
    assert display.found_ < 1
    ids, first = np.unique(trials.image_ids, return_index=True)
    gallery = trials.get("stimuli", "A")[first]
    found = est.retrieve(trials, gallery, k=3)
    similarity = est.similarity(trials, gallery)
    for axes, trial in zip(display.axes_, [5, 0, 15], strict=True):
        np.testing.assert_array_equal(pixels(axes[0]), trials.get("stimuli", "A")[trial, 0])
        right = list(ids).index(trials.image_ids[trial])
        rank = (similarity[trial] >= similarity[trial, right]).sum()
        assert axes[0].get_title() == f"seen: rank {rank} of 8"
        for axis, place, cosine in zip(
            axes[1:], found.places[trial], found.similarities[trial], strict=True
        ):
            np.testing.assert_array_equal(pixels(axis), gallery[place, 0])
            assert axis.get_title() == f"{cosine:.2f}"
            framed = axis.spines["top"].get_visible()
            assert framed == (place == right)
            if framed:
                frame = axis.spines["top"].get_edgecolor()
                assert frame == pytest.approx((0, 158 / 255, 115 / 255, 1))
    assert display.found_ == np.mean(display.ranks == 1)
    assert display.plot() is display


def test_images_are_shown_once_by_default_and_in_one_grey_scale(seen):
    est, trials = seen
    display = RetrievalDisplay.from_estimator(est, trials, n_trials=4, k=2)
    assert display.axes_.shape == (4, 3)
    shown = {pixels(axis).tobytes() for axis in display.axes_[:, 0]}
    assert len(shown) == 4
    limits = {axis.get_images()[0].get_clim() for axis in display.axes_.flat}
    assert len(limits) == 1
    whole = as_trials(noise_images(3, (12, 16)), noise_images(3, (12, 16)))
    recordings = {"A": whole["A"].assign(stimuli=whole["A"]["stimuli"].astype("uint8"))}
    bytes_ = RetrievalDisplay.from_estimator(est, v1.Trials(recordings), k=1)
    assert bytes_.ax_.get_images()[0].get_clim() == (0, 255)


def test_what_cannot_be_shown_is_refused(seen):
    est, trials = seen
    with pytest.raises(ValueError, match="k=9, but a mouse saw 8 images"):
        RetrievalDisplay.from_estimator(est, trials, k=9)
    with pytest.raises(ValueError, match="expected places below 16"):
        RetrievalDisplay.from_estimator(est, trials, shown=[16])
    with pytest.raises(ValueError, match="at least one"):
        AlignmentDisplay.from_estimator(est, trials, shown=[])
    with pytest.raises(ValueError, match="n_trials=0"):
        AlignmentDisplay.from_estimator(est, trials, n_trials=0)
    with pytest.raises(ValueError, match="the trials show one image"):
        RetrievalDisplay.from_estimator(est, trials[trials.image_ids == 0])
    with pytest.raises(ValueError, match="shapes"):
        RetrievalDisplay(
            np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 4, 4)), [[1.0]], [[True]], [1], n_images=2
        )


# ------------------------------------------------------------------------------------ alignment


def test_rows_show_image_maps_and_alignment(seen):
    est, trials = seen
    display = AlignmentDisplay.from_estimator(est, trials, shown=[3, 7])
    images, responses = est.transform_images(trials), est.transform_responses(trials)
    aligned = alignment_map(est, trials)["alignment"].sel(mouse="A")
    for axes, trial in zip(display.axes_, [3, 7], strict=True):
        np.testing.assert_array_equal(pixels(axes[0]), trials.get("stimuli", "A")[trial, 0])
        np.testing.assert_allclose(pixels(axes[1]), images[trial, 0], atol=1e-5)
        np.testing.assert_allclose(pixels(axes[2]), responses[trial, 0], atol=1e-5)
        np.testing.assert_allclose(pixels(axes[3]), aligned)
        assert axes[0].get_ylabel() == f"A\n{trials.image_ids[trial]}"
        for axis in axes[1:3]:  # zero is white
            low, high = axis.get_images()[0].get_clim()
            assert low == -high
    titles = [axis.get_title() for axis in display.axes_[0]]
    assert titles == ["image", "its map", "map of the responses", "alignment over images"]


@pytest.mark.parametrize("show", ["occlusion", "gradient"])
def test_the_last_column_may_be_a_saliency(seen, show):
    est, trials = seen
    options = {"patch_size": 5} if show == "occlusion" else {"fill": 100}
    display = AlignmentDisplay.from_estimator(est, trials, show=show, n_trials=2, options=options)
    if show == "occlusion":
        expected = occlusion_saliency(est, trials, patch_size=5)["saliency"]
    else:
        expected = gradient_saliency(est, trials, fill=100)["saliency"].mean("channel")
    first = np.sort(np.unique(trials.image_ids, return_index=True)[1])[:2]
    for axis, place in zip(display.axes_[:, 3], first, strict=True):
        np.testing.assert_allclose(pixels(axis), expected[place])
    clims = {axis.get_images()[0].get_clim() for axis in display.axes_[:, 3]}
    assert len(clims) == 1


class Counting(Coarse):
    """Counts the images that pass it."""

    passed = 0

    def forward(self, images, behaviors=None, sizes=None):
        Counting.passed += len(images)
        return super().forward(images)


def test_only_images_that_are_shown_are_occluded(seen):
    est, trials = known_aligner(seen[1], Counting), seen[1]
    passed = {}
    for show, options in (("alignment", {}), ("occlusion", {"patch_size": 4, "stride": 4})):
        before = Counting.passed
        AlignmentDisplay.from_estimator(est, trials, show=show, n_trials=1, options=options)
        passed[show] = Counting.passed - before
    n_patches = 3 * 4
    # the image and the other one of the control: as they are, twice, and covered
    assert passed["occlusion"] - passed["alignment"] == 2 * (2 + n_patches)


def test_the_trials_shown_may_be_in_any_order_and_of_one_image(seen):
    est, trials = seen
    same = np.flatnonzero(trials.image_ids == 3)[::-1].tolist()
    options = {"patch_size": 6}
    display = AlignmentDisplay.from_estimator(
        est, trials, show="occlusion", shown=[*same, same[0]], options=options
    )
    expected = occlusion_saliency(est, trials, **options)["saliency"]
    for axis, place in zip(display.axes_[:, 3], [*same, same[0]], strict=True):
        np.testing.assert_allclose(pixels(axis), expected[place])


@pytest.mark.slow
def test_maps_lie_where_they_are_in_the_image():
    trials = v1.Trials(
        v1.make_v1_recordings(
            n_mice=2, n_neurons=6, n_trials=24, n_test_images=4, n_repeats=2,
            image_shape=(24, 36), random_state=0,
        )
    )  # fmt: skip
    est = v1.DINAAligner(
        crop_scale=0.5, map_size=(3, 6), map_channels=3, max_epochs=1, validation_fraction=0,
        random_state=0, map_scale="minmax",
    )  # fmt: skip
    est.fit(trials.sel(tier="train"))
    test = trials.sel(tier="test")
    display = AlignmentDisplay.from_estimator(est, test, n_trials=1, channel=2)
    assert display.axes_[0, 1].get_title() == "its map, channel 2"
    for axis in display.axes_[0]:
        assert axis.get_xlim() == (-0.5, 35.5)
        assert axis.get_ylim() == (23.5, -0.5)
    left, right, bottom, top = display.axes_[0, 1].get_images()[0].get_extent()
    assert right - left == pytest.approx(18, rel=0.1)
    assert bottom - top == pytest.approx(12, rel=0.1)
    assert (left + right) / 2 == pytest.approx(17.5, abs=0.6)
    assert display.axes_[0, 1].get_images()[0].get_clim()[0] == 0  # maps from 0 to 1
    with pytest.raises(ValueError, match="channel=3: expected a number from 0 to 2"):
        AlignmentDisplay.from_estimator(est, test, channel=3)
    with pytest.raises(ValueError, match="show='map'"):
        AlignmentDisplay.from_estimator(est, test, show="map")
    maps = xr.DataArray(np.zeros((1, 3, 6)), dims=("trial", "row", "width"))
    with pytest.raises(ValueError, match="image_map has the dimensions"):
        AlignmentDisplay(np.zeros((1, 1, 24, 36)), maps, maps, maps)


# --------------------------------------------------------------------------------------- curves


def test_curves_hold_what_was_measured(seen):
    est, trials = seen
    display = ManipulationDisplay.from_estimator(
        est, trials, manipulations=["low_pass", "scramble_phases"], measure="two_way", **QUICK
    )
    assert len(display.axes_) == 2
    for axis, name in zip(display.axes_, ["low_pass", "scramble_phases"], strict=True):
        curve = manipulation_curve(est, trials, name, **QUICK).sel(mouse="mean", measure="two_way")
        lines = {line.get_label(): line for line in axis.get_lines()}
        np.testing.assert_array_equal(lines["manipulated"].get_xdata(), curve["value"])
        np.testing.assert_allclose(lines["manipulated"].get_ydata(), curve["estimate"])
        assert lines["as they are"].get_ydata()[0] == pytest.approx(float(curve["unchanged"]))
        band = axis.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() == pytest.approx(float(curve["low"].min()))
        assert band.max() == pytest.approx(float(curve["high"].max()))
    assert display.axes_[0].get_xscale() == "log"
    assert display.axes_[1].get_xscale() == "linear"
    assert display.axes_[0].get_xlabel() == "cut-off of the low-pass\n(cycles per image height)"
    assert display.ax_.get_ylabel() == "told from one other"


@pytest.mark.filterwarnings("ignore:.*in another unit than at fit")  # they are made to be
def test_curves_of_your_own_and_wrong_names(seen):
    est, trials = seen
    curve = manipulation_curve(est, trials, lambda x, v: x * v, [1, 2], **QUICK)
    display = ManipulationDisplay({"brighter": curve}, mouse="A").plot()
    assert len(display.axes_) == 1
    with pytest.raises(ValueError, match="curves is empty"):
        ManipulationDisplay({})
    with pytest.raises(ValueError, match="measure='top5'"):
        ManipulationDisplay({"brighter": curve}, measure="top5")
    with pytest.raises(ValueError, match="has no mouse 'B'"):
        ManipulationDisplay({"brighter": curve}, mouse="B")
