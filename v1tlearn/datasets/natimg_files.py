"""What one file of the layout of Stringer et al. (2019) holds, checked; no schema here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from v1tlearn.datasets.image_stack import ImageStack
from v1tlearn.datasets.mat_files import is_hdf5, read_mat
from v1tlearn.datasets.mat_structs import names_in, read_marks, read_struct, read_texts

_BLOCK_NEURONS = 256  # that become float32 at once


def open_images(path: Path) -> ImageStack:
    """Open `imgs` (height, width, images) or `images` (images, height, width)."""
    names = names_in(path)
    if "imgs" in names:
        return ImageStack(path, "imgs")
    if "images" in names:
        return ImageStack(path, "images", images_first=True)
    raise ValueError(
        f"{path} holds {names[:10]}; expected 'imgs' (height, width, images) or 'images' "
        "(images, height, width)"
    )


def read_classes(path: Path, n_images: int) -> np.ndarray:
    """Name of the class of each image, (images,)."""
    numbers = read_mat(path, "class_assignment").values.reshape(-1)
    names = np.array(read_texts(path, "class_names"))
    known = np.isin(numbers, np.arange(len(names)))
    if len(numbers) != n_images or not known.all():
        raise ValueError(
            f"{path}: class_assignment has {len(numbers)} values"
            + ("" if known.all() else f", {numbers[~known][0]} among them")
            + f"; expected one for each of {n_images} images, whole numbers from 0 to "
            f"{len(names) - 1}, which count class_names"
        )
    return names[numbers.astype(np.int64)]


@dataclass(frozen=True)
class Recorded:
    """The responses of one mouse, of the cells that are kept."""

    responses: np.ndarray  # (trials, neurons), float32
    images: np.ndarray  # (trials,) places in the stack
    neurons: np.ndarray  # (neurons,) places in the file
    order: np.ndarray | None = None  # (trials,) in time
    spontaneous: np.ndarray | None = None  # (frames, neurons), float32
    position: np.ndarray | None = None  # (neurons, 2 or 3), float32
    red: np.ndarray | None = None  # (neurons,) bool


def read_recorded(mouse: str, path: Path, n_images: int, red_cells: str) -> Recorded:
    """Read a recording, trial by trial, or a table of one response to each image.

    Parameters
    ----------
    mouse : str
        For errors.
    path : Path
        With the structure `stim`, or with `responses` (images, neurons).
    n_images : int
        That the stack has; the number behind the last one is the grey screen.
    red_cells : {"drop", "keep"}
        What becomes of the cells that `stat.redcell` marks.

    Returns
    -------
    Recorded

    Raises
    ------
    ValueError
        Naming mouse and file.
    """
    names, file = names_in(path), _File(mouse, path)
    if "stim" in names:
        return _recording(file, n_images, red_cells, has_position="med" in names)
    if "responses" in names:
        return _table(file, n_images)
    raise ValueError(
        f"mouse {mouse!r}: {path} holds {names[:10]}; expected the structure 'stim', or "
        "'responses' (images, neurons)"
    )


def _recording(file: _File, n_images: int, red_cells: str, *, has_position: bool) -> Recorded:
    stim = read_struct(file.path, "stim", ("resp", "istim", "spont"))
    for name in ("resp", "istim"):
        if name not in stim:
            file.refuse(f"stim.{name} is missing or empty", "both resp and istim in stim")
    resp = file.matrix("stim.resp", stim["resp"], "(trials, neurons)")
    shown = file.images("stim.istim", stim["istim"], len(resp), n_images)
    red = file.red_cells(red_cells, resp.shape[1])
    kept = np.flatnonzero(~red) if red is not None and red_cells == "drop" else slice(None)
    neurons = np.arange(resp.shape[1])[kept]
    if not len(neurons):
        file.refuse("all cells are red", "some that are not, or red_cells='keep'")
    spont, position = stim.get("spont"), None
    if spont is not None:
        file.matrix("stim.spont", spont, f"(frames, {resp.shape[1]})", resp.shape[1])
        spont = file.as_floats("stim.spont", spont, slice(None), neurons, missing=False)
    if has_position:
        med = read_mat(file.path, "med").values
        if med.shape not in ((resp.shape[1], 2), (resp.shape[1], 3)):
            file.refuse(f"med has shape {med.shape}", f"({resp.shape[1]}, 3)")
        position = file.as_floats("med", med[neurons], missing=False)
    trials = np.flatnonzero(shown <= n_images)
    return Recorded(
        responses=file.as_floats("stim.resp", resp, trials, neurons),
        images=shown[trials] - 1,
        order=trials,
        neurons=neurons,
        spontaneous=spont,
        position=position,
        red=None if red is None or red_cells == "drop" else red,
    )


def _table(file: _File, n_images: int) -> Recorded:
    values = file.matrix("responses", read_mat(file.path, "responses").values, "(images, neurons)")
    if len(values) != n_images:
        file.refuse(f"responses are to {len(values)} images", f"one row for each of {n_images}")
    return Recorded(
        file.as_floats("responses", values), np.arange(n_images), np.arange(values.shape[1])
    )


@dataclass(frozen=True)
class _File:
    """Where arrays come from, for errors."""

    mouse: str
    path: Path

    def refuse(self, what: str, expected: str) -> NoReturn:
        raise ValueError(
            f"mouse {self.mouse!r}: {what} in {self.path}; expected {expected}: copy or download "
            "the file again"
        )

    def matrix(
        self, name: str, values: np.ndarray, expected: str, n_columns: int | None = None
    ) -> np.ndarray:
        wrong = n_columns is not None and values.shape[1:] != (n_columns,)
        if values.ndim != 2 or 0 in values.shape or wrong:
            self.refuse(f"{name} has shape {values.shape}", expected)
        return values

    def images(self, name: str, values: np.ndarray, n: int, n_images: int) -> np.ndarray:
        """Numbers of images from 1 on, (n,)."""
        numbers = values.reshape(-1).astype(np.float64)
        if len(numbers) != n:
            self.refuse(f"{name} has {len(numbers)} values", f"{n}, as stim.resp has trials")
        wrong = ~((numbers >= 1) & (numbers <= n_images + 1) & (numbers == np.floor(numbers)))
        if wrong.any():
            self.refuse(
                f"{name} names the image {numbers[wrong][0]:g}",
                f"whole numbers from 1 to {n_images}, of which there are images, or "
                f"{n_images + 1} for grey",
            )
        return numbers.astype(np.int64)

    def red_cells(self, what: str, n_neurons: int) -> np.ndarray | None:
        """Which cells are red, (neurons,); None where nothing tells, or none asks."""
        if what == "keep" and is_hdf5(self.path):
            return None
        try:
            red = read_marks(self.path, "stat", "redcell")
        except ValueError as error:
            raise ValueError(
                f"mouse {self.mouse!r}: {error}. With red_cells='keep' all cells are read"
            ) from error
        if red is not None and len(red) != n_neurons:
            self.refuse(f"stat has {len(red)} cells", f"{n_neurons}, as stim.resp has neurons")
        return red

    def as_floats(
        self,
        name: str,
        values: np.ndarray,
        rows: np.ndarray | slice = slice(None),
        columns: np.ndarray | slice = slice(None),
        *,
        missing: bool = True,
    ) -> np.ndarray:
        """Rows and columns of a matrix as float32, some at a time; NaN if it may be missing."""
        numbers = np.arange(values.shape[1])[columns]
        out = np.empty((len(values[rows]), len(numbers)), np.float32)
        with np.errstate(over="ignore"):
            for start in range(0, len(numbers), _BLOCK_NEURONS):
                some = slice(start, start + _BLOCK_NEURONS)
                out[:, some] = values[:, numbers[some]][rows]
        if np.isinf(out).any() or (not missing and np.isnan(out).any()):
            self.refuse(f"{name} holds NaN or Inf", "finite numbers" + " or NaN" * missing)
        return out
