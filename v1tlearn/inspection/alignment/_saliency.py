"""What occlusion and gradients share: similarities of pixels and responses, and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn._values import plain
from v1tlearn.inspection._controls import other_images
from v1tlearn.inspection.alignment._pairs import Pairs
from v1tlearn.nn import unit_length
from v1tlearn.training import numerics
from v1tlearn.trials import Trials


def precisely(aligner: Any) -> AbstractContextManager[None]:
    """Compute in full float32 on any device: saliencies are small differences."""
    return numerics("float32", aligner.device_, deterministic=plain(aligner.deterministic))


def encode(aligner: Any, images: Tensor) -> Tensor:
    """Maps of images, in the units of the stimuli, as vectors of length 1; differentiable."""
    model = aligner.module_.eval()
    statistics = next(iter(aligner.statistics_.values()))
    mean, std = float(statistics["image_mean"]), float(statistics["image_std"])
    return unit_length(model.encode_images((images - mean) / std))


def encoded(aligner: Any, images: np.ndarray, batch_size: int) -> Tensor:
    """Maps of images as `encode` gives them, some at a time, without derivatives."""
    parts = in_parts(len(images), batch_size)
    with torch.inference_mode():
        return torch.cat([encode(aligner, to_device(aligner, images[rows])) for rows in parts])


def to_device(aligner: Any, values: np.ndarray) -> Tensor:
    """Tensor in the type of the model, on its device."""
    weight = next(aligner.module_.parameters())
    return torch.from_numpy(np.ascontiguousarray(values)).to(weight.device, weight.dtype)


def queries_and_controls(
    aligner: Any, own: Pairs, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Maps of the responses of trials, and of those to another image, as vectors of length 1."""
    other = other_images(len(own.image_ids), rng)
    first = np.unique(own.shown, return_index=True)[1]
    maps = unit_length(to_device(aligner, own.response_maps.values))
    return maps, maps[torch.from_numpy(first[other[own.shown]]).to(maps.device)]


def paired(queries: Tensor, images: Tensor, shown: np.ndarray) -> np.ndarray:
    """Cosines of the maps of responses and of the images that were shown."""
    return (queries * images[torch.from_numpy(shown).to(images.device)]).sum(1).cpu().numpy()


def as_fill(fill: Any) -> float | None:
    """Grey level that covers images, or None for the mean of each."""
    fill = plain(fill, "fill")
    if isinstance(fill, str) and fill == "mean":
        return None
    if not isinstance(fill, Real) or isinstance(fill, bool) or not np.isfinite(float(fill)):
        raise ValueError(f"fill={fill!r}: expected 'mean' or a grey level.")
    return float(fill)


def fill_values(images: np.ndarray, fill: float | None) -> np.ndarray:
    """What covers each image, (n, channels, 1, 1)."""
    if fill is None:
        return images.mean((2, 3), keepdims=True, dtype=np.float64)
    return np.full((*images.shape[:2], 1, 1), fill)


def in_parts(n: int, size: int) -> Iterator[slice]:
    """Slices of at most some rows."""
    return (slice(start, start + size) for start in range(0, n, size))


def labelled(
    trials: Trials,
    pairs: list[Pairs],
    parts: Sequence[tuple[np.ndarray, ...]],
    dims: tuple[str, ...],
    attrs: dict[str, Any],
    unit: str,
) -> xr.Dataset:
    """Put the trials of all mice in their order, and name everything."""
    order = np.argsort(np.concatenate([own.rows for own in pairs]))
    columns = [np.concatenate(values)[order] for values in zip(*parts, strict=True)]
    pixels = {"units": "pixel"}
    data = {
        "saliency": (dims, columns[0].astype(np.float32), {"units": unit}),
        "control": (dims, columns[1].astype(np.float32), {"units": unit}),
        "similarity": ("trial", columns[2], {"units": "cosine"}),
    }
    sizes = dict(zip(dims, columns[0].shape, strict=True))
    coords = {
        "mouse_id": ("trial", trials.mouse_ids),
        "image_id": ("trial", trials.image_ids),
        "height": ("height", np.arange(sizes["height"]), pixels),
        "width": ("width", np.arange(sizes["width"]), pixels),
    }
    return xr.Dataset(data, coords=coords, attrs=attrs)
