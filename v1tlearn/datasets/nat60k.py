"""Readers of the recordings of Du et al. (2025): natural images and textures in one stack."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._instead import path_of
from v1tlearn._options import as_word
from v1tlearn._values import plain
from v1tlearn._warn import warn
from v1tlearn.datasets.given_files import check_there, mouse_names, paths_of
from v1tlearn.datasets.image_stack import ImageStack, StimulusArray, View, mirrored
from v1tlearn.datasets.response_files import ResponseFile
from v1tlearn.datasets.schema import (
    DIMS,
    RESPONSES_ATTRS,
    STIMULI_ATTRS,
    check_read,
)

N_TEST_IMAGES = 500  # the first of the natural images
FIRST_MIRRORED = 30_000  # image of the stack that mirrors the first one
FIRST_TEXTURE = 60_000
# Columns of the screen that were in view of the neurons, by mouse.
WINDOWS = {
    **dict.fromkeys(("L1_A5", "L1_A1", "FX9", "FX10", "FX8"), (0, 130)),
    "FX20": (46, 176),
}
_FLIPS = ("keep", "drop", "drop_published", "originals")
_MOST_IMAGES = 2**32  # of which no stack has so many
_BLOCK_NEURONS = 256  # that become float32 at once

Window = tuple[int, int] | None
Flips = Literal["keep", "drop", "drop_published", "originals"]


def read_nat60k(
    responses: str | os.PathLike | Sequence[str | os.PathLike],
    images: str | os.PathLike,
    *,
    names: Sequence[str] | None = None,
    window: Literal["auto"] | Window | Mapping[str, Window] = "auto",
    downsample: float = 1.0,
    flips: Flips = "keep",
    validation_every: int | None = 10,
) -> xr.DataTree:
    """Open recordings of mouse V1 to tens of thousands of natural images (Du et al. 2025).

    Parameters
    ----------
    responses : path or sequence of paths
        One file per mouse, ``{mouse}_nat60k_{date}.npz``, with `sp` (neurons, trials), `istim_sp`
        (trials,), `ss_all`, repeats by neurons for each test image, of equal or unequal numbers of
        repeats, `istim_ss` (test images,) and, optional, `xpos`, `ypos`, `iplane` (neurons,).
    images : path
        The images of all mice, ``nat60k_text16.mat`` (version 5 or 7.3), `img` (height, width,
        images): 30,000 natural images, of which the first 500 are for testing, their copies
        mirrored from left to right, and textures.
    names : sequence of str, optional
        Names of the mice in the order of `responses`; without it they come from the file names,
        "FX10" for ``FX10_nat60k_2023_05_16.npz``.
    window : "auto", (int, int), None or dict of these per mouse
        First column of the images that is read, and the one behind the last. "auto" knows those of
        the published mice: 0 to 130, for FX20 46 to 176. None reads whole images.
    downsample : float, default=1.0
        Make the window smaller by this factor, bilinear and without a filter, as published for
        factors above 1: each side is rounded down.
    flips : {"keep", "drop", "drop_published", "originals"}, default="keep"
        What becomes of training trials that show a mirrored copy of a test image, found by content
        and by place in the stack, and named in the coordinate `flip_of`. "keep" keeps them, as
        published for five of the six mice: a model trained on them has all but seen the test
        images, and estimators warn. "drop" leaves these trials out. "drop_published" leaves out
        images 30,000 to 30,500 as published for mouse L1_A1, though 30,500 mirrors no test image.
        "originals" leaves out all mirrored images, 30,000 and above.
    validation_every : int or None, default=10
        Every so manieth of the training trials that are kept, from the first on, has the tier
        "validation". None: none has.

    Returns
    -------
    DataTree
        One child per mouse with

        * `stimuli` (trial, channel, height, width): uint8 as stored, or float32; read when indexed.
          Images that are not compressed in their file are mapped, others held once for all mice;
        * `responses` (trial, neuron): float32, first the training trials in file order, then the
          test trials image by image;
        * coordinates `tier`, `image_id` (place in the stack), `flip_of` (the test image that the
          trial's image mirrors, -1 for none), `position` (neuron, axis) in micrometres, `plane`;
        * `stimuli_mean`, `stimuli_std` of all images of the stack in this window, as published;
          `responses_mean`, `responses_std` (ddof 0) of the tier "train".

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        Naming the mouse and the file: arrays that are missing or do not fit each other, images that
        the stack does not have, unknown windows, Inf, NaN in images; anything that a file holds
        beside plain arrays, of which nothing is run.

    Warns
    -----
    UserWarning
        If images that mirror test images by their place are others by their content: they count as
        mirrored.

    See Also
    --------
    read_text16 : The texture recordings of four of these mice.
    fetch_nat60k : Downloads the files.

    References
    ----------
    Du et al. 2025, Towards a simplified model of primary visual cortex; Figshare 28797638.
    """
    as_word(flips, _FLIPS, "flips")
    every = plain(validation_every)
    if every is not None and not (isinstance(every, int) and every >= 1):
        raise ValueError(
            f"validation_every is {validation_every!r}, expected a whole number from 1 on, or None."
        )

    def _read(file: ResponseFile, stack: ImageStack) -> _Recording:
        shown = file.images("istim_sp", "istim", n=file.n_trials)
        test = file.images("istim_ss", "ss_istim", n=len(file.repeats))
        flip_of = _flips(file, stack, shown, test)
        kept = _kept(shown, flip_of, flips)
        tiers = np.full(kept.sum(), "train", "U10")
        if every is not None:
            tiers[::every] = "validation"
        return _Recording(shown[kept], test, tiers, kept, {"flip_of": (flip_of[kept], -1)})

    return _read_all(responses, images, names, window, downsample, "nat60k", _read)


def read_text16(
    responses: str | os.PathLike | Sequence[str | os.PathLike],
    images: str | os.PathLike,
    *,
    names: Sequence[str] | None = None,
    window: Literal["auto"] | Window | Mapping[str, Window] = "auto",
    downsample: float = 1.0,
    first_image: int | None = None,
) -> xr.DataTree:
    """Open recordings of mouse V1 to sixteen categories of textures (Du et al. 2025).

    Parameters
    ----------
    responses : path or sequence of paths
        One file per mouse, ``text16_{mouse}_{date}.npz``, with `sp` (neurons, trials), `istim` or
        `istim_sp` and `labels` (trials,), `ss_all`, repeats by neurons for each test image,
        `ss_istim` or `istim_ss` and `ss_labels` (test images,).
    images, names, window, downsample
        As for `read_nat60k`.
    first_image : int, optional
        Added to the numbers of images in the files: 60,000 where these count textures from 0, 0
        where they count from the first image of the stack, although some are below 60,000. Without
        it they have to be 60,000 or above.

    Returns
    -------
    DataTree
        As of `read_nat60k`, with the coordinate `category` (trial), and the tiers "train" and
        "test". Positions are there if the file has them.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_nat60k`; and if images are numbered below 60,000 without `first_image`, or one is
        in several categories.

    See Also
    --------
    read_nat60k : Says what the parameters mean.
    v1tlearn.metrics.fecv : Variance between categories.

    References
    ----------
    Du et al. 2025, Towards a simplified model of primary visual cortex; Figshare 28797638.
    """
    first = plain(first_image, "first_image")
    whole = isinstance(first, int) and not isinstance(first, bool)
    if first is not None and not (whole and 0 <= first < _MOST_IMAGES):
        raise ValueError(
            f"first_image is {first_image!r}, expected a whole number from 0 on, or None."
        )

    def _read(file: ResponseFile, stack: ImageStack) -> _Recording:
        shown = _textures(file, ("istim", "istim_sp"), file.n_trials, first)
        test = _textures(file, ("ss_istim", "istim_ss"), len(file.repeats), first)
        labels = file.labels("labels", len(shown)), file.labels("ss_labels", len(test))
        _check_categories(file, np.concatenate([shown, test]), *labels)
        tiers, kept = np.full(len(shown), "train", "U10"), np.ones(len(shown), bool)
        return _Recording(shown, test, tiers, kept, {"category": labels})

    return _read_all(responses, images, names, window, downsample, "text16", _read)


class _Recording(NamedTuple):
    """Trials of one mouse; labels of training trials, and for each test image."""

    shown: np.ndarray  # (kept,) images
    test: np.ndarray  # (test images,)
    tiers: np.ndarray  # (kept,)
    kept: np.ndarray  # (trials,) bool
    labels: dict[str, tuple[np.ndarray, Any]]


def _read_all(
    responses: Any,
    images: Any,
    names: Sequence[str] | None,
    window: Any,
    downsample: float,
    layout: str,
    read: Any,
) -> xr.DataTree:
    paths = paths_of(responses, f"read_{layout}")
    date = r"_\d{4}_\d\d_\d\d$"
    found = [re.sub(f"^{layout}_|_{layout}(?={date})|{date}", "", path.stem) for path in paths]
    mice = mouse_names(found, names)
    factor = plain(downsample)
    if not (isinstance(factor, int | float) and 1 <= factor < np.inf):
        raise ValueError(f"downsample is {downsample!r}, expected a number from 1 on.")
    image_path = Path(path_of("images", images, f"read_{layout}(responses, images)"))
    check_there((*paths, image_path), layout)
    stack = ImageStack(image_path, "img")
    views = {m: View(stack, _window(m, window, stack), factor) for m in mice}
    for mouse, view in views.items():
        if 0 in view.image_shape:
            width = len(range(stack.shape[2])[view.window])
            raise ValueError(
                f"mouse {mouse!r}: downsample is {downsample!r} of images of {stack.shape[1]} x "
                f"{width} pixels, which leaves none: expected at most the smaller side."
            )
    moments = {str(view.window): view.moments() for view in views.values()}
    datasets = {}
    for mouse, path in zip(mice, paths, strict=True):
        file, view = ResponseFile.open(mouse, path), views[mouse]
        recording = read(file, stack)
        datasets[mouse] = _dataset(file, view, recording, moments[str(view.window)])
    check_read(paths, datasets)
    return xr.DataTree(children={mouse: xr.DataTree(ds) for mouse, ds in datasets.items()})


def _window(mouse: str, window: Any, stack: ImageStack) -> slice:
    if isinstance(window, Mapping):
        if mouse not in window:
            raise ValueError(f"mouse {mouse!r}: window has no entry, only {list(window)}.")
        window = window[mouse]
    width = stack.shape[2]
    if isinstance(window, str) and window == "auto":
        if mouse not in WINDOWS:
            raise ValueError(
                f"mouse {mouse!r}: which columns of the images were in its view is known of "
                f"{', '.join(WINDOWS)} only: pass window=(first, stop), or None for all {width}."
            )
        window = WINDOWS[mouse]
    if window is None:
        return slice(0, width)
    try:
        first, stop = (operator.index(column) for column in window)
    except (TypeError, ValueError):
        first = stop = -1
    if not 0 <= first < stop <= width:
        raise ValueError(
            f"mouse {mouse!r}: window is {window!r}, expected two columns (first, stop) of images "
            f"that are {width} wide in {stack.path}."
        )
    return slice(first, stop)


def _textures(
    file: ResponseFile, names: tuple[str, str], n: int, first_image: int | None
) -> np.ndarray:
    images = file.images(*names, n=n)
    if first_image is None and (images < FIRST_TEXTURE).any():
        raise ValueError(
            f"mouse {file.mouse!r}: {file.npz.first_of(*names)} in {file.npz.path} names images "
            f"from {images.min()} to {images.max()}, but textures begin at {FIRST_TEXTURE} of the "
            f"stack: pass first_image={FIRST_TEXTURE} if they are counted from the first texture, "
            "or 0 if the stack is another"
        )
    return images + (first_image or 0)


def _check_categories(
    file: ResponseFile, images: np.ndarray, single: np.ndarray, repeated: np.ndarray
) -> None:
    """Refuse labels of two kinds, of which none would equal another, and images with several."""
    numbers = [v.dtype.kind in "iuf" for v in (single, repeated)]
    if len(repeated) and single.dtype.kind != repeated.dtype.kind and not all(numbers):
        file.refuse(
            f"labels are of type {single.dtype} and ss_labels of type {repeated.dtype}",
            "numbers in both, or text",
        )
    labels = np.concatenate([single, repeated]) if len(repeated) else single
    _, first, codes = np.unique(images, return_index=True, return_inverse=True)
    if len(other := np.flatnonzero(labels[first][codes] != labels)):
        place = other[0]
        both = [labels[first][codes][place].item(), labels[place].item()]
        file.refuse(f"image {images[place]} is in the categories {both}", "one for each image")


def _flips(
    file: ResponseFile, stack: ImageStack, shown: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Which test image that of each trial mirrors; -1 for none."""
    _check_in_stack(file, stack, shown, test)
    by_content = mirrored(stack, shown, test)
    by_place = {FIRST_MIRRORED + int(one): int(one) for one in test if one < N_TEST_IMAGES}
    placed = np.intersect1d(shown, list(by_place)).tolist()
    others = [number for number in placed if by_content.get(number) != by_place[number]]
    if others:
        warn(
            f"mouse {file.mouse!r}: {len(others)} images that by their place in {stack.path} "
            f"mirror test images, the first {others[0]}, are others by their content. They "
            "count as mirrored: is it the file of these recordings?"
        )
    known = by_content | {number: by_place[number] for number in placed}
    return np.array([known.get(number, -1) for number in shown.tolist()], np.int64)


def _check_in_stack(file: ResponseFile, stack: ImageStack, *images: np.ndarray) -> None:
    for numbers in images:
        outside = numbers[(numbers < 0) | (numbers >= stack.shape[0])]
        if len(outside):
            file.refuse(
                f"there are images such as {outside[0]}",
                f"numbers below {stack.shape[0]}, of which {stack.path} has images",
            )


def _kept(shown: np.ndarray, flip_of: np.ndarray, flips: str) -> np.ndarray:
    if flips == "drop":
        return flip_of < 0
    if flips == "drop_published":
        return (shown < FIRST_MIRRORED) | (shown > FIRST_MIRRORED + N_TEST_IMAGES)
    if flips == "originals":
        return shown < FIRST_MIRRORED
    return np.ones(len(shown), bool)


def _dataset(
    file: ResponseFile, view: View, recording: _Recording, moments: tuple[float, float]
) -> xr.Dataset:
    _check_in_stack(file, view.stack, recording.shown, recording.test)
    if len(recording.shown) == 0:
        file.refuse("no training trial is left", "some that show other images")
    counts = [len(repeats) for repeats in file.repeats]
    images = np.concatenate([recording.shown, np.repeat(recording.test, counts)])
    responses = file.responses(recording.kept)
    coords: dict[str, Any] = {
        "image_id": ("trial", images),
        "tier": ("trial", np.concatenate([recording.tiers, np.repeat("test", sum(counts))])),
    }
    for name, (single, repeated) in recording.labels.items():
        of_test = np.repeat(np.broadcast_to(repeated, len(counts)), counts)
        coords[name] = ("trial", np.concatenate([single, of_test]))
    train = responses[np.flatnonzero(coords["tier"][1] == "train")]
    with np.errstate(invalid="ignore"):
        mean, std = _moments(train)
    stimuli = indexing.LazilyIndexedArray(StimulusArray(view, images))
    return xr.Dataset(
        {
            "stimuli": xr.Variable(DIMS["stimuli"], stimuli, STIMULI_ATTRS),
            "responses": (DIMS["responses"], responses, RESPONSES_ATTRS),
            "stimuli_mean": ((), moments[0]),
            "stimuli_std": ((), moments[1]),
            "responses_mean": (("neuron",), mean),
            "responses_std": (("neuron",), std),
        },
        coords | file.neurons(),
    )


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation over the trials that were recorded, (neurons,)."""
    means, stds = np.empty(values.shape[1], "f4"), np.empty(values.shape[1], "f4")
    for start in range(0, values.shape[1], _BLOCK_NEURONS):
        neurons = slice(start, start + _BLOCK_NEURONS)
        block = values[:, neurons].astype(np.float64)
        recorded = ~np.isnan(block)
        count = recorded.sum(axis=0)
        mean = np.where(recorded, block, 0).sum(axis=0) / count
        squares = np.where(recorded, (block - mean) ** 2, 0).sum(axis=0)
        means[neurons], stds[neurons] = mean, np.sqrt(squares / count)
    return means, stds
