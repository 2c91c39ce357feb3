"""Reader of recordings of mouse V1 to 2,800 natural images (Stringer et al. 2019)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.core import indexing

from v1tlearn._instead import path_of
from v1tlearn._options import as_word
from v1tlearn._values import plain
from v1tlearn.datasets.given_files import check_there, mouse_names, paths_of
from v1tlearn.datasets.image_stack import StimulusArray, View
from v1tlearn.datasets.natimg_files import Recorded, open_images, read_classes, read_recorded
from v1tlearn.datasets.schema import (
    AXES,
    DIMS,
    POSITION_ATTRS,
    RESPONSES_ATTRS,
    STIMULI_ATTRS,
    check_read,
)
from v1tlearn.datasets.spontaneous import SPONTANEOUS, SPONTANEOUS_DIMS

_RED_CELLS = ("drop", "keep")
_SPLIT_SEED = 1234  # of the published split
_SPONTANEOUS_ATTRS = RESPONSES_ATTRS | {"long_name": "activity without stimuli"}


def read_natimg2800(
    responses: str | os.PathLike | Sequence[str | os.PathLike],
    images: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    names: Sequence[str] | None = None,
    red_cells: Literal["drop", "keep"] = "drop",
    test_fraction: float = 0.1,
    validation_fraction: float = 0.1,
) -> xr.DataTree:
    """Open recordings of ten thousand neurons of mouse V1 to natural images (Stringer et al. 2019).

    Parameters
    ----------
    responses : path or sequence of paths
        One MATLAB file per recording, ``natimg2800_{mouse}_{date}.mat``, with the structure `stim`:
        `resp` (trials, neurons), `istim` (trials,), the image of each trial counted from 1, and
        `spont` (frames, neurons), which may be empty; optional `med` (neurons, 3) and the array of
        structures `stat` with the field `redcell`. Or ``responses.mat`` with `responses` (images,
        neurons), one response to each image.
    images : path
        The images of all recordings, as MATLAB file with `imgs` (height, width, images), such as
        ``images_natimg2800_all.mat``, or `images` (images, height, width).
    classes : path, optional
        ``stimuli_class_assignment.mat`` or ``stimuli_class_assignment_confident.mat`` (version 5),
        with `class_assignment`, a number for each image, and `class_names`, counted from 0.
    names : sequence of str, optional
        Names of the recordings; without it they come from the file names, and from the folder for
        ``responses.mat``: "M170714_MP032_2017-08-07", "M6".
    red_cells : {"drop", "keep"}, default="drop"
        What becomes of cells that `stat.redcell` marks, interneurons (GAD+): the published analyses
        leave them out. "keep" tells them in the coordinate `red_cell`.
    test_fraction, validation_fraction : float, default=0.1
        Share of the images in the tiers "test" and "validation", rounded up; all repeats of an
        image, in all recordings, are in one tier. A tenth gives the published test images of Wang
        et al. (2026).

    Returns
    -------
    DataTree
        One child per recording with

        * `stimuli` (trial, channel, height, width): uint8 as stored, or float32; read when indexed;
        * `responses` (trial, neuron): float32, every presentation of an image a trial, in the order
          of the file; trials of the grey screen are left out. NaN where the file has it;
        * `spontaneous` (frame, neuron): float32, if the file has it;
        * coordinates `image_id` (place in the stack, from 0), `trial_id` (place among all
          presentations, those of the grey screen too), `tier`, `category` with `classes`,
          `neuron` (place in the file, red cells counted) and `position` (neuron, axis), the
          estimated positions of `med`, taken to be in micrometres.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        Naming mouse and file: arrays that are missing or do not fit each other, images that the
        stack does not have, Inf, NaN in images or spontaneous activity; a tier of training that is
        left without images; `stat` of version 7.3, which does not tell red cells.

    See Also
    --------
    fetch_natimg2800 : Downloads the files.
    v1tlearn.preprocessing.SpontaneousProjector : The published preprocessing.

    Notes
    -----
    Images are split by the permutation of NumPy's `RandomState(1234)`: the first are for testing,
    the next for validation.

    References
    ----------
    Stringer et al. 2019, High-dimensional geometry of population responses in visual cortex, Nature
    571, 361-365; Figshare 6845348. Wang et al. 2026, arXiv 2605.04309.
    """
    as_word(red_cells, _RED_CELLS, "red_cells")
    call = "read_natimg2800(responses, images)"
    paths = paths_of(responses, "read_natimg2800")
    mice = mouse_names([_name_of(path) for path in paths], names)
    image_path = Path(path_of("images", images, call))
    class_path = None if classes is None else Path(path_of("classes", classes, call))
    check_there([*paths, image_path, *([class_path] if class_path else [])], "natimg2800")
    stack = open_images(image_path)
    view = View(stack, slice(0, stack.shape[2]))
    view.check_finite()
    labels = {"tier": _tiers(stack.shape[0], test_fraction, validation_fraction)}
    if class_path is not None:
        labels["category"] = read_classes(class_path, stack.shape[0])
    datasets = {}
    for mouse, path in zip(mice, paths, strict=True):
        recorded = read_recorded(mouse, path, stack.shape[0], red_cells)
        datasets[mouse] = _dataset(mouse, recorded, view, labels)
    check_read(paths, datasets)
    return xr.DataTree(children={mouse: xr.DataTree(ds) for mouse, ds in datasets.items()})


def _name_of(path: Path) -> str:
    if path.stem == "responses":
        return path.absolute().parent.name
    return re.sub(r"^natimg2800_((white|8D|4D|small)_)?", "", path.stem)


def _tiers(n_images: int, test_fraction: float, validation_fraction: float) -> np.ndarray:
    """Tier of each image."""
    counts = {}
    for tier, share in (("test", test_fraction), ("validation", validation_fraction)):
        number = plain(share)
        if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number < 1:
            raise ValueError(f"{tier}_fraction is {share!r}, expected a number in [0, 1).")
        counts[tier] = math.ceil(number * n_images)
    if (n_held_out := sum(counts.values())) >= n_images:
        raise ValueError(
            f"test_fraction={test_fraction!r} and validation_fraction={validation_fraction!r} of "
            f"{n_images} images leave none for training; lower them"
        )
    order = np.random.RandomState(_SPLIT_SEED).permutation(n_images)  # as published
    tiers = np.full(n_images, "train", "U10")
    tiers[order[: counts["test"]]] = "test"
    tiers[order[counts["test"] : n_held_out]] = "validation"
    return tiers


def _dataset(
    mouse: str, recorded: Recorded, view: View, labels: dict[str, np.ndarray]
) -> xr.Dataset:
    images = recorded.images
    if not len(images):
        raise ValueError(f"mouse {mouse!r}: all trials show the grey screen; expected images")
    stimuli = indexing.LazilyIndexedArray(StimulusArray(view, images))
    variables: dict[str, Any] = {
        "stimuli": xr.Variable(DIMS["stimuli"], stimuli, STIMULI_ATTRS),
        "responses": (DIMS["responses"], recorded.responses, RESPONSES_ATTRS),
    }
    coords: dict[str, Any] = {"image_id": ("trial", images), "neuron": recorded.neurons}
    coords |= {name: ("trial", of_images[images]) for name, of_images in labels.items()}
    if recorded.order is not None:
        coords["trial_id"] = ("trial", recorded.order)
    if recorded.spontaneous is not None:
        variables[SPONTANEOUS] = (SPONTANEOUS_DIMS, recorded.spontaneous, _SPONTANEOUS_ATTRS)
    if recorded.position is not None:
        coords["position"] = (("neuron", "axis"), recorded.position, POSITION_ATTRS)
        coords["axis"] = ("axis", list(AXES[: recorded.position.shape[1]]))
    if recorded.red is not None:
        coords["red_cell"] = ("neuron", recorded.red)
    return xr.Dataset(variables, coords)
