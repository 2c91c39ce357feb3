"""What a decoder makes of the trials of one mouse, as vectors that are compared with images.

One function per kind of decoder; statistics of the comparison are in `table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn.decoding._calls import IMAGE_DIMS
from v1tlearn.decoding.probe import LinearProbe
from v1tlearn.decoding.ridge import RidgeDecoder
from v1tlearn.estimators import DINAAligner
from v1tlearn.estimators.placement import read_images
from v1tlearn.metrics import ssim
from v1tlearn.metrics.images import unit_contrast
from v1tlearn.nn import scale_maps
from v1tlearn.trials import Trials

Measure = Callable[[np.ndarray], np.ndarray]

SLOW = ("ssim", "map_ssim")  # measures that look at every pixel again for every pairing


@dataclass(frozen=True)
class Comparison:
    """Vectors of the trials and the images of one mouse, whose cosines are similarities.

    Attributes
    ----------
    queries : ndarray of shape (n_trials, features)
        From the responses; of length 1, or 0 without contrast.
    gallery : ndarray of shape (n_images, features)
        Likewise, of the images, each once, sorted by id.
    shown : ndarray of int of shape (n_trials,)
        Which of the images each trial showed.
    measures : dict of str to callable
        Of a pairing (n_trials,), places of images, how alike each trial and its image are; NaN
        where the image has no contrast.
    """

    queries: np.ndarray
    gallery: np.ndarray
    shown: np.ndarray
    measures: Mapping[str, Measure]


def compare(model: Any, trials: Trials, mouse: str) -> Comparison:
    """Compare what a decoder makes of the responses of one mouse with its images.

    Parameters
    ----------
    model : DINAAligner, RidgeDecoder, LinearProbe or DataArray
        Of a DataArray, the reconstructions of all trials.
    trials : Trials
    mouse : str

    Returns
    -------
    Comparison
    """
    rows = trials.rows(mouse)[0]
    own = trials[rows]
    _, first, shown = np.unique(own.image_ids, return_index=True, return_inverse=True)
    if isinstance(model, DINAAligner):
        images = model.transform_images(own[first]).values
        return _of_maps(model.transform_responses(own).values, images, shown)
    decoded = model.values[rows] if isinstance(model, xr.DataArray) else model.predict(own).values
    images = read_images(own[first], mouse).astype(np.float64)
    if decoded.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"mouse {mouse!r}: reconstructions (channels, height, width) are {decoded.shape[1:]}, "
            f"the stimuli of the trials {images.shape[1:]}: decode to images of their shape."
        )
    return _of_pixels(decoded, images, shown)


def check_decoder(name: str, model: Any, trials: Trials) -> None:
    """Check that a decoder, or reconstructions, can be compared with the images of trials.

    Raises
    ------
    TypeError
        If it is none.
    ValueError
        If reconstructions are of other trials, or a probe reads classes.
    NotFittedError
        If it is not fitted.
    """
    if isinstance(model, xr.DataArray):
        if model.dims != ("trial", *IMAGE_DIMS) or len(model) != len(trials):
            raise ValueError(
                f"{name!r} is a DataArray {dict(model.sizes)}: expected reconstructions (trial, "
                f"channel, height, width) of the {len(trials)} trials."
            )
        for label, own in (("image_id", trials.image_ids), ("mouse_id", trials.mouse_ids)):
            known = model.coords.get(label)
            if known is not None and known.values.astype(str).tolist() != own.astype(str).tolist():
                raise ValueError(
                    f"{name!r}: the reconstructions bear another {label} than the trials: give "
                    "those of the same trials in the same order."
                )
        return
    if isinstance(model, type) or not isinstance(model, DINAAligner | RidgeDecoder | LinearProbe):
        what = model.__name__ if isinstance(model, type) else type(model).__name__
        raise TypeError(
            f"{name!r} is {what}: expected a fitted DINAAligner, RidgeDecoder or LinearProbe, or "
            "the reconstructions that reconstruct_images and others give."
        )
    check_is_fitted(model)
    if isinstance(model, LinearProbe) and model.target != "pixels":
        raise ValueError(
            f"{name!r} reads classes, which make no images: use its score, or target='pixels'."
        )


def _of_maps(queries: np.ndarray, images: np.ndarray, shown: np.ndarray) -> Comparison:
    """Maps are compared by their cosines."""
    scaled = [scale_maps(torch.from_numpy(maps)).numpy() for maps in (queries, images)]
    measures = {
        "map_correlation": _correlation(queries, images),
        "map_ssim": lambda pairs: ssim(scaled[1][pairs], scaled[0]),
    }
    return Comparison(_unit(queries), _unit(images), shown, measures)


def _of_pixels(decoded: np.ndarray, images: np.ndarray, shown: np.ndarray) -> Comparison:
    """Images are compared by their correlation over pixels."""
    low, high = float(images.min()), float(images.max())
    measures: dict[str, Measure] = {"pixel_correlation": _correlation(decoded, images)}
    if high > low:
        measures["ssim"] = lambda pairs: ssim(images[pairs], decoded, low=low, high=high)
    return Comparison(unit_contrast(decoded)[0], unit_contrast(images)[0], shown, measures)


def _correlation(queries: np.ndarray, images: np.ndarray) -> Measure:
    (told, _), (seen, contrast) = unit_contrast(queries), unit_contrast(images)
    products = np.where(contrast, (told @ seen.T).clip(-1, 1), np.nan)
    return lambda pairs: products[np.arange(len(products)), pairs]


def _unit(maps: np.ndarray) -> np.ndarray:
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, 1)
