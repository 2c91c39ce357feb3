"""Images without part of their structure: what is kept, and what is gone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn.preprocessing import downsample, edges, shuffle_patches, silhouettes


def random_images(size, n=3, channels=2, seed=0):
    return 100 + 20 * np.random.default_rng(seed).normal(size=(n, channels, *size))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 7))
def test_coarser_pixels_have_the_means_of_theirs(height, width, factor):
    factor = min(factor, max(height, width))
    images = random_images((height, width), n=2)
    found = downsample(images, factor)
    for top in range(0, height, factor):
        for left in range(0, width, factor):
            square = np.s_[..., top : top + factor, left : left + factor]
            mean = images[square].mean((2, 3), keepdims=True)
            np.testing.assert_allclose(found[square], np.broadcast_to(mean, found[square].shape))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 4), st.integers(1, 4))
def test_shuffled_images_consist_of_the_same_patches(height, width, high, wide):
    high, wide = min(high, height), min(wide, width)
    rows, columns = height // high, width // wide
    if rows * columns < 2:
        return
    images = random_images((height, width), n=2)
    moved = shuffle_patches(images, (high, wide), random_state=0)

    def patches(image):
        return sorted(
            image[:, i * high : (i + 1) * high, j * wide : (j + 1) * wide].ravel().tolist()
            for i in range(rows)
            for j in range(columns)
        )

    for before, after in zip(images, moved, strict=True):
        assert patches(before) == patches(after)
        np.testing.assert_array_equal(before[:, rows * high :], after[:, rows * high :])
        np.testing.assert_array_equal(before[..., columns * wide :], after[..., columns * wide :])


def test_every_image_is_shuffled_in_an_order_of_its_own():
    images = np.broadcast_to(np.arange(64).reshape(8, 8), (4, 1, 8, 8)).astype(np.uint8)
    moved = shuffle_patches(images, 2, random_state=0)
    assert moved.dtype == np.uint8
    assert len(np.unique(moved.reshape(4, -1), axis=0)) == 4
    assert not (moved == images).all((1, 2, 3)).any()
    np.testing.assert_array_equal(moved, shuffle_patches(images, 2, random_state=0))
    np.testing.assert_array_equal(moved[:2], shuffle_patches(images[:2], 2, random_state=0))


def test_edges_lie_where_the_grey_level_changes_and_keep_brightness_and_contrast():
    disk = np.hypot(*np.mgrid[-20:21, -20:21]) < 12
    images = np.stack([disk * 80.0 + 10, 90 - disk * 80.0])[:, None]  # both ways round
    found = edges(images, 1.5)
    radius = np.hypot(*np.mgrid[-20:21, -20:21])
    assert np.abs(radius[found[0, 0] > np.quantile(found[0, 0], 0.95)] - 12).max() < 2
    contrast_free = [(x - x.mean()) / x.std() for x in found]
    np.testing.assert_allclose(*contrast_free, atol=1e-9)  # which side is bright is gone
    np.testing.assert_allclose(found.mean((2, 3)), images.mean((2, 3)))
    np.testing.assert_allclose(found.std((2, 3)), images.std((2, 3)))


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_edges_are_the_same_in_any_unit(unit):
    images = np.random.default_rng(0).random((2, 1, 9, 11))
    np.testing.assert_array_equal(edges(unit * images), unit * edges(images))
    np.testing.assert_allclose(edges(np.full((1, 1, 9, 11), unit)), unit, rtol=1e-12)


def test_edges_do_not_tell_texture_finer_than_the_blur():
    rng = np.random.default_rng(0)
    step = np.repeat([0.0, 100.0], 30) + np.zeros((60, 1))
    textured = step + 10 * rng.choice([-1, 1], size=step.shape)
    found = edges(np.stack([step, textured])[:, None], 4.0)[:, 0]
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.95
    assert found[1].mean(0).argmax() in (29, 30)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_silhouettes_are_the_nearest_images_of_two_levels(seed, coarse):
    images = random_images((3, 4), n=1, channels=1, seed=seed)
    images = images.round(-1) if coarse else images  # equal values
    found = silhouettes(images, 0)
    least = np.inf
    for cut in np.unique(images)[:-1]:
        sides = images > cut
        levels = np.where(sides, images[sides].mean(), images[~sides].mean())
        least = min(least, ((images - levels) ** 2).sum())
    assert ((images - found) ** 2).sum() == pytest.approx(least)
    assert len(np.unique(found)) == 2


def test_silhouettes_of_all_channels_have_one_shape_and_their_means():
    images = random_images((20, 20), n=2, channels=3)
    images[:, :, 5:15, 5:15] += 100
    found = silhouettes(images, 2.0)
    for image in found:
        sides = [channel > channel.mean() for channel in image]
        assert all(np.array_equal(sides[0], side) for side in sides)
        assert np.mean(sides[0] == (np.pad(np.ones((10, 10)), 5) > 0)) > 0.9
    np.testing.assert_allclose(found.mean((2, 3)), images.mean((2, 3)))


@pytest.mark.parametrize(
    "take",
    [
        lambda x: downsample(x, 3),
        lambda x: shuffle_patches(x, 3, random_state=0),
        lambda x: edges(x),
        lambda x: silhouettes(x),
    ],
)
def test_flat_images_stay_and_what_are_no_images_is_refused(take):
    flat = np.full((2, 1, 7, 9), 40.0)
    np.testing.assert_allclose(take(flat), flat)
    whole = np.random.default_rng(0).integers(0, 255, (2, 1, 7, 9)).astype(np.uint8)
    before = whole.copy()
    assert take(whole).shape == whole.shape
    assert np.array_equal(whole, before)
    assert take(whole[:0]).shape == (0, 1, 7, 9)
    with pytest.raises(ValueError, match="shape"):
        take(np.zeros((7, 9)))
    flat[1, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="image 1 has values that are not finite"):
        take(flat)


@pytest.mark.parametrize(
    ("take", "match"),
    [
        (lambda x: downsample(x, 10), "from 1 to 9"),
        (lambda x: downsample(x, 1.5), "factor=1.5"),
        (lambda x: shuffle_patches(x, (7, 9)), "once: expected smaller ones"),
        (lambda x: shuffle_patches(x, (8, 2)), "expected a whole number, or height and width"),
        (lambda x: shuffle_patches(x, (1, 2, 3)), "expected a whole number, or height and width"),
        (lambda x: edges(x, 0), "expected a number above 0"),
        (lambda x: silhouettes(x, -1), "expected a number from 0 on"),
    ],
)
def test_wrong_options_are_named(take, match):
    with pytest.raises(ValueError, match=match):
        take(np.zeros((2, 1, 7, 9)))
