"""Losses that bring the maps of an image and of the responses to it together.

Plain functions of tensors; maps are (n, channels, height, width), a row a trial. Where the
published formulas have no derivative, at maps without any contrast, the derivative here is 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.nn import sharing

_FLOOR = 1e-8  # under the range of a map, as published
# Constants of the structural similarity for values from 0 to 1 (Wang et al. 2004).
_C1, _C2 = 0.01**2, 0.03**2


def scale_maps(maps: Tensor, how: str = "minmax") -> Tensor:
    """Bring every map to a common scale.

    Parameters
    ----------
    maps : Tensor of shape (n, channels, height, width)
        Each channel is a map of its own.
    how : {"minmax", "center", "none"}, default="minmax"
        "minmax" is ``(x - min) / (max - min + 1e-8)``, as published; "center" subtracts the mean,
        so that cosines are correlations; "none" leaves maps as they are.

    Returns
    -------
    Tensor of this shape
        A flat map becomes 0, and passes no gradient on, but for "none".

    Raises
    ------
    ValueError
        If `how` is none of these.
    """
    if how == "none":
        return maps
    if how not in ("center", "minmax"):
        raise ValueError(f"how={how!r}: expected 'minmax', 'center' or 'none'.")
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    flat = high == low
    if how == "center":  # flat but for rounding, which has a direction, too
        return torch.where(flat, 0, maps - maps.mean((-2, -1), keepdim=True))
    span = torch.where(flat, 1, high - low)  # or the gradient would be of order 1e8
    return torch.where(flat, 0, (maps - low) / (span + _FLOOR))


def unit_length(maps: Tensor) -> Tensor:
    """Flatten maps to vectors of length 1.

    Parameters
    ----------
    maps : Tensor of shape (n, ...)

    Returns
    -------
    Tensor of shape (n, features)
        A map of zeros stays one, and passes no gradient on.
    """
    vectors = maps.flatten(1)
    squares = vectors.square().sum(1, keepdim=True)
    empty = squares == 0
    lengths = torch.where(empty, 1, squares).sqrt()
    return torch.where(empty, 0, vectors / lengths)


def cosine_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each map with each other one.

    Parameters
    ----------
    first : Tensor of shape (n, ...)
    second : Tensor of shape (m, ...)

    Returns
    -------
    Tensor of shape (n, m)
        From -1 to 1; 0 for maps of zeros.
    """
    return unit_length(first) @ unit_length(second).T


def steady_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosines that do not depend on how many others are computed at once.

    They are computed in twice the precision, where the device has it, and rounded, so that the
    order in which products are added, which depends on the sizes, is not seen.

    Parameters
    ----------
    first : Tensor of shape (n, ...)
    second : Tensor of shape (m, ...)

    Returns
    -------
    Tensor of shape (n, m)
        float32, from -1 to 1; 0 for maps of zeros.
    """
    wide = torch.float32 if first.device.type == "mps" else torch.float64
    return cosine_similarity(first.to(wide), second.to(wide)).float().clamp(-1, 1)


def ranks_of_seen(similarity: Tensor, seen: Tensor) -> Tensor:
    """Rank of the image that was seen in a gallery; ties count against it.

    Parameters
    ----------
    similarity : Tensor of shape (..., n, m)
    seen : Tensor of int of shape (n,)
        Place in the gallery of the image that belongs to each row.

    Returns
    -------
    Tensor of int of shape (..., n)
        From 1: images that are just as similar as the right one come ahead of it, so that maps
        without contrast find nothing.
    """
    places = seen[:, None].expand(*similarity.shape[:-1], 1)
    return (similarity >= similarity.gather(-1, places)).sum(-1)


def info_nce(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of a batch of pairs: half over rows, half over columns.

    With the positives P(i) of a row, and N(i) the others, it is the mean over i, and over p in
    P(i), of ``log(exp(x_ip) + sum_{n in N(i)} exp(x_in)) - x_ip``: repeats of an image are further
    positives, and never among the negatives. Without repeats it is the cross entropy of the
    pairs (van den Oord et al. 2018; Radford et al. 2021).

    Parameters
    ----------
    logits : Tensor of shape (n, n)
        Similarities over the temperature: row i of one kind, column j of the other.
    labels : Tensor of int of shape (n,), optional
        Which image each pair belongs to; by default all are different.

    Returns
    -------
    Tensor
        Scalar; log n where all logits are equal, and 0 where there is one image only.

    Raises
    ------
    ValueError
        If the logits are no square matrix, or labels do not fit them.
    """
    n = len(logits)
    if logits.shape != (n, n) or (labels is not None and labels.shape != (n,)):
        raise ValueError(
            f"expected logits (n, n) and labels (n,), got {tuple(logits.shape)} and "
            f"{None if labels is None else tuple(labels.shape)}."
        )
    if labels is None:
        pairs = torch.arange(n, device=logits.device)
        return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
    same = labels[:, None] == labels
    return (_multi_positive(logits, same) + _multi_positive(logits.T, same)) / 2


