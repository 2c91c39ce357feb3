"""What decoders share: their checks of what came, and the labels of what they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import xarray as xr
from sklearn.utils._param_validation import Interval, StrOptions

from v1tlearn._values import plain
from v1tlearn.estimators._leaks import warn_of_seen_images
from v1tlearn.estimators.placement import read_images
from v1tlearn.metrics import pixel_correlation
from v1tlearn.trials import Responses, Trials

IMAGE_DIMS = ("channel", "height", "width")

ALPHA_CONSTRAINTS = [
    StrOptions({"auto"}),
    Interval(Real, 0, None, closed="neither"),
    *(list, tuple, np.ndarray),
]
FOLDS_CONSTRAINTS = [Interval(Integral, 2, None, closed="left")]


def check_alpha(alpha: Any) -> None:
    """Check penalties of which one is to be chosen.

    Raises
    ------
    ValueError
        If they are not positive and finite numbers.
    """
    if isinstance(alpha, str | Real):
        return
    values = np.asarray(plain(list(alpha)))
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiu":
        raise ValueError(f"alpha={alpha!r}: expected 'auto', a number or several numbers.")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"alpha={alpha!r}: expected finite numbers above 0.")


def images_of(trials: Trials) -> np.ndarray:
    """Read the stimuli of all mice, in the order of the trials.

    Parameters
    ----------
    trials : Trials

    Returns
    -------
    ndarray of shape (n_trials, channels, height, width)
        float32, or uint8 where all are.

    Raises
    ------
    ValueError
        If mice saw images of different shapes.
    """
    if not len(trials):
        raise ValueError("there are no trials, and no images of them: give some.")
    parts = {mouse: read_images(trials, mouse) for mouse in trials.mice}
    shapes = {mouse: images.shape[1:] for mouse, images in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"stimuli (channels, height, width) differ between mice: {shapes}. Bring them to one "
            "shape, as v1tlearn.preprocessing does, or decode mouse by mouse."
        )
    rows = np.concatenate([trials.rows(mouse)[0] for mouse in parts])
    joined = np.concatenate(list(parts.values()))
    return joined[np.argsort(rows)]


def check_images(image_ids: np.ndarray, whose: str = "") -> None:
    """Check that trials show several images.

    Raises
    ------
    ValueError
        If they show one.
    """
    if len(np.unique(image_ids)) < 2:
        raise ValueError(
            f"{whose}all {len(image_ids)} trials show one image: there is nothing that tells "
            "images apart, give trials of at least 2."
        )


def check_pixels(images: np.ndarray, whose: str = "") -> None:
    """Check that images with different ids are different.

    Raises
    ------
    ValueError
        If all are equal.
    """
    if (images == images[:1]).all():
        raise ValueError(
            f"{whose}all images are equal, though their ids differ: were the stimuli read, and are "
            "they in the order of the responses?"
        )


def warn_of_seen(decoder: Any, trials: Trials) -> None:
    """Warn where trials repeat images that a decoder, or its aligner, was fitted to."""
    for model in (decoder, getattr(decoder, "aligner", None)):
        warn_of_seen_images(getattr(model, "__dict__", {}).get("_seen"), trials)


def labels_of_answer(asked: Any, by_mouse: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Coordinates of an answer: whose the trials are, and what they showed where that is known."""
    if isinstance(asked, Trials | Responses):
        known = {} if isinstance(asked, Responses) else {"image_id": asked.image_ids}
        return {"mouse_id": asked.mouse_ids, **known}
    return {"mouse_id": np.concatenate([np.full(len(own), m) for m, own in by_mouse.items()])}


def labelled_images(
    values: np.ndarray, shape: Sequence[int], labels: Mapping[str, np.ndarray], name: str
) -> xr.DataArray:
    """Label images of one row each."""
    coords = {label: ("trial", of) for label, of in labels.items()}
    images = values.reshape(len(values), *shape)
    return xr.DataArray(images, dims=("trial", *IMAGE_DIMS), coords=coords, name=name)


def mean_correlation(images: np.ndarray, decoded: np.ndarray, mouse_ids: np.ndarray) -> float:
    """Pixel correlation, mean over the trials of each mouse, then over mice.

    Raises
    ------
    ValueError
        If no image of a mouse has contrast.
    """
    if images.shape != decoded.shape:
        raise ValueError(
            f"stimuli have the shape {images.shape}, what is decoded {decoded.shape}: expected "
            "images of the shape of those at fit."
        )
    correlation = pixel_correlation(images, decoded)
    means = []
    for mouse in dict.fromkeys(mouse_ids.tolist()):
        own = correlation[mouse_ids == mouse]
        if np.isnan(own).all():
            raise ValueError(
                f"mouse {mouse!r}: no image has contrast, so that nothing correlates with them."
            )
        means.append(np.nanmean(own))
    return float(np.mean(means))
