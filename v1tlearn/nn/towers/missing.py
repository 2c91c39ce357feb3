"""Towers that are not there: of an alignment whose other tower alone has weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.towers.neural import NeuralTower


class MissingTowerError(ValueError):
    """An alignment lacks the tower that is asked for."""


class MissingImageTower(Core):
    """Stands for the image tower of an alignment that has none, and has no weights.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of images.
    map_shape : tuple of int
        Channels, height and width of the maps of the neural towers.
    """

    missing = (
        "this alignment has no image tower, so that images have no maps in it: load_dina opens "
        "one from image_state=..., beside neural_state; to train one, fit anew with another "
        "image_tower."
    )

    def __init__(self, input_shape: Sequence[int], map_shape: Sequence[int]) -> None:
        super().__init__(input_shape)
        channels, height, width = map_shape
        self.output_shape = (int(channels), int(height), int(width))

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Raise: images have no maps."""
        raise MissingTowerError(self.missing)


class MissingNeuralTower(NeuralTower):
    """Stands for the neural tower of an animal that has none, and has no weights.

    Parameters
    ----------
    n_neurons : int
        0: nothing is known of them.
    map_shape : tuple of int
        Channels, height and width of the maps of the image tower.
    """

    missing = (
        "this alignment has no neural tower, so that responses have no maps in it: load_dina opens "
        "one from neural_state=..., beside image_state; to train one, fit anew with another "
        "neural_tower."
    )

    def forward(self, responses: Tensor) -> Tensor:
        """Raise: responses have no maps."""
        raise MissingTowerError(self.missing)

    def penalty(self) -> Tensor:
        """Raise: there is nothing to train."""
        raise MissingTowerError(self.missing)


def check_towers(*towers: nn.Module) -> None:
    """Check that towers are there.

    Parameters
    ----------
    *towers : Module

    Raises
    ------
    MissingTowerError
        If one is not; how to get it is said.
    """
    for tower in towers:
        if isinstance(tower, MissingImageTower | MissingNeuralTower):
            raise MissingTowerError(tower.missing)
