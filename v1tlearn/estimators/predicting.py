"""From a fitted model and trials to predicted responses: batches, shared images, precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._streaming import stream, stream_parts
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.nn import EncodingModel
from v1tlearn.training import MouseData, numerics, predict_mouse, resolve_precision
from v1tlearn.training.devices import autocast
from v1tlearn.training.memory import prediction_batch_size
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._places import in_trials
from v1tlearn.trials._reading import BLOCK

_INPUT_VALUES = {"cpu": 2**24}  # of the images that go through a model at once; elsewhere 2**28

Outputs = tuple[str, slice | np.ndarray, Tensor]


def predict(
    model: EncodingModel,
    fitted: Fitted,
    trials: Trials,
    device: torch.device,
    *,
    precision: str = "auto",
    deterministic: bool = False,
    activate: bool = True,
    at_once: int | None = None,
    block: int = BLOCK,
) -> dict[str, np.ndarray]:
    """Predict every mouse of the trials, block by block.

    Where neither behaviour nor a moving crop stands between an image and its feature map, repeats
    of the image, in all mice that standardise it alike, go through the core once.

    Parameters
    ----------
    model : EncodingModel
        On the device.
    fitted : Fitted
    trials : Trials
    device : torch.device
    precision : {"auto", "float32", "tf32", "bfloat16"}, default="auto"
    deterministic : bool, default=False
    activate : bool, default=True
        Apply the output non-linearity.
    at_once : int, optional
        Images that go through the model at once; by default what is fast and fits.
    block : int, default=256
        Trials that are read at once; four times as many where images repeat.

    Returns
    -------
    dict of str to ndarray of shape (n_trials, n_neurons)
        In data units; without `activate` in standardised ones. float32.

    Raises
    ------
    ValueError
        If predictions are not finite.
    """
    model.eval()
    precision = resolve_precision(precision, device, training=False)
    if at_once is None:
        at_once = _images_at_once(model, fitted, device, deterministic)
    run = _Prediction(model, fitted, trials, device, at_once, block, precision, activate)
    out = {
        m: np.empty((len(trials.rows(m)[0]), fitted.mice[m].n_neurons), np.float32)
        for m in trials.mice
    }
    under_way: Outputs | None = None
    with (
        torch.inference_mode(),
        numerics(precision, device, deterministic=deterministic),
    ):
        for outputs in run.blocks():
            _store(out, under_way)  # a block late: a GPU computes while the next one is read
            under_way = outputs
        _store(out, under_way)
    for mouse, values in out.items():
        finite = np.asarray(np.isfinite(values).all(axis=1))
        if not finite.all():
            where = in_trials(trials.rows(mouse)[1][~finite], trials, mouse)
            raise ValueError(_not_finite(mouse, f"{where} of {len(finite)}"))
    return out


def predict_parts(
    model: EncodingModel,
    fitted: Fitted,
    movies: Trials,
    device: torch.device,
    *,
    precision: str = "auto",
    deterministic: bool = False,
    at_once: int | None = None,
) -> Iterator[xr.DataArray]:
    """Predict movies by a model that sees time, some frames after the others, and keep nothing.

    Parameters
    ----------
    model, fitted
        As of `predict`.
    movies : Trials
    device, precision, deterministic
        As of `predict`.
    at_once : int, optional
        Frames that are predicted at once; by default what is fast and fits.

    Yields
    ------
    DataArray (time, neuron)
        In data units, float32, with the labels of the trial, `mouse_id`, and `place` among the
        trials.

    Raises
    ------
    ValueError
        If predictions are not finite.
    """
    model.eval()
    precision = resolve_precision(precision, device, training=False)
    if at_once is None:
        at_once = _images_at_once(model, fitted, device, deterministic)
    ids = {mouse: one.unit_ids for mouse, one in fitted.mice.items()}
    for place, part, values in stream_parts(
        model,
        fitted,
        movies,
        device,
        at_once=at_once,
        precision=precision,
        deterministic=deterministic,
    ):
        (mouse,) = part.mice
        if not np.isfinite(values).all():
            raise ValueError(_not_finite(mouse, f"trial {place}"))
        labelled = Responses.from_arrays({mouse: values[None]}, like=part, name="predictions")
        array = labelled._with_known_neurons(ids)[mouse].isel(trial=0)
        yield array.drop_vars("n_frames").assign_coords(mouse_id=mouse, place=place)


def _images_at_once(
    model: EncodingModel, fitted: Fitted, device: torch.device, deterministic: bool
) -> int:
    """What is fast and fits; of models that make images smaller, also by what comes in."""
    fast = prediction_batch_size(model, device, deterministic=deterministic)
    most = _INPUT_VALUES.get(device.type, 2**28) // math.prod(fitted.image_shape)
    return max(1, min(fast, most))


def _not_finite(mouse: str, where: str) -> str:
    return (
        f"mouse {mouse!r}: what is predicted for {where} is not finite. "
        "Look for extreme values in their stimuli and behaviour; where all trials are "
        "concerned, the training ran off: fit with a lower lr."
    )


def _store(out: dict[str, np.ndarray], outputs: Outputs | None) -> None:
    if outputs is not None:
        mouse, places, values = outputs
        out[mouse][places] = values.cpu().numpy()


@dataclass(frozen=True)
class _Prediction:
    """One call: the trials of all mice, cut into blocks, sent through the model."""

    model: EncodingModel
    fitted: Fitted
    trials: Trials
    device: torch.device
    size: int  # images that go through the model at once
    block: int  # trials that are read at once
    precision: str
    activate: bool

    def blocks(self) -> Iterator[Outputs]:
        """Mouse, places among its trials, and what is predicted for them, on the device."""
        if self.model.context_frames is not None:
            streams = map(self._streamed, self.trials.mice)
            yield from self._in_units(chain.from_iterable(streams))
            return
        for mice in self._alike():
            positions = np.concatenate([self.trials.rows(m)[0] for m in mice])
            numbers = np.full(len(self.trials), -1)
            if self._shares_images(mice):
                numbers[positions] = _by_first_appearance(
                    np.concatenate([self._image_labels(m) for m in mice])
                )
            if numbers.max() + 1 < len(positions) and numbers.max() >= 0:
                blocks = self._repeated(positions, numbers)
            else:
                blocks = chain.from_iterable(map(self._plain, mice))
            yield from self._in_units(blocks)

    def _in_units(self, blocks: Iterable[Outputs]) -> Iterator[Outputs]:
        """Rates in the units of the responses; what is ahead of the non-linearity as it is."""
        for mouse, places, values in blocks:
            if self.activate:
                scale = self.fitted.mice[mouse].statistics["response_scale"]
                values = values.mul_(torch.as_tensor(scale, device=values.device))
            yield mouse, places, values

    def _streamed(self, mouse: str) -> Iterator[Outputs]:
        """Frames of movies in their order, each with the movie before it."""
        parts = stream(
            self.model,
            self.fitted,
            self.trials,
            mouse,
            self.device,
            at_once=self.size,
            precision=self.precision,
            activate=self.activate,
        )
        return ((mouse, places, values) for places, values in parts)

    def _data(self, block: Trials, mouse: str) -> MouseData:
        return mouse_data(self.fitted, block, mouse, self.device)

    def _alike(self) -> list[list[str]]:
        """Mice in groups to which equal images are equal when standardised, too."""
        groups: dict[tuple, list[str]] = {}
        for mouse in self.trials.mice:
            first = self.trials[self.trials.rows(mouse)[0][:1]]
            statistics = self.fitted.mice[mouse].statistics
            scaling = tuple(float(statistics[name]) for name in ("image_mean", "image_std"))
            key = (scaling, self.model.cropper.window(mouse), first.get("stimuli", mouse).shape)
            groups.setdefault(key, []).append(mouse)
        return list(groups.values())

    def _shares_images(self, mice: list[str]) -> bool:
        """Whether feature maps depend on nothing but the image."""
        cropper = self.model.cropper
        return not self.fitted.core_columns and all(cropper.shifter(m) is None for m in mice)

    def _image_labels(self, mouse: str) -> np.ndarray:
        """Labels of a mouse's images; hashes, of these images only, where there are none."""
        positions = self.trials.rows(mouse)[0]
        labelled = "image_id" in self.trials[positions[:1]].recordings[mouse].coords
        if labelled:
            return self.trials[positions].image_ids
        blocks = self.trials.blocks(mouse)
        return np.concatenate([Trials(block.recordings).image_ids for block in blocks])

    def _plain(self, mouse: str) -> Iterator[Outputs]:
        """Trials in their order, each through the core."""
        start = 0
        for block in self.trials.blocks(mouse, max(self.block, self.size)):
            values = predict_mouse(
                self.model,
                mouse,
                self._data(block, mouse),
                self.size,
                self.precision,
                activate=self.activate,
            )
            yield mouse, slice(start, start + len(values)), values
            start += len(values)

    def _repeated(self, positions: np.ndarray, numbers: np.ndarray) -> Iterator[Outputs]:
        """Trials of the same image together, whichever mouse saw it."""
        order = positions[np.argsort(numbers[positions], kind="stable")]
        for cut in _cuts(numbers[order], 4 * self.block):
            where = np.sort(order[cut])  # files are read forwards
            block = self.trials[where]
            rows = {mouse: where[block.rows(mouse)[0]] for mouse in block.mice}
            labels = {mouse: numbers[r] for mouse, r in rows.items()}
            for mouse, values in self._encoded_once(block, labels).items():
                yield mouse, np.searchsorted(self.trials.rows(mouse)[0], rows[mouse]), values

    def _encoded_once(self, block: Trials, labels: dict[str, np.ndarray]) -> dict[str, Tensor]:
        """Predictions of all mice of a block; the core sees every image once."""
        model = self.model
        data = {mouse: self._data(block, mouse) for mouse in labels}
        some, first = next(iter(data.items()))
        images = torch.cat([cast(Tensor, d.images) for d in data.values()])
        pool = MouseData(images, first.image_mean, first.image_std)
        firsts, numbered = _distinct(images, np.concatenate(list(labels.values())))
        borders = np.cumsum([len(d) for d in data.values()])[:-1]
        shown = dict(zip(data, np.split(numbered, borders), strict=True))
        parts: dict[str, list[tuple[np.ndarray, Tensor]]] = {mouse: [] for mouse in data}
        with autocast(self.precision, pool.device):
            for start in range(0, len(firsts), self.size):
                batch = firsts[start : start + self.size]
                images = pool.batch(torch.as_tensor(batch, device=pool.device)).images
                features = model.encode(some, model.cropper(images, some))
                for mouse, numbers in shown.items():
                    rows = np.flatnonzero((numbers >= start) & (numbers < start + len(batch)))
                    if len(rows):
                        values = self._respond(mouse, features, numbers[rows] - start, data, rows)
                        parts[mouse].append((rows, values))
        return {mouse: _in_order(*zip(*found, strict=True)) for mouse, found in parts.items()}

    def _respond(
        self,
        mouse: str,
        features: Tensor,
        shown: np.ndarray,
        data: dict[str, MouseData],
        rows: np.ndarray,
    ) -> Tensor:
        """Predictions of some trials of a mouse; `shown` tells which feature map is whose."""
        model = self.model
        respond = partial(model.respond, mouse, activate=self.activate)
        if model.shifter(mouse) is None:  # then repeats are predicted alike
            used, where = np.unique(shown, return_inverse=True)
            return respond(_maps(features, used))[where].float()
        pupil = cast(Tensor, data[mouse].pupil)[rows]
        cuts = (slice(i, i + self.size) for i in range(0, len(rows), self.size))
        return torch.cat([respond(_maps(features, shown[c]), pupil[c]).float() for c in cuts])


