"""A whole encoding model: cropper, core, and per mouse a readout and perhaps a shifter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from v1tlearn.nn.batches import MouseBatch
from v1tlearn.nn.cores.core import Core
from v1tlearn.nn.drawing import of_mouse
from v1tlearn.nn.heads import EluHead, Head
from v1tlearn.nn.layers.images import ImageCropper
from v1tlearn.nn.layers.parts import parts_around
from v1tlearn.nn.layers.past import Past
from v1tlearn.nn.layers.shifter import Shifter
from v1tlearn.nn.readouts.readout import Readout


class EncodingModel(nn.Module):
    """Predict the responses of several mice through one shared core.

    Parameters
    ----------
    core : Core
    readouts : mapping of str to Readout
        One per mouse, in order.
    cropper : ImageCropper
        Brings stimuli to the size that the core takes.
    shifters : mapping of str to Shifter, optional
        Readout shifters of the mice whose receptive fields move with the eye.
    heads : mapping of str to Head, optional
        Output non-linearities, one per mouse; `EluHead` by default.
    behavior_channels : bool, default=False
        Append behaviour to the image as constant planes instead of passing it to the core.

    Attributes
    ----------
    mice : tuple of str
        Mouse ids, in the order of the readouts.

    Raises
    ------
    ValueError
        If there is no readout, a shifter of a mouse without one, or heads of other mice.
    """

    def __init__(
        self,
        core: Core,
        readouts: Mapping[str, Readout],
        *,
        cropper: ImageCropper,
        shifters: Mapping[str, Shifter] | None = None,
        heads: Mapping[str, Head] | None = None,
        behavior_channels: bool = False,
    ) -> None:
        super().__init__()
        shifters = shifters or {}
        if not readouts:
            raise ValueError("a model needs the readout of at least one mouse, got none.")
        if strangers := [mouse for mouse in shifters if mouse not in readouts]:
            raise ValueError(
                f"shifters came for mice without readout: {strangers}; mice with readout are "
                f"{list(readouts)}."
            )
        heads = heads or {mouse: EluHead() for mouse in readouts}
        if set(heads) != set(readouts):
            raise ValueError(
                f"heads came for the mice {list(heads)}, readouts for {list(readouts)}."
            )
        self.mice = tuple(readouts)
        self.core = core
        self.cropper = cropper
        self.behavior_channels = behavior_channels
        # Lists, not ModuleDicts: a mouse id may hold a dot or be the name of a method.
        self.readouts = nn.ModuleList(readouts.values())
        self.shifters = nn.ModuleList(shifters.values())
        self.heads = nn.ModuleList(heads[mouse] for mouse in readouts)
        self._readout_index = {mouse: i for i, mouse in enumerate(readouts)}
        self._shifter_index = {mouse: i for i, mouse in enumerate(shifters)}

    def readout(self, mouse: str) -> Readout:
        """Readout of a mouse.

        Parameters
        ----------
        mouse : str

        Returns
        -------
        Readout

        Raises
        ------
        ValueError
            If the model does not know the mouse.
        """
        if mouse not in self._readout_index:
            raise ValueError(f"mouse {mouse!r} is unknown; this model has {list(self.mice)}.")
        return cast(Readout, self.readouts[self._readout_index[mouse]])

    def shifter(self, mouse: str) -> Shifter | None:
        """Readout shifter of a mouse.

        Parameters
        ----------
        mouse : str

        Returns
        -------
        Shifter or None
            None where the receptive fields of this mouse do not move.
        """
        index = self._shifter_index.get(mouse)
        return None if index is None else cast(Shifter, self.shifters[index])

    def head(self, mouse: str) -> Head:
        """Output non-linearity of a mouse.

        Parameters
        ----------
        mouse : str

        Returns
        -------
        Head
        """
        return cast(Head, self.heads[self._readout_index[mouse]])

    @property
    def context_frames(self) -> tuple[int, int] | None:
        """Frames before and after a frame that its prediction depends on; None of images alone."""
        parts = [self.core.context_frames, _widest(map(self._readout_context, self.mice))]
        known = [part for part in parts if part is not None]
        return (sum(b for b, _ in known), sum(a for _, a in known)) if known else None

    def _readout_context(self, mouse: str) -> tuple[int, int] | None:
        return self.readout(mouse).context_frames

    def core_penalty(self) -> Tensor:
        """Penalty on the weights of the core; zero if it is frozen.

        Returns
        -------
        Tensor
        """
        penalty = self.core.penalty()
        return torch.zeros_like(penalty) if self.core.frozen else penalty

    def readout_penalty(self, mouse: str) -> Tensor:
        """Penalty on the weights of the readout of one mouse.

        Parameters
        ----------
        mouse : str

        Returns
        -------
        Tensor
        """
        return self.readout(mouse).penalty()

    def core_inputs(self, mouse: str, batch: MouseBatch) -> tuple[Tensor, Tensor | None]:
        """Crop, move and resize images, and give them as the core takes them, with behaviour.

        Parameters
        ----------
        mouse : str
        batch : MouseBatch
            Of images, or of frames on one axis.

        Returns
        -------
        images : Tensor of shape (n_images, n_channels, height, width)
        behaviors : Tensor of shape (n_images, n_behaviors), or None
        """
        moved_by = batch.pupil if batch.shifter_inputs is None else batch.shifter_inputs
        images = self.cropper(batch.images, mouse, moved_by)
        return self._core_arguments(mouse, images, batch.behaviors)

    def _core_arguments(
        self, mouse: str, images: Tensor, behaviors: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Images and behaviour for the core; one that knows what planes are gets numbers."""
        if not self.behavior_channels:
            return images, behaviors
        if behaviors is None:
            raise ValueError(
                f"mouse {mouse!r}: the model takes behaviour as image channels, and no behaviour "
                f"came; pass it for every trial."
            )
        if self.core.takes_planes:
            return images, behaviors
        planes = behaviors.to(images.dtype)[:, :, None, None]
        return torch.cat((images, planes.expand(-1, -1, *images.shape[-2:])), dim=1), None

    def _respond(self, mouse: str, batch: MouseBatch, features: Tensor) -> Tensor:
        """Readout (B, n) of one mouse from its feature maps (B, C, h, w)."""
        shift, shifter = None, self.shifter(mouse)
        if shifter is not None:
            if batch.pupil is None:
                raise ValueError(
                    f"mouse {mouse!r}: the readout shifter needs the pupil centre of each trial, "
                    f"and none came; pass it, or build the model without shift."
                )
            shift = shifter(batch.pupil)
        with of_mouse(mouse):
            return self.readout(mouse)(features, shift)

    def forward(
        self,
        batches: Mapping[str, MouseBatch],
        *,
        activate: bool = True,
        past: Past | None = None,
    ) -> dict[str, Tensor]:
        """Predicted rates (B_m, [T,] n_m) of each mouse in `batches`, in the units of training.

        The images of all mice go through the core at once. Without `activate` the outputs are
        those ahead of the output non-linearity, any real numbers. With a `past`, movies come in
        parts, each behind those that were given with the same one.
        """
        for mouse in batches:
            self.readout(mouse)  # an unknown mouse is named before any work
        n_frames = self._n_frames(batches)
        batches = {mouse: batch.by_frame() for mouse, batch in batches.items()}
        sizes, inputs = [], []
        for mouse, batch in batches.items():
            inputs.append(self.core_inputs(mouse, batch))
            sizes.append((mouse, len(batch.images)))
        images = torch.cat([images for images, _ in inputs])
        given = [values for _, values in inputs if values is not None]
        if given and len(given) < len(inputs):
            missing = [m for m, (_, v) in zip(batches, inputs, strict=True) if v is None]
            raise ValueError(
                f"behaviour came for some mice but not for {missing}; pass it for all or none."
            )
        behaviors = torch.cat(given) if given else None
        features = self._features(images, behaviors, sizes, n_frames, past)  # (sum of B_m T, ...)
        parts = features.split([n for _, n in sizes])
        outputs = {
            mouse: self._respond(mouse, batch, part)
            for (mouse, batch), part in zip(batches.items(), parts, strict=True)
        }
        return self._rates(outputs, n_frames, activate=activate, past=past)

    def _rates(
        self, outputs: dict[str, Tensor], n_frames: int | None, *, activate: bool, past: Past | None
    ) -> dict[str, Tensor]:
        """Rates (B_m, [T,] n_m) of what readouts gave of images, or of frames on one axis."""
        if n_frames is not None:
            outputs = {
                mouse: self.readout(mouse).through_time(x.unflatten(0, (-1, n_frames)), past)
                for mouse, x in outputs.items()
            }
        return {m: self.head(m)(x) for m, x in outputs.items()} if activate else outputs

    def _n_frames(self, batches: Mapping[str, MouseBatch]) -> int | None:
        """Frames of all movies; None of images, which a model that sees time refuses."""
        counts = {mouse: batch.n_frames for mouse, batch in batches.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"movies of all mice must have as many frames, got {counts}.")
        n_frames = next(iter(counts.values()))
        if n_frames is None:
            self._refuse_images()
        return n_frames

    def _refuse_images(self) -> None:
        if self.context_frames is not None:
            raise ValueError(
                "this model sees time: give movies (n_movies, n_frames, channels, height, width), "
                "not images, to the model itself."
            )

    def _features(
        self,
        images: Tensor,
        behaviors: Tensor | None,
        sizes: list[tuple[str, int]],
        n_frames: int | None,
        past: Past | None,
    ) -> Tensor:
        """Feature maps of images, or of the frames of movies, which lie on one axis."""
        if self.core.context_frames is None or n_frames is None:
            return self.core(images, behaviors, sizes)
        images = images.unflatten(0, (-1, n_frames))
        behaviors = None if behaviors is None else behaviors.unflatten(0, (-1, n_frames))
        sizes = [(mouse, n // n_frames) for mouse, n in sizes]
        given = {} if past is None else {"past": past}
        return self.core(images, behaviors, sizes, **given).flatten(0, 1)

    def encode(self, mouse: str, images: Tensor, behaviors: Tensor | None = None) -> Tensor:
        """Feature maps of images, or frames of movies, that are cropped and resized already.

        Where no behaviour enters the core, they are the same for every mouse.

        Parameters
        ----------
        mouse : str
            Whose behaviour this is.
        images : Tensor of shape (n_images, [n_frames,] n_channels, height, width)
            Standardised, of the size that the cropper gives.
        behaviors : Tensor of shape (n_images, [n_frames,] n_behaviors), optional
            Standardised.

        Returns
        -------
        Tensor of shape (n_images, [n_frames,] channels, height, width)
            What `respond` reads.

        Raises
        ------
        ValueError
            If behaviour is missing, the images have another size, or images come to a model that
            sees time.
        """
        batch = MouseBatch(images, behaviors)
        n_frames = self._n_frames({mouse: batch})
        images, behaviors = self._core_arguments(mouse, *batch.by_frame()[:2])
        features = self._features(images, behaviors, [(mouse, len(images))], n_frames, None)
        return features if n_frames is None else features.unflatten(0, (-1, n_frames))

    def respond(
        self, mouse: str, features: Tensor, pupil: Tensor | None = None, *, activate: bool = True
    ) -> Tensor:
        """Predict the rates of one mouse from feature maps.

        Parameters
        ----------
        mouse : str
            Mouse id.
        features : Tensor of shape (n_images, [n_frames,] channels, height, width)
            From `encode`.
        pupil : Tensor of shape (n_images, [n_frames,] 2), optional
            Standardised pupil centre; without it receptive fields stay where they are.
        activate : bool, default=True
            Apply the output non-linearity.

        Returns
        -------
        Tensor of shape (n_images, [n_frames,] n_neurons)
            In the units of training.

        Raises
        ------
        ValueError
            If features of images come to a model that sees time.
        """
        batch = MouseBatch(features, pupil=pupil)
        n_frames = self._n_frames({mouse: batch})
        maps, _, pupil, *_ = batch.by_frame()
        shifter = None if pupil is None else self.shifter(mouse)
        outputs = self.readout(mouse)(maps, None if shifter is None else shifter(pupil))
        return self._rates({mouse: outputs}, n_frames, activate=activate, past=None)[mouse]

    def respond_each(
        self,
        mouse: str,
        features: Tensor,
        neurons: Tensor,
        pupil: Tensor | None = None,
        *,
        activate: bool = True,
    ) -> Tensor:
        """Predict the rate of one neuron for each feature map: only that one is read, if possible.

        Parameters
        ----------
        mouse, features
            As of `respond`.
        neurons : Tensor of int of shape (n_images,)
        pupil, activate
            As of `respond`.

        Returns
        -------
        Tensor of shape (n_images,)
            Of `respond` the entries (i, neurons[i]).
        """
        self._refuse_images()
        head = self.head(mouse)
        if activate and not head.increasing:  # which may know neurons by their places
            return self.respond(mouse, features, pupil).gather(1, neurons[:, None])[:, 0]
        shifter = None if pupil is None else self.shifter(mouse)
        shift = None if shifter is None else shifter(pupil)
        outputs = self.readout(mouse).read_each(features, neurons, shift)
        return head(outputs) if activate else outputs

    def respond_to_each(
        self,
        mouse: str,
        images: Tensor,
        neurons: Tensor,
        behaviors: Tensor | None = None,
        pupil: Tensor | None = None,
        *,
        activate: bool = True,
    ) -> Tensor:
        """Predict the rate of one neuron for each image, from the part that it sees, if possible.

        `encode` and `respond_each` give the same, but for rounding errors.

        Parameters
        ----------
        mouse, images
            As of `encode`.
        neurons
            As of `respond_each`.
        behaviors
            As of `encode`.
        pupil, activate
            As of `respond_each`.

        Returns
        -------
        Tensor of shape (n_images,)
        """
        self._refuse_images()
        shifter = None if pupil is None else self.shifter(mouse)
        readout, seen, head = self.readout(mouse), self.core.seen(), self.head(mouse)
        points = readout.points_each(neurons, None if shifter is None else shifter(pupil))
        whole = self.training or (activate and not head.increasing)
        if whole or seen is None or points is None:
            features = self.encode(mouse, images, behaviors)
            return self.respond_each(mouse, features, neurons, pupil, activate=activate)
        images, behaviors = self._core_arguments(mouse, images, behaviors)
        _, height, width = self.core.output_shape
        parts, points = parts_around(images, points, (height, width), seen)
        outputs = readout.read_at(self.core.of_parts(parts, behaviors), points, neurons)
        return head(outputs) if activate else outputs


def _widest(contexts: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    known = [context for context in contexts if context is not None]
    return (max(b for b, _ in known), max(a for _, a in known)) if known else None
