"""Outlines of receptive fields, filled and averaged over areas."""

import numpy as np
import pytest

from v1tlearn import receptive_fields_from_outlines

SQUARE = np.array([[1.0, 3.0, 3.0, 1.0], [1.0, 1.0, 3.0, 3.0]])


def inside(points, x, y):
    """Whether points lie within a polygon, by how often a ray to the right crosses it."""
    crossings = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(points.T, np.roll(points.T, -1, axis=0), strict=True):
        spans = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        crossings ^= spans & (x < at)
    return crossings


def supersampled(points, image_shape, grid, n=300):
    """Shares by brute force: which of n x n points in every cell lie within."""
    height, width = image_shape
    y = (np.arange(grid[0] * n) + 0.5) * height / (grid[0] * n) - 0.5
    x = (np.arange(grid[1] * n) + 0.5) * width / (grid[1] * n) - 0.5
    return inside(points, *np.meshgrid(x, y)).reshape(grid[0], n, grid[1], n).mean((1, 3))


@pytest.mark.parametrize("seed", range(4))
def test_maps_are_the_areas_that_supersampling_finds(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 25))
    radius = rng.uniform(2, 9, 25)
    star = np.stack([10 + 1.3 * radius * np.cos(angle), 8 + radius * np.sin(angle)])
    star = star[:, ::-1] if seed % 2 else star  # the other way round
    (found,) = receptive_fields_from_outlines([star], (17, 23), (4, 5))
    np.testing.assert_allclose(found, supersampled(star, (17, 23), (4, 5)), atol=1e-3)
    assert found.dtype == np.float32


def test_pixels_reach_half_a_pixel_around_whole_numbers_and_matlab_counts_from_one():
    (found,) = receptive_fields_from_outlines([SQUARE], (4, 4), (4, 4))
    np.testing.assert_allclose(found[1:, 1:], np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))
    (shifted,) = receptive_fields_from_outlines([SQUARE + 1], (4, 4), (4, 4), first_pixel=1)
    np.testing.assert_array_equal(found, shifted)


def test_a_closed_line_and_one_whose_last_point_is_not_the_first_are_alike():
    closed = np.concatenate([SQUARE, SQUARE[:, :1]], axis=1)
    one, other = receptive_fields_from_outlines([SQUARE, closed], (4, 4), (2, 2))
    np.testing.assert_array_equal(one, other)


def test_what_lies_beyond_the_image_is_left_out():
    (found,) = receptive_fields_from_outlines([SQUARE + np.array([[2.0], [0.0]])], (4, 4), (4, 4))
    assert found.sum() == pytest.approx(0.5 * 2)  # of two columns half a pixel is left
    with pytest.warns(UserWarning, match="of neuron 1 lie beyond the image of 4 x 4"):
        receptive_fields_from_outlines([SQUARE, SQUARE + 50], (4, 4), (4, 4))


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (SQUARE.T, r"shape \(4, 2\), expected \(2, points\).*transpose"),
        (SQUARE[:, :2], "three points or more"),
        (np.where(SQUARE == 3, np.nan, SQUARE), "holds NaN"),
        (SQUARE[:, [0, 2, 1, 3]], "neuron 1 crosses itself"),
    ],
)
def test_outlines_that_are_none_are_refused_by_neuron(outline, message):
    with pytest.raises(ValueError, match=message):
        receptive_fields_from_outlines([SQUARE, outline], (4, 4), (4, 4))


def test_sizes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="grid is"):
        receptive_fields_from_outlines([SQUARE], (4, 4), (0, 4))
