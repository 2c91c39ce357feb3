"""Cropping and resizing of images, inside the model and outside it.

The preprocessing transformers call the same functions, so that both ways give the same pixels.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v1tlearn.nn import fast
from v1tlearn.nn.fast.derivatives import differentiable_once
from v1tlearn.nn.layers.shifter import StimulusShifter


def crop_size(image_size: Sequence[int], scale: float) -> tuple[int, int]:
    """Size of an image after a centre crop.

    Parameters
    ----------
    image_size : tuple of int
        Height and width before the crop, in pixels.
    scale : float
        Share of either side that is kept, above 0 and at most 1.

    Returns
    -------
    tuple of int
        Height and width after the crop, in pixels, rounded down.

    Raises
    ------
    ValueError
        If the scale is outside (0, 1] or leaves no pixel.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"the crop scale must be above 0 and at most 1, got {scale}.")
    height, width = (int(side * scale) for side in image_size)
    if min(height, width) < 1:
        raise ValueError(
            f"a crop scale of {scale} leaves no pixel of images of {image_size[0]} x "
            f"{image_size[1]} pixels; choose a larger one."
        )
    return height, width


@cache
def _nearest_pixels(side: int, scale: float) -> list[int]:
    """Indices of the pixels that a centre crop keeps along one side.

    `grid_sample` itself looks them up on a ramp: the centre often falls between two pixels, where
    only the same arithmetic rounds the same way.
    """
    ramp = torch.arange(side, dtype=torch.float32, device="cpu").view(1, 1, side, 1)
    steps = torch.linspace(-scale, scale, int(side * scale), dtype=torch.float32, device="cpu")
    grid = torch.stack((torch.zeros_like(steps), steps), -1).view(1, -1, 1, 2)
    return F.grid_sample(ramp, grid, mode="nearest", align_corners=True).flatten().int().tolist()


