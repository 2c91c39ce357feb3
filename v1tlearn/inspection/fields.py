"""Receptive fields of a fitted model's neurons, from their responses to noise (Li et al. 2023).

Those of models that see time are kernels of lags and pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from tqdm.auto import tqdm

from v1tlearn._guesses import did_you_mean, guess
from v1tlearn._values import plain
from v1tlearn.datasets.time_axis import FRAMES, SECONDS
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators.base_encoding import ModelRegressor
from v1tlearn.nn import EncodingModel
from v1tlearn.training import draw_seed, isolated, numerics, resolve_precision
from v1tlearn.training.devices import autocast
from v1tlearn.training.memory import prediction_batch_size

NOISE = ("uniform", "gaussian")
METHODS = ("covariance", "sum")

_CHUNK = 512  # images of one matrix product of responses and noise
_UNIFORM_MEAN, _UNIFORM_STD = 0.5, 12**-0.5


@isolated()
def receptive_fields(
    estimator: ModelRegressor,
    n_images: int = 500_000,
    *,
    n_lags: int | None = None,
    mice: Sequence[str] | None = None,
    behaviors: Mapping[str, float] | None = None,
    noise: str = "uniform",
    method: str = "covariance",
    batch_size: int | str = "auto",
    random_state: Any = 0,
    verbose: int = 0,
) -> dict[str, xr.DataArray]:
    """Map artificial receptive fields: what in noise images makes each neuron of a model respond.

    The model sees images of independent pixels, of the size that its core takes, at constant
    behaviour and with the eye at rest: no shifter moves receptive field or image. All mice respond
    to the same images, which are drawn on the device and not kept. To models that see time they are
    frames of movies, and fields are kernels: a map for each lag.

    Parameters
    ----------
    estimator : V1TRegressor, CNNRegressor, MovieCNNRegressor, ViSTRegressor, or alike
        Fitted. It stays as it is; its `device` and `precision` count as in `predict`.
    n_images : int, default=500_000
        Number of noise images, or frames. The error of a field falls with its square root.
    n_lags : int, optional
        Of models that see time: frames that are looked at, the one of the response and those before
        it; by default all that the model sees. Images have none.
    mice : sequence of str, optional
        The mice whose neurons are mapped; all by default.
    behaviors : mapping of str to float, optional
        Behaviour by column, in the units of the recordings. Columns that are not named are at the
        zero of what the core sees: their mean, or zero where they are only scaled.
    noise : {"uniform", "gaussian"}, default="uniform"
        Distribution of the pixels, standardised ahead of the model: uniform between 0 and 1
        (published), or normal.
    method : {"covariance", "sum"}, default="covariance"
        "covariance" of responses and standardised pixels; "sum", as published, over images of
        response times pixel as drawn.
    batch_size : int or "auto", default="auto"
        Images that go through the core at once; "auto" as in `predict`. It changes no more than
        rounding errors.
    random_state : int, RandomState, Generator or None, default=0
        Seed of the noise. CPU and GPU draw other images.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    dict of str to DataArray (neuron, [lag,] channel, height, width)
        Per mouse, float32; of models that see time with ``lag``, in seconds back from the frame of
        the response, 0 first, or in frames where nobody told the frame rate at `fit`. For
        "covariance" in units of the responses per standard deviation of a pixel; for "sum" in units
        of the responses times grey level. ``neuron`` bears the unit ids of the trials at `fit`,
        with ``area``, ``layer``... beside it; nothing where these had none.
        ``height`` and ``width`` tell where the pixels that the core sees lie in the images that
        came to `fit`, in pixels of these from the centre of the upper left one: row j of images
        that were resized to a quarter lies at 4 j + 1.5. The pixels of the core themselves are the
        places along both dimensions (``isel``).

    Raises
    ------
    TypeError
        If the estimator is no single model.
    ValueError
        If a mouse or a behaviour column is unknown, or an option out of its range.
    NotFittedError
        If the estimator is not fitted.

    Notes
    -----
    "covariance" is the mean over images of (response − mean response) × (pixel − mean pixel),
    pixels standardised: the filter itself where a neuron is linear in the image, and, with normal
    noise, proportional to it whatever non-linearity follows the filter (Chichilnisky 2001). The
    published sum holds two things more: half the summed responses in every pixel, and the mean
    response times the chance sum of the noise. The first goes where fields are centred ahead of a
    Gaussian fit; the second stays, and is most of the error of neurons whose responses vary little
    about their mean. Hence the default.

    Products are summed up in float32 over 512 images, and in float64 from there on.

    Of models that see time, responses r_t and frames x_(t-lag) take the places of response and
    image; every response has its whole context of noise before it, and, of one that looks ahead,
    behind it.

    ``height`` grows downwards, as rows of images do. `ImageDisplay.from_fields` draws fields the
    right way up; xarray's own plots put row 0 at the bottom unless they are told otherwise:
    ``fields["A"][0, 0].plot(yincrease=False)``.

    References
    ----------
    Li et al., "V1T: large-scale mouse V1 response prediction using a Vision Transformer", 2023,
    Fig. 3. Chichilnisky, "A simple white noise analysis of neuronal light responses", 2001.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import receptive_fields
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0)).sel(tier="train")
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> fields = receptive_fields(model.fit(trials), n_images=1000)
    >>> fields["A"].dims, fields["A"].shape
    (('neuron', 'channel', 'height', 'width'), (5, 1, 16, 24))
    """
    n_images, batch_size, n_lags = plain((n_images, batch_size, n_lags))
    _check(estimator, n_images, noise, method, batch_size)
    fitted, model = estimator._knows()
    ahead, n_lags = _lags(model, n_lags)
    mice = _known_mice(fitted, mice)
    groups = _same_behavior(fitted, mice, behaviors or {})
    model.eval()
    device = estimator.device_
    precision = resolve_precision(estimator.precision, device, training=False)
    size = batch_size
    if isinstance(size, str):  # "auto"
        size = prediction_batch_size(model, device, deterministic=plain(estimator.deterministic))
    seed = draw_seed(plain(random_state))
    shape = (fitted.image_shape[0], *model.cropper.output_size)
    sums = {m: _Sums(n_lags or 1, model.readout(m).n_neurons, shape, device) for m in mice}
    after = 0 if model.context_frames is None else model.context_frames[1]
    with (
        torch.inference_mode(),
        numerics(precision, device, deterministic=plain(estimator.deterministic)),
        tqdm(total=n_images, desc="receptive fields", unit="image", disable=not verbose) as bar,
    ):
        for images in _draw(n_images, ahead + after, shape, noise, seed, device):
            for behavior, together in groups:
                respond = _respond if n_lags is None else partial(_respond_in_time, ahead)
                responses = respond(model, together, images, behavior, size, precision)
                for mouse, values in responses.items():
                    sums[mouse].add(values, images, ahead)
            bar.update(len(images) - ahead - after)
    return {
        m: _labelled(
            fitted,
            m,
            sums[m],
            model.cropper.source_positions(m),
            n_images,
            noise,
            method,
            seed,
            in_time=n_lags is not None,
        )
        for m in mice
    }


def _lags(model: EncodingModel, n_lags: Any) -> tuple[int, int | None]:
    """Frames ahead of the first response, and lags; 0 and None for a model of images."""
    if model.context_frames is None:
        if n_lags is not None:
            raise ValueError(f"n_lags={n_lags!r}: this model sees single images, leave n_lags out.")
        return 0, None
    before = model.context_frames[0]
    if n_lags is None:
        n_lags = before + 1
    if not isinstance(n_lags, Integral) or n_lags < 1:
        raise ValueError(f"n_lags={n_lags!r}: expected a whole number from 1 on, or None.")
    return max(before, int(n_lags) - 1), int(n_lags)


class _Sums:
    """Running sums over images of one mouse's responses, the pixels and their products, by lag."""

    def __init__(
        self, n_lags: int, n_neurons: int, shape: tuple[int, int, int], device: torch.device
    ) -> None:
        # Apple's GPUs have no float64.
        self.device = torch.device("cpu") if device.type == "mps" else device
        n_pixels = int(np.prod(shape))
        self.products = self._zeros(n_lags, n_neurons, n_pixels)
        self.responses, self.pixels = self._zeros(n_neurons), self._zeros(n_lags, n_pixels)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def add(self, responses: Tensor, images: Tensor, ahead: int) -> None:
        """Add responses (B, n) to images (ahead + B + ..., c, h, w), both float32."""
        pixels = images.flatten(1)
        for lag in range(len(self.products)):
            shown = pixels[ahead - lag : ahead - lag + len(responses)]
            self.products[lag] += (responses.T @ shown).to(self.device)
            self.pixels[lag] += shown.sum(0).to(self.device)
        self.responses += responses.sum(0).to(self.device)


