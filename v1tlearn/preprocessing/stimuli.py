"""Transformers of stimuli that learn nothing: centre crop, resize, grayscale.

The pixels are those that the models make inside (`v1tlearn.nn.layers.images`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from v1tlearn._by_name import ByName
from v1tlearn._documentation import DocumentationLinkMixin
from v1tlearn._instead import refuse_no_trials
from v1tlearn._values import as_array, as_dims, holds_mask, plain
from v1tlearn.datasets.schema import DIMS
from v1tlearn.datasets.time_axis import with_time
from v1tlearn.nn.layers.images import center_crop, resize
from v1tlearn.training import isolated
from v1tlearn.trials import Trials


@dataclass(frozen=True)
class StimuliStep:
    """A function of images that a view of trials applies when stimuli are read.

    Attributes
    ----------
    function : callable
        Images (n, channels, height, width) -> images; picklable.
    """

    function: Callable[[np.ndarray], np.ndarray]

    def stimuli(self, mouse_id: str, images: np.ndarray) -> np.ndarray:
        """Apply the function to the images of one mouse."""
        return self.function(images)

    def behaviors(self, mouse_id: str, values: np.ndarray, names: list[str]) -> np.ndarray:
        """Leave behaviour as it is."""
        return values


class _StimuliTransformer(  # type: ignore[call-arg]  # scikit-learn, which knows the keyword, has no types
    DocumentationLinkMixin, TransformerMixin, ByName, BaseEstimator, auto_wrap_output_keys=None
):
    """A transformer that applies one function to images and needs no fit."""

    def _function(self) -> Callable[[np.ndarray], np.ndarray]:
        """Check the parameters and return the function they make."""
        raise NotImplementedError

    def fit(self, X: Trials | np.ndarray, y: Any = None) -> Any:
        """Check parameters and data; nothing is learned.

        Parameters
        ----------
        X : Trials or array (n, [time,] channels, height, width)
            Trials, or stimuli, images or movies.
        y : ignored
            Accepted so that it works in a Pipeline.

        Returns
        -------
        self
        """
        self._function()
        refuse_other_forms(X, "fit", type(self).__name__)
        if not isinstance(X, Trials):
            check_stimuli(X, type(self).__name__)
        return self

    def transform(self, X: Trials | np.ndarray) -> Trials | np.ndarray:
        """Transform stimuli; those of `Trials` when they are read.

        Parameters
        ----------
        X : Trials or array (n, [time,] channels, height, width)
            Trials, or stimuli, images or movies.

        Returns
        -------
        Trials or array (n, [time,] channels, height, width)
            In the form of `X`; behaviour and responses of trials stay as they are.
        """
        function = self._function()
        if isinstance(X, Trials):
            return X.with_step(StimuliStep(function))
        refuse_other_forms(X, "transform", type(self).__name__)
        return frame_by_frame(function, check_stimuli(X, type(self).__name__))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        return tags


class CenterCrop(_StimuliTransformer):
    """Keep the central part of each image.

    The pixels are those of `crop_scale` of the estimators, which crop after standardising.

    Parameters
    ----------
    scale : float
        Share of height and width to keep, above 0 and at most 1.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import CenterCrop
    >>> CenterCrop(scale=0.5).fit_transform(np.zeros((10, 1, 36, 64))).shape
    (10, 1, 18, 32)
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def _function(self) -> Callable[[np.ndarray], np.ndarray]:
        scale = plain(self.scale, "CenterCrop: scale")
        if not isinstance(scale, Real) or not 0 < float(scale) <= 1:
            raise ValueError(
                f"CenterCrop: scale is {self.scale!r}, expected a number above 0 and at most 1."
            )
        return partial(_crop, scale=float(scale))


class ResizeStimuli(_StimuliTransformer):
    """Bilinear resize without antialiasing, as published; float32 comes out of integers.

    Parameters
    ----------
    image_size : tuple of int
        New height and width, in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import ResizeStimuli
    >>> ResizeStimuli((36, 64)).fit_transform(np.zeros((10, 1, 144, 256))).shape
    (10, 1, 36, 64)
    """

    def __init__(self, image_size: tuple[int, int] = (36, 64)) -> None:
        self.image_size = image_size

    def _function(self) -> Callable[[np.ndarray], np.ndarray]:
        size = np.asarray(plain(self.image_size, "ResizeStimuli: image_size"))
        if (
            holds_mask(self.image_size)
            or size.shape != (2,)
            or size.dtype.kind not in "iu"
            or not (1 <= size.min() <= size.max() < 2**15)
        ):
            raise ValueError(
                f"ResizeStimuli: image_size is {self.image_size}, expected (height, width) in "
                f"pixels, each from 1 to {2**15 - 1}."
            )
        return partial(_resize, size=(int(size[0]), int(size[1])))


class Grayscale(_StimuliTransformer):
    """Colour images to one channel: the mean over channels, whatever these are.

    Images of one channel stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from v1tlearn.preprocessing import Grayscale
    >>> Grayscale().fit_transform(np.zeros((10, 3, 36, 64))).shape
    (10, 1, 36, 64)
    """

    def __init__(self) -> None:
        pass  # a signature without parameters, in place of that of `ByName.__new__`

    def _function(self) -> Callable[[np.ndarray], np.ndarray]:
        return _grayscale


