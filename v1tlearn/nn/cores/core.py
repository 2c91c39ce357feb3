"""The contract of a core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from v1tlearn.nn.layers.parts import Seen


class Core(nn.Module):
    """What the animals of a model share: from images to feature maps.

    A core of your own derives from this class, sets `output_shape`, and says in
    ``forward(images, behaviors=None, sizes=None)`` what it computes. All else has a default.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of the images; planes of behaviour count as channels.

    Attributes
    ----------
    input_shape : tuple of int
    output_shape : tuple of int
        Channels, height and width of the feature maps.
    takes_planes : bool
        Whether behaviour that is to be channels of the image may come as numbers: then
        ``behaviors`` of shape (n_images, n_planes) come with images that lack these channels.
    recomputes_on_cpu : bool
        Whether its backward pass computes activations again on a CPU, whatever is asked for.
    needs_contrast : bool
        Whether it scales what it sees by the contrast of each image or patch, so that it has no
        gradient at grey.
    frozen : bool
        Whether `freeze` was called.
    context_frames : (int, int) or None
        None for a core that sees images, and movies frame by frame. One that sees time says how
        many frames before and after a frame its features depend on: in training, frames that lack
        some of these within their window do not count in the loss, but for those that the movie
        itself lacks. A memory that never ends says from when on it counts.

    Examples
    --------
    >>> import torch
    >>> from v1tlearn import nn
    >>> class Lines(nn.Core):
    ...     def __init__(self, input_shape, channels=4):
    ...         super().__init__(input_shape)
    ...         self.filters = torch.nn.Conv2d(input_shape[0], channels, (1, 5))
    ...         self.output_shape = (channels, input_shape[1], input_shape[2] - 4)
    ...     def forward(self, images, behaviors=None, sizes=None):
    ...         return torch.nn.functional.softplus(self.filters(images))
    >>> core = Lines((1, 36, 64))
    >>> core(torch.zeros(2, 1, 36, 64)).shape[1:] == core.output_shape
    True
    """

    takes_planes: ClassVar[bool] = False
    recomputes_on_cpu: ClassVar[bool] = False

    needs_contrast: bool = False
    context_frames: tuple[int, int] | None = None
    output_shape: tuple[int, int, int]

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.input_shape = (int(channels), int(height), int(width))
        self.frozen = False

    def forward(
        self,
        images: Tensor,
        behaviors: Tensor | None = None,
        sizes: Sequence[tuple[str, int]] | None = None,
    ) -> Tensor:
        """Feature maps ``(B, *output_shape)`` of standardised images ``(B, *input_shape)``.

        `behaviors` (B, k) are given to a core that takes them; `sizes` tells whose the images are:
        of which mouse, and how many, in their order.

        A core with `context_frames` takes movies ``(B, T, *input_shape)``, with behaviour (B, T, k)
        and `sizes` in movies, and gives maps ``(B, T, *output_shape)``. It has a further argument
        ``past=None``, a `v1tlearn.nn.Past` where a movie comes in parts: with one, outputs are
        those of the whole movie. (A core that looks ahead is never given one.)
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes.")

    def penalty(self) -> Tensor:
        """Penalty on the weights, which is added to the loss once per step.

        Returns
        -------
        Tensor
            Scalar; 0 unless a core says otherwise.
        """
        first = next(self.parameters(), None)
        return torch.zeros(()) if first is None else first.new_zeros(())

    def mouse_parameters(self) -> list[str]:
        """Names of the parameters of single mice, which are neither frozen nor transferred.

        Returns
        -------
        list of str
            None unless a core says otherwise.
        """
        return []

    def recomputed_parts(self) -> list[nn.Module]:
        """Parts whose activations may be computed again in the backward pass, to save memory.

        Returns
        -------
        list of Module
            None unless a core says otherwise.
        """
        return []

    def largest_output(self) -> int:
        """Values that the widest layer puts out for an image, which bounds how many pass at once.

        Returns
        -------
        int
            As many channels as any layer has, at the size of the feature maps, unless a core says
            otherwise.
        """
        channels, height, width = self.output_shape
        weights = [p for name, p in self.named_parameters() if name.endswith("weight") and p.dim()]
        return height * width * max((len(p) for p in weights), default=channels)

    def source_positions(self) -> tuple[Tensor, Tensor] | None:
        """Where the cells of the feature maps lie in the images: centres of what each looks at.

        Returns
        -------
        (rows, columns) or None
            Tensors of shape (output height,) and (output width,), float64, in pixels of the images
            that come to the core, from the centre of the upper left one. None unless a core says
            otherwise: it does not tell.
        """
        return None

    def seen(self) -> Seen | None:
        """What single cells of the feature maps see in evaluation, of a core that knows.

        Returns
        -------
        Seen or None
            None unless a core says otherwise: a cell may see all of an image.
        """
        return None

    def of_parts(self, images: Tensor, behaviors: Tensor | None = None) -> Tensor:
        """Feature maps of parts of images, of a core that tells what its cells have `seen`.

        Parameters
        ----------
        images : Tensor of shape (n_images, n_channels, part height, part width)
        behaviors : Tensor of shape (n_images, n_behaviors), optional
            As of `forward`.

        Returns
        -------
        Tensor of shape (n_images, channels, height, width)
        """
        raise NotImplementedError(f"{type(self).__name__} takes no parts of images.")

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser, in groups.

        Returns
        -------
        list of dict
            Each with "params", and "lr" or "weight_decay" where these are to differ from what the
            model is trained with.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def project_(self) -> None:
        """Restore, after a step of the optimiser, what parameters must fulfil: nothing here."""

    def freeze(self, what: str | int = "all") -> None:
        """Keep the core as it is from now on: what the mice share is not trained.

        It gets no gradient and no penalty, and works as in evaluation even while the rest is
        trained, without dropout and with the running statistics of its batch normalisation.
        Parameters of single mice go on learning.

        Parameters
        ----------
        what : "all" or int, default="all"
            All of it. A number of blocks is for cores that have some.

        Raises
        ------
        ValueError
            If this core has no blocks to count.
        """
        if what != "all":
            raise ValueError(
                f"{type(self).__name__} cannot be frozen by {what!r} blocks: expected 'all'."
            )
        self.frozen = True
        of_mice = set(self.mouse_parameters())
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in of_mice)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen core stays in evaluation mode.

        Parameters
        ----------
        mode : bool, default=True
            Training.

        Returns
        -------
        Core
            This core.
        """
        return super().train(mode and not self.frozen)
