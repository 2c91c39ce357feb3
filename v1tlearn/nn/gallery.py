"""What is most similar to a map in a gallery that is too large to be there at once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor

from v1tlearn.nn.contrastive import steady_cosines

# Of a gallery, and of what looks for something in it, as many as are compared at a time.
_IMAGES_AT_ONCE, _QUERIES_AT_ONCE = 2048, 256
_BITS = 2**31 - 1  # of a float32, but for its sign


def closest(queries: Tensor, gallery: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Find what is most similar in a gallery that comes in parts.

    Some queries meet some of a part at a time, so that memory grows with neither number.

    Parameters
    ----------
    queries : Tensor of shape (n, ...)
        Maps.
    gallery : iterable of Tensor of shape (m, ...)
        Maps, in parts of any size.
    k : int
        How many; all where the gallery has fewer.

    Returns
    -------
    places : Tensor of int of shape (n, k)
        Where they are in the gallery, the most similar first. Of equally similar ones the first
        come first, in whatever parts they came.
    cosines : Tensor of float32 of shape (n, k)
        Of `steady_cosines`.
    """
    blocks = queries.split(_QUERIES_AT_ONCE)
    best = [torch.empty(len(b), 0, dtype=torch.long, device=queries.device) for b in blocks]
    seen = 0
    for part in chain.from_iterable(part.split(_IMAGES_AT_ONCE) for part in gallery):
        for i, block in enumerate(blocks):
            keys = torch.cat((best[i], _keys(steady_cosines(block, part), seen)), 1)
            best[i] = keys.topk(min(k, keys.shape[1])).values
        seen += len(part)
    return _of_keys(torch.cat(best))


def _keys(cosines: Tensor, first: int) -> Tensor:
    """Whole numbers that are the larger, the larger a cosine is, and of equal ones the earlier.

    The upper half has the bits of the cosine, which order numbers from 0 on as they are, and those
    below when turned; the lower half counts places from the end.
    """
    bits = (cosines + 0.0).view(torch.int32)  # of which -0 is 0
    ordered = torch.where(bits < 0, bits ^ _BITS, bits).long()
    places = torch.arange(first, first + cosines.shape[1], device=cosines.device)
    return ordered * 2**32 + (2**32 - 1 - places)


def _of_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Places and cosines that keys stand for."""
    ordered, places = keys >> 32, 2**32 - 1 - (keys & 2**32 - 1)
    bits = torch.where(ordered < 0, ordered ^ _BITS, ordered)
    return places, bits.to(torch.int32).view(torch.float32)