class _NearestPixels(torch.autograd.Function):
    """Pixels of images (B, c, H, W) nearest to points (B, h, w, 2), whose gradient is zero.

    Torch finds the same zeros, but for that it has no deterministic algorithm on a GPU, where a fit
    that asks for those would be refused.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, points: Tensor) -> Tensor:
        """Read (B, c, h, w)."""
        ctx.save_for_backward(points)
        return F.grid_sample(images, points, mode="nearest", align_corners=True)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """Zeros: the nearest pixel stays the same while a point moves a little."""
        (points,) = ctx.saved_tensors
        return None, torch.zeros_like(points)


def _shifted_crop(images: Tensor, scale: float, shift: Tensor) -> Tensor:
    height, width = crop_size(images.shape[-2:], scale)
    options: dict[str, Any] = {"device": images.device, "dtype": images.dtype}
    y, x = torch.meshgrid(
        torch.linspace(-scale, scale, height, **options),
        torch.linspace(-scale, scale, width, **options),
        indexing="ij",
    )
    grid = torch.stack((x, y), -1) + shift.to(images.dtype)[:, None, None]  # (B, h, w, 2)
    if not (images.requires_grad or fast.is_plain()):
        return _NearestPixels.apply(images, grid)
    # Numbers of the pixels, read in the same way, and 0 outside: any derivative follows these.
    n_images, n_channels, n_pixels = images.flatten(2).shape
    grid = grid if grid.dtype.itemsize >= 4 else grid.float()
    numbers = torch.arange(1, n_pixels + 1, device=grid.device, dtype=grid.dtype)
    numbers = numbers.view(1, 1, *images.shape[-2:]).expand(n_images, -1, -1, -1)
    # What comes out is whole numbers, through which no gradient goes.
    chosen = F.grid_sample(numbers, grid.detach(), mode="nearest", align_corners=True)
    chosen = chosen.long().flatten(2)
    pixels = F.pad(images.flatten(2), (1, 0))
    return pixels.gather(2, chosen.expand(-1, n_channels, -1)).unflatten(2, (height, width))


def center_crop(images: Tensor, scale: float, shift: Tensor | None = None) -> Tensor:
    """Keep the central part of images, optionally moved.

    A regular grid from ``-scale`` to ``scale``, in units of half the image between the centres of
    its outermost pixels, is read from the image as in the published V1T code (Li et al. 2023).

    Parameters
    ----------
    images : Tensor of shape (n_images, n_channels, height, width)
        Any dtype; floating point where `shift` is given.
    scale : float
        Share of either side that is kept, above 0 and at most 1; 1 leaves the image as it is.
    shift : Tensor of shape (n_images, 2), optional
        Displacement of the crop to the right and down, in half image sides. Zeros lie outside.
        The nearest pixel is read, as published, so that the gradient of the shift is zero.

    Returns
    -------
    Tensor of shape (n_images, n_channels, int(scale * height), int(scale * width))
        The crops, in the dtype of the images.

    Raises
    ------
    ValueError
        If the scale is outside (0, 1] or leaves no pixel.
    """
    height, width = images.shape[-2:]
    crop_size((height, width), scale)
    if shift is not None:
        return _shifted_crop(images, scale, shift)
    if scale == 1:
        return images
    rows = torch.tensor(_nearest_pixels(height, scale), device=images.device)
    columns = torch.tensor(_nearest_pixels(width, scale), device=images.device)
    return images[..., rows[:, None], columns]


def resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize without antialiasing, as both published pipelines do it.

    At a quarter of the size each new pixel is the mean of the central 2 x 2 of 4 x 4 pixels.

    Parameters
    ----------
    images : Tensor of shape (n_images, n_channels, height, width)
        Images of any dtype.
    size : tuple of int
        New height and width, in pixels.

    Returns
    -------
    Tensor of shape (n_images, n_channels, new height, new width)
        Floating point (float32 where the images were integers), or the images themselves where
        they have this size already.

    Raises
    ------
    ValueError
        If a side of the new size is not positive.
    """
    if min(size) < 1:
        raise ValueError(f"the new image size must be positive, got {size[0]} x {size[1]} pixels.")
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if not images.is_floating_point():
        images = images.float()
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False)


def _resized_positions(indices: Tensor, n_pixels: int) -> Tensor:
    """Positions of the pixels of a resized side, where those of the unresized one are known."""
    n = len(indices)
    if n == 1:
        return indices[0] + (torch.arange(n_pixels, dtype=torch.float64) + 0.5) / n_pixels - 0.5
    # in pixels of the crop; enlarged, the outermost lie beyond the centres of its outermost ones
    at = (torch.arange(n_pixels, dtype=torch.float64) + 0.5) * (n / n_pixels) - 0.5
    left = at.floor().clamp(0, n - 2).long()
    return indices[left] + (at - left) * (indices[left + 1] - indices[left])


