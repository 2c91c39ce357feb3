"""Feature maps in files, each image once, that fits of other images add to.

What has the same weights and preprocessing shares a folder. Every fit adds one file with the images
that none had before; files are written beside their place and never change, so that several
processes may read and add at once. At worst two of them compute an image twice.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from v1tlearn._replacing import make_folder, remove, replacing
from v1tlearn._warn import warn

DIGEST_SIZE = 16  # bytes that tell an image
_AT_ONCE = 2**24


class IndexedRows:
    """Rows of arrays in memory or in files, some of them more than once.

    Parameters
    ----------
    parts : sequence of ndarray
    places : ndarray of int, of shape (n_rows, 2)
        The array of each row, and which row of it.
    """

    def __init__(self, parts: Sequence[np.ndarray], places: np.ndarray) -> None:
        self.parts, self.places = parts, places
        self.shape, self.dtype = (len(places), *parts[0].shape[1:]), parts[0].dtype

    def __len__(self) -> int:
        return len(self.places)

    def taken(self, index: np.ndarray) -> IndexedRows:
        """Choose some of these rows.

        Parameters
        ----------
        index : ndarray of int

        Returns
        -------
        IndexedRows
        """
        return IndexedRows(self.parts, self.places[index])

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` with rows.

        Parameters
        ----------
        rows : ndarray of int
            From 0 on.
        out : ndarray
        """
        part, place = self.places[rows].T
        if len(self.parts) == 1:
            np.take(self.parts[0], place, axis=0, out=out, mode="clip")
            return
        for number in np.unique(part):
            here = part == number
            out[here] = self.parts[number][place[here]]

    def announce(self, rows: np.ndarray) -> None:
        """Do nothing: the system reads ahead in files that are mapped.

        Parameters
        ----------
        rows : ndarray of int
        """


class FeatureStore:
    """Feature maps of one core in a folder.

    Parameters
    ----------
    folder : Path
    signature : bytes
        What all maps here depend on, besides the image.
    shape : tuple of int
        Of the maps of an image.
    """

    def __init__(self, folder: Path, signature: bytes, shape: tuple[int, ...]) -> None:
        name = hashlib.blake2b(signature, digest_size=DIGEST_SIZE).hexdigest()
        self.folder, self.shape = folder / f"features-{name}", shape
        self.parts: list[np.ndarray] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        for path in sorted(self.folder.glob("*.features")):
            self._open(path)

    def lacking(self, digests: Sequence[bytes]) -> list[int]:
        """Which of some images are not here.

        Parameters
        ----------
        digests : sequence of bytes
            Of `DIGEST_SIZE` bytes each.

        Returns
        -------
        list of int
            Their numbers, in an order that does not depend on that of the images.
        """
        new = (i for i, digest in enumerate(digests) if digest not in self._places)
        return sorted(new, key=digests.__getitem__)

    def add(self, digests: Sequence[bytes], fill: Callable[[np.ndarray], None]) -> None:
        """Write the maps of further images.

        Parameters
        ----------
        digests : sequence of bytes
        fill : callable
            Called with an array of shape (n_images, *shape), to fill it.
        """
        make_folder(self.folder)
        name = hashlib.blake2b(b"".join(digests), digest_size=DIGEST_SIZE).hexdigest()
        path, shape = self.folder / f"{name}.features", (len(digests), *self.shape)
        with replacing(path) as new:
            with new.open("wb") as file:
                _write_header(file, f"|V{DIGEST_SIZE}", (len(digests),))
                file.write(b"".join(digests))
                _write_header(file, "<f4", shape)
                file.flush()
                start = file.tell()
                _reserve(file, 4 * math.prod(shape))
            values = np.memmap(new, "<f4", "r+", start, shape)
            fill(values)
            values.flush()
            del values  # Windows moves no file that is mapped
        self._open(path)

    def places(self, digests: Sequence[bytes]) -> np.ndarray:
        """Where the maps of images are.

        Parameters
        ----------
        digests : sequence of bytes

        Returns
        -------
        ndarray of int, of shape (n_images, 2)
            The part, and its row.
        """
        return np.array([self._places[digest] for digest in digests])

    def _open(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                digests = np.load(file, allow_pickle=False)
                values = _mapped(file, path)
            if digests.dtype != f"V{DIGEST_SIZE}" or values.dtype != np.float32:
                raise ValueError(f"values of the types {digests.dtype} and {values.dtype}")
            if values.shape != (len(digests), *self.shape):
                raise ValueError(
                    f"values of shape {values.shape}, expected {(len(digests), *self.shape)}"
                )
        except FileNotFoundError:  # another process found it damaged
            return
        except (ValueError, OSError, EOFError) as error:
            warn(f"the features in {path} are damaged ({error}): they are computed anew.")
            remove(path)
            return
        for row, digest in enumerate(digests):
            self._places.setdefault(digest.tobytes(), (len(self.parts), row))
        self.parts.append(values)


def _write_header(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> None:
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _reserve(file: BinaryIO, n_bytes: int) -> None:
    """Take room behind the end of a file.

    Where a disk is full, who writes into a map of a file with holes is killed.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), file.tell(), n_bytes)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
    while n_bytes:
        n_bytes -= file.write(bytes(min(n_bytes, _AT_ONCE)))


def _mapped(file: BinaryIO, path: Path) -> np.ndarray:
    """Map the second array of a file, which stands at it."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return np.memmap(path, dtype, "r", file.tell(), shape)
