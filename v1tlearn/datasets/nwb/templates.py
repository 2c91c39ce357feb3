"""Images that presentations point to: a stack, single ones, or those that the caller has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn.datasets.movie_frames import Frames
from v1tlearn.datasets.nwb.finding import choose, name_of
from v1tlearn.datasets.nwb.images import StoredImages

_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True)
class Asked:
    """What the caller says of the presentations.

    Attributes
    ----------
    stimulus : str or None
        Name of a series or table.
    templates : str, Frames or None
        Name of the images, or the images.
    image_column : str or None
        Of a table.
    first_index : int
        What the first image is counted as.
    blanks : tuple
        Values in place of an image that say that none was shown.
    where : mapping of str to list of labels
        Rows of a table: what columns hold.
    turned : bool
        Whether images are stored with columns before rows.
    """

    stimulus: str | None
    templates: str | Frames | None
    image_column: str | None
    first_index: int
    blanks: tuple[Any, ...]
    where: Mapping[str, list[Any]]
    turned: bool


@dataclass(frozen=True)
class Templates:
    """Images that presentations point to.

    Attributes
    ----------
    name : str
        In the file; in errors.
    images : Frames
    names : ndarray of str (n_images,) or None
        Of the images.
    are_ordered : bool
        Whether they can be counted.
    """

    name: str
    images: Frames
    names: np.ndarray | None = None
    are_ordered: bool = True


def templates_of(path: Path, nwb: Any, asked: Asked, target: Any = None) -> Templates:
    """Images that the caller has, by name, those of a target, or the only ones.

    Parameters
    ----------
    path : Path
    nwb : NWBFile
    asked : Asked
    target : Images or ImageSeries, optional
        What a series of indices points to.

    Returns
    -------
    Templates
    """
    from pynwb.base import Images as ImagesOfFile
    from pynwb.image import ImageSeries

    if asked.templates is not None and not isinstance(asked.templates, str):
        return Templates("templates", asked.templates)
    if target is None or asked.templates is not None:
        kinds = ImagesOfFile | ImageSeries
        found = {n: one for n, one in nwb.stimulus_template.items() if isinstance(one, kinds)}
        name, target = choose(path, "templates of images", found, asked.templates, "templates")
    else:
        name = name_of(target)
    if isinstance(target, ImageSeries):
        return Templates(name, StoredImages.of_series(path, name, target, turned=asked.turned))
    images, are_ordered = _in_order(target, asked.first_index)
    stored = StoredImages.of_images(path, name, images, turned=asked.turned)
    names = np.array([image.name for image in images])
    return Templates(name, stored, names, are_ordered)


def _in_order(target: Any, first: int) -> tuple[list[Any], bool]:
    """Single images in the order that is told, or else by the numbers that their names end in."""
    if target.order_of_images is not None:
        return [*target.order_of_images.data[:]], True
    images = [*target.images.values()]
    ends = [_NUMBER.search(image.name) for image in images]
    numbers = [int(end.group()) for end in ends if end]
    stems = {image.name.rstrip("0123456789") for image in images}
    if len(stems) == 1 and sorted(numbers) == list(range(first, first + len(images))):
        return [images[place] for place in np.argsort(numbers)], True
    return images, len(images) == 1
