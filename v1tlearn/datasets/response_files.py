"""The responses of one mouse in a file of arrays: single trials, and repeats of test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from v1tlearn._values import as_ids
from v1tlearn.datasets.npz_files import NpzFile
from v1tlearn.datasets.schema import AXES, POSITION_ATTRS

PIXELS_PER_UM = (0.75, 0.5)  # by which `xpos` and `ypos` are divided
_BLOCK_NEURONS = 256  # that become float32 at once


@dataclass(frozen=True)
class ResponseFile:
    """The responses of one mouse in their file."""

    mouse: str
    npz: NpzFile
    single: np.ndarray  # (neurons, trials)
    repeats: list[np.ndarray]  # (repeats, neurons) of each test image

    @classmethod
    def open(cls, mouse: str, path: Path) -> ResponseFile:
        """Read the file of a mouse."""
        npz = NpzFile(path)
        file = cls(mouse, npz, npz.numbers("sp"), npz.arrays("ss_all"))
        if file.single.ndim != 2 or 0 in file.single.shape:
            file.refuse(f"sp has shape {file.single.shape}", "(neurons, trials)")
        n_neurons = len(file.single)
        for number, repeats in enumerate(file.repeats):
            if (
                repeats.dtype.kind not in "biuf"
                or repeats.ndim != 2
                or repeats.shape[1] != n_neurons
            ):
                file.refuse(
                    f"ss_all[{number}] has shape {repeats.shape} and dtype {repeats.dtype}",
                    f"numbers (repeats, {n_neurons}), of as many neurons as sp",
                )
        return file

    @property
    def n_trials(self) -> int:
        """Trials of images that are not for testing."""
        return self.single.shape[1]

    def refuse(self, what: str, expected: str) -> NoReturn:
        """Raise, naming mouse and file."""
        raise ValueError(
            f"mouse {self.mouse!r}: {what} in {self.npz.path}; expected {expected}: copy or "
            "download the file again"
        )

    def images(self, *names: str, n: int) -> np.ndarray:
        """Numbers of images, under one of several names, (n,)."""
        name = self.npz.first_of(*names)
        values = self.npz.numbers(name).reshape(-1)
        if values.dtype == bool:
            self.refuse(f"{name} holds truth values", "numbers of images")
        in_range = np.abs(values.astype(np.float64)) < 2**53  # not so NaN
        whole = np.where(in_range, values, -1).astype(np.int64)
        if len(values) != n or not in_range.all() or (whole != values).any():
            self.refuse(f"{name} has {len(values)} values", f"{n} whole numbers, one per image")
        return whole

    def labels(self, name: str, n: int) -> np.ndarray:
        """Read a label for each of `n` images."""
        values = self.npz.labels(name).reshape(-1)
        if len(values) != n:
            self.refuse(f"{name} has {len(values)} values", f"{n}, one for each image")
        return as_ids(values, f"mouse {self.mouse!r}: {name} in {self.npz.path}")

    def responses(self, kept: np.ndarray) -> np.ndarray:
        """Responses of the trials that are kept and of the repeats, (trials, neurons), float32."""
        n_kept, n_repeats = int(kept.sum()), sum(map(len, self.repeats))
        out = np.empty((n_kept + n_repeats, len(self.single)), np.float32)
        with np.errstate(over="ignore"):
            for start in range(0, len(self.single), _BLOCK_NEURONS):
                neurons = slice(start, start + _BLOCK_NEURONS)
                out[:n_kept, neurons] = self.single[neurons][:, kept].T
            if n_repeats:
                out[n_kept:] = np.concatenate(self.repeats)
        if np.isinf(out).any():
            self.refuse("responses hold Inf", "finite numbers, or NaN for 'not recorded'")
        return out

    def neurons(self) -> dict[str, tuple]:
        """Position and plane of each neuron, as far as they are there."""
        n = len(self.single)
        found = {}
        for name in ("xpos", "ypos", "iplane"):
            if name in self.npz.names:
                values = self.npz.numbers(name).reshape(-1)
                if len(values) != n or not np.isfinite(values).all():
                    self.refuse(f"{name} has {len(values)} values", f"{n} finite ones, per neuron")
                found[name] = values
        coords: dict[str, tuple] = {}
        if {"xpos", "ypos"} <= set(found):
            position = np.stack([found["xpos"], found["ypos"]], 1) / PIXELS_PER_UM
            coords["position"] = (("neuron", "axis"), position, POSITION_ATTRS)
            coords["axis"] = ("axis", np.array(AXES[:2]))
        if "iplane" in found:
            coords["plane"] = ("neuron", found["iplane"])
        return coords
