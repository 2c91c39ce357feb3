"""Feature maps of a frozen core, computed once per image and kept for all epochs of a training.

Images are told apart by their content. A file is named by what its features depend on: weights,
preprocessing and images.
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

from v1tlearn._replacing import replacing
from v1tlearn._warn import warn
from v1tlearn.nn import EncodingModel, FeatureModel, PretrainedViTCore
from v1tlearn.training import MouseData, numerics
from v1tlearn.training.memory import free_memory, prediction_batch_size

logger = logging.getLogger("v1tlearn")

KEPT = ("auto", "device", "memory")
_BLOCK = 256  # images that are hashed at once
_SHARE = 0.6  # of a device's free memory that features may take

DataOf = Mapping[str, MouseData]


class IndexedRows:
    """Rows of an array in memory or in a file, some of them more than once.

    Parameters
    ----------
    values : ndarray
    index : ndarray of int
        Which row of the array each row is.
    """

    def __init__(self, values: np.ndarray, index: np.ndarray) -> None:
        self.values, self.index = values, index
        self.shape, self.dtype = (len(index), *values.shape[1:]), values.dtype

    def __len__(self) -> int:
        return len(self.index)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with rows.

        Parameters
        ----------
        rows : ndarray of int
            From 0 on.
        out : ndarray
        """
        np.take(self.values, self.index[rows], axis=0, out=out, mode="clip")


def with_features(
    parameters: Mapping[str, Any],
    model: EncodingModel,
    data: DataOf,
    validation: DataOf | None,
) -> tuple[EncodingModel, DataOf, DataOf | None]:
    """Let a model with a frozen core be trained on feature maps, where that is asked for.

    Parameters
    ----------
    parameters : mapping
        ``feature_cache`` says where features are kept: "device", "memory" (of the host), a folder,
        or "auto", the first of the two that ``cache_gigabytes`` allows; None computes them in every
        epoch.
    model : EncodingModel
        On its device.
    data, validation : dict of str to MouseData

    Returns
    -------
    model : EncodingModel
        One with the same modules that takes feature maps, or the model itself where the core is
        trained or images move.
    data, validation : dict of str to MouseData
        Feature maps in place of images.

    Raises
    ------
    ValueError
        If features take more than ``cache_gigabytes``, or there is no such folder.
    """
    where = parameters.get("feature_cache")
    core, cropper = model.core, model.cropper
    if not isinstance(core, PretrainedViTCore) or where is None or not core.frozen:
        return model, data, validation
    if any(cropper.shifter(mouse) is not None for mouse in data):
        return model, data, validation
    if where not in KEPT and not Path(where).is_dir():
        raise ValueError(
            f"feature_cache={os.fspath(where)!r}: expected {', '.join(map(repr, KEPT))}, None, or "
            "a folder that is there."
        )
    sets = [s for s in (data, validation) if s is not None]
    images = _Images(model, sets)
    where = _place(where, parameters["cache_gigabytes"], images)
    if where is None:
        return model, data, validation
    features = images.features(where)
    out = [
        {mouse: _replaced(d, features, images.index[i, mouse], where) for mouse, d in one.items()}
        for i, one in enumerate(sets)
    ]
    return FeatureModel(model), out[0], out[1] if len(out) > 1 else None


def _place(where: str | os.PathLike, gigabytes: float, images: _Images) -> Any:
    """Decide where features are kept; None for nowhere."""
    if where not in KEPT:
        return Path(where)
    size = 4 * math.prod(images.model.core.output_shape) * len(images.first)
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
        given = {"images": IndexedRows(features, index)}
    return replace(data, image_mean=0.0, image_std=1.0, **given)


