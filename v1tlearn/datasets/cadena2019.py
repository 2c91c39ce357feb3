"""Reader of recordings of macaque V1 (Cadena et al. 2019), as arrays in one file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from v1tlearn._instead import path_of
from v1tlearn._values import as_ids, plain
from v1tlearn.datasets.npz_files import NpzFile
from v1tlearn.datasets.schema import DIMS, RESPONSES_ATTRS, STIMULI_ATTRS, check_read

_SPIKES = RESPONSES_ATTRS | {"long_name": "spike count", "units": "1"}


def read_cadena2019(
    path: str | os.PathLike, *, name: str = "macaque", crop: int = 0
) -> xr.DataTree:
    """Read recordings of macaque V1 to natural images and textures (Cadena et al. 2019).

    Parameters
    ----------
    path : path
        A file of arrays (.npz), one row per trial: `images` (trials, [1,] height, width),
        `responses` (trials, neurons), `train_idx` and `val_idx`, rows of the tiers; of the test
        images `test_images` (images, [1,] height, width) and `test_responses`
        (repeats, images, neurons). Optional: `real_responses` (trials, neurons), which responses
        were recorded; `repetitions` (neurons,), how many of the repeats of test images each neuron
        has, the first ones; `subject_id` (neurons,); `image_ids` (trials,).
    name : str, default="macaque"
        Name of the recording; all neurons of all animals and sessions are one.
    crop : int, default=0
        Pixels to leave out on every side of the images: 30 makes 80 x 80 of the 140 x 140 that were
        shown, as Du et al. (2025) do.

    Returns
    -------
    DataTree
        One child with `stimuli` (trial, channel, height, width), uint8 as stored or else float32;
        `responses` (trial, neuron), float32, NaN where not recorded; coordinates `tier`, `image_id`
        (equal for equal images; those of the file where it has them) and, of neurons, `animal_id`
        and `repetitions`. Trials are those of the tiers "train" and "validation" in the order of
        their rows, then the test trials, repeat by repeat; of these, such that no neuron has are
        left out.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    TypeError
        If path or name is no text.
    ValueError
        Naming the file: arrays that are missing or do not fit each other, images or responses that
        are not finite, rows that are in both tiers; anything but plain arrays, of which nothing is
        run.

    Notes
    -----
    Rows that are in neither tier are left out. Neurons have their own repeats: fit with
    ``loss_scale="per_recorded"`` as published, and evaluate by ``feve(..., shown_once="counted")``.

    References
    ----------
    Cadena et al. 2019, Deep convolutional models improve predictions of macaque V1 responses to
    natural images, PLOS Computational Biology; Du et al. 2025.
    """
    found = path_of("path", path, "read_cadena2019(path)")
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}, a {type(name).__name__}: expected text.")
    if not name or "/" in name:
        raise ValueError(f"name is {name!r}: expected text without '/', of one letter or more.")
    file = _File(Path(found), crop)
    images, test_images = file.images("images"), file.images("test_images")
    if images.shape[1:] != test_images.shape[1:]:
        sizes = [" x ".join(map(str, part.shape[2:])) for part in (images, test_images)]
        file.refuse(
            f"after a crop of {crop} images are {sizes[0]} pixels large, test_images {sizes[1]}",
            "images of one size",
        )
    names = {"train": "train_idx", "validation": "val_idx"}
    rows = {tier: file.rows(own, len(images)) for tier, own in names.items()}
    both = np.intersect1d(rows["train"], rows["validation"])
    if len(both):
        file.refuse(f"rows such as {both[0]} are in train_idx and val_idx", "each in one of them")
    single = np.sort(np.concatenate(list(rows.values())))
    tiers = np.where(np.isin(single, rows["train"]), "train", "validation")
    responses, repeats = file.single(len(images)), file.repeats(len(test_images))
    ids, test_ids = file.image_ids(images, test_images)
    some = ~np.isnan(repeats).all(axis=2)  # (repeats, images)
    shown = np.nonzero(some)[1]
    coords: dict[str, Any] = {
        "tier": ("trial", np.concatenate([tiers, np.repeat("test", len(shown))])),
        "image_id": ("trial", np.concatenate([ids[single], test_ids[shown]])),
    }
    dataset = xr.Dataset(
        {
            "stimuli": (
                DIMS["stimuli"],
                np.concatenate([images[single], test_images[shown]]),
                STIMULI_ATTRS,
            ),
            "responses": (
                DIMS["responses"],
                np.concatenate([responses[single], repeats[some]]),
                _SPIKES,
            ),
        },
        coords | file.neurons(),
    )
    check_read([found], {name: dataset})
    return xr.DataTree(children={name: xr.DataTree(dataset)})


class _File:
    """The arrays of the file, checked against each other."""

    def __init__(self, path: Path, crop: int):
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: expected a file of arrays (.npz).")
        self._path, self._crop, self._npz = path, plain(crop), NpzFile(path)
        self._n_neurons = 0

    def refuse(self, what: str, expected: str) -> NoReturn:
        raise ValueError(f"{self._path}: {what}; expected {expected}: look at how it was written")

    def images(self, name: str) -> np.ndarray:
        """Images, (n, 1, height, width), cropped."""
        values = self._npz.numbers(name)
        values = values[:, None] if values.ndim == 3 else values
        if values.ndim != 4 or values.shape[1] != 1 or 0 in values.shape:
            self.refuse(f"{name} has shape {values.shape}", "(images, [1,] height, width)")
        c, (height, width) = self._crop, values.shape[2:]
        if not isinstance(c, int) or not 0 <= 2 * c < min(height, width):
            self.refuse(
                f"crop is {c} of images {height} x {width}", "less than half of either side"
            )
        values = values[:, :, c : height - c, c : width - c]
        return values if values.dtype == np.uint8 else self._floats(name, values, missing=False)

    def single(self, n_trials: int) -> np.ndarray:
        """Responses of single trials, (trials, neurons), NaN where not recorded."""
        values = self._npz.numbers("responses")
        if values.ndim != 2 or len(values) != n_trials or values.shape[1] == 0:
            self.refuse(f"responses have shape {values.shape}", f"({n_trials}, neurons)")
        self._n_neurons = values.shape[1]
        out = self._floats("responses", values)
        if "real_responses" in self._npz.names:
            real = self._npz.numbers("real_responses")
            if real.shape != out.shape:
                self.refuse(f"real_responses has shape {real.shape}", f"{out.shape}")
            if not np.isin(real, (0, 1)).all():
                self.refuse("real_responses holds other values than 0 and 1", "truth values")
            out[real == 0] = np.nan
        return out

    def repeats(self, n_images: int) -> np.ndarray:
        """Responses to test images, (repeats, images, neurons), NaN where not recorded."""
        values = self._npz.numbers("test_responses")
        if values.ndim != 3 or values.shape[1:] != (n_images, self._n_neurons):
            expected = f"(repeats, {n_images}, {self._n_neurons})"
            self.refuse(f"test_responses have shape {values.shape}", expected)
        out = self._floats("test_responses", values)
        if (own := self._of_neurons("repetitions")) is not None:
            late = np.arange(len(out))[:, None, None] >= own  # (repeats, 1, neurons)
            out = np.where(late, np.float32(np.nan), out)
        return out

    def rows(self, name: str, n_trials: int) -> np.ndarray:
        """Rows of `images` of one tier, each once."""
        values = self._npz.numbers(name).reshape(-1)
        if values.dtype == bool and len(values) == n_trials:
            values = np.flatnonzero(values)
        in_range = values.dtype.kind in "iu" and ((values >= 0) & (values < n_trials)).all()
        if not in_range or len(np.unique(values)) != len(values):
            self.refuse(
                f"{name} holds other values", f"rows of images, below {n_trials}, each once"
            )
        return values.astype(np.int64)

    def image_ids(
        self, images: np.ndarray, test_images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of single and of test images; equal ones share theirs."""
        prints = [_fingerprint(image) for part in (images, test_images) for image in part]
        first: dict[bytes, int] = {}
        for place, fingerprint in enumerate(prints):
            first.setdefault(fingerprint, place)
        ids = np.array([first[fingerprint] for fingerprint in prints])
        if "image_ids" in self._npz.names:
            own = self._npz.labels("image_ids").reshape(-1)
            if len(own) != len(images):
                self.refuse(f"image_ids has {len(own)} values", f"{len(images)}, one per trial")
            own = as_ids(own, f"{self._path}: image_ids").astype(str)
            known = ids < len(images)
            ids = np.where(
                known, own[np.where(known, ids, 0)], np.char.add("test ", ids.astype(str))
            )
            ids[: len(images)] = own
        return ids[: len(images)], ids[len(images) :]

    def neurons(self) -> dict[str, tuple]:
        """Labels of the neurons."""
        known = {"animal_id": "subject_id", "repetitions": "repetitions"}
        found = {name: self._of_neurons(own) for name, own in known.items()}
        return {name: ("neuron", values) for name, values in found.items() if values is not None}

    def _of_neurons(self, name: str) -> np.ndarray | None:
        if name not in self._npz.names:
            return None
        values = self._npz.labels(name).reshape(-1)
        if len(values) != self._n_neurons:
            self.refuse(f"{name} has {len(values)} values", f"{self._n_neurons}, one per neuron")
        if name == "repetitions":
            numbers = values if values.dtype.kind in "iuf" else np.zeros(1)
            if not ((numbers >= 1) & (numbers == np.floor(numbers)) & np.isfinite(numbers)).all():
                self.refuse("repetitions holds other values", "whole numbers from 1 on")
        return values

    def _floats(self, name: str, values: np.ndarray, *, missing: bool = True) -> np.ndarray:
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if np.isinf(values).any() or not (missing or np.isfinite(values).all()):
            self.refuse(f"{name} holds numbers that are not finite", "finite ones")
        return values


def _fingerprint(image: np.ndarray) -> bytes:
    values = image.astype(np.float32) + 0  # equal numbers of any type, -0 among them, are alike
    return hashlib.blake2b(values.tobytes(), digest_size=16).digest()