class ImageCropper(nn.Module):
    """Centre crop, moved per trial where the model has stimulus shifters, then resize.

    Parameters
    ----------
    input_size : tuple of int
        Height and width of the images that come in, in pixels.
    crop_scale : float, default=1.0
        Share of either side that is kept.
    image_size : tuple of int, optional
        Height and width of the images that go out; by default those of the crop.
    shifters : mapping of str to StimulusShifter, optional
        One per mouse whose crops move with the eye. As published their gradients are zero, so that
        they keep their initial weights.

    Attributes
    ----------
    output_size : tuple of int
        Height and width of the images that go out.

    Raises
    ------
    ValueError
        If the crop leaves no pixel or a size is not positive.
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    _rows: Tensor
    _columns: Tensor

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        crop_scale: float = 1.0,
        image_size: tuple[int, int] | None = None,
        shifters: Mapping[str, StimulusShifter] | None = None,
    ) -> None:
        super().__init__()
        height, width = input_size
        self.input_size = (height, width)
        self.crop_scale = crop_scale
        cropped = crop_size(self.input_size, crop_scale)
        height, width = cropped if image_size is None else image_size
        self.output_size = (height, width)
        if min(self.output_size) < 1:
            raise ValueError(f"image_size must be positive, got {self.output_size}.")
        shifters = shifters or {}
        self._shifter_index = {mouse: i for i, mouse in enumerate(shifters)}
        self.shifters = nn.ModuleList(shifters.values())
        # Copies of the indices on the device of the module: forward never waits for a transfer.
        for name, side in zip(("_rows", "_columns"), self.input_size, strict=True):
            indices = torch.tensor(_nearest_pixels(side, crop_scale))
            self.register_buffer(name, indices, persistent=False)

    def shifter(self, mouse: str) -> StimulusShifter | None:
        """Stimulus shifter of a mouse.

        Parameters
        ----------
        mouse : str
            Mouse id.

        Returns
        -------
        StimulusShifter or None
            None where the crops of this mouse do not move.
        """
        index = self._shifter_index.get(mouse)
        return None if index is None else cast(StimulusShifter, self.shifters[index])

    def window(self, mouse: str | None) -> tuple[int, int] | None:
        """Columns that are kept of a mouse's images: all here.

        Parameters
        ----------
        mouse : str or None

        Returns
        -------
        None
        """
        return None

    def source_positions(self, mouse: str | None = None) -> tuple[Tensor, Tensor]:
        """Where the pixels that go out lie in the images that come in, with the eye at rest.

        Pixel centres are whole numbers. An image that is only resized to a fraction 1 / s of its
        size has the centre of pixel j at s (j + 1/2) - 1/2: it covers the pixels whose centres lie
        from s j - 1/2 to s (j + 1) - 1/2.

        Parameters
        ----------
        mouse : str, optional
            Whose images they are, where that makes a difference: not here.

        Returns
        -------
        rows : Tensor of shape (output height,)
            Float64, in pixels from the centre of the uppermost row.
        columns : Tensor of shape (output width,)
            From the centre of the leftmost column.
        """
        rows, columns = (
            _resized_positions(indices.double().cpu(), n)
            for indices, n in zip((self._rows, self._columns), self.output_size, strict=True)
        )
        return rows, columns

    def takes(self, size: Sequence[int]) -> bool:
        """Tell whether images of a size can come in.

        Parameters
        ----------
        size : tuple of int
            Height and width, in pixels.

        Returns
        -------
        bool
            Images of `input_size` can; where nothing is cropped, so can those that were resized to
            `output_size` before.
        """
        resized = self.crop_scale == 1 and not len(self.shifters)
        return tuple(size) == self.input_size or (resized and tuple(size) == self.output_size)

    def forward(
        self, images: Tensor, mouse: str | None = None, shifter_inputs: Tensor | None = None
    ) -> Tensor:
        """Crop and resize the images of one mouse: (B, c, H, W) to (B, c, h, w).

        `shifter_inputs` (B, k), the standardised pupil centre or behaviour and pupil centre, moves
        the crops of a mouse that has a stimulus shifter.
        """
        if not self.takes(images.shape[-2:]):
            raise ValueError(
                f"mouse {mouse!r}: stimuli of {images.shape[-2]} x {images.shape[-1]} pixels came "
                f"to a model for {self.input_size[0]} x {self.input_size[1]}; bring all stimuli "
                f"to one size first."
            )
        shifter = self.shifter(mouse) if mouse is not None else None
        if shifter is not None:
            if shifter_inputs is None:
                raise ValueError(
                    f"mouse {mouse!r}: the stimulus shifter needs the pupil centre of each trial, "
                    f"and none came; pass it, or build the model without stimulus shift."
                )
            shift = shifter(shifter_inputs)
            images = center_crop(images, self.crop_scale, shift)
        elif self.crop_scale < 1:
            images = images[..., self._rows[:, None], self._columns]
        return self._resized(images, mouse)

    def _resized(self, images: Tensor, mouse: str | None) -> Tensor:
        return resize(images, self.output_size)
