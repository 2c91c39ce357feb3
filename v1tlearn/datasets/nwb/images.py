"""Images of an NWB file: a stack, single ones, or those that the caller has; read as indexed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v1tlearn._values import as_array
from v1tlearn.datasets.lazy_rows import Key, LazyRows, take
from v1tlearn.datasets.movie_frames import Frames, MovieInMemory
from v1tlearn.datasets.nwb.opening import refuse
from v1tlearn.datasets.nwb.series import scaling_of
from v1tlearn.datasets.open_files import FileState, file_state

_CHANNELS = (1, 3)  # gray or red, green, blue; of files, the last axis


def given_images(values: np.ndarray) -> MovieInMemory:
    """Images that the caller has, (images, height, width), or with channels behind the images."""
    values = as_array(values, "templates", of="image")
    if values.ndim not in (3, 4) or 0 in values.shape or values.dtype.kind not in "uif":
        raise ValueError(
            f"templates have shape {values.shape} and dtype {values.dtype}: expected grey "
            "levels (images, height, width) or (images, channels, height, width)."
        )
    if values.ndim == 4 and values.shape[1] not in _CHANNELS:
        is_last = values.shape[3] in _CHANNELS
        raise ValueError(
            f"templates have shape {values.shape}, {values.shape[1]} channels: expected 1 or 3, "
            "ahead of the sides, (images, channels, height, width)"
            + (": pass np.moveaxis(templates, -1, 1)." if is_last else ".")
        )
    kept = values if values.dtype in (np.uint8, np.float32) else values.astype(np.float32)
    return MovieInMemory(kept if kept.ndim == 4 else kept[:, None])


@dataclass(frozen=True)
class StoredImages:
    """Images in an NWB file.

    Attributes
    ----------
    path : Path
    state : FileState or None
        Of the file, when it was opened.
    datasets : tuple of str
        Where they are: one array of all, or one each.
    shape : tuple of int
        Number of images, channels, height, width.
    dtype : dtype
        uint8, or float32.
    turned : bool
        Whether columns come before rows.
    stacked : bool
        Whether one array holds all.
    conversion, offset : float
        What the stored numbers are multiplied with, and what is added.
    """

    path: Path
    state: FileState | None
    datasets: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    turned: bool
    stacked: bool
    conversion: float = 1.0
    offset: float = 0.0

    @classmethod
    def of_series(cls, path: Path, name: str, series: Any, *, turned: bool) -> StoredImages:
        """Those of an ImageSeries, (images, height, width[, channels])."""
        if getattr(series, "external_file", None) is not None or series.format == "external":
            files = [str(file) for file in series.external_file[:]][:3]
            refuse(
                path,
                f"the images of {name} are in other files, {files}, which are not read",
                "images in the file: read them yourself, and pass templates=array",
            )
        data = series.data
        if len(data.shape) not in (3, 4) or 0 in data.shape:
            refuse(
                path, f"{name} has the shape {data.shape}", "(images, height, width[, channels])"
            )
        conversion, offset = scaling_of(path, name, series)
        is_plain = conversion == 1 and offset == 0
        n, channels, height, width = len(data), *_axes(path, name, data.shape[1:], turned)
        return cls(
            path,
            file_state(path),
            (data.name,),
            (n, channels, height, width),
            _dtype(path, name, data.dtype, is_plain),
            turned,
            True,
            conversion,
            offset,
        )

    @classmethod
    def of_images(cls, path: Path, name: str, images: list[Any], *, turned: bool) -> StoredImages:
        """Those of an `Images`, in an order."""
        shapes = {tuple(image.data.shape) for image in images}
        if len(shapes) != 1:
            shown = sorted(shapes)[:3]
            refuse(
                path,
                f"the images of {name} differ in shape: {shown}" if shapes else f"{name} is empty",
                "images of one size: bring them to one, and pass templates=array",
            )
        dtypes = {image.data.dtype for image in images}
        dtype = _dtype(path, name, np.result_type(*dtypes), len(dtypes) == 1)
        shape = (len(images), *_axes(path, name, shapes.pop(), turned))
        datasets = tuple(image.data.name for image in images)
        return cls(path, file_state(path), datasets, shape, dtype, turned, False)

    def read(self, images: np.ndarray) -> np.ndarray:
        """Read some by their places, (n, channels, height, width)."""
        import h5py

        if file_state(self.path) != self.state:
            raise ValueError(f"{self.path} was written anew since it was opened: open it again")
        out = np.empty((len(images), *self.shape[1:]), self.dtype)
        with h5py.File(self.path, "r") as file:
            for places in self._read_together(images):
                first, last = images[places.start], images[places.stop - 1]
                if self.stacked:
                    values = file[self.datasets[0]][first : last + 1]
                else:
                    values = file[self.datasets[first]][()][None]
                if self.conversion != 1 or self.offset != 0:
                    values = values * self.conversion + self.offset
                values = np.moveaxis(values, -1, 1) if values.ndim == 4 else values[:, None]
                out[places] = values.swapaxes(2, 3) if self.turned else values
        return out

    def _read_together(self, images: np.ndarray) -> Iterator[slice]:
        """Stretches of images that follow each other, each of which is read at once."""
        if not len(images):
            return
        apart = np.diff(images) != 1 if self.stacked else np.ones(len(images) - 1, bool)
        ends = np.append(np.flatnonzero(apart) + 1, len(images))
        start = 0
        for end in ends.tolist():
            yield slice(start, end)
            start = end


def _axes(path: Path, name: str, shape: tuple[int, ...], turned: bool) -> tuple[int, int, int]:
    """Channels, height and width of a stored image."""
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in _CHANNELS):
        refuse(
            path,
            f"images of {name} have the shape {shape}",
            "(height, width), or 1 or 3 channels behind: drop transparency, or planes of a volume",
        )
    sides = shape[1::-1] if turned else shape[:2]
    return (1 if len(shape) == 2 else shape[2]), sides[0], sides[1]


def _dtype(path: Path, name: str, dtype: np.dtype, is_plain: bool) -> np.dtype:
    if dtype.kind not in "uif":
        refuse(path, f"images of {name} have dtype {dtype}", "numbers")
    return np.dtype("u1" if dtype == np.uint8 and is_plain else "f4")


class ShownImages(LazyRows):
    """Stimuli of trials, (trial, channel, height, width), read when and as far as indexed.

    Parameters
    ----------
    images : Frames
    shown : ndarray of int (trials,)
        Which image each trial shows.
    """

    def __init__(self, images: Frames, shown: np.ndarray):
        self._images, self._shown = images, shown
        self.shape = (len(shown), *images.shape[1:])
        self.dtype = images.dtype

    def _read_rows(self, rows: np.ndarray, others: Key) -> np.ndarray:
        images, places = np.unique(self._shown[rows], return_inverse=True)
        return take(self._images.read(images)[places], others)


def check_finite(path: Path, images: Frames) -> None:
    """Refuse images that hold NaN or Inf; one is in memory at a time."""
    if images.dtype.kind != "f":
        return
    for number in range(images.shape[0]):
        if not np.isfinite(images.read(np.array([number]))).all():
            refuse(path, f"image {number} holds NaN or Inf", "finite grey levels")
