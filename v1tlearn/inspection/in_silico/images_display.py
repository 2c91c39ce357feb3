"""Most exciting images as pictures: one grey scale for all, the mean grey level in the middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._values import as_whole
from v1tlearn.inspection.images import ImageDisplay


class MostExcitingImagesDisplay:
    """Images that drive neurons most, with the response to each.

    Parameters
    ----------
    images : Dataset
        Of one mouse, from `most_exciting_images`.
    n_images : int, default=6
        Number of images, from the first on; all of them where they are fewer. Select to choose:
        ``images.sel(neuron=[3, 8])``.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One per image.
    ax_ : Axes
        The first.
    figure_ : Figure
    images_ : list of AxesImage

    Raises
    ------
    TypeError, ValueError
        If this is no such Dataset, or an empty one.

    Examples
    --------
    >>> from v1tlearn.inspection import MostExcitingImagesDisplay
    >>> MostExcitingImagesDisplay(most_exciting_images(model)["A"]).plot()  # doctest: +SKIP
    """

    def __init__(self, images: xr.Dataset, n_images: int = 6) -> None:
        if not isinstance(images, xr.Dataset) or not {"image", "response"} <= set(images.data_vars):
            raise TypeError(
                f"images is a {type(images).__name__}: expected the Dataset of one mouse that "
                'most_exciting_images gives, such as most_exciting_images(model)["A"].'
            )
        n_images = as_whole(n_images, "n_images")
        self.dim = "group" if "group" in images.dims else "neuron"
        if self.dim not in images.dims or not images.sizes[self.dim]:
            raise ValueError(
                f"images have the dimensions {dict(images.sizes)}: expected at least one neuron; "
                "select with a list, images.sel(neuron=[3])."
            )
        self.images = images.isel({self.dim: slice(n_images)})

    def plot(
        self, ax: Any = None, *, n_columns: int = 3, image_kw: Mapping[str, Any] | None = None
    ) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One per image. A new figure by default.
        n_columns : int, default=3
            Images beside each other in a new figure.
        image_kw : dict, optional
            Of the images, as `matplotlib.axes.Axes.imshow` takes it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are no columns, or axes are not as many as images.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        images = self.images
        mean = float(images.attrs.get("image_mean", images["image"].mean()))
        values = images["image"].transpose(self.dim, "channel", "height", "width").values
        most = float(np.abs(values - mean).max()) or 1.0
        pairs = zip(images[self.dim].values, images["response"].values, strict=True)
        display = ImageDisplay(
            values,
            [f"{self.dim} {name}\nresponse {response:.3g}" for name, response in pairs],
            limits=(mean - most, mean + most),
            extent=(*_edges(images["width"].values), *_edges(images["height"].values)[::-1]),
        ).plot(ax, n_columns=n_columns, image_kw=image_kw)
        self.axes_, self.ax_, self.figure_ = display.axes_, display.ax_, display.figure_
        self.images_ = display.images_
        return self


def _edges(centres: np.ndarray) -> tuple[float, float]:
    n = len(centres)
    half = (centres[-1] - centres[0]) / (n - 1) / 2 if n > 1 else 0.5
    return float(centres[0] - half), float(centres[-1] + half)
