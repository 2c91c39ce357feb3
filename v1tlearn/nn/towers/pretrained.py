"""A pretrained vision transformer as image tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.cores.pretrained import PretrainedViTCore
from v1tlearn.nn.layers.images import resize


class PretrainedTower(Core):
    """Tokens of a pretrained vision transformer, projected to maps by one 1 x 1 convolution.

    Parameters
    ----------
    features : PretrainedViTCore
        The transformer, frozen or fine-tuned; see its `fine_tune`.
    map_shape : tuple of int, default=(64, 32, 32)
        Channels, height and width of the maps. The grid of patches is resized to it.
    backbone_lr : float, optional
        Learning rate of what is fine-tuned, where it differs from that of the projection.

    Attributes
    ----------
    features : PretrainedViTCore
    project : torch.nn.Conv2d

    Raises
    ------
    ValueError
        If only class tokens are read, which have no place in the image.
    """

    def __init__(
        self,
        features: PretrainedViTCore,
        map_shape: Sequence[int] = (64, 32, 32),
        *,
        backbone_lr: float | None = None,
    ) -> None:
        super().__init__(features.input_shape)
        if features.tokens == "cls":
            raise ValueError(
                "the features are class tokens alone, tokens='cls', which have no place in the "
                "image, so that maps of them are flat: use tokens='patch' or 'both'."
            )
        channels, height, width = map_shape
        self.output_shape = (int(channels), int(height), int(width))
        self.features, self.backbone_lr = features, backbone_lr
        self.project = nn.Conv2d(features.output_shape[0], self.output_shape[0], 1)

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Maps (B, c, h, w) of images (B, C, H, W)."""
        return self.maps(self.features(images))

    def maps(self, tokens: Tensor) -> Tensor:
        """Project the feature maps of the transformer.

        Parameters
        ----------
        tokens : Tensor
            Of shape ``(n_images, *features.output_shape)``.

        Returns
        -------
        Tensor
            Of shape ``(n_images, *output_shape)``.
        """
        return resize(self.project(tokens), self.output_shape[1:])

    def freeze(self, what: str | int = "all") -> None:
        """Keep the tower as it is from now on, see `v1tlearn.nn.Core.freeze`.

        Parameters
        ----------
        what : "all", default="all"
        """
        super().freeze(what)
        self.features.freeze(what)

    def recomputed_parts(self) -> list[nn.Module]:
        """Parts whose activations may be computed again.

        Returns
        -------
        list of Module
            The blocks, where any is fine-tuned.
        """
        return self.features.recomputed_parts()

    def largest_output(self) -> int:
        """Values of the widest layer for an image, of which the transformer has most.

        Returns
        -------
        int
        """
        return max(super().largest_output(), self.features.largest_output())

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser, in groups.

        Returns
        -------
        list of dict
            What is fine-tuned, with its own learning rate and weight decay where there are such;
            and the projection.
        """
        own = {} if self.backbone_lr is None else {"lr": self.backbone_lr}
        groups = [group | own for group in self.features.groups()]
        projection = [p for p in self.project.parameters() if p.requires_grad]
        return [*groups, {"params": projection}] if projection else groups
