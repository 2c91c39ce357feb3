"""Attention over images, with what the animal did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr

from v1tlearn._values import as_array, as_whole
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection._opened import Opened, check_trials, opened
from v1tlearn.inspection.attention.centers import attention_center_of_mass
from v1tlearn.inspection.attention.rollout import attention_rollout
from v1tlearn.inspection.images import Extent, ImageDisplay
from v1tlearn.training import isolated
from v1tlearn.trials import Trials

_NAME = "AttentionRolloutDisplay"
_MAP = "YlOrRd"
_WIDTH = 2.9  # inches of an image
_LEAST, _MOST = 0.0, 0.85  # of an image that is covered where attention is lowest and highest
# As in the figures of the paper, where there is room for some letters only.
_SHORT = {"pupil_dilation": "dilation", "pupil_dilation_derivative": "change of it"}
_SHORT |= {"running_speed": "speed"}


class AttentionRolloutDisplay:
    """Attention rollout over the images that it is of, and where its middle is.

    `from_estimator` makes one of a fitted model and trials.

    Parameters
    ----------
    images : array of shape (n_images, n_channels, height, width)
        As the core sees them, see `ImageDisplay`.
    maps : array of shape (n_images, height, width)
        From 0 to 1, from `attention_rollout`.
    titles : sequence of str, optional
        One per image.
    extent : (left, right, bottom, top), optional
        Edges of images and maps on the axes; by default in pixels, whose centres are whole numbers.

    Attributes
    ----------
    axes_ : ndarray of shape (n_images,)
        After `plot`.
    ax_ : Axes
        The first of them.
    figure_ : Figure
    maps_ : list of AxesImage
        What was drawn over the images.

    Raises
    ------
    ValueError
        If there are not as many maps as images, of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.inspection import AttentionRolloutDisplay
    >>> AttentionRolloutDisplay(np.zeros((2, 1, 18, 32)), np.ones((2, 18, 32))).maps.shape
    (2, 18, 32)
    """

    def __init__(
        self,
        images: Any,
        maps: Any,
        titles: Sequence[str] | None = None,
        *,
        extent: Extent | None = None,
    ) -> None:
        self._images = ImageDisplay(images, titles, extent=extent)
        self.images = self._images.images
        self.titles, self.extent = self._images.titles, self._images.extent
        self.maps = as_array(maps, "maps", of="image").astype(float)
        expected = (len(self.images), *self.images.shape[2:])
        if self.maps.shape != expected:
            raise ValueError(
                f"maps have the shape {self.maps.shape}: expected {expected} (images, height, "
                "width), as many as images, of their size."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        trials: Trials,
        *,
        n_images: int = 6,
        behaviors: str | Sequence[str] = "all",
        head_reduction: str = "mean",
        placement: str = "stretched",
        ax: Any = None,
        n_columns: int = 3,
        map_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Map the attention of the first trials, and draw.

        Parameters
        ----------
        estimator : V1TRegressor, ViTRegressor or EncodingRegressor
            Fitted, see `attention_rollout`.
        trials : Trials
            Slice them to choose: ``trials[10:16]``.
        n_images : int, default=6
            Number of trials, from the first on; all of them where they are fewer.
        behaviors : "all" or sequence of str, default="all"
            Columns of behaviour whose values titles tell, in the units of the trials.
        head_reduction, placement : str
            Of `attention_rollout`.
        ax, n_columns, map_kw
            Of `plot`.

        Returns
        -------
        AttentionRolloutDisplay
            Images as the core sees them, cropped, moved and resized; axes in pixels of the images
            that came to `fit`.

        Raises
        ------
        TypeError, ValueError
            As `attention_rollout`; if a column is unknown, or images of two mice lie elsewhere.
        NotFittedError
            Before `fit`.
        """
        check_trials(trials)
        shown = trials[: min(as_whole(n_images, "n_images"), len(trials))]
        found = attention_rollout(
            estimator, shown, head_reduction=head_reduction, placement=placement
        )
        titles = _titles(shown, behaviors)
        model = opened(estimator, shown, "attention")
        images: list[Any] = [None] * len(shown)
        maps: list[Any] = [None] * len(shown)
        places = set()
        for mouse, own in found.items():
            seen = _seen(model, mouse)
            places.add((*own["width"].values, *own["height"].values))
            rows = shown.rows(mouse)[0]
            for place, image, one in zip(rows, seen, own.values, strict=True):
                images[place], maps[place] = image, one
        if len(places) > 1:
            raise ValueError(
                f"the images of the mice {shown.mice} are cropped at different places: show one "
                "mouse at a time, trials.sel(mouse_id=...)."
            )
        first = next(iter(found.values()))
        extent = (*_edges(first["width"].values), *_edges(first["height"].values)[::-1])
        display = cls(np.stack(images), np.stack(maps), titles, extent=extent)
        return display.plot(ax, n_columns=n_columns, map_kw=map_kw)

    def plot(
        self, ax: Any = None, *, n_columns: int = 3, map_kw: Mapping[str, Any] | None = None
    ) -> Self:
        """Draw images, maps over them and a cross in the middle of each map.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One per image. A new figure by default.
        n_columns : int, default=3
            Images beside each other in a new figure.
        map_kw : dict, optional
            Of the maps, as `matplotlib.axes.Axes.imshow` takes it; they cover the image where
            attention is high, unless `alpha` says otherwise.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If axes are not as many as images.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n = len(self.maps)
        columns = min(as_whole(n_columns, "n_columns"), n)
        rows = -(-n // columns)
        left, right, bottom, top = self.extent
        lines = max(title.count("\n") + bool(title) for title in self.titles)
        height = _WIDTH * abs((top - bottom) / (right - left)) + 0.1 + 0.17 * lines
        size = (_WIDTH * columns + 0.8, height * rows)
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (rows, columns), size)
        self.ax_ = self.axes_[0]
        self._images.plot(self.axes_)
        style = {"origin": "upper", "extent": self.extent, "cmap": _MAP, "vmin": 0, "vmax": 1}
        style |= {"interpolation": "bilinear", **(map_kw or {})}
        centers = attention_center_of_mass(self._labelled()).values
        self.maps_ = []
        for axis, one, (x, y) in zip(self.axes_, self.maps, centers, strict=True):
            self.maps_.append(
                axis.imshow(one, **{"alpha": _LEAST + (_MOST - _LEAST) * one, **style})
            )
            for color, width in (("black", 4.5), ("white", 2.0)):
                axis.plot(x, y, "+", color=color, ms=11, mew=width, label="_center")
        if ax is None:
            bar = self.figure_.colorbar(
                self.maps_[0], ax=list(self.axes_), shrink=0.7, aspect=16, pad=0.02
            )
            bar.set_label("attention (lowest to\nhighest of each image)", fontsize="small")
            bar.set_ticks([0, 1])
            if bar.solids is not None:
                bar.solids.set_alpha(1)
        return self

    def _labelled(self) -> xr.DataArray:
        left, right, bottom, top = self.extent
        n_rows, n_columns = self.maps.shape[1:]
        height = top + (np.arange(n_rows) + 0.5) * (bottom - top) / n_rows
        width = left + (np.arange(n_columns) + 0.5) * (right - left) / n_columns
        coords = {"height": height, "width": width}
        return xr.DataArray(self.maps, dims=("image", "height", "width"), coords=coords)


@isolated()
def _seen(found: Opened, mouse: str) -> np.ndarray:
    """Grey levels (n, channels, height, width) as the core sees them, without behaviour."""
    n_channels = found.fitted.image_shape[0]
    with torch.inference_mode():
        data = mouse_data(found.fitted, found.trials, mouse, found.device)
        images, _ = found.model.core_inputs(mouse, data.batch(slice(None)))
        return (images[:, :n_channels] * data.image_std + data.image_mean).cpu().numpy()


def _titles(trials: Trials, behaviors: str | Sequence[str]) -> list[str]:
    """Mouse and image, and below them behaviour, two values in a line."""
    wanted = None
    if not (isinstance(behaviors, str) and behaviors == "all"):
        wanted = [behaviors] if isinstance(behaviors, str) else list(behaviors)
    titles = [
        f"mouse {mouse}, image {image}"
        for mouse, image in zip(trials.mouse_ids, trials.image_ids, strict=True)
    ]
    for mouse in trials.mice:
        given = trials.behavior_names(mouse) or []
        names = given if wanted is None else wanted
        if unknown := [name for name in names if name not in given]:
            raise ValueError(
                f"mouse {mouse!r}: behaviors asks for {unknown}, the columns are {given}."
            )
        if not names:
            continue
        values = np.asarray(trials.get("behaviors", mouse))
        for place, row in zip(trials.rows(mouse)[0], values, strict=True):
            told = _short(dict(zip(given, row.tolist(), strict=True)), names)
            lines = [", ".join(told[i : i + 2]) for i in range(0, len(told), 2)]
            titles[place] = "\n".join([titles[place], *lines])
    return titles


def _short(values: Mapping[str, float], names: Sequence[str]) -> list[str]:
    """Values of behaviour in words; those of the pupil's place together."""
    pupil = ("pupil_x", "pupil_y")
    told = [f"{_SHORT.get(name, name)} {values[name]:.3g}" for name in names if name not in pupil]
    if set(pupil) <= set(names):
        return [*told, f"pupil at ({values['pupil_x']:.3g}, {values['pupil_y']:.3g})"]
    return told + [f"{name} {values[name]:.3g}" for name in names if name in pupil]


def _edges(centers: np.ndarray) -> tuple[float, float]:
    """Where the first pixel begins, and the last one ends."""
    n = len(centers)
    half = (centers[-1] - centers[0]) / (n - 1) / 2 if n > 1 else 0.5
    return float(centers[0] - half), float(centers[-1] + half)
