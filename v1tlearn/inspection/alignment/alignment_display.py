"""Images, their maps and those of the responses to them, and where both agree, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._options import as_word
from v1tlearn._values import plain
from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection.alignment._checks import pick_trials
from v1tlearn.inspection.alignment._pairs import Pairs, pair_of, place_in_image, read_pairs
from v1tlearn.inspection.alignment.gradients import gradient_saliency
from v1tlearn.inspection.alignment.locations import alignment_map
from v1tlearn.inspection.alignment.occlusion import occlusion_saliency
from v1tlearn.inspection.images import ImageDisplay
from v1tlearn.trials import Trials

_NAME = "AlignmentDisplay"
_TITLES = {
    "alignment": "alignment over images",
    "occlusion": "occlusion",
    "gradient": "gradient x input",
}


class AlignmentDisplay:
    """A row per trial: the image, its map, the map of the responses, and where they agree.

    `from_estimator` makes one of a fitted alignment.

    Parameters
    ----------
    images : array of shape (n_trials, n_channels, height, width)
        Images that were seen.
    image_maps, response_maps : DataArray (trial, height, width)
        One channel of the maps; ``height`` and ``width`` tell where cells lie in the images, in
        pixels.
    agreement : DataArray (trial, height, width)
        Such as a saliency, or a map of the alignment for each trial.
    titles : dict of str to str, optional
        Of the columns "image", "image_map", "response_map" and "agreement".
    labels : sequence of str, optional
        Of the rows.

    Attributes
    ----------
    axes_ : ndarray of shape (n_trials, 4)
        After `plot`.
    ax_ : Axes
        The first of them.
    figure_ : Figure

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from v1tlearn.inspection import AlignmentDisplay
    >>> places = [1.5, 5.5, 9.5, 13.5]
    >>> maps = xr.DataArray(np.eye(4)[None], dims=("trial", "height", "width"),
    ...                     coords={"height": places, "width": places})
    >>> AlignmentDisplay(np.zeros((1, 1, 16, 16)), maps, maps, maps).labels
    ['']
    """

    def __init__(
        self,
        images: Any,
        image_maps: xr.DataArray,
        response_maps: xr.DataArray,
        agreement: xr.DataArray,
        *,
        titles: Mapping[str, str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.images = np.asarray(images)
        n = len(self.images)
        self.maps = {
            "image_map": image_maps,
            "response_map": response_maps,
            "agreement": agreement,
        }
        for name, maps in self.maps.items():
            if self.images.ndim != 4 or maps.dims != ("trial", "height", "width") or len(maps) != n:
                raise ValueError(
                    f"{name} has the dimensions {dict(maps.sizes)} for images of shape "
                    f"{self.images.shape}: expected (trial, height, width), as many as images (n, "
                    "channels, height, width)."
                )
        self.titles = {
            "image": "image",
            "image_map": "its map",
            "response_map": "map of the responses",
            "agreement": "agreement",
        } | dict(titles or {})
        self.labels = [""] * n if labels is None else [str(label) for label in labels]
        if len(self.labels) != n:
            raise ValueError(f"{len(self.labels)} labels came for {n} images.")

    @classmethod
    def from_estimator(
        cls,
        aligner: Any,
        trials: Trials,
        *,
        show: str = "alignment",
        n_trials: int = 3,
        shown: Sequence[int] | None = None,
        channel: int | None = None,
        options: Mapping[str, Any] | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute maps and their agreement, and draw.

        Parameters
        ----------
        aligner : DINAAligner
            Fitted.
        trials : Trials
            All count for the alignment.
        show : {"alignment", "occlusion", "gradient"}, default="alignment"
            The last column: `alignment_map` of the mouse, the same for all its trials; or
            `occlusion_saliency` or `gradient_saliency`, mean over channels, of each trial.
        n_trials : int, default=3
            How many are shown: the first ones of different images.
        shown : sequence of int, optional
            Places of the trials to show, instead.
        channel : int, optional
            Of the maps; by default the one that is aligned best, the mean over mice and locations.
        options : dict, optional
            Of the function that `show` stands for.
        ax
            Of `plot`.

        Returns
        -------
        AlignmentDisplay

        Raises
        ------
        TypeError, ValueError
            If this is no alignment, a mouse saw too few images or images that are all the same, or
            an option is out of its range.
        NotFittedError
            Before `fit`.
        """
        as_word(show, tuple(_TITLES), "show")
        pairs = read_pairs(aligner, trials)
        places = pick_trials(trials, n_trials, shown)
        options = dict(options or {})
        aligned = alignment_map(aligner, trials, **(options if show == "alignment" else {}))
        channel = _channel(aligned, channel)
        rows = []
        for place in places:
            own, trial = pair_of(pairs, place)
            image = own.shown[trial]
            maps = own.image_maps.values[image, channel], own.response_maps.values[trial, channel]
            agreement = aligned["alignment"].sel(mouse=own.mouse).values
            rows.append((own.images[image], *maps, agreement))
        images, *columns = map(np.array, zip(*rows, strict=True))
        at = place_in_image(aligner.module_, images.shape[2:])
        labelled = [xr.DataArray(v, dims=("trial", "height", "width"), coords=at) for v in columns]
        if show != "alignment":
            needed = _needed(pairs, places)
            saliency = _saliency(aligner, trials[needed], show, options)
            labelled[2] = saliency[np.searchsorted(needed, places)]
        n = aligned.sizes["channel"]
        which = f", channel {channel}" if n > 1 else ""
        return cls(
            images,
            *labelled,
            titles={"image_map": f"its map{which}", "agreement": _TITLES[show]},
            labels=[f"{trials.mouse_ids[p]}\n{trials.image_ids[p]}" for p in places],
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the images and the maps, all in the coordinates of the images.

        Maps with both signs are blue and red, with zero in white; each by its own largest value,
        but the last column, which has one scale.

        Parameters
        ----------
        ax : array of Axes, optional
            Four per trial, row by row. A new figure by default.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If axes are not as many.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n = len(self.images)
        height, width = self.images.shape[2:]
        size = (9.0, n * (9.0 / 4 * height / width + 0.1) + 0.5)
        axes, self.figure_ = axes_for(ax, 4 * n, _NAME, (n, 4), size)
        self.axes_ = axes.reshape(n, 4)
        self.ax_ = self.axes_[0, 0]
        limits = (0, 255) if self.images.dtype.kind in "iu" else None
        ImageDisplay(self.images, limits=limits).plot(self.axes_[:, 0])
        for column, (name, maps) in enumerate(self.maps.items(), start=1):
            most = np.nanmax(np.abs(maps.values), initial=0.0) if name == "agreement" else None
            for axis, own in zip(self.axes_[:, column], maps, strict=True):
                _draw_map(axis, own, most, (height, width))
        for axis, name in zip(self.axes_[0], self.titles, strict=True):
            axis.set_title(self.titles[name], fontsize="small")
        for axis, label in zip(self.axes_[:, 0], self.labels, strict=True):
            axis.set_ylabel(label, fontsize="small")
        drawn = self.axes_[0, 3].images[0]
        bar = self.figure_.colorbar(drawn, ax=list(self.axes_[:, 3]), shrink=0.8)
        bar.ax.tick_params(labelsize="small")
        return self


def _channel(aligned: xr.Dataset, channel: Any) -> int:
    n = aligned.sizes["channel"]
    if channel is None:
        mean = aligned["correlation"].mean(("mouse", "height", "width"))
        return int(np.argmax(np.nan_to_num(mean.values, nan=-np.inf)))
    number = plain(channel, "channel")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < n:
        raise ValueError(f"channel={channel!r}: expected a number from 0 to {n - 1}.")
    return number


def _needed(pairs: Sequence[Pairs], places: Sequence[int]) -> np.ndarray:
    """Places of all trials of the images that are shown, and of one other image to compare with."""
    needed = []
    for own in pairs:
        shown = np.unique(own.shown[np.isin(own.rows, places)])
        if len(shown):
            differs = (own.images != own.images[shown[0]]).any(axis=(1, 2, 3))
            needed.append(own.rows[np.isin(own.shown, [*shown, differs.argmax()])])
    return np.sort(np.concatenate(needed))


def _saliency(aligner: Any, trials: Trials, show: str, options: Mapping[str, Any]) -> xr.DataArray:
    if show == "occlusion":
        return occlusion_saliency(aligner, trials, **options)["saliency"]
    return gradient_saliency(aligner, trials, **options)["saliency"].mean("channel")


def _draw_map(axis: Any, own: xr.DataArray, most: float | None, size: tuple[int, int]) -> None:
    """Draw a map where it lies in an image of a size, whose margins stay empty."""
    values = own.values
    largest = (np.nanmax(np.abs(values), initial=0.0) if most is None else most) or 1.0
    signed = most is not None or np.nanmin(values, initial=0.0) < 0
    colors = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    colors = colors if signed else {"cmap": "viridis", "vmin": 0, "vmax": largest}
    top, bottom = _edges(own["height"].values, size[0])
    left, right = _edges(own["width"].values, size[1])
    axis.imshow(
        values, origin="upper", extent=(left, right, bottom, top), interpolation="nearest", **colors
    )
    axis.set(xticks=[], yticks=[], xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))


def _edges(centres: np.ndarray, side: int) -> tuple[float, float]:
    """Where the first cell begins, and the last one ends; a single one covers the side."""
    if len(centres) < 2:
        return -0.5, side - 0.5
    half = (centres[-1] - centres[0]) / (len(centres) - 1) / 2
    return float(centres[0] - half), float(centres[-1] + half)
