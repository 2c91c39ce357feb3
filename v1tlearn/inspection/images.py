"""Images of trials and receptive fields: the right way up, square pixels, one grey scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn._models import ahead, last_step
from v1tlearn._values import as_array, as_whole
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.inspection._coordinates import edges_of
from v1tlearn.inspection._drawing import axes_for
from v1tlearn.nn import EncodingModel
from v1tlearn.training import isolated
from v1tlearn.trials import Trials

_NAME = "ImageDisplay"

# How two channels, UV and green (Franke et al. 2022), become red, green and blue: UV is drawn in
# magenta, so that equal channels are grey.
_TWO = (0, 1, 0)

Extent = tuple[float, float, float, float]


class ImageDisplay:
    """Images in a grid: row 0 at the top, square pixels, one scale of values for all.

    `from_trials` makes one of trials, `from_fields` of receptive fields.

    Parameters
    ----------
    images : array of shape (n_images, n_channels, height, width)
        One channel is drawn in grey, three in red, green and blue. Two are UV and green, as in the
        recordings of Franke et al. (2022): UV in magenta, green in green, grey where they are
        equal. A DataArray with dimensions "height" and "width", and "channel", may have them in any
        order.
    titles : sequence of str, optional
        One per image.
    signed : bool, default=False
        Draw images of one channel in blue, white and red, with zero in white, each by its own
        largest absolute value.
    limits : (float, float), optional
        Values drawn in black and in white; by default the lowest and the highest of all images.
        Not for signed images.
    extent : (left, right, bottom, top), optional
        Edges of the images on the axes, so that what is drawn upon them has coordinates; by
        default in pixels, whose centres are whole numbers.

    Attributes
    ----------
    axes_ : ndarray of shape (n_images,)
        After `plot`.
    ax_ : Axes
        The first of them.
    figure_ : Figure
    images_ : list of AxesImage
        What was drawn.

    Raises
    ------
    ValueError
        If images have another shape or number of channels, or titles another number.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.inspection import ImageDisplay
    >>> ImageDisplay(np.zeros((2, 1, 18, 32)), ["black", "black, too"]).limits
    (0.0, 1.0)
    """

    def __init__(
        self,
        images: Any,
        titles: Sequence[str] | None = None,
        *,
        signed: bool = False,
        limits: tuple[float, float] | None = None,
        extent: Extent | None = None,
    ) -> None:
        self.images = as_array(_in_order(images), "images", of="image")
        if self.images.ndim != 4 or not self.images.size:
            raise ValueError(
                f"images have the shape {self.images.shape}: expected (images, channels, height, "
                "width), at least one of each."
            )
        n_images, n_channels, height, width = self.images.shape
        if n_channels > 3 or (signed and n_channels > 1):
            expected = "1 of signed images" if signed else "1, 2 or 3"
            raise ValueError(
                f"images have {n_channels} channels: expected {expected}. Choose or average some."
            )
        self.titles = [""] * n_images if titles is None else [str(title) for title in titles]
        if len(self.titles) != n_images:
            raise ValueError(f"{len(self.titles)} titles came for {n_images} images.")
        self.signed = signed
        if limits is None:
            finite = self.images[np.isfinite(self.images)]
            # not in the type of the images, where 255 + 1 may be 0
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
            limits = (low, low + 1 if low == high else high)
        self.limits = float(limits[0]), float(limits[1])
        self.extent = (-0.5, width - 0.5, height - 0.5, -0.5) if extent is None else extent

    @classmethod
    def from_trials(
        cls,
        trials: Trials,
        *,
        estimator: Any = None,
        n_images: int = 6,
        labels: Sequence[str] = ("mouse_id", "image_id"),
        behaviors: Sequence[str] = (),
        ax: Any = None,
        n_columns: int = 3,
        image_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the images of the first trials.

        Parameters
        ----------
        trials : Trials
            Their preprocessing is applied.
        estimator : estimator, optional
            Fitted: images are cropped and resized as its core sees them, moved with the eye where
            the model has stimulus shifters. Transformers of a `Pipeline` are applied, too.
        n_images : int, default=6
            Number of trials, from the first on; all of them where they are fewer. Slice trials to
            choose: ``trials[10:20]``.
        labels : sequence of {"mouse_id", "image_id", "tier"}
            What titles tell, by default mouse and image.
        behaviors : sequence of str, default=()
            Columns of behaviour whose values titles tell, too.
        ax, n_columns, image_kw
            Of `plot`.

        Returns
        -------
        ImageDisplay
            Grey levels from 0, black, to 255, white, where stimuli are integers; otherwise from
            the lowest value to the highest.

        Raises
        ------
        TypeError, ValueError
            If these are no trials, or a label or behaviour is unknown.
        """
        if not isinstance(trials, Trials):
            raise TypeError(
                f"trials is a {type(trials).__name__}: expected Trials; arrays go to "
                "ImageDisplay(...), receptive fields to ImageDisplay.from_fields."
            )
        n_images = as_whole(n_images, "n_images")
        if not len(trials):
            raise ValueError("trials is empty: expected at least one trial.")
        if trials.n_frames is not None:
            raise ValueError(
                "the trials are movies, of which one picture tells little: give the frames to be "
                'drawn, ImageDisplay(trials.get("stimuli", mouse)[trial, ::step]).'
            )
        shown = trials[: min(n_images, len(trials))]
        shown = ahead(estimator, shown)
        known = None if estimator is None else _known(estimator)
        if known is not None:
            check_like_fit(*known, shown)
        found: list[Any] = [None] * len(shown)
        whole = True
        for mouse in shown.mice:
            images = shown.get("stimuli", mouse)
            whole &= images.dtype.kind in "iu"
            if known is not None:
                images = _seen(*known, shown, mouse)
            for place, image in zip(shown.rows(mouse)[0], images, strict=True):
                found[place] = image
        if len({image.shape for image in found}) > 1:
            raise ValueError(
                f"images differ in shape: {sorted({image.shape for image in found})} (channels, "
                "height, width). Show one mouse at a time."
            )
        display = cls(
            np.stack(found),
            _titles(shown, labels, behaviors),
            limits=(0, 255) if whole else None,
        )
        return display.plot(ax, n_columns=n_columns, image_kw=image_kw)

    @classmethod
    def from_fields(
        cls,
        fields: xr.DataArray,
        *,
        n_fields: int = 6,
        ax: Any = None,
        n_columns: int = 3,
        image_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw receptive fields, or other maps with both signs.

        Parameters
        ----------
        fields : DataArray (..., height, width)
            Such as those of one mouse from `receptive_fields`. Titles tell the labels of the other
            dimensions, those of more than one entry. Where there are coordinates ``height`` and
            ``width`` the axes have them, so that Gaussians of `fit_gaussians` can be drawn on top.
        n_fields : int, default=6
            Number of fields, from the first on; all of them where they are fewer.
        ax, n_columns, image_kw
            Of `plot`.

        Returns
        -------
        ImageDisplay
            Zero in white, each field by its own largest absolute value.

        Raises
        ------
        TypeError, ValueError
            If this is no DataArray with the dimensions height and width, or an empty one.
        """
        if not isinstance(fields, xr.DataArray):
            raise TypeError(
                f"fields is a {type(fields).__name__}: expected a DataArray, such as "
                'receptive_fields(model)["A"].'
            )
        if not {"height", "width"} <= set(fields.dims):
            raise ValueError(f"fields has the dimensions {fields.dims}: height and width needed.")
        n_fields = as_whole(n_fields, "n_fields")
        if not fields.size:
            raise ValueError(
                f"fields is empty, {dict(fields.sizes)}: expected at least one field, of at least "
                "one pixel."
            )
        fields = fields.transpose(..., "height", "width")
        shape = fields.shape[:-2]
        places = [np.unravel_index(i, shape) for i in range(min(n_fields, int(np.prod(shape))))]
        titles = [
            ", ".join(
                f"{dim} {_label(fields, dim, int(i))}"
                for dim, i in zip(fields.dims[:-2], place, strict=True)
                if fields.sizes[dim] > 1
            )
            for place in places
        ]
        display = cls(
            np.stack([fields.values[place] for place in places])[:, None],
            titles,
            signed=True,
            extent=(*edges_of(fields, "width"), *edges_of(fields, "height")[::-1]),
        )
        return display.plot(ax, n_columns=n_columns, image_kw=image_kw)

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
        n_columns = as_whole(n_columns, "n_columns")
        n = len(self.images)
        columns = min(n_columns, n)
        rows = -(-n // columns)
        left, right, bottom, top = self.extent
        width = 5.0 / max(columns, 2)
        lines = max(title.count("\n") + bool(title) for title in self.titles)
        height = width * abs((top - bottom) / (right - left)) + 0.1 + 0.17 * lines
        size = (width * columns, height * rows)
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (rows, columns), size)
        self.ax_ = self.axes_[0]
        self.images_ = []
        for axis, image, title in zip(self.axes_, self.images, self.titles, strict=True):
            style = {"origin": "upper", "extent": self.extent, "aspect": "equal"}
            style |= {"interpolation": "nearest"} | self._colors(image)
            self.images_.append(axis.imshow(self._pixels(image), **style | dict(image_kw or {})))
            axis.set_title(title, fontsize="small")
            axis.set(xticks=[], yticks=[])
        return self

    def _colors(self, image: np.ndarray) -> dict[str, Any]:
        if self.signed:
            most = np.abs(image[np.isfinite(image)]).max(initial=0.0) or 1.0
            return {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
        if len(image) == 1:
            return {"cmap": "gray", "vmin": self.limits[0], "vmax": self.limits[1]}
        return {}

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        """What imshow takes: (height, width), or (height, width, 3) from 0 to 1."""
        if len(image) == 1:
            return image[0]
        low, high = self.limits
        scaled = np.clip((image.astype(float) - low) / (high - low), 0, 1)
        return np.moveaxis(scaled[list(_TWO)] if len(image) == 2 else scaled, 0, -1)


def _in_order(images: Any) -> Any:
    """Dimensions of a DataArray in the order of `ImageDisplay`, by their names."""
    if not isinstance(images, xr.DataArray) or not {"height", "width"} <= set(images.dims):
        return images
    channel = [dim for dim in images.dims if dim == "channel"]
    return images.transpose(..., *channel, "height", "width")


def _known(estimator: Any) -> tuple[Fitted, EncodingModel]:
    """Give the model, or the first of an ensemble, whose members see the same."""
    model = last_step(estimator)
    check_is_fitted(model)
    return model._knows()


def _seen(fitted: Fitted, model: EncodingModel, trials: Trials, mouse: str) -> np.ndarray:
    """Grey levels as the core of a model sees them, cropped, moved and resized."""
    data = mouse_data(fitted, trials, mouse, next(model.parameters()).device)
    moving = data.pupil if data.shifter_inputs is None else data.shifter_inputs
    with torch.inference_mode(), isolated():
        images = data.images
        assert isinstance(images, torch.Tensor)  # not streamed
        images = images if images.is_floating_point() else images.float()
        return model.eval().cropper(images, mouse, moving).cpu().numpy()


def _titles(trials: Trials, labels: Sequence[str], behaviors: Sequence[str]) -> list[str]:
    labels = [labels] if isinstance(labels, str) else list(labels)
    behaviors = [behaviors] if isinstance(behaviors, str) else list(behaviors)
    known = {
        "mouse_id": lambda: [f"mouse {mouse}" for mouse in trials.mouse_ids],
        "image_id": lambda: [f"image {image}" for image in trials.image_ids],
        "tier": lambda: [str(tier) for tier in trials.tiers],
    }
    if unknown := [label for label in labels if label not in known]:
        raise ValueError(f"labels: {unknown} came, expected some of {list(known)}.")
    texts = [known[label]() for label in labels]
    titles = [", ".join(parts) for parts in zip(*texts, strict=True)] or [""] * len(trials)
    for mouse in trials.mice if behaviors else ():
        names = trials.behavior_names(mouse) or []
        if unknown := [name for name in behaviors if name not in names]:
            raise ValueError(
                f"mouse {mouse!r}: behaviors asks for {unknown}, the columns are {names}."
            )
        values = np.asarray(trials.get("behaviors", mouse))
        for place, row in zip(trials.rows(mouse)[0], values, strict=True):
            told = [f"{name.replace('_', ' ')} {row[names.index(name)]:.3g}" for name in behaviors]
            titles[place] = "\n".join([titles[place]] * bool(titles[place]) + told)
    return titles


def _label(fields: xr.DataArray, dim: Any, i: int) -> Any:
    label = fields[dim].values[i] if dim in fields.coords else i
    return f"{label:.3g}" if isinstance(label, float) else label
