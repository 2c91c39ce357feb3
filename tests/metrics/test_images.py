"""How alike images and reconstructions are."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from v1tlearn.metrics import pixel_correlation, ssim

REFERENCE = Path(__file__).parents[1] / "reference/dina"
pairs = arrays(np.float64, (2, 2, 1, 4, 5), elements=st.integers(0, 6).map(lambda v: v / 4))


def window(image, row, column):
    """The nine values around a pixel, zeros outside."""
    return np.pad(image, 1)[row : row + 3, column : column + 3]


def similarity_around(one, two):
    out = np.empty(one.shape)
    for row, column in np.ndindex(one.shape):
        a, b = window(one, row, column), window(two, row, column)
        covariance = (a * b).mean() - a.mean() * b.mean()
        variances = (a**2).mean() - a.mean() ** 2 + (b**2).mean() - b.mean() ** 2
        means = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
        out[row, column] = means * (2 * covariance + 9e-4) / (variances + 9e-4)
    return out


@pytest.mark.parametrize("name", ["ssim_evaluation", "ssim_evaluation_small"])
def test_the_similarity_is_that_of_the_published_evaluation(name):
    with np.load(REFERENCE / f"{name}.npz") as reference:
        values = ssim(reference["z_image"], reference["z_neural"])
        np.testing.assert_allclose(values, reference["score"].ravel(), rtol=0, atol=1e-6)


@given(pairs)
@settings(max_examples=25, deadline=None)
def test_the_similarity_is_that_of_every_window(pair):
    one, two = pair
    for clip in (True, False):
        around = [
            similarity_around(a[0], b[0]).clip(*(0, 1) if clip else (-np.inf, np.inf))
            for a, b in zip(one, two, strict=True)
        ]
        expected = [values.mean() for values in around]
        np.testing.assert_allclose(ssim(one, two, clip=clip), expected, rtol=0, atol=1e-9)


def test_the_similarity_knows_its_grey_levels():
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 3, 1, 6, 7))
    grey = ssim(55 + 200 * one, 55 + 200 * two, low=55, high=255)
    np.testing.assert_allclose(grey, ssim(one, two), rtol=0, atol=1e-9)


@given(pairs)
@settings(max_examples=40, deadline=None)
def test_the_correlation_is_that_over_pixels(pair):
    values = pixel_correlation(*pair)
    for value, one, two in zip(values, *pair, strict=True):
        if np.ptp(one) == 0:
            assert np.isnan(value)
        elif np.ptp(two) == 0:
            assert value == 0
        else:
            expected = np.corrcoef(one.ravel(), two.ravel())[0, 1]
            assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("measure", [pixel_correlation, ssim])
def test_dimensions_go_by_name(measure):
    dims = ("trial", "channel", "height", "width")
    rng = np.random.default_rng(0)
    images, others = (xr.DataArray(rng.random((4, 4, 4, 4)), dims=dims) for _ in range(2))
    expected = measure(images.values, others.values)
    assert np.array_equal(measure(images.transpose(*dims[::-1]), others), expected)
    turned = [v.transpose("width", "trial", "channel", "height") for v in (images, others)]
    assert np.array_equal(measure(*turned), expected)


@pytest.mark.parametrize("power", [-700, -30, 30, 700])
def test_the_unit_of_grey_levels_does_not_matter_to_the_correlation(power):
    images, others = np.random.default_rng(0).random((2, 3, 1, 4, 5))
    expected = pixel_correlation(images, others)
    assert np.array_equal(pixel_correlation(np.ldexp(images, power), others), expected)
    assert np.array_equal(pixel_correlation(images, np.ldexp(others, -power)), expected)


def test_rounding_errors_are_no_contrast():
    image = np.arange(12.0).reshape(1, 1, 3, 4)
    flat = 100 + 1e-6 * image
    assert pixel_correlation(image, flat) == 0
    assert np.isnan(pixel_correlation(flat, image))


@pytest.mark.parametrize("measure", [pixel_correlation, ssim])
def test_wrong_images_are_told(measure):
    images = np.zeros((3, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(3, 1, 4, 4\), reconstructions \(2, 1, 4, 4\)"):
        measure(images, images[:2])
    lost = images.copy()
    lost[1, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="reconstructions: 1 of 3, the first number 1"):
        measure(images, lost)
    with pytest.raises(ValueError, match="low below high"):
        ssim(images, images, low=1, high=1)
    with pytest.raises(ValueError, match="low=None"):
        ssim(images, images, low=None)
