"""Cropping and resizing against brute force, and the cropper against the plain functions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn import nn

scales = st.sampled_from([0.3, 0.5, 0.77, 0.8, 0.9, 1.0])
sides = st.integers(6, 40)


def sampled_crop(images, scale, shift):
    """The published crop: a regular grid, read by `grid_sample`."""
    height, width = images.shape[-2:]
    y = torch.linspace(-scale, scale, int(height * scale))
    x = torch.linspace(-scale, scale, int(width * scale))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
    grid = grid + shift[:, None, None]
    return F.grid_sample(images, grid, mode="nearest", align_corners=True)


def bilinear(image, size):
    """Half-pixel-centred bilinear interpolation of one plane, in float64."""
    image = np.asarray(image, dtype=np.float64)
    out = np.empty(size)
    for i in range(size[0]):
        for j in range(size[1]):
            value = 0.0
            y = max((i + 0.5) * image.shape[0] / size[0] - 0.5, 0)
            x = max((j + 0.5) * image.shape[1] / size[1] - 0.5, 0)
            for r in (int(y), int(y) + 1):
                for c in (int(x), int(x) + 1):
                    pixel = image[min(r, image.shape[0] - 1), min(c, image.shape[1] - 1)]
                    value += (1 - abs(y - r)) * (1 - abs(x - c)) * pixel
            out[i, j] = value
    return out


@given(sides, sides, scales)
def test_crop_keeps_the_published_pixels(height, width, scale):
    images = torch.rand(2, 2, height, width)
    expected = sampled_crop(images, scale, torch.zeros(2, 2))
    assert torch.equal(nn.center_crop(images, scale), expected)
    assert nn.crop_size((height, width), scale) == expected.shape[-2:]


@given(sides, sides, scales)
def test_shifted_crop_is_the_published_one(height, width, scale):
    images = torch.rand(2, 1, height, width)
    shift = torch.rand(2, 2) - 0.5
    expected = sampled_crop(images, scale, shift)
    assert torch.equal(nn.center_crop(images, scale, shift), expected)


def test_crop_keeps_integers_and_the_whole_image_at_scale_one():
    images = torch.randint(0, 255, (3, 1, 144, 256), dtype=torch.uint8)
    assert nn.center_crop(images, 1.0) is images
    cropped = nn.center_crop(images, 0.8)
    assert cropped.dtype == torch.uint8
    assert cropped.shape == (3, 1, 115, 204)


@given(st.integers(3, 14), st.integers(3, 14), st.integers(2, 12), st.integers(2, 12))
def test_resize_is_bilinear_without_antialiasing(height, width, new_height, new_width):
    images = torch.rand(1, 1, height, width)
    resized = nn.resize(images, (new_height, new_width))
    expected = bilinear(images[0, 0], (new_height, new_width))
    np.testing.assert_allclose(resized[0, 0].numpy(), expected, atol=1e-6)


def test_quarter_size_is_the_mean_of_the_central_pixels():
    images = torch.randint(0, 256, (2, 3, 144, 256), dtype=torch.uint8)
    blocks = images.double().unfold(2, 4, 4).unfold(3, 4, 4)[..., 1:3, 1:3]
    resized = nn.resize(images, (36, 64))
    assert resized.dtype == torch.float32
    torch.testing.assert_close(resized.double(), blocks.mean((-1, -2)), atol=1e-4, rtol=0)


def test_resize_to_the_same_size_changes_nothing():
    images = torch.rand(1, 1, 4, 5)
    assert nn.resize(images, (4, 5)) is images


def test_cropper_equals_the_functions():
    images = torch.rand(2, 1, 144, 256)
    cropper = nn.ImageCropper((144, 256), crop_scale=0.8, image_size=(36, 64))
    assert cropper.output_size == (36, 64)
    assert torch.equal(cropper(images), nn.resize(nn.center_crop(images, 0.8), (36, 64)))
    assert nn.ImageCropper((144, 256), crop_scale=0.8).output_size == (115, 204)


@given(sides, sides, scales, st.tuples(st.integers(1, 50), st.integers(1, 50)) | st.none())
def test_source_positions_are_what_ramps_show(height, width, scale, size):
    cropper = nn.ImageCropper((height, width), crop_scale=scale, image_size=size)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shown = cropper(torch.stack((y, x))[:, None].double())
    rows, columns = cropper.source_positions()
    assert (len(rows), len(columns)) == cropper.output_size
    # enlarged images are continued as they end, positions go on
    cropped = nn.center_crop(torch.stack((y, x))[:, None], scale)
    rows = rows.clamp(cropped[0].min(), cropped[0].max())
    columns = columns.clamp(cropped[1].min(), cropped[1].max())
    torch.testing.assert_close(shown[0, 0], rows[:, None].expand(cropper.output_size))
    torch.testing.assert_close(shown[1, 0], columns.expand(cropper.output_size))


def test_source_positions_of_a_quarter():
    rows, columns = nn.ImageCropper((144, 256), image_size=(36, 64)).source_positions()
    assert rows.tolist() == [4 * j + 1.5 for j in range(36)]
    assert columns.tolist() == [4 * j + 1.5 for j in range(64)]
    rows, columns = nn.ImageCropper((2, 2), image_size=(4, 4)).source_positions()
    assert rows.tolist() == [-0.25, 0.25, 0.75, 1.25]  # edge to edge


def test_only_mice_with_a_stimulus_shifter_are_moved():
    shifter = nn.StimulusShifter(max_shift=0.5)
    cropper = nn.ImageCropper((20, 30), crop_scale=0.5, shifters={"a.b": shifter})
    images, pupil = torch.rand(3, 1, 20, 30), torch.randn(3, 2)
    expected = nn.center_crop(images, 0.5, shifter(pupil))
    assert torch.equal(cropper(images, "a.b", pupil), expected)
    assert torch.equal(cropper(images, "other", pupil), nn.center_crop(images, 0.5))
    assert cropper.shifter("other") is None


def test_moved_crops_pass_gradients_to_images_and_none_to_the_shifter():
    shifter = nn.StimulusShifter(max_shift=0.5)
    cropper = nn.ImageCropper((20, 30), crop_scale=0.5, shifters={"A": shifter})
    images, pupil = torch.rand(3, 2, 20, 30), torch.randn(3, 2)
    still = cropper(images, "A", pupil)
    still.square().sum().backward()
    assert all((p.grad == 0).all() for p in shifter.parameters())
    moved = cropper(images.requires_grad_(), "A", pupil)
    assert torch.equal(moved, still)
    (gradient,) = torch.autograd.grad(moved.square().sum(), images)
    times = gradient / (2 * images)  # each pixel was read
    assert times.sum().item() == pytest.approx((still != 0).sum().item())
    torch.testing.assert_close(times, times.round())
    with nn.plain():
        assert torch.equal(cropper(images.detach(), "A", pupil), still)


def test_errors_name_what_came():
    with pytest.raises(ValueError, match=r"crop scale must be above 0 and at most 1, got 1\.5"):
        nn.crop_size((36, 64), 1.5)
    with pytest.raises(ValueError, match=r"leaves no pixel of images of 3 x 64"):
        nn.ImageCropper((3, 64), crop_scale=0.3)
    with pytest.raises(ValueError, match="must be positive, got 0 x 4"):
        nn.resize(torch.zeros(1, 1, 2, 2), (0, 4))
    with pytest.raises(ValueError, match="image_size must be positive"):
        nn.ImageCropper((36, 64), image_size=(0, 4))
    with pytest.raises(ValueError, match="mouse 'A': stimuli of 36 x 60 pixels"):
        nn.ImageCropper((36, 64))(torch.zeros(1, 1, 36, 60), "A")
    cropper = nn.ImageCropper((36, 64), crop_scale=0.8, shifters={"A": nn.StimulusShifter()})
    with pytest.raises(ValueError, match="mouse 'A': the stimulus shifter needs the pupil centre"):
        cropper(torch.zeros(1, 1, 36, 64), "A")
