"""Images that an alignment is to tell apart and cannot: too few, or one under two names."""

from __future__ import annotations

import hashlib

import numpy as np

from v1tlearn._values import first_few
from v1tlearn._warn import warn
from v1tlearn.trials import Trials

_DIGEST_SIZE = 16  # bytes


def check_images(trials: Trials, whose: str = "all") -> None:
    """Check that there is something to tell apart, and that labels say what is.

    Images are looked at where they bear labels and are in memory.
    """
    for mouse in trials.mice:
        own = trials[trials.rows(mouse)[0]]
        labels = np.unique(own.image_ids, return_inverse=True)[1]
        told = f"mouse {mouse!r}: {whose} trials show one image"
        remedy = ", or set validation_fraction=0." if whose != "all" else "."
        if labels.max() == 0:
            raise ValueError(
                f"{told}: an alignment tells images apart, give trials of at least 2{remedy}"
            )
        if not own._recordings[mouse].variables["stimuli"]._in_memory:
            continue
        contents = np.unique(_digests(own.get("stimuli", mouse)), return_inverse=True)[1]
        if contents.max() == 0:
            raise ValueError(
                f"{told}, under {labels.max() + 1} image ids: an alignment tells images apart, "
                f"give trials of at least 2{remedy}"
            )
        _warn_of_names(mouse, own.image_ids, labels, contents)


def _warn_of_names(
    mouse: str, image_ids: np.ndarray, labels: np.ndarray, contents: np.ndarray
) -> None:
    """Warn of one image with several ids, and of one id of several images."""
    pairs = np.unique(np.stack((labels, contents)), axis=1)
    names, images = pairs
    _, n_names = np.unique(images, return_counts=True)
    if (several := n_names > 1).any():
        alike = np.unique(image_ids)[names[np.isin(images, np.flatnonzero(several))]]
        warn(
            f"mouse {mouse!r}: {several.sum()} images have several ids, {first_few(alike, 'id')}: "
            "their trials count as of different images, which nothing tells apart, so that scores "
            "are too low. Give an image one id, or leave image_ids out."
        )
    _, n_images = np.unique(names, return_counts=True)
    if (several := n_images > 1).any():
        warn(
            f"mouse {mouse!r}: {several.sum()} image ids name several images, "
            f"{first_few(np.unique(image_ids)[several], 'id')}: their trials count as repeats of "
            "one. Give every image its own id, or leave image_ids out."
        )


def _digests(images: np.ndarray) -> np.ndarray:
    """What tells images apart by content."""
    rows = (np.ascontiguousarray(one).data for one in images)
    found = (hashlib.blake2b(one, digest_size=_DIGEST_SIZE) for one in rows)
    return np.array([digest.hexdigest() for digest in found])
