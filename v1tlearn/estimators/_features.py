"""Feature maps of a frozen core, computed once per image and kept for all epochs of a training.

Images are told apart by their content, and by what is done to them before the core.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from v1tlearn._warn import warn
from v1tlearn.estimators._feature_store import DIGEST_SIZE, FeatureStore, IndexedRows
from v1tlearn.nn import CallableCore, Core, ImageCropper, PretrainedViTCore
from v1tlearn.training import MouseData, numerics
from v1tlearn.training.memory import free_memory, images_at_once

logger = logging.getLogger("v1tlearn")

KEPT = ("auto", "device", "memory")
_BLOCK = 256  # images that are hashed at once
_LEAST_STD = 1e-4  # below it the least range of an image, which scaling by image knows, tells
_SHARE = 0.6  # of a device's free memory that features may take

DataOf = Mapping[str, MouseData]
Where = tuple[MouseData, str, int]  # recording, mouse and number of an image


def features_for(
    parameters: Mapping[str, Any],
    core: Core,
    cropper: ImageCropper,
    data: DataOf,
    validation: DataOf | None,
) -> tuple[DataOf, DataOf | None] | None:
    """Compute the feature maps that a frozen core is trained around, where that is asked for.

    Parameters
    ----------
    parameters : mapping
        ``feature_cache`` says where features are kept: "device", "memory" (of the host), a folder,
        or "auto", the first of the two that ``cache_gigabytes`` allows; None computes them in every
        epoch.
    core : Core
        On its device.
    cropper : ImageCropper
        What images pass ahead of it.
    data, validation : dict of str to MouseData

    Returns
    -------
    (dict of str to MouseData, dict of str to MouseData or None) or None
        Feature maps in place of images; None where the core is trained, images move, or nothing is
        to be kept.

    Raises
    ------
    ValueError
        If features take more than ``cache_gigabytes``, or there is no such folder.
    """
    where = parameters.get("feature_cache")
    if not isinstance(core, PretrainedViTCore | CallableCore) or where is None or not core.frozen:
        return None
    if any(cropper.shifter(mouse) is not None for mouse in data):
        return None
    if where not in KEPT and not Path(where).is_dir():
        raise ValueError(
            f"feature_cache={os.fspath(where)!r}: expected {', '.join(map(repr, KEPT))}, None, or "
            "a folder that is there."
        )
    if where not in KEPT and core.signature() is None:
        raise ValueError(
            f"feature_cache={os.fspath(where)!r}: a folder keeps features of modules, which their "
            "weights tell apart, not of functions: give prior as a torch module, or "
            "feature_cache='memory'."
        )
    sets = [s for s in (data, validation) if s is not None]
    images = _Images(core, cropper, sets)
    where = _place(where, parameters["cache_gigabytes"], images)
    if where is None:
        return None
    features = images.features(where)
    out = [
        {mouse: _replaced(d, features, images.index[i, mouse], where) for mouse, d in one.items()}
        for i, one in enumerate(sets)
    ]
    return out[0], out[1] if len(out) > 1 else None


def _place(where: str | os.PathLike, gigabytes: float, images: _Images) -> Any:
    """Decide where features are kept; None for nowhere."""
    if where not in KEPT:
        return Path(where)
    size = 4 * math.prod(images.core.output_shape) * len(images.first)
    bounds = dict.fromkeys(("device", "memory"), gigabytes * 1e9)
    free = free_memory(images.device)
    if where == "auto" and images.device.type != "cpu" and free is not None:
        bounds["device"] = min(bounds["device"], _SHARE * free)
    fitting = [place for place, bound in bounds.items() if size <= bound]
    if where in fitting or (where == "auto" and fitting):
        return fitting[0] if where == "auto" else where
    told = (
        f"features of {len(images.first)} images take {size / 1e9:.3g} GB, more than "
        f"cache_gigabytes={gigabytes:g}. Allow more, give a folder, feature_cache='...', for them "
        "to be kept in a file, or read fewer blocks"
    )
    if where == "auto":
        warn(f"{told}: they are computed anew in every epoch.")
        return None
    raise ValueError(f"{told}; feature_cache=None computes them anew in every epoch.")


def _replaced(data: MouseData, features: Any, index: np.ndarray, where: Any) -> MouseData:
    if where == "device":  # all trials share one tensor
        given = {"images": features, "image_rows": torch.as_tensor(index, device=features.device)}
    else:
        given = {"images": features.taken(index)}
    return replace(data, image_mean=0.0, image_std=1.0, **given)


class _Images:
    """The images of all trials, each once."""

    def __init__(
        self, core: PretrainedViTCore | CallableCore, cropper: ImageCropper, sets: list[DataOf]
    ) -> None:
        self.core, self.cropper = core, cropper
        self.device = next(iter(sets[0].values())).device
        self.first: list[Where] = []  # where each image is
        self.digests: list[bytes] = []
        self.index: dict[tuple[int, str], np.ndarray] = {}
        seen: dict[bytes, int] = {}
        for i, one in enumerate(sets):
            for mouse, given in one.items():
                data = self._neutral(given)
                index = np.empty(len(data), dtype=np.int64)
                for place, digest in enumerate(self._digests(mouse, data)):
                    if digest not in seen:
                        seen[digest] = len(self.first)
                        self.first.append((data, mouse, place))
                        self.digests.append(digest)
                    index[place] = seen[digest]
                self.index[i, mouse] = index

    def _neutral(self, data: MouseData) -> MouseData:
        """Leave statistics away that the core cancels, so that features do not depend on them."""
        core = self.core
        scaled = isinstance(core, PretrainedViTCore) and core.pixels.scaling == "per_image"
        if not scaled or data.image_std < _LEAST_STD:
            return data
        return replace(data, image_mean=0.0, image_std=1.0)

    def _digests(self, mouse: str, data: MouseData) -> Iterator[bytes]:
        """Tell images apart by content, and by what is done to them before the core."""
        cropper = self.cropper
        kept = (cropper.window(mouse), cropper.output_size, cropper.crop_scale)
        shape, dtype = tuple(data.images.shape[1:]), str(data.images.dtype).removeprefix("torch.")
        told = (data.image_mean, data.image_std, *kept, shape, dtype)
        key = hashlib.blake2b(repr(told).encode(), digest_size=DIGEST_SIZE).digest()
        for start in range(0, len(data), _BLOCK):
            images = data._rows(data.images, slice(start, min(start + _BLOCK, len(data))))
            for image in images.cpu().numpy():
                values = np.ascontiguousarray(image).data
                yield hashlib.blake2b(values, key=key, digest_size=DIGEST_SIZE).digest()

    def features(self, where: Any) -> torch.Tensor | IndexedRows:
        """Feature maps of all images, on the device, in host memory, or in files."""
        core, wanted = self.core, self.first
        shape = (len(wanted), *core.output_shape)
        if where == "device":
            out = torch.empty(shape, device=self.device)
            self._fill(out, wanted)
            return out
        if where == "memory":
            values = np.empty(shape, np.float32)
            self._fill(torch.from_numpy(values), wanted)
            return IndexedRows(
                [values], np.stack((np.zeros(shape[0], int), np.arange(shape[0])), 1)
            )
        signature = core.signature()
        assert signature is not None  # others were refused
        store = FeatureStore(where, signature, core.output_shape)
        if new := store.lacking(self.digests):
            lacking = [wanted[i] for i in new]
            store.add(
                [self.digests[i] for i in new],
                lambda values: self._fill(torch.from_numpy(values), lacking),
            )
        return IndexedRows(store.parts, store.places(self.digests))

    @torch.no_grad()
    def _fill(self, out: torch.Tensor, wanted: list[Where]) -> None:
        at_once = images_at_once(self.core, self.device)
        with numerics("float32", self.device, deterministic=False):
            for start in range(0, len(wanted), at_once):
                stop = min(start + at_once, len(wanted))
                for data, mouse, places, rows in _together(wanted, start, stop):
                    images = data.batch(places.to(self.device)).images
                    images = self.cropper(images, mouse)
                    out[rows] = self.core(images, None, [(mouse, len(images))]).to(out.device)
        logger.info("feature maps of %d images were computed once", len(wanted))


def _together(
    wanted: list[Where], start: int, stop: int
) -> Iterator[tuple[MouseData, str, torch.Tensor, torch.Tensor]]:
    """Images of one recording among some, their places there, and the rows they go to."""
    groups: dict[int, list[int]] = {}
    for row in range(start, stop):
        groups.setdefault(id(wanted[row][0]), []).append(row)
    for rows in groups.values():
        data, mouse, _ = wanted[rows[0]]
        yield data, mouse, torch.tensor([wanted[r][2] for r in rows]), torch.tensor(rows)