def _draw(
    n_images: int,
    context: int,
    shape: tuple[int, int, int],
    noise: str,
    seed: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Noise images of mean 0 and variance 1, some at a time, always cut in the same way.

    Frames come with as many more of context.
    """
    generator = torch.Generator(device).manual_seed(seed)
    for start in range(0, n_images, _CHUNK):
        size = (min(_CHUNK, n_images - start) + context, *shape)
        if noise == "gaussian":
            yield torch.randn(size, generator=generator, device=device, dtype=torch.float32)
        else:
            grey = torch.rand(size, generator=generator, device=device, dtype=torch.float32)
            yield grey.sub_(_UNIFORM_MEAN).div_(_UNIFORM_STD)


def _respond(
    model: EncodingModel,
    mice: list[str],
    images: Tensor,
    behavior: np.ndarray | None,
    size: int,
    precision: str,
) -> dict[str, Tensor]:
    """Standardised responses (B, n) of mice that share the core pass, float32."""
    parts: dict[str, list[Tensor]] = {mouse: [] for mouse in mice}
    with autocast(precision, images.device):
        for batch in images.split(size):
            behaviors = None
            if behavior is not None:
                row = torch.as_tensor(behavior, dtype=torch.float32, device=images.device)
                behaviors = row.expand(len(batch), -1)
            features = model.encode(mice[0], batch, behaviors)
            for mouse, found in parts.items():
                found.append(model.respond(mouse, features).float())
    return {mouse: torch.cat(found) for mouse, found in parts.items()}


def _respond_in_time(
    ahead: int,
    model: EncodingModel,
    mice: list[str],
    frames: Tensor,
    behavior: np.ndarray | None,
    size: int,
    precision: str,
) -> dict[str, Tensor]:
    """Standardised responses (B, n) to frames (ahead + B + ..., c, h, w) of one movie, float32."""
    parts: dict[str, list[Tensor]] = {mouse: [] for mouse in mice}
    before, after = model.context_frames or (0, 0)
    size, stop = max(size, before + after), len(frames) - after
    with autocast(precision, frames.device):
        for start in range(ahead, stop, size):
            last = min(start + size, stop)
            movie, behaviors = frames[None, start - before : last + after], None
            if behavior is not None:
                row = torch.as_tensor(behavior, dtype=torch.float32, device=frames.device)
                behaviors = row.expand(1, movie.shape[1], -1)
            features = model.encode(mice[0], movie, behaviors)
            for mouse, found in parts.items():
                outputs = model.respond(mouse, features)[0]
                found.append(outputs[before : before + last - start].float())
    return {mouse: torch.cat(found) for mouse, found in parts.items()}


def _same_behavior(
    fitted: Fitted, mice: list[str], behaviors: Mapping[str, float]
) -> list[tuple[np.ndarray | None, list[str]]]:
    """Standardised behaviour of the core, and the mice whose images it sees with it."""
    columns = fitted.core_columns
    if strangers := [name for name in behaviors if name not in columns]:
        found = [column for name in strangers for column in guess(name, columns)]
        raise ValueError(
            f"behaviors names {strangers}, the core of this model sees the columns {columns}"
            f"{did_you_mean(list(map(repr, found)))} Name those only."
        )
    if not columns:
        return [(None, mice)]
    groups: dict[tuple, tuple[np.ndarray, list[str]]] = {}
    for mouse in mice:
        row = np.zeros(len(columns))
        for i, name in enumerate(columns):
            if name in behaviors:
                row[i] = _standardized(fitted, mouse, name, float(behaviors[name]))
        own = mouse if fitted.behavior_mode == "b_mlp_per_mouse" else ""
        groups.setdefault((own, *row), (row, []))[1].append(mouse)
    return list(groups.values())


def _standardized(fitted: Fitted, mouse: str, name: str, value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"behaviors: {name!r} is {value}: expected a finite number.")
    statistics = fitted.mice[mouse].statistics
    if "behavior_shift" not in statistics:
        return value
    names = fitted.mice[mouse].behavior_names
    assert names is not None  # of what is scaled
    i = names.index(name)
    return (value - statistics["behavior_shift"][i]) / statistics["behavior_scale"][i]


def _labelled(
    fitted: Fitted,
    mouse: str,
    sums: _Sums,
    pixels: tuple[Tensor, Tensor],
    n_images: int,
    noise: str,
    method: str,
    seed: int,
    *,
    in_time: bool,
) -> xr.DataArray:
    products, responses = sums.products, sums.responses[:, None]
    if method == "covariance":
        fields = products / n_images - responses * sums.pixels[:, None] / n_images**2
        unit = "response unit per standard deviation of a pixel"
    else:
        grey = noise == "uniform"
        fields = products * _UNIFORM_STD + responses * _UNIFORM_MEAN if grey else products
        unit = "response unit times pixel value, summed over images"
    scale = fitted.mice[mouse].statistics["response_scale"].astype(np.float64)
    values = (fields.cpu().numpy() * scale[:, None]).astype(np.float32).swapaxes(0, 1)
    rows, columns = (side.numpy() for side in pixels)
    shape: tuple[int, ...] = (fitted.image_shape[0], len(rows), len(columns))
    in_pixels = {"units": "pixel"}
    lags: dict[str, Any] = {}
    if in_time:
        rate, back = fitted.frame_rate, np.arange(values.shape[1], dtype=np.float64)
        told = {"long_name": "time ahead of the response", "units": SECONDS if rate else FRAMES}
        lags["lag"] = ("lag", back / (rate or 1.0), told)
    return xr.DataArray(
        values.reshape(len(values), *([values.shape[1]] if in_time else []), *shape),
        dims=("neuron", *lags, "channel", "height", "width"),
        coords={
            **{name: ("neuron", of_all) for name, of_all in fitted.mice[mouse].labels.items()},
            **lags,
            "channel": np.arange(fitted.image_shape[0]),
            "height": ("height", rows, {"long_name": "row of the image", **in_pixels}),
            "width": ("width", columns, {"long_name": "column of the image", **in_pixels}),
        },
        name="receptive_fields",
        attrs={
            "mouse_id": mouse,
            "units": unit,
            "method": method,
            "noise": noise,
            "n_images": n_images,
            "seed": seed,
            "image_size": list(fitted.image_shape[1:]),
        },
    )


def _known_mice(fitted: Fitted, mice: Sequence[str] | None) -> list[str]:
    if mice is None:
        return list(fitted.mice)
    wanted = [mice] if isinstance(mice, str) else [str(mouse) for mouse in mice]
    unknown = [mouse for mouse in wanted if mouse not in fitted.mice]
    if unknown or not wanted:
        found = [name for mouse in unknown for name in guess(mouse, fitted.mice)]
        raise ValueError(
            f"mice: {unknown or wanted} came, this model has {list(fitted.mice)}"
            f"{did_you_mean(list(map(repr, found)))}"
        )
    return list(dict.fromkeys(wanted))


def _check(estimator: Any, n_images: Any, noise: str, method: str, batch_size: int | str) -> None:
    if not isinstance(estimator, ModelRegressor):
        kind = estimator if isinstance(estimator, type) else type(estimator)
        what = f"{'the class' if isinstance(estimator, type) else 'an object of the class'}"
        raise TypeError(
            f"receptive fields are those of one model, {what} {kind.__name__} came: expected "
            "a fitted V1TRegressor, CNNRegressor, MovieCNNRegressor or alike. Of an ensemble take "
            "the members, estimators_; of a Pipeline its last step."
        )
    check_is_fitted(estimator)
    if not isinstance(n_images, Integral) or n_images < 2:
        raise ValueError(f"n_images={n_images!r}: expected a whole number from 2 on.")
    for name, value, known in (("noise", noise, NOISE), ("method", method, METHODS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {known}.")
    auto = isinstance(batch_size, str) and batch_size == "auto"
    if not auto and (not isinstance(batch_size, Integral) or batch_size < 1):
        raise ValueError(f"batch_size={batch_size!r}: expected 'auto' or a whole number from 1 on.")
