"""From the grey levels of a recording to the pixels that a pretrained network was trained on."""

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LEAST_RANGE = 1e-8  # of an image, as published


class Pixels(nn.Module):
    """Three channels, in the range that a network trained on ImageNet expects.

    Parameters
    ----------
    n_channels : int
        Of the images, 1 or 3; a single one is repeated.
    scaling : {"per_image", "recording"}, default="per_image"
        "per_image" brings the values of each image to the range from 0 to 1, which takes its mean
        luminance and its contrast away, and then standardises with the statistics of ImageNet;
        "recording" leaves images as they come, standardised with the recording's statistics.

    Raises
    ------
    ValueError
        If images have another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_channels: int, scaling: str = "per_image") -> None:
        super().__init__()
        if n_channels not in (1, 3):
            raise ValueError(
                f"images have {n_channels} channels: a pretrained backbone takes 1, which is "
                "repeated, or 3 (red, green, blue). Grayscale makes one of several."
            )
        self.scaling = scaling
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (B, 3, h, w) of images (B, 1 or 3, h, w)."""
        if self.scaling == "recording":
            return images.expand(-1, 3, -1, -1)
        lowest = images.amin((1, 2, 3), keepdim=True)
        extent = images.amax((1, 2, 3), keepdim=True) - lowest
        return ((images - lowest) / extent.clamp(min=_LEAST_RANGE) - self.mean) / self.std