def _maps(features: Tensor, numbers: np.ndarray) -> Tensor:
    """Some feature maps, channels last as readouts take them."""
    if np.array_equal(numbers, np.arange(len(features))):
        return features
    rows = torch.as_tensor(numbers, device=features.device)
    return features.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def _in_order(rows: Sequence[np.ndarray], values: Sequence[Tensor]) -> Tensor:
    """Join parts, whose rows are all rows in any order."""
    return torch.cat(list(values))[np.argsort(np.concatenate(rows))]


def _by_first_appearance(labels: np.ndarray) -> np.ndarray:
    """Number labels in the order in which they first come."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _cuts(numbers: np.ndarray, size: int) -> Iterator[slice]:
    """Cut sorted numbers into parts of at most `size`; equal ones stay together if they fit."""
    borders = np.flatnonzero(np.diff(numbers)) + 1
    start = 0
    while start < len(numbers):
        stop = min(start + size, len(numbers))
        if stop < len(numbers):
            inside = borders[(borders > start) & (borders <= stop)]
            stop = int(inside[-1]) if len(inside) else stop
        yield slice(start, stop)
        start = stop


def _distinct(images: Tensor, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First places of all distinct images, and for every image which of them it is.

    Only images of one label are compared, pixel by pixel.
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    same = (images == images[first[inverse]]).flatten(1).all(1).cpu().numpy()
    return np.unique(np.where(same, first[inverse], np.arange(len(labels))), return_inverse=True)