def refuse_other_forms(X: Any, method: str, who: str) -> None:
    """Raise for what is neither `Trials` nor an array, with the call that was meant.

    Parameters
    ----------
    X : object
    method, who : str
        The method it was given to, and the name of the transformer, for the error.

    Raises
    ------
    TypeError
        If it is recordings, a path or a dict of arrays.
    """
    if isinstance(X, Trials):
        return
    refuse_no_trials(X, f"{method}({{}})")
    if isinstance(X, Mapping) and not hasattr(X, "shape"):  # as sparse arrays can be
        raise TypeError(
            f"{who} was given a dict: expected Trials, or the array of one mouse. "
            "Trials.from_arrays(stimuli, behaviors) makes trials of dicts."
        )


def check_stimuli(X: Any, who: str) -> np.ndarray:
    """Return stimuli as an array, or say what is wrong with them.

    Parameters
    ----------
    X : array-like (n, [time,] channels, height, width)
        Stimuli, images or movies.
    who : str
        Name of the transformer, for the error.

    Returns
    -------
    array (n, [time,] channels, height, width)
        In their own dtype.

    Raises
    ------
    ValueError
        If the shape is another one or the dtype is no real number.
    """
    timed = isinstance(X, xr.DataArray) and "time" in X.dims
    X = as_dims(X, with_time(DIMS["stimuli"]) if timed else DIMS["stimuli"], f"{who}: stimuli")
    if holds_mask(X) or isinstance(X, list | tuple):
        X = as_array(X, f"{who}: stimuli")
    try:
        images = np.asarray(X)
    except (TypeError, RuntimeError) as error:  # a tensor with gradients, or a sparse one
        kind = type(X).__name__
        raise TypeError(f"{who}: stimuli are a {kind} that NumPy cannot read: {error}") from error
    if images.ndim not in (4, 5) or images.dtype.kind not in "fiu":
        raise ValueError(
            f"{who} takes Trials or stimuli of shape (trials, [time,] channels, height, width), "
            f"got {images.dtype} of shape {images.shape}."
            + (" A gray image needs a channel axis: stimuli[:, None]." if images.ndim == 3 else "")
        )
    return images


def frame_by_frame(function: Callable[[np.ndarray], np.ndarray], stimuli: np.ndarray) -> np.ndarray:
    """Apply a function of images to images, or to the frames of movies.

    Parameters
    ----------
    function : callable
        Images (n, channels, height, width) -> images.
    stimuli : ndarray (n, [time,] channels, height, width)

    Returns
    -------
    ndarray (n, [time,] channels, height, width)
    """
    if stimuli.ndim == 4:
        return function(stimuli)
    out = function(stimuli.reshape(-1, *stimuli.shape[2:]))
    return out.reshape(*stimuli.shape[:2], *out.shape[1:])


def check_images(X: Any, who: str) -> np.ndarray:
    """Return images as an array of finite values, or say what is wrong with them.

    Parameters
    ----------
    X : array-like (n, channels, height, width)
    who : str
        Name of the function, for the error.

    Returns
    -------
    array (n, channels, height, width)
        In their own dtype.

    Raises
    ------
    ValueError
        As `check_stimuli`; or if a value is not finite, which would spread over its image.
    """
    images = check_stimuli(X, who)
    if images.ndim != 4:
        raise ValueError(
            f"{who} takes images of shape (images, channels, height, width), got movies of shape "
            f"{images.shape}: give frames, movies.reshape(-1, *movies.shape[2:])."
        )
    if 0 in images.shape[1:]:
        raise ValueError(f"{who}: images of the shape {images.shape} have no pixels.")
    bad = np.flatnonzero(~np.isfinite(images).all((1, 2, 3)))
    if len(bad):
        raise ValueError(f"{who}: image {bad[0]} has values that are not finite: leave it out.")
    return images


def float_dtype(dtype: np.dtype) -> np.dtype:
    """Type that images of this type become: float32, or float64 where that would lose digits."""
    return np.result_type(dtype, np.float32)


@isolated()
def _crop(images: np.ndarray, scale: float) -> np.ndarray:
    return center_crop(_tensor(images), scale).numpy()


@isolated()
def _resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if images.shape[-2:] == size:
        return images
    return resize(_tensor(images.astype(float_dtype(images.dtype), copy=False)), size).numpy()


def _grayscale(images: np.ndarray) -> np.ndarray:
    if images.shape[1] == 1:
        return images
    return images.mean(axis=1, keepdims=True, dtype=float_dtype(images.dtype))


def _tensor(images: np.ndarray) -> torch.Tensor:
    """Share memory with the array, or copy where torch could write into read-only memory."""
    if not images.flags.writeable or not images.dtype.isnative:
        images = np.array(images, dtype=images.dtype.newbyteorder("="))
    return torch.from_numpy(np.ascontiguousarray(images))
