"""The part of an image that a mouse's neurons look at, brought to the size that a core takes."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn.layers.images import ImageCropper

Window = tuple[int, int]


class WindowCropper(ImageCropper):
    """Keep columns of an image, per mouse, and resize them, perhaps to more pixels than they have.

    Columns are read, bilinearly and without antialiasing, from the whole image: at their edges
    pixels beside them count, as if they were cut out after resizing.

    Parameters
    ----------
    input_size : tuple of int
        Height and width of the images that come in, in pixels.
    mice : sequence of str, default=()
        Whose images these are.
    columns : None, "left_half", (int, int) or mapping of str to (int, int), optional
        First column and the one after the last, in pixels of the images after any centre crop, or
        one such pair for each mouse. All columns by default.
    upsample : int, default=1
        Factor on either side of the size that goes out.
    **options
        Of `ImageCropper`; `image_size` is the size of what is kept, ahead of `upsample`.

    Raises
    ------
    ValueError
        If columns lie outside the image, or are missing for a mouse.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        mice: Sequence[str] = (),
        columns: Any = None,
        upsample: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(input_size, **options)
        width = len(self._columns)
        self.windows = _windows(columns, mice, width)
        if options.get("image_size") is None and self.windows:
            widths = {last - first for first, last in self.windows.values()}
            if len(widths) > 1:
                raise ValueError(
                    f"columns of {sorted(widths)} pixels are kept of different mice: set "
                    "image_size=(height, width), to which all are resized."
                )
            self.output_size = (self.output_size[0], widths.pop())
        height, width = self.output_size
        self.output_size = (height * upsample, width * upsample)

    def window(self, mouse: str | None) -> Window | None:
        """Columns that are kept of a mouse's images.

        Parameters
        ----------
        mouse : str or None

        Returns
        -------
        (int, int) or None
            None where all are.

        Raises
        ------
        ValueError
            If mice have windows, and this one has none.
        """
        if not self.windows:
            return None
        if mouse is None and len(set(self.windows.values())) == 1:
            return next(iter(self.windows.values()))
        if mouse not in self.windows:
            raise ValueError(
                f"mouse {mouse!r} has no crop_columns; those of {sorted(self.windows)} are known."
            )
        return self.windows[mouse]

    def source_columns(self, mouse: str | None = None) -> Tensor:
        """Where columns that go out lie in the cropped image.

        Parameters
        ----------
        mouse : str, optional

        Returns
        -------
        Tensor of shape (output width,)
            Float64, in pixels from the centre of the leftmost column of the crop.
        """
        first, last = self.window(mouse) or (0, len(self._columns))
        n = self.output_size[1]
        return first + (torch.arange(n, dtype=torch.float64) + 0.5) * (last - first) / n - 0.5

    def takes(self, size: Sequence[int]) -> bool:
        """Tell whether images of a size can come in.

        Parameters
        ----------
        size : tuple of int
            Height and width, in pixels.

        Returns
        -------
        bool
            Where columns are chosen, only images of the size at `fit`.
        """
        return tuple(size) == self.input_size if self.windows else super().takes(size)

    def source_positions(self, mouse: str | None = None) -> tuple[Tensor, Tensor]:
        """Where the pixels that go out lie in the images that come in.

        Parameters
        ----------
        mouse : str, optional
            Needed where mice have different columns.

        Returns
        -------
        rows, columns : Tensor of shape (output height,), (output width,)
            See `ImageCropper.source_positions`.
        """
        rows, columns = super().source_positions()
        if not self.windows:
            return rows, columns
        at, indices = self.source_columns(mouse), self._columns.double().cpu()
        left = at.floor().clamp(0, len(indices) - 2).long()
        return rows, indices[left] + (at - left) * (indices[left + 1] - indices[left])

    def _resized(self, images: Tensor, mouse: str | None) -> Tensor:
        if not self.windows:
            return super()._resized(images, mouse)
        images = images if images.is_floating_point() else images.float()
        height = images.shape[-2]
        n = self.output_size[0]
        at = (torch.arange(n, dtype=torch.float64) + 0.5) * height / n - 0.5
        return _between(_between(images, at, 2), self.source_columns(mouse), 3)


def _between(images: Tensor, at: Tensor, dim: int) -> Tensor:
    """Values along one side at places between pixels, or at the edge beyond it."""
    at = at.clamp(0, images.shape[dim] - 1)
    lower = at.floor().clamp(max=max(images.shape[dim] - 2, 0)).long()
    upper = (lower + 1).clamp(max=images.shape[dim] - 1)
    shape = [1] * images.dim()
    shape[dim] = -1
    share = (at - lower).to(images).reshape(shape)
    lower, upper = (images.index_select(dim, i.to(images.device)) for i in (lower, upper))
    return lower * (1 - share) + upper * share


def _windows(columns: Any, mice: Sequence[str], width: int) -> dict[str, Window]:
    """Check columns, and give those of every mouse."""
    if columns is None:
        return {}
    if isinstance(columns, str):
        columns = (0, width // 2)
    if not isinstance(columns, Mapping):
        columns = dict.fromkeys(mice, columns)
    if missing := [mouse for mouse in mice if mouse not in columns]:
        raise ValueError(
            f"crop_columns has none for the mice {missing}: expected (first, last) for each of "
            f"{list(mice)}."
        )
    out = {}
    for mouse in mice:
        given = columns[mouse]
        given = tuple(given) if np.ndim(given) else (given,)
        whole = len(given) == 2 and all(map(_is_whole, given))
        if not whole or not 0 <= given[0] < given[1] <= width:
            raise ValueError(
                f"crop_columns of mouse {mouse!r} are {given}: expected the first column and the "
                f"one after the last, from 0 to {width}."
            )
        out[mouse] = (int(given[0]), int(given[1]))
    return out


def _is_whole(edge: Any) -> bool:
    return isinstance(edge, Real) and not isinstance(edge, bool) and float(edge).is_integer()
