"""How probable images are after responses, and its gradient: a prior, and the model's likelihood.

Tensors on the device of the model; from estimators to these is in `reconstruction`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from v1tlearn.decoding.prior import ImagePrior
from v1tlearn.nn import EncodingModel
from v1tlearn.nn.batches import MouseBatch

LIKELIHOODS = ("gaussian", "poisson")
LEAST_RATE = 1e-6  # whose logarithm is taken; rates of most heads are above 0 anyway


@dataclass(frozen=True)
class Observed:
    """Responses of one mouse that some images are to explain.

    Attributes
    ----------
    mouse : str
    responses : Tensor of shape (n_trials, n_neurons)
        In the units of the training; NaN where not recorded.
    items : Tensor of int of shape (n_trials,)
        Which image each trial showed.
    behavior : tuple of (Tensor or None)
        Standardised behaviour of the core, pupil, and what moves the stimulus, of the trials, as in
        `MouseBatch`.
    image_mean, image_std : float
        What images are standardised with.
    scale : Tensor of shape (n_neurons,)
        Responses per unit of the training.
    noise : Tensor of shape (n_neurons,)
        Standard deviation of the noise, in the units of the training.
    """

    mouse: str
    responses: Tensor
    items: Tensor
    behavior: tuple[Tensor | None, Tensor | None, Tensor | None]
    image_mean: float
    image_std: float
    scale: Tensor
    noise: Tensor

    def of(self, first: int, last: int) -> Observed | None:
        """Give the trials of some of the images, numbered anew; None where there are none."""
        at = (self.items >= first) & (self.items < last)
        if not at.any():
            return None
        behavior = tuple(None if part is None else part[at] for part in self.behavior)
        return Observed(
            self.mouse,
            self.responses[at],
            self.items[at] - first,
            (behavior[0], behavior[1], behavior[2]),
            self.image_mean,
            self.image_std,
            self.scale,
            self.noise,
        )


class Coloring:
    """From white noise to images of a prior, and back for gradients by autograd."""

    def __init__(self, prior: ImagePrior, device: torch.device) -> None:
        self.shape = prior.image_shape
        self.mean = torch.as_tensor(prior.mean, dtype=torch.float32, device=device)
        power = torch.as_tensor(prior.power, dtype=torch.float32, device=device)
        self.amplitude = power.sqrt()

    def __call__(self, white: Tensor) -> Tensor:
        """Images (n, channels, height, width) of white noise (n, pixels)."""
        spectrum = torch.fft.rfft2(white.reshape(-1, *self.shape), norm="ortho")
        coloured = torch.fft.irfft2(spectrum * self.amplitude, s=self.shape[1:], norm="ortho")
        return coloured + self.mean[:, None, None]


class Posterior:
    """Negative log probability of white noise, up to a constant, given responses."""

    def __init__(
        self,
        model: EncodingModel,
        coloring: Coloring,
        observed: list[Observed],
        likelihood: str,
    ) -> None:
        self.model, self.coloring = model, coloring
        self.observed, self.likelihood = observed, likelihood

    def __call__(self, white: Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) in float64, and gradients (n, pixels), of white noise (n, pixels)."""
        with torch.enable_grad():
            white = white.detach().requires_grad_()
            images = self.coloring(white)
            total = white.square().sum(1, dtype=torch.float64) / 2
            for one in self.observed:
                total = total.index_add(0, one.items, self._surprise(one, images))
            (gradients,) = torch.autograd.grad(total.sum(), white)
        return total.detach(), gradients

    def _surprise(self, one: Observed, images: Tensor) -> Tensor:
        """Negative log likelihood (trials,) of the responses of a mouse."""
        shown = (images[one.items] - one.image_mean) / one.image_std
        rates = self.model({one.mouse: MouseBatch(shown, *one.behavior)})[one.mouse]
        recorded = ~one.responses.isnan()
        responses = torch.where(recorded, one.responses, 0)
        if self.likelihood == "gaussian":
            terms = ((responses - rates) / one.noise).square() / 2
        else:
            expected = (rates * one.scale).clamp(min=LEAST_RATE)
            terms = expected - responses * one.scale * expected.log()
        return torch.where(recorded, terms, 0).sum(1, dtype=torch.float64)
