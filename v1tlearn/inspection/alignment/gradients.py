"""Which pixels of an image make it similar to the responses, to first order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn._options import as_finite, as_word
from v1tlearn._values import as_whole
from v1tlearn.inspection._controls import generator
from v1tlearn.inspection.alignment._pairs import Pairs, read_pairs
from v1tlearn.inspection.alignment._saliency import (
    as_fill,
    encode,
    encoded,
    fill_values,
    in_parts,
    labelled,
    paired,
    precisely,
    queries_and_controls,
    to_device,
)
from v1tlearn.training import isolated
from v1tlearn.trials import Trials

_METHODS = ("gradient", "gradient_x_input")


@isolated()
@torch.inference_mode(False)
def gradient_saliency(
    aligner: Any,
    trials: Trials,
    *,
    method: str = "gradient_x_input",
    fill: str | float = "mean",
    n_samples: int = 1,
    noise: float = 0.1,
    batch_size: int = 32,
    random_state: Any = 0,
) -> xr.Dataset:
    """Differentiate the similarity of images and responses with respect to pixels.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted.
    trials : Trials
        Of at least two images per mouse, between which the control is made.
    method : {"gradient", "gradient_x_input"}, default="gradient_x_input"
        The gradient, per grey level; or times what the image adds to `fill`, which is, to first
        order, how much of the similarity would go with the pixel.
    fill : "mean" or float, default="mean"
        Of "gradient_x_input", see `occlusion_saliency`.
    n_samples : int, default=1
        Above 1 gradients are averaged over noisy copies of the image (SmoothGrad, Smilkov et al.
        2017).
    noise : float, default=0.1
        Its standard deviation, as a share of the range of the image's grey levels, where there are
        several samples.
    batch_size : int, default=32
        Images that pass the image tower at once.
    random_state : int, RandomState, Generator or None, default=0
        Of the noise, and of which other image's responses are the control.

    Returns
    -------
    Dataset
        Over ``trial``, in the order of the trials, ``channel``, ``height`` and ``width``, pixels of
        the stimuli before any crop: ``saliency``; and ``control``, the same for this image
        and the responses to another one, of the same mouse. Over ``trial`` the ``similarity`` of
        the pair. With ``mouse_id`` and ``image_id``.

    Raises
    ------
    TypeError, ValueError
        If this is no alignment, a mouse saw one image or images that are all the same, or an option
        is out of its range.
    NotFittedError
        Before `fit`.

    Notes
    -----
    Pixels that a crop leaves out have the gradient 0, and so have images whose maps are flat.

    Cosines do not change with contrast: of a tower that is about linear "gradient_x_input" from the
    mean adds up to about 0, what speaks for the pair on one side, what only adds to the length of
    the map on the other.

    References
    ----------
    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import gradient_saliency
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> gradient_saliency(est, trials.sel(tier="test"))["saliency"].shape
    (15, 1, 16, 24)
    """
    batch_size = as_whole(batch_size, "batch_size")
    n_samples = as_whole(n_samples, "n_samples")
    method = as_word(method, _METHODS, "method")
    noise, level = as_finite(noise, "noise", 0), as_fill(fill)
    pairs = read_pairs(aligner, trials)
    rng = generator(random_state)
    parts = []
    for own in pairs:
        added = 1.0
        if method == "gradient_x_input":
            added = (own.images - fill_values(own.images, level))[own.shown]
        with precisely(aligner):
            found = _of_mouse(aligner, own, n_samples, noise, batch_size, rng)
        parts.append((*(x * added for x in found[:2]), found[2]))
    attrs = {"method": method, "n_samples": n_samples}
    dims = ("trial", "channel", "height", "width")
    unit = "cosine" if method == "gradient_x_input" else "cosine per grey level"
    return labelled(trials, pairs, parts, dims, attrs, unit)


def _of_mouse(
    aligner: Any,
    own: Pairs,
    n_samples: int,
    noise: float,
    batch_size: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of trials (n, channels, height, width), their control, and similarities (n,)."""
    queries, controls = queries_and_controls(aligner, own, rng)
    sums = np.zeros((2, len(own.shown), *own.images.shape[1:]), np.float32)
    for _ in range(n_samples):
        images = _noisy(own.images, noise, rng) if n_samples > 1 else own.images
        for rows in in_parts(len(own.shown), batch_size):
            pixels = to_device(aligner, images[own.shown[rows]])
            gradients = _gradients(aligner, pixels, (queries[rows], controls[rows]))
            for total, gradient in zip(sums, gradients, strict=True):
                total[rows] += gradient
    whole = encoded(aligner, own.images, batch_size)
    return sums[0] / n_samples, sums[1] / n_samples, paired(queries, whole, own.shown)


def _noisy(images: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    levels = np.ptp(images.astype(np.float64), axis=(1, 2, 3), keepdims=True)
    return images + noise * levels * rng.normal(size=images.shape)


def _gradients(aligner: Any, pixels: Tensor, targets: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Gradients of the cosines of images (n, ...) and each of several targets (n, features)."""
    with torch.enable_grad():
        maps = encode(aligner, pixels.requires_grad_(True))
        out = []
        for i, target in enumerate(targets):
            total = (maps * target).sum()
            (gradient,) = torch.autograd.grad(total, pixels, retain_graph=i + 1 < len(targets))
            out.append(gradient.cpu().numpy())
    return out
