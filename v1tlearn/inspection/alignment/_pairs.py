"""Images and the responses to them as maps, by mouse: what analyses of an alignment look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn.estimators import DINAAligner
from v1tlearn.estimators._leaks import warn_of_seen_images
from v1tlearn.inspection._controls import check_aligner
from v1tlearn.inspection._opened import check_trials
from v1tlearn.nn import AlignmentModel, steady_cosines
from v1tlearn.trials import Trials

SPACES = ("images", "responses")


@dataclass(frozen=True)
class Pairs:
    """Images that one mouse saw, and its responses, in the space of an alignment.

    Attributes
    ----------
    mouse : str
    rows : ndarray of int of shape (n_trials,)
        Places of its trials among those that came.
    image_ids : ndarray of shape (n_images,)
        Of the distinct images, sorted.
    shown : ndarray of int of shape (n_trials,)
        Which of them each trial shows.
    images : ndarray of shape (n_images, channels, height, width)
        As the trials give them.
    image_maps : DataArray (trial, channel, height, width)
        One per image.
    response_maps : DataArray (trial, channel, height, width)
        One per trial.
    """

    mouse: str
    rows: np.ndarray
    image_ids: np.ndarray
    shown: np.ndarray
    images: np.ndarray
    image_maps: xr.DataArray
    response_maps: xr.DataArray

    @property
    def mean_response_maps(self) -> np.ndarray:
        """Mean over the repeats of each image, (n_images, channels, height, width), float64."""
        values = self.response_maps.values.astype(np.float64)
        sums = np.zeros((len(self.image_ids), *values.shape[1:]))
        np.add.at(sums, self.shown, values)
        return sums / np.bincount(self.shown)[:, None, None, None]


def read_pairs(aligner: Any, trials: Any) -> list[Pairs]:
    """Bring images and responses of trials to the space, mouse by mouse.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        With responses.

    Returns
    -------
    list of Pairs
        In the order of the mice of the trials.

    Raises
    ------
    TypeError
        If these are no alignment and no trials.
    ValueError
        If a mouse saw one image only, or all its images are the same.
    NotFittedError
        Before `fit`.
    """
    check_aligner(aligner)
    check_trials(trials, "those of at least two images")
    return [_read_pairs(aligner, trials, mouse) for mouse in trials.mice]


def some_images(own: Pairs, kept: np.ndarray) -> Pairs:
    """Take some of the images, with all their trials.

    Parameters
    ----------
    own : Pairs
    kept : ndarray of bool of shape (n_images,)

    Returns
    -------
    Pairs
    """
    trials = kept[own.shown]
    return Pairs(
        own.mouse,
        own.rows[trials],
        own.image_ids[kept],
        (np.cumsum(kept) - 1)[own.shown[trials]],
        own.images[kept],
        own.image_maps[kept],
        own.response_maps[trials],
    )


def pair_of(pairs: Sequence[Pairs], place: int) -> tuple[Pairs, int]:
    """Find a trial by its place among all that came.

    Parameters
    ----------
    pairs : sequence of Pairs
    place : int

    Returns
    -------
    Pairs
        Of its mouse.
    int
        Its place among the trials of this mouse.
    """
    own = next(one for one in pairs if place in one.rows)
    return own, int(np.flatnonzero(own.rows == place)[0])


def similarity(responses: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Cosines of the maps of responses and of images, as `DINAAligner.similarity` has them.

    Parameters
    ----------
    responses : ndarray of shape (n, ...)
    images : ndarray of shape (m, ...)

    Returns
    -------
    ndarray of shape (n, m)
        0 for flat maps.
    """
    first, second = (torch.from_numpy(np.ascontiguousarray(x)) for x in (responses, images))
    return steady_cosines(first, second).numpy().astype(np.float64)


def place_in_image(
    model: AlignmentModel, size: tuple[int, int]
) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """Coordinates of the cells of maps, in pixels of images.

    Parameters
    ----------
    model : AlignmentModel
    size : (int, int)
        Height and width of the images: those of `fit`, or resized as the image tower sees them.

    Returns
    -------
    dict
        ``height`` and ``width``, as xarray takes coordinates: centres of the cells, which divide
        what the image tower sees, after the crop, evenly.
    """
    sides = model.core.output_shape[1:]
    coords = {}
    names = {"height": "row of the image", "width": "column of the image"}
    pixels = [np.arange(side) for side in size]
    if tuple(size) == model.cropper.input_size:
        pixels = [positions.numpy() for positions in model.cropper.source_positions()]
    for (name, long_name), at, n in zip(names.items(), pixels, sides, strict=True):
        step = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 1.0
        centres = at[0] - step / 2 + (np.arange(n) + 0.5) * step * len(at) / n
        coords[name] = (name, centres, {"long_name": long_name, "units": "pixel"})
    return coords


def _read_pairs(aligner: DINAAligner, trials: Trials, mouse: str) -> Pairs:
    rows = trials.rows(mouse)[0]
    own = trials[rows]
    image_ids, first, shown = np.unique(own.image_ids, return_index=True, return_inverse=True)
    if len(image_ids) < 2:
        raise ValueError(
            f"mouse {mouse!r}: the trials show one image, {str(image_ids[0])!r}: which one was "
            "seen can only be asked of at least 2."
        )
    warn_of_seen_images(aligner.__dict__.get("_seen"), own)
    images = own[first].get("stimuli", mouse)
    if (images == images[0]).all():
        raise ValueError(
            f"mouse {mouse!r}: all {len(images)} images are the same, pixel by pixel: there is "
            "nothing to tell apart."
        )
    return Pairs(
        mouse,
        rows,
        image_ids,
        shown,
        images,
        aligner.transform_images(images),
        aligner.transform_responses(own),
    )