class _Images:
    """The images of all trials, each once."""

    def __init__(self, model: EncodingModel, sets: list[DataOf]) -> None:
        self.model = model
        self.device = next(iter(sets[0].values())).device
        self.first: list[tuple[MouseData, str, int]] = []  # where each image is
        self.digests: list[bytes] = []
        self.index: dict[tuple[int, str], np.ndarray] = {}
        seen: dict[bytes, int] = {}
        for i, one in enumerate(sets):
            for mouse, data in one.items():
                index = np.empty(len(data), dtype=np.int64)
                for place, digest in enumerate(self._digests(mouse, data)):
                    if digest not in seen:
                        seen[digest] = len(self.first)
                        self.first.append((data, mouse, place))
                        self.digests.append(digest)
                    index[place] = seen[digest]
                self.index[i, mouse] = index

    def _digests(self, mouse: str, data: MouseData) -> Iterator[bytes]:
        """Tell images apart by content, and by what is done to them before the core."""
        cropper = self.model.cropper
        told = (data.image_mean, data.image_std, cropper.window(mouse), cropper.output_size)
        told = (*told, cropper.crop_scale, str(data.images.dtype).removeprefix("torch."))
        key = hashlib.blake2b(repr(told).encode(), digest_size=16).digest()
        for start in range(0, len(data), _BLOCK):
            images = data._rows(data.images, slice(start, min(start + _BLOCK, len(data))))
            for image in images.cpu().numpy():
                values = np.ascontiguousarray(image)
                yield hashlib.blake2b(values, key=key, digest_size=16).digest()

    def features(self, where: Any) -> torch.Tensor | np.ndarray:
        """Feature maps of all images, on the device, in host memory, or in a file."""
        shape = (len(self.first), *self.model.core.output_shape)
        if where == "device":
            out = torch.empty(shape, device=self.device)
            self._fill(out)
            return out
        if where == "memory":
            values = np.empty(shape, np.float32)
            self._fill(torch.from_numpy(values))
            return values
        return self._file(where, shape)

    def _file(self, folder: Path, shape: tuple[int, ...]) -> np.ndarray:
        """Read features from a file, in the order of digests, or write them first."""
        order = np.array(sorted(range(len(self.digests)), key=self.digests.__getitem__))
        name = hashlib.blake2b(self.model.core.signature(), digest_size=16)
        name.update(b"".join(self.digests[i] for i in order))
        path = folder / f"features-{name.hexdigest()}.npy"
        values = _opened(path, shape)
        if values is None:
            with replacing(path) as new:
                with new.open("wb") as file:  # a memory map would need the name to end in .npy
                    np.lib.format.write_array_header_1_0(
                        file,
                        {"descr": "<f4", "fortran_order": False, "shape": shape},
                    )
                    start = file.tell()
                    file.truncate(start + 4 * math.prod(shape))
                out = np.memmap(new, "<f4", "r+", start, shape)
                self._fill(torch.from_numpy(out), order)
                out.flush()
                del out
            values = _opened(path, shape)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self.index = {key: place[index] for key, index in self.index.items()}
        return values

    @torch.no_grad()
    def _fill(self, out: torch.Tensor, order: np.ndarray | None = None) -> None:
        model = self.model.eval()
        at_once = prediction_batch_size(model, self.device)
        wanted = self.first if order is None else [self.first[i] for i in order]
        with numerics("float32", self.device, deterministic=False):
            for start in range(0, len(wanted), at_once):
                stop = min(start + at_once, len(wanted))
                for data, mouse, places, rows in _together(wanted, start, stop):
                    images = data.batch(places.to(self.device)).images
                    images = model.cropper(images, mouse)
                    out[rows] = model.core(images, None, [(mouse, len(images))]).to(out.device)
        logger.info("feature maps of %d images were computed once", len(wanted))


def _together(
    wanted: list[tuple[MouseData, str, int]], start: int, stop: int
) -> Iterator[tuple[MouseData, str, torch.Tensor, torch.Tensor]]:
    """Images of one recording among some, their places there, and the rows they go to."""
    groups: dict[int, list[int]] = {}
    for row in range(start, stop):
        groups.setdefault(id(wanted[row][0]), []).append(row)
    for rows in groups.values():
        data, mouse, _ = wanted[rows[0]]
        yield data, mouse, torch.tensor([wanted[r][2] for r in rows]), torch.tensor(rows)


def _opened(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Features from a file; None where there is none that is whole."""
    if not path.exists():
        return None
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if values.shape == shape and values.dtype == np.float32:
            return values
        found = f"values of shape {values.shape}, expected {shape}"
    except (ValueError, OSError, EOFError) as error:
        found = str(error)
    warn(f"the features in {path} are damaged ({found}): they are computed anew.")
    return None
