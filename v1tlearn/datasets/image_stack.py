"""A stack of images that many trials show: kept once, and read as far as trials ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from v1tlearn.datasets.lazy_rows import Key, LazyRows, take
from v1tlearn.datasets.mat_files import map_place, read_mat
from v1tlearn.datasets.open_files import file_state

_BLOCK_BYTES = 8 * 2**20


class ImageStack:
    """Images of one size in a MATLAB file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Of the variable.
    images_first : bool
        Whether it is (images, height, width) there, or else (height, width, images).

    Attributes
    ----------
    shape : tuple of int
        Number of images, height and width in pixels.
    dtype : dtype
        In which images are read: uint8, or float32 for any other.

    Notes
    -----
    Images that lie in the file as they are are mapped, and pickled as their place in it; others are
    in memory once, in the type that the file has.
    """

    def __init__(self, path: Path, name: str, *, images_first: bool = False):
        self.path, self._state = path, file_state(path)
        self._axis = 0 if images_first else 2
        found = read_mat(path, name)
        if found.values.ndim != 3 or 0 in found.values.shape:
            expected = "(images, height, width)" if images_first else "(height, width, images)"
            raise ValueError(
                f"{path}: {name!r} has shape {found.values.shape}, expected {expected}"
            )
        self._place = found.place
        self._images = np.moveaxis(found.values, self._axis, 0)
        self.shape = self._images.shape
        self.dtype = np.dtype("u1" if found.values.dtype == np.uint8 else "f4")

    def __getstate__(self) -> dict[str, Any]:
        """Leave mapped images in their file."""
        return self.__dict__ | {"_images": self._images if self._place is None else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map them again, unless the file is another by now."""
        self.__dict__ |= state
        if self._place is not None:
            self._check_unchanged()
            self._images = np.moveaxis(map_place(self.path, self._place), self._axis, 0)

    def read(self, images: np.ndarray, window: slice = slice(None)) -> np.ndarray:
        """Read images, or a window of their columns.

        Parameters
        ----------
        images : ndarray of int (n,)
            Numbers of images, in the stack.
        window : slice
            Columns.

        Returns
        -------
        ndarray (n, height, columns)
        """
        if self._place is not None:
            self._check_unchanged()
        return np.ascontiguousarray(self._images[:, :, window][images], self.dtype)

    def _check_unchanged(self) -> None:
        if file_state(self.path) != self._state:
            raise ValueError(f"{self.path} was written anew since it was opened: open it again")


@dataclass(frozen=True)
class View:
    """What of a stack is shown.

    Attributes
    ----------
    stack : ImageStack
    window : slice
        Columns, from and to which.
    downsample : float
        Images are made smaller by this factor, each side rounded down: bilinear, between centres of
        pixels, without a filter before. 1 leaves them as they are.
    """

    stack: ImageStack
    window: slice
    downsample: float = 1.0

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        _, height, width = self.stack.shape
        width = len(range(width)[self.window])
        return int(height // self.downsample), int(width // self.downsample)

    @property
    def dtype(self) -> np.dtype:
        """That of the stack, or float32 where images are made smaller."""
        return self.stack.dtype if self.downsample == 1 else np.dtype("f4")

    def read(self, images: np.ndarray) -> np.ndarray:
        """Read images by their numbers, (n, height, width)."""
        values = self.stack.read(images, self.window)
        if self.downsample == 1:
            return values
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(values[:, None].astype(np.float32)),
            self.image_shape,
            mode="bilinear",
            align_corners=False,
        )
        return resized[:, 0].numpy()

    def moments(self) -> tuple[float, float]:
        """Mean and population standard deviation over all pixels of all images, grey levels.

        Raises
        ------
        ValueError
            If an image holds NaN or Inf.
        """
        count, total, squares = 0, 0.0, 0.0
        origin = float(self.read(np.zeros(1, np.int64)).mean())
        for numbers, block in self._blocks():
            self._check_finite(numbers, block)
            values = np.subtract(block.reshape(-1), origin, dtype=np.float64)
            count, total = count + values.size, total + float(values.sum())
            squares += float(values @ values)
        mean = total / count
        return origin + mean, float(np.sqrt(max(squares / count - mean**2, 0.0)))

    def check_finite(self) -> None:
        """Raise ValueError if an image holds NaN or Inf."""
        if self.stack.dtype.kind == "f":
            for numbers, block in self._blocks():
                self._check_finite(numbers, block)

    def _check_finite(self, numbers: np.ndarray, images: np.ndarray) -> None:
        if np.isfinite(images).all():
            return
        other = int(numbers[~np.isfinite(images).all(axis=(1, 2))][0])
        raise ValueError(
            f"{self.stack.path}: image {other} holds NaN or Inf, expected finite pixels: copy or "
            "download the file again"
        )

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n_images, height, width = self.stack.shape
        for some in _few_at_a_time(np.arange(n_images), height * width * self.stack.dtype.itemsize):
            yield some, self.read(some)


class StimulusArray(LazyRows):
    """Stimuli of trials, (trial, channel, height, width), read when and as far as indexed.

    Parameters
    ----------
    view : View
        What of the images is shown.
    images : ndarray of int (trials,)
        Which image each trial shows.
    """

    def __init__(self, view: View, images: np.ndarray):
        self._view, self._images = view, images
        self.shape = (len(images), 1, *view.image_shape)
        self.dtype = view.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        n_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        parts = [
            take(self._view.read(self._images[some])[:, None], others)
            for some in _few_at_a_time(rows, n_bytes)
        ] or [take(np.empty((0, *self.shape[1:]), self.dtype), others)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def mirrored(stack: ImageStack, images: np.ndarray, of: np.ndarray) -> dict[int, int]:
    """Find images that are others from left to right.

    Parameters
    ----------
    stack : ImageStack
    images : ndarray of int (n,)
        Among which to look.
    of : ndarray of int (m,)
        Whose mirrored copies are looked for.

    Returns
    -------
    dict of int to int
        The image that is the copy: the one that it mirrors.
    """
    known = {_fingerprint(stack.read(np.array([one]))[0][:, ::-1]): int(one) for one in of[::-1]}
    found = {}
    n_bytes = stack.shape[1] * stack.shape[2] * stack.dtype.itemsize
    for some in _few_at_a_time(np.unique(images), n_bytes):
        for number, image in zip(some.tolist(), stack.read(some), strict=True):
            original = known.get(_fingerprint(image))
            if original is not None and original != number:
                found[number] = original
    return found


def _fingerprint(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _few_at_a_time(numbers: np.ndarray, n_bytes: int) -> Iterator[np.ndarray]:
    step = max(1, _BLOCK_BYTES // max(1, n_bytes))
    for start in range(0, len(numbers), step):
        yield numbers[start : start + step]
