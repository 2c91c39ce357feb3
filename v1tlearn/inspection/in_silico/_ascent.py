"""Ascent on a ball of images within a range of pixel values: many images at a time, torch only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Bisections of a factor: float32 holds no more digits.
_BISECTIONS = 40
_LONGEST = 2.0  # steps, in norms of the image

Limits = tuple[Tensor, Tensor] | None
# Values (B,) of images (B, c, h, w), and their gradients; the indices tell which images these are.
Drive = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def frequency_weights(shape: tuple[int, int], smoothness: float) -> Tensor:
    """What a preconditioner does to the frequencies of an image: low ones go ahead.

    ``(1 + (f / f0)^2)^(-smoothness / 2)``, with f0 of one cycle per longer side of the image.

    Parameters
    ----------
    shape : (int, int)
        Height and width.
    smoothness : float
        0 leaves all alike.

    Returns
    -------
    Tensor of shape (height, width // 2 + 1)
    """
    height, width = shape
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    squares = (rows[:, None].square() + columns.square()) * max(shape) ** 2
    return (1 + squares) ** (-smoothness / 2)


def filtered(images: Tensor, weights: Tensor) -> Tensor:
    """Multiply the spectra of images (B, c, h, w) with weights (h, w // 2 + 1).

    Parameters
    ----------
    images, weights : Tensor

    Returns
    -------
    Tensor of the shape of the images
    """
    size = (images.shape[-2], images.shape[-1])
    return torch.fft.irfft2(torch.fft.rfft2(images) * weights, s=size)


def onto_ball(images: Tensor, norm: float, limits: Limits) -> Tensor:
    """The image of that norm, within limits, that has the largest product with each of `images`.

    Without limits that is the image itself, scaled. With them it is ``clip(s x)``, with the one
    factor s that gives it the norm (the conditions of Karush, Kuhn and Tucker), found by bisection;
    where even the brightest and darkest pixels do not reach the norm, it is these.

    Parameters
    ----------
    images : Tensor of shape (B, c, h, w)
    norm : float
    limits : (Tensor, Tensor), optional
        Lowest and highest values, below and above 0.

    Returns
    -------
    Tensor of this shape
    """
    scaled = images * (norm / length(images).clamp_min(torch.finfo(images.dtype).tiny))
    if limits is None:
        return scaled
    outside = ((scaled < limits[0]) | (scaled > limits[1])).flatten(1).any(1)
    if not outside.any():
        return scaled
    some = scaled[outside]
    smallest = some.abs().flatten(1).amax(1)[:, None, None, None] * 1e-6
    # at the largest factor all but negligible pixels are at a limit
    reach = max(float(limit.abs().max()) for limit in limits)
    low, high = torch.ones_like(smallest), reach / smallest.clamp_min(1e-30)
    for _ in range(_BISECTIONS):
        middle = (low * high).sqrt()
        short = length((middle * some).clamp(*limits)) < norm
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    scaled[outside] = (low * some).clamp(*limits)
    return scaled


def length(images: Tensor) -> Tensor:
    """Euclidean norms (B, 1, 1, 1) of images (B, c, h, w).

    Parameters
    ----------
    images : Tensor

    Returns
    -------
    Tensor
    """
    return images.flatten(1).norm(dim=1)[:, None, None, None]


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)[:, None, None, None]


def _along(images: Tensor, vectors: Tensor) -> Tensor:
    """Vectors without their part that lengthens the image."""
    return vectors - _product(images, vectors) / _product(images, images) * images


class Ascent:
    """Conjugate gradients on a sphere, each image with a step of its own.

    A direction is ``P (g - c x)``, with gradient g, image x, preconditioner P, and c such that it
    keeps the norm. It vanishes where gradient and image are parallel, whatever P: a preconditioner
    changes the way, not the place where it ends. Directions are conjugate (Polak and Ribiere 1969).
    A step that does not raise the value is taken back, and the next one is shorter.

    Parameters
    ----------
    drive : callable
        ``drive(images, which)``: values and gradients of images.
    images : Tensor of shape (B, c, h, w)
        Where to start.
    norm : float
    limits : (Tensor, Tensor), optional
    weights : Tensor
        Of `frequency_weights`.
    which : Tensor of int of shape (B,)
        What `drive` is told of each image.
    """

    def __init__(
        self,
        drive: Drive,
        images: Tensor,
        norm: float,
        limits: Limits,
        weights: Tensor,
        which: Tensor,
    ) -> None:
        self.drive, self.norm, self.limits = drive, norm, limits
        self.weights, self.which = weights, which
        self.images = onto_ball(images, norm, limits)
        self.values, self.gradients = drive(self.images, which)
        self.steps = torch.full_like(length(self.images), 0.5)
        self.failures = torch.zeros_like(self.steps)
        self.directions, self.ahead = self._steepest()
        self.conjugate = self.directions

    def _steepest(self) -> tuple[Tensor, Tensor]:
        """Preconditioned direction, and gradient along the sphere."""
        seen = filtered(self.gradients, self.weights)
        radial = filtered(self.images, self.weights)
        share = _product(self.images, seen) / _product(self.images, radial)
        return seen - share * radial, _along(self.images, self.gradients)

    def step(self) -> None:
        """Take one step with every image."""
        way = self.conjugate / length(self.conjugate).clamp_min(1e-30)
        tried = onto_ball(self.images + self.steps * self.norm * way, self.norm, self.limits)
        values, gradients = self.drive(tried, self.which)
        better = values > self.values
        up = better[:, None, None, None]
        self.values = torch.where(better, values, self.values)
        self.images = torch.where(up, tried, self.images)
        self.gradients = torch.where(up, gradients, self.gradients)
        self.steps = torch.where(up, (self.steps * 1.3).clamp(max=_LONGEST), self.steps * 0.4)
        self.failures = torch.where(up, 0, self.failures + 1)
        directions, ahead = self._steepest()
        scale = _product(self.directions, self.ahead).clamp_min(1e-30)
        change = _product(directions, ahead) - _product(_along(self.images, self.directions), ahead)
        conjugate = directions + (change / scale).clamp(0, 2) * _along(self.images, self.conjugate)
        conjugate = torch.where(_product(conjugate, ahead) > 0, conjugate, directions)
        # At a limit a preconditioned direction may lead nowhere that is allowed.
        simple = directions if self.limits is None else ahead
        stuck = torch.where(self.failures >= 2, simple, self.conjugate)
        self.conjugate = torch.where(up, conjugate, stuck)
        self.directions = torch.where(up, directions, self.directions)
        self.ahead = torch.where(up, ahead, self.ahead)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the images.

        Parameters
        ----------
        rows : Tensor of int
        """
        for name in ("images", "values", "gradients", "steps", "failures", "directions", "ahead"):
            setattr(self, name, getattr(self, name)[rows])
        self.conjugate, self.which = self.conjugate[rows], self.which[rows]
