"""Receptive fields from noise: sums of responses, pixels and their products, of any many images.

Of models that see time images are frames of movies, and sums are those of each lag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from v1tlearn.inspection._field_inputs import Frames, Group, rows_of
from v1tlearn.nn import EncodingModel
from v1tlearn.training.devices import autocast

NOISE = ("uniform", "gaussian")

_CHUNK = 512  # images of one matrix product of responses and noise
_UNIFORM_MEAN, _UNIFORM_STD = 0.5, 12**-0.5


class Noise(NamedTuple):
    """Images of independent pixels, of mean 0 and variance 1.

    Attributes
    ----------
    kind : {"uniform", "gaussian"}
    n_images : int
    shape : (int, int, int)
        Channels, height and width.
    seed : int
    """

    kind: str
    n_images: int
    shape: tuple[int, int, int]
    seed: int

    def draw(self, device: torch.device, around: int = 0) -> Iterator[Tensor]:
        """Draw some images at a time, always cut in the same way.

        Parameters
        ----------
        device : torch.device
        around : int, default=0
            Frames that are drawn besides, each time, for those ahead of the others and behind them.

        Yields
        ------
        Tensor of shape (n_images + around, channels, height, width)
        """
        generator = torch.Generator(device).manual_seed(self.seed)
        for start in range(0, self.n_images, _CHUNK):
            size = (min(_CHUNK, self.n_images - start) + around, *self.shape)
            if self.kind == "gaussian":
                yield torch.randn(size, generator=generator, device=device, dtype=torch.float32)
            else:
                grey = torch.rand(size, generator=generator, device=device, dtype=torch.float32)
                yield grey.sub_(_UNIFORM_MEAN).div_(_UNIFORM_STD)


class Sums:
    """Running sums over images of one mouse's responses, the pixels and their products.

    Parameters
    ----------
    noise : Noise
        What will be added up, all of it.
    n_neurons : int
    device : torch.device
    frames : Frames, optional
        Of a model that sees time.
    """

    def __init__(
        self, noise: Noise, n_neurons: int, device: torch.device, frames: Frames | None = None
    ) -> None:
        self.noise, n_pixels = noise, int(np.prod(noise.shape))
        self.frames = frames
        n_lags = 1 if frames is None else frames.n_lags
        # Apple's GPUs have no float64.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.products = self._zeros(n_neurons, n_lags, n_pixels)
        self.responses, self.pixels = self._zeros(n_neurons), self._zeros(n_lags, n_pixels)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def add(self, responses: Tensor, images: Tensor) -> None:
        """Add responses to images.

        Parameters
        ----------
        responses : Tensor of shape (n_images, n_neurons)
            Float32.
        images : Tensor of shape (n_images, channels, height, width)
            Float32; or frames, with those ahead of the first response and behind the last one.
        """
        pixels = images.flatten(1)
        ahead = 0 if self.frames is None else self.frames.ahead
        for lag in range(len(self.pixels)):
            shown = pixels[ahead - lag : ahead - lag + len(responses)]
            self.products[:, lag] += (responses.T @ shown).to(self.device)
            self.pixels[lag] += shown.sum(0).to(self.device)
        self.responses += responses.sum(0).to(self.device)

    def fields(self, method: str) -> np.ndarray:
        """Receptive fields in standardised units of responses.

        Parameters
        ----------
        method : {"covariance", "sum"}

        Returns
        -------
        ndarray of shape (n_neurons, [n_lags,] n_pixels)
            Float64.
        """
        responses, n = self.responses[:, None, None], self.noise.n_images
        if method == "covariance":
            found = self.products / n - responses * self.pixels / n**2
        elif self.noise.kind == "uniform":
            found = self.products * _UNIFORM_STD + responses * _UNIFORM_MEAN
        else:
            found = self.products
        values = found.cpu().numpy()
        return values[:, 0] if self.frames is None else values


def noise_sums(
    model: EncodingModel,
    places: Mapping[str, np.ndarray],
    groups: list[Group],
    noise: Noise,
    size: int,
    precision: str,
    *,
    frames: Frames | None = None,
    verbose: int = 0,
) -> dict[str, Sums]:
    """Let all mice respond to noise, which nobody keeps.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    places : mapping of str to ndarray of int
        Of the neurons that count, by mouse.
    groups : list of (behaviour, mice)
    noise : Noise
    size : int
        Images that go through the core at once.
    precision : {"float32", "tf32", "bfloat16"}
    frames : Frames, optional
        Of a model that sees time.
    verbose : int, default=0

    Returns
    -------
    dict of str to Sums
    """
    device = next(model.parameters()).device
    sums = {mouse: Sums(noise, len(own), device, frames) for mouse, own in places.items()}
    chosen = {
        mouse: torch.as_tensor(own, device=device)
        for mouse, own in places.items()
        if len(own) < model.readout(mouse).n_neurons or (np.diff(own) < 0).any()
    }
    bar = tqdm(total=noise.n_images, desc="receptive fields", unit="image", disable=not verbose)
    around = 0 if frames is None else frames.ahead + frames.after
    respond = _respond if frames is None else partial(_respond_in_time, frames)
    with torch.inference_mode(), bar:
        for images in noise.draw(device, around):
            for behavior, together in groups:
                responses = respond(model, together, images, behavior, size, precision)
                for mouse, values in responses.items():
                    some = values[:, chosen[mouse]] if mouse in chosen else values
                    sums[mouse].add(some, images)
            bar.update(len(images) - around)
    return sums


def _respond(
    model: EncodingModel,
    mice: list[str],
    images: Tensor,
    behavior: np.ndarray | None,
    size: int,
    precision: str,
) -> dict[str, Tensor]:
    """Standardised responses (B, n) of mice that share the core pass, float32."""
    parts: dict[str, list[Tensor]] = {mouse: [] for mouse in mice}
    with autocast(precision, images.device):
        for batch in images.split(size):
            features = model.encode(mice[0], batch, rows_of(behavior, batch))
            for mouse, found in parts.items():
                found.append(model.respond(mouse, features).float())
    return {mouse: torch.cat(found) for mouse, found in parts.items()}


def _respond_in_time(
    frames: Frames,
    model: EncodingModel,
    mice: list[str],
    images: Tensor,
    behavior: np.ndarray | None,
    size: int,
    precision: str,
) -> dict[str, Tensor]:
    """Standardised responses (B, n) to frames (ahead + B + after, c, h, w) of a movie, float32."""
    parts: dict[str, list[Tensor]] = {mouse: [] for mouse in mice}
    _, before, after = frames
    size, stop = max(size, before + after), len(images) - after
    with autocast(precision, images.device):
        for start in range(frames.ahead, stop, size):
            last = min(start + size, stop)
            movie = images[None, start - before : last + after]
            features = model.encode(mice[0], movie, rows_of(behavior, movie))
            for mouse, found in parts.items():
                outputs = model.respond(mouse, features)[0]
                found.append(outputs[before : before + last - start].float())
    return {mouse: torch.cat(found) for mouse, found in parts.items()}