def _multi_positive(logits: Tensor, same: Tensor) -> Tensor:
    """One direction of `info_nce`; `same` tells the positives."""
    lowest = torch.finfo(logits.dtype).min  # not -inf, of which gradients would be NaN
    negatives = logits.masked_fill(same, lowest).logsumexp(1, keepdim=True)
    alone = same.all(1, keepdim=True)
    losses = F.softplus(torch.where(alone, lowest, negatives) - logits)
    return (torch.where(same, losses, 0).sum(1) / same.sum(1)).mean()


def root_mean_square_error(first: Tensor, second: Tensor) -> Tensor:
    """Root of the mean squared difference over all values, of all processes that share a batch.

    Parameters
    ----------
    first, second : Tensor of one shape

    Returns
    -------
    Tensor
        Scalar. Where it is 0, so is its gradient.
    """
    squares = (first - second).square()
    square = sharing.mean(squares.mean(), squares.numel())
    return torch.where(square == 0, 0, torch.where(square == 0, 1, square).sqrt())


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity around each cell (Wang et al. 2004), in the published form.

    Means, variances and covariance are over 3 x 3 cells, with zeros outside the map and always
    divided by 9; the constants are those of values from 0 to 1.

    Parameters
    ----------
    first, second : Tensor of shape (n, channels, height, width)

    Returns
    -------
    Tensor of this shape
        At most 1, and 1 where both maps are the same.
    """
    first_mean, second_mean = _mean_around(first), _mean_around(second)
    first_variance = _mean_around(first.square()) - first_mean.square()
    second_variance = _mean_around(second.square()) - second_mean.square()
    covariance = _mean_around(first * second) - first_mean * second_mean
    means = (2 * first_mean * second_mean + _C1) / (
        first_mean.square() + second_mean.square() + _C1
    )
    return means * (2 * covariance + _C2) / (first_variance + second_variance + _C2)


def _mean_around(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 3, stride=1, padding=1)


def alignment_loss(
    images: Tensor,
    responses: Tensor,
    *,
    temperature: float | Tensor = 0.01,
    weights: tuple[float, float, float] = (1.0, 0.0, 0.0),
    labels: Tensor | None = None,
) -> Tensor:
    """Weighted sum of the three losses of a batch of pairs (Wang et al. 2026).

    A loss without weight is not computed. Cosines are computed in float64 where the device has it:
    those of maps from 0 to 1 differ little, and are divided by a small temperature.

    Parameters
    ----------
    images : Tensor of shape (n, channels, height, width)
        Maps of the images, scaled.
    responses : Tensor of this shape
        Maps of the responses to them, scaled.
    temperature : float or Tensor, default=0.01
        Cosines are divided by it.
    weights : (float, float, float), default=(1.0, 0.0, 0.0)
        Of `info_nce` over cosines, of `root_mean_square_error`, and of one minus the mean
        `structural_similarity` of the maps, each brought from 0 to 1 before.
    labels : Tensor of int of shape (n,), optional
        Which image each pair belongs to, see `info_nce`.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    if images.shape != responses.shape:
        raise ValueError(
            "maps of images and responses must have one shape, got "
            f"{tuple(images.shape)} and {tuple(responses.shape)}."
        )
    contrastive, error, similarity = weights
    total = images.new_zeros(())
    if contrastive:
        logits = cosine_similarity(_precise(images), _precise(responses)) / temperature
        total = total + contrastive * info_nce(logits, labels).to(total.dtype)
    if error:
        total = total + error * root_mean_square_error(images, responses)
    if similarity:
        scaled = scale_maps(images), scale_maps(responses)
        total = total + similarity * (1 - structural_similarity(*scaled).mean())
    return total


def _precise(maps: Tensor) -> Tensor:
    return maps if maps.device.type == "mps" else maps.double()
