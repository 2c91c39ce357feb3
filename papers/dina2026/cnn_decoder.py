"""
The CNN decoder: from responses to pixels, trained on the squared error.

It is an alignment, too, with an image tower that leaves images as they are: so it is trained,
saved and measured as DINA is, and finds images by the correlation of their pixels with those that
it decodes.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

import v1tlearn as v1


class PixelTower(v1.nn.Core):
    """Maps that are the standardised images."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__(input_shape)
        self.output_shape = self.input_shape

    def forward(self, images: Tensor, behaviors: Any = None, sizes: Any = None) -> Tensor:
        """Return images (B, C, H, W) as they are."""
        return images


class ConvolutionalTower(v1.nn.NeuralTower):
    """Fully connected to a coarse map, which is twice enlarged and convolved.

    Parameters
    ----------
    n_neurons : int
    map_shape : (int, int, int)
        Channels, height and width of the images.
    channels, hidden : int
        Of the maps on the way, and units ahead of them.
    dropout : float
        Probability of a neuron and of a hidden unit in training.
    """

    def __init__(
        self,
        n_neurons: int,
        map_shape: Sequence[int],
        channels: int = 16,
        hidden: int = 256,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(n_neurons, map_shape)
        out, height, width = self.map_shape
        self.sizes = [(-(-height // n), -(-width // n)) for n in (4, 2, 1)]
        coarse = (channels, *self.sizes[0])
        self.units = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(n_neurons, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels * self.sizes[0][0] * self.sizes[0][1]),
            nn.ReLU(),
            nn.Unflatten(1, coarse),
        )
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, responses: Tensor) -> Tensor:
        """Images (B, C, H, W) from scaled responses (B, n_neurons)."""
        maps = self.units(responses)  # (B, channels, H / 4, W / 4)
        maps = F.relu(self.first(F.interpolate(maps, self.sizes[1], mode="bilinear")))
        return self.last(F.interpolate(maps, self.sizes[2], mode="bilinear"))


def make_decoder(image_size: tuple[int, int], **parameters: Any) -> v1.DINAAligner:
    """Make the unfitted decoder of images (height, width), known up to their mean grey level."""
    return v1.DINAAligner(
        PixelTower,
        neural_tower=ConvolutionalTower,
        train_image_tower=False,
        image_size=image_size,
        map_scale="center",
        loss_weights=(0.0, 1.0, 0.0),
        learn_temperature=False,
        selection="loss",
        neural_lr=2e-3,
        **parameters,
    )


def decoded_images(decoder: v1.DINAAligner, trials: v1.Trials) -> xr.DataArray:
    """Give the images that a fitted decoder makes of trials of its mouse, in grey levels.

    Returns
    -------
    DataArray (trial, channel, height, width)
    """
    (mouse,) = decoder.mice_
    known = decoder.statistics_[mouse]
    return decoder.transform_responses(trials) * known["image_std"] + known["image_mean"]
