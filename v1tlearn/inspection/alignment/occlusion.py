"""Which parts of an image make it similar to the responses: cover them, and see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn._values import as_whole
from v1tlearn.inspection._controls import generator
from v1tlearn.inspection.alignment._pairs import Pairs, read_pairs
from v1tlearn.inspection.alignment._saliency import (
    as_fill,
    encoded,
    fill_values,
    in_parts,
    labelled,
    paired,
    precisely,
    queries_and_controls,
)
from v1tlearn.preprocessing.structure import patch_sides
from v1tlearn.training import isolated
from v1tlearn.trials import Trials


@isolated()
def occlusion_saliency(
    aligner: Any,
    trials: Trials,
    *,
    patch_size: int | tuple[int, int] = 8,
    stride: int | tuple[int, int] | None = None,
    fill: str | float = "mean",
    batch_size: int = 64,
    random_state: Any = 0,
) -> xr.Dataset:
    """Cover parts of images, and tell how much less similar to the responses they become.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        Of at least two images per mouse, between which the control is made. All trials of an image
        share the covered images.
    patch_size : int or (int, int), default=8
        Side, or height and width, of what is covered at once, in pixels of the stimuli.
    stride : int or (int, int), optional
        From one patch to the next, at most `patch_size`; by default half of it, rounded up. The
        last ones lie at the lower and right edge, so that every pixel is covered.
    fill : "mean" or float, default="mean"
        What covers: the mean of the image, in each channel, or a grey level.
    batch_size : int, default=64
        Covered images that pass the image tower at once.
    random_state : int, RandomState, Generator or None, default=0
        Which other image's responses are the control.

    Returns
    -------
    Dataset
        Over ``trial``, in the order of the trials, ``height`` and ``width``, pixels of the stimuli
        before any crop: ``saliency``, the cosine of the pair less that with the patch
        covered, the mean over all patches that cover the pixel; and ``control``, the same for this
        image and the responses to another one, of the same mouse. Over ``trial`` the ``similarity``
        of the pair. With ``mouse_id`` and ``image_id``.

    Raises
    ------
    TypeError, ValueError
        If this is no alignment, a mouse saw one image or images that are all the same, or an option
        is out of its range.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Every image passes the image tower once for each patch: 1,072 times where 8 x 8 pixels of
    68 x 270 are covered in steps of 4. A stride of the size of the patch takes a quarter of it, and
    `gradient_saliency` one pass.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import occlusion_saliency
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> occlusion_saliency(est, trials.sel(tier="test"), patch_size=4)["saliency"].shape
    (15, 16, 24)
    """
    batch_size, level = as_whole(batch_size, "batch_size"), as_fill(fill)
    pairs = read_pairs(aligner, trials)
    rng = generator(random_state)
    sides = patch_sides(patch_size, pairs[0].images.shape[2:], "patch_size")
    steps = _steps(stride, sides)
    with precisely(aligner):
        parts = [_of_mouse(aligner, own, sides, steps, level, batch_size, rng) for own in pairs]
    attrs = {"method": "occlusion", "patch_size": list(sides), "stride": list(steps)}
    return labelled(trials, pairs, parts, ("trial", "height", "width"), attrs, "cosine")


def _of_mouse(
    aligner: Any,
    own: Pairs,
    sides: tuple[int, int],
    steps: tuple[int, int],
    fill: float | None,
    batch_size: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Saliency of trials (n, height, width), their control, and similarities (n,)."""
    size = own.images.shape[2:]
    corners = _corners(size, sides, steps)
    values = fill_values(own.images, fill)
    queries, controls = queries_and_controls(aligner, own, rng)
    both = torch.stack((queries, controls))
    whole = encoded(aligner, own.images, batch_size)
    found = np.empty((2, len(own.shown), *size), np.float32)
    for image in range(len(own.images)):
        at = np.flatnonzero(own.shown == image)
        covered = _covered(own.images[image], values[image], corners, sides, batch_size)
        drops = [
            both[:, at] @ (whole[image] - encoded(aligner, batch, batch_size)).T
            for batch in covered
        ]
        for out, own_drops in zip(found, torch.cat(drops, -1).cpu().double(), strict=True):
            out[at] = _over_pixels(own_drops.numpy(), corners, sides, size)
    return found[0], found[1], paired(queries, whole, own.shown)


def _steps(stride: Any, sides: tuple[int, int]) -> tuple[int, int]:
    if stride is None:
        return -(-sides[0] // 2), -(-sides[1] // 2)
    return patch_sides(stride, sides, "stride", of="the patch")


def _corners(
    size: tuple[int, int], sides: tuple[int, int], steps: tuple[int, int]
) -> list[tuple[int, int]]:
    """Upper left pixels of all patches."""
    starts = [
        sorted({*range(0, whole - side + 1, step), whole - side})
        for whole, side, step in zip(size, sides, steps, strict=True)
    ]
    return [(top, left) for top in starts[0] for left in starts[1]]


def _covered(
    image: np.ndarray,
    fill: np.ndarray,
    corners: list[tuple[int, int]],
    sides: tuple[int, int],
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Copies of an image, each with a patch covered, some at a time."""
    for rows in in_parts(len(corners), batch_size):
        some = corners[rows]
        copies = np.repeat(image[None].astype(np.float64), len(some), axis=0)
        for copy, (top, left) in zip(copies, some, strict=True):
            copy[:, top : top + sides[0], left : left + sides[1]] = fill
        yield copies


def _over_pixels(
    drops: np.ndarray,
    corners: list[tuple[int, int]],
    sides: tuple[int, int],
    size: tuple[int, int],
) -> np.ndarray:
    """Mean over the patches that cover each pixel, of values (n, patches)."""
    sums, counts = np.zeros((len(drops), *size)), np.zeros(size)
    for values, (top, left) in zip(drops.T, corners, strict=True):
        here = np.s_[top : top + sides[0], left : left + sides[1]]
        sums[(..., *here)] += values[:, None, None]
        counts[here] += 1
    return sums / counts
