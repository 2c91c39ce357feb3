"""What images are like before any response is known: Gaussian, with a natural spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from v1tlearn._options import as_finite
from v1tlearn._values import as_array, whole_numbers
from v1tlearn.decoding._calls import images_of
from v1tlearn.trials import Trials

_LEAST_POWER = 1e-6  # of the mean power, below which no measured frequency falls


class ImagePrior(NamedTuple):
    """A Gaussian distribution of images whose pixels are alike everywhere.

    What `natural_image_prior` gives.

    Parameters
    ----------
    mean : ndarray of shape (channels,)
        Grey level.
    power : ndarray of shape (channels, height, width // 2 + 1)
        Variance of every frequency, as ``numpy.fft.rfft2(image, norm="ortho")`` has them.
    image_shape : (int, int, int)
        Channels, height and width.
    """

    mean: np.ndarray
    power: np.ndarray
    image_shape: tuple[int, int, int]


def natural_image_prior(
    images: Any = None,
    *,
    image_shape: Sequence[int] | None = None,
    exponent: float = 2.0,
    mean: float = 0.0,
    std: float = 1.0,
) -> ImagePrior:
    r"""Describe natural images by their spectrum, measured or stated.

    Parameters
    ----------
    images : Trials or ndarray of shape (n, channels, height, width), optional
        Whose spectrum is measured, each image once: those of the training. Without any, power
        falls as :math:`1/f^{exponent}` (Field 1987).
    image_shape : (int, int, int), optional
        Channels, height and width, where no images are given.
    exponent : float, default=2.0
        Of the power, where no images are given; f is in cycles per pixel. The mean of an image
        varies as much as its lowest frequency.
    mean, std : float, default=0.0, 1.0
        Of pixels, in grey levels, where no images are given.

    Returns
    -------
    ImagePrior

    Raises
    ------
    ValueError
        If there are fewer than two images, or they are all equal; if neither images nor their
        shape came, or something is stated beside images; or a number is out of its range.

    Notes
    -----
    Channels are independent of each other. Images are taken to go on at the opposite edge, which
    lets opposite edges of a reconstruction be a little alike.

    References
    ----------
    Field, "Relations between the statistics of natural images and the response properties of
    cortical cells", 1987.

    Examples
    --------
    >>> from v1tlearn.decoding import natural_image_prior
    >>> prior = natural_image_prior(image_shape=(1, 36, 64), mean=110.0, std=60.0)
    >>> prior.power.shape
    (1, 36, 33)
    """
    exponent, mean = as_finite(exponent, "exponent", 0), as_finite(mean, "mean")
    std = as_finite(std, "std")
    if not std > 0:
        raise ValueError(f"std={std!r}: expected a number above 0.")
    if images is not None:
        if image_shape is not None or (exponent, mean, std) != (2.0, 0.0, 1.0):
            raise ValueError(
                "images came, whose spectrum, mean and shape are measured, beside image_shape, "
                "exponent, mean or std, which state them: give one of both."
            )
        return _measured(images)
    shape = None if image_shape is None else whole_numbers(image_shape)
    if shape is None or len(shape) != 3:
        raise ValueError(
            f"image_shape={image_shape!r}: expected (channels, height, width), or images whose "
            "spectrum is measured."
        )
    channels, height, width = shape
    if height * width < 2:
        raise ValueError(f"image_shape={image_shape!r}: expected images of several pixels.")
    squares = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2
    squares[0, 0] = squares[squares > 0].min()
    power = squares ** (-exponent / 2)
    power *= std**2 / _mean_over_all(power, width)
    return ImagePrior(np.full(channels, float(mean)), np.tile(power, (channels, 1, 1)), shape)


def _measured(images: Any) -> ImagePrior:
    if isinstance(images, Trials):
        first = np.unique(images.image_ids, return_index=True)[1]
        images = images_of(images[np.sort(first)])
    values = as_array(images, "images", of="image").astype(np.float64)
    if values.ndim != 4 or len(values) < 2:
        raise ValueError(
            f"images have the shape {values.shape}: expected at least two, (images, channels, "
            "height, width)."
        )
    if not np.isfinite(values).all():
        raise ValueError("images hold values that are not finite: leave these images out.")
    mean = values.mean(axis=(0, 2, 3))
    centred = values - mean[:, None, None]
    power = np.zeros((values.shape[1], values.shape[2], values.shape[3] // 2 + 1))
    for image in centred:
        power += np.abs(np.fft.rfft2(image, norm="ortho")) ** 2
    power /= len(values)
    if not power.any():
        raise ValueError("all images are equal and without contrast: they have no spectrum.")
    floor = _LEAST_POWER * power.mean(axis=(1, 2), keepdims=True)
    return ImagePrior(mean, np.maximum(power, floor), values.shape[1:])


def _mean_over_all(power: np.ndarray, width: int) -> float:
    """Mean over all frequencies, of which `power` holds those of one half."""
    twice = np.full(power.shape[-1], 2.0)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return float((power * twice).sum() / (power.shape[0] * width))
