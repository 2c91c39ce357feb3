"""A whole alignment: one image tower, and per mouse a neural tower, to maps of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.contrastive import scale_maps
from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.drawing import of_mouse
from v1tlearn.nn.layers.images import ImageCropper
from v1tlearn.nn.precision import at_least_float32
from v1tlearn.nn.towers.missing import check_towers
from v1tlearn.nn.towers.neural import NeuralTower
from v1tlearn.nn.towers.pretrained import PretrainedTower

_LEAST_TEMPERATURE = 0.01  # of a learned one, as of Radford et al. (2021)


class ResponseScaler(nn.Module):
    """Bring responses to a common range, and missing ones to the mean.

    Parameters
    ----------
    low, high : Tensor of shape (n_neurons,)
        Responses that become 0 and 1.
    mean : Tensor of shape (n_neurons,)
        Taken for a response that was not recorded.
    clip : bool, default=False
        Whether responses beyond become 0 or 1, too.

    Notes
    -----
    A neuron whose `low` and `high` are one becomes 0.
    """

    low: Tensor
    high: Tensor
    mean: Tensor

    def __init__(self, low: Tensor, high: Tensor, mean: Tensor, *, clip: bool = False) -> None:
        super().__init__()
        self.clip = clip
        for name, values in (("low", low), ("high", high), ("mean", mean)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, responses: Tensor, recorded: Tensor | None = None) -> Tensor:
        """Scaled responses (B, N) of responses (B, N) and which were recorded."""
        if recorded is not None:
            responses = torch.where(recorded, responses, self.mean)
        span = self.high - self.low
        scaled = (responses - self.low) / torch.where(span == 0, 1, span)
        scaled = torch.where(span == 0, 0, scaled)
        return scaled.clamp(0, 1) if self.clip else scaled


class AlignmentModel(nn.Module):
    """Bring images and the responses to them to maps of one shape.

    Parameters
    ----------
    core : Core
        The image tower, which all mice share; its feature maps are those of the alignment.
    readouts : mapping of str to NeuralTower
        The neural tower of each mouse, in order; their maps have the shape of the core's.
    cropper : ImageCropper
        Brings stimuli to the size that the core takes.
    scalers : mapping of str to ResponseScaler, optional
        What responses are scaled with ahead of the neural towers; by default they are not.
    map_scale : {"minmax", "center", "none"}, default="minmax"
        See `scale_maps`.
    temperature : float, default=0.01
        Of the contrastive loss.
    learn_temperature : bool, default=False
        Whether it is trained; a learned one is at least 0.01.

    Attributes
    ----------
    mice : tuple of str
        Mouse ids, in the order of the readouts.

    Raises
    ------
    ValueError
        If there is no neural tower, maps differ in shape, or scalers came for other mice.
    """

    def __init__(
        self,
        core: Core,
        readouts: Mapping[str, NeuralTower],
        *,
        cropper: ImageCropper,
        scalers: Mapping[str, ResponseScaler] | None = None,
        map_scale: str = "minmax",
        temperature: float = 0.01,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        if not readouts:
            raise ValueError("an alignment needs the neural tower of at least one mouse, got none.")
        for mouse, tower in readouts.items():
            if tuple(tower.map_shape) != tuple(core.output_shape):
                raise ValueError(
                    f"mouse {mouse!r}: its neural tower gives maps of shape {tower.map_shape}, the "
                    f"image tower {core.output_shape}: expected one shape."
                )
        if scalers is not None and list(scalers) != list(readouts):
            raise ValueError(
                f"scalers came for the mice {list(scalers)}, neural towers for {list(readouts)}."
            )
        self.mice = tuple(readouts)
        self.core, self.cropper, self.map_scale = core, cropper, map_scale
        # Lists, not ModuleDicts: a mouse id may hold a dot or be the name of a method.
        self.readouts = nn.ModuleList(readouts.values())
        self.scalers = nn.ModuleList([] if scalers is None else scalers.values())
        self._index = {mouse: i for i, mouse in enumerate(readouts)}
        self.learn_temperature = learn_temperature
        self.log_temperature = nn.Parameter(
            torch.tensor(float(temperature)).log(), requires_grad=learn_temperature
        )

    @property
    def temperature(self) -> Tensor:
        """What cosines are divided by, a scalar."""
        temperature = self.log_temperature.exp()
        return temperature.clamp(min=_LEAST_TEMPERATURE) if self.learn_temperature else temperature

    def readout(self, mouse: str) -> NeuralTower:
        """Neural tower of a mouse.

        Parameters
        ----------
        mouse : str

        Returns
        -------
        NeuralTower

        Raises
        ------
        ValueError
            If the model does not know the mouse.
        """
        if mouse not in self._index:
            raise ValueError(f"mouse {mouse!r} is unknown; this model has {list(self.mice)}.")
        return cast(NeuralTower, self.readouts[self._index[mouse]])

    def forward(self, batches: Mapping[str, MouseBatch]) -> dict[str, Tensor]:
        """Maps (B_m, c, h, w) of the images of each mouse, scaled; all pass at once."""
        images = [self.cropper(batch.images, mouse, None) for mouse, batch in batches.items()]
        sizes = [(mouse, len(own)) for mouse, own in zip(batches, images, strict=True)]
        maps = self.scaled_maps(self.core(torch.cat(images), None, sizes))
        return dict(zip(batches, maps.split([n for _, n in sizes]), strict=True))

    def scaled_maps(self, maps: Tensor) -> Tensor:
        """Scale maps that a tower gave, in float32 at least.

        Parameters
        ----------
        maps : Tensor of shape (n, channels, height, width)

        Returns
        -------
        Tensor of this shape
        """
        maps = at_least_float32(maps)
        with torch.autocast(maps.device.type, enabled=False):
            return scale_maps(maps, self.map_scale)

    def encode_images(self, images: Tensor) -> Tensor:
        """Maps of images.

        Parameters
        ----------
        images : Tensor of shape (n_images, n_channels, height, width)
            Standardised.

        Returns
        -------
        Tensor of shape (n_images, channels, height, width)
            Scaled.
        """
        return self.forward({self.mice[0]: MouseBatch(images)})[self.mice[0]]

    def encode_responses(
        self, mouse: str, responses: Tensor, recorded: Tensor | None = None
    ) -> Tensor:
        """Maps of responses.

        Parameters
        ----------
        mouse : str
        responses : Tensor of shape (n_trials, n_neurons)
            In the units of the scaler.
        recorded : Tensor of bool of this shape, optional
            Which were recorded; all, by default.

        Returns
        -------
        Tensor of shape (n_trials, channels, height, width)
            Scaled.

        Raises
        ------
        ValueError
            If the model does not know the mouse.
        MissingTowerError
            If it has no neural tower.
        """
        responses = self.scale_responses(mouse, responses, recorded)
        with of_mouse(mouse):
            return self.scaled_maps(self.readout(mouse)(responses))

    def scale_responses(
        self, mouse: str, responses: Tensor, recorded: Tensor | None = None
    ) -> Tensor:
        """Responses as the neural tower of a mouse takes them.

        Parameters
        ----------
        mouse : str
        responses : Tensor of shape (n_trials, n_neurons)
            In the units of the scaler.
        recorded : Tensor of bool of this shape, optional
            Which were recorded; all, by default.

        Returns
        -------
        Tensor of shape (n_trials, n_neurons)

        Raises
        ------
        ValueError
            If the model does not know the mouse.
        MissingTowerError
            If it has no neural tower.
        """
        check_towers(self.readout(mouse))  # ahead of the scaler, which knows no neuron then
        return self.scalers[self._index[mouse]](responses, recorded) if self.scalers else responses

    def core_penalty(self) -> Tensor:
        """Penalty on the weights of the image tower; zero if it is frozen.

        Returns
        -------
        Tensor
            Scalar.
        """
        penalty = self.core.penalty()
        return torch.zeros_like(penalty) if self.core.frozen else penalty

    def readout_penalty(self, mouse: str) -> Tensor:
        """Penalty on the weights of the neural tower of one mouse.

        Parameters
        ----------
        mouse : str

        Returns
        -------
        Tensor
            Scalar.
        """
        return self.readout(mouse).penalty()


class FeatureAlignment(AlignmentModel):
    """An alignment whose batches bring feature maps of a transformer in place of images.

    All modules are shared with the model that it is made of.

    Parameters
    ----------
    model : AlignmentModel
        Whose image tower is a `PretrainedTower`.
    """

    core: PretrainedTower

    def __init__(self, model: AlignmentModel) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(vars(model))

    def forward(self, batches: Mapping[str, MouseBatch]) -> dict[str, Tensor]:
        """Maps (B_m, c, h, w) of each mouse, of features ``(B_m, *core.features.output_shape)``."""
        return {m: self.scaled_maps(self.core.maps(own.images)) for m, own in batches.items()}
