"""Reconstruction by retrieval: the mean of the images that were found."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn._options import as_word
from v1tlearn._values import as_array
from v1tlearn.decoding._calls import images_of, labelled_images
from v1tlearn.estimators import DINAAligner
from v1tlearn.trials import Trials

_WEIGHTS = ("uniform", "similarity")


def reconstruct_by_retrieval(
    aligner: DINAAligner,
    responses: Any,
    gallery: Any,
    k: int = 1,
    *,
    weights: str = "uniform",
) -> xr.DataArray:
    """Reconstruct images as the mean of those of a gallery that are most similar to responses.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    responses : Trials, Responses, dict, ndarray or DataArray
        As in `DINAAligner.transform_responses`, or what it gave.
    gallery : Trials or ndarray of shape (n_images, channels, height, width)
        Images to choose from. Of `Trials` every image counts once, however often it was shown.
        Where the images that were seen are among them, this is identification.
    k : int, default=1
        How many images, at most as many as the gallery has.
    weights : {"uniform", "similarity"}, default="uniform"
        "similarity" weights images by their cosine, those below 0 by 0; alike where all are.

    Returns
    -------
    DataArray of dims (trial, channel, height, width)
        In the units of the gallery, with the coordinates of `DINAAligner.transform_responses`.

    Raises
    ------
    TypeError
        If the aligner is none, or the gallery has no images, such as maps.
    ValueError
        If `k` is no number from 1 to the size of the gallery, or weights are unknown.
    NotFittedError
        If the aligner is not fitted.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.decoding import reconstruct_by_retrieval
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> train, test = trials.sel(tier="train"), trials.sel(tier="test")
    >>> aligner = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> reconstruct_by_retrieval(aligner.fit(train), test, train, k=4).shape
    (15, 1, 16, 24)
    """
    if not isinstance(aligner, DINAAligner):
        raise TypeError(f"aligner is a {type(aligner).__name__}: expected a fitted DINAAligner.")
    check_is_fitted(aligner)
    weights = as_word(weights, _WEIGHTS, "weights")
    if isinstance(gallery, Trials):
        first = np.unique(gallery.image_ids, return_index=True)[1]
        gallery = gallery[np.sort(first)]
        images = images_of(gallery)
    else:
        images = as_array(gallery, "gallery", of="image")
        expected = tuple(aligner.image_shape_)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise TypeError(
                f"gallery is a {type(gallery).__name__} of shape {np.shape(gallery)}: expected "
                f"Trials, or images (n, {', '.join(map(str, expected))}); of maps no image is made."
            )
        gallery = images
    maps = responses
    if not isinstance(responses, xr.DataArray):
        maps = aligner.transform_responses(responses)
    places, cosines = aligner.retrieve(maps, gallery, k)
    shares = np.ones(cosines.shape)
    if weights == "similarity":
        positive = np.maximum(cosines, 0)
        shares = np.where(positive.sum(axis=1, keepdims=True) > 0, positive, 1.0)
    shares /= shares.sum(axis=1, keepdims=True)
    flat = images.reshape(len(images), -1)
    found = [share @ flat[at] for share, at in zip(shares, places, strict=True)]
    labels = {str(n): c.values for n, c in maps.coords.items() if c.dims == ("trial",)}
    if isinstance(responses, Trials):
        labels["image_id"] = responses.image_ids
    return labelled_images(np.stack(found), images.shape[1:], labels, "reconstructions")
