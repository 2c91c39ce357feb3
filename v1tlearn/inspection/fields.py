"""Receptive fields of a fitted model's neurons: from responses to noise, or as gradients.

Those of models that see time are kernels of lags and pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn._options import as_verbosity, as_word
from v1tlearn._values import as_whole, plain
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.inspection._field_gradients import gradient_fields, shown_images
from v1tlearn.inspection._field_inputs import (
    Frames,
    Group,
    computed_from_cortex,
    frames_of,
    labelled,
    places_of,
    same_behavior,
)
from v1tlearn.inspection._field_noise import NOISE, Noise, Sums, noise_sums
from v1tlearn.inspection._opened import known_mice, one_model, with_trials
from v1tlearn.nn import EncodingModel
from v1tlearn.training import draw_seed, isolated, numerics, resolve_precision
from v1tlearn.training.memory import prediction_batch_size
from v1tlearn.trials import Trials

METHODS = ("covariance", "sum", "gradient")

_AVERAGES = ("mean", "rms")
_PUBLISHED = 500_000  # noise images
_COPIES = 16  # images, and copies of them, whose gradients are taken at once
_PER_PIXEL = "response unit per standard deviation of a pixel"
_UNITS = {
    "covariance": _PER_PIXEL,
    "sum": "response unit times pixel value, summed over images",
    "gradient": _PER_PIXEL,
}


@isolated()
@torch.inference_mode(False)
def receptive_fields(
    estimator: Any,
    n_images: int | None = None,
    *,
    n_lags: int | None = None,
    mice: Sequence[str] | None = None,
    neurons: Mapping[str, Any] | None = None,
    images: Trials | None = None,
    average: str = "mean",
    behaviors: Mapping[str, float] | None = None,
    noise: str = "uniform",
    method: str = "covariance",
    batch_size: int | str = "auto",
    random_state: Any = 0,
    verbose: int = 0,
) -> dict[str, xr.DataArray]:
    """Map artificial receptive fields: which pixels make each neuron of a model respond.

    Either the model sees noise images, of independent pixels, and what makes neurons respond is
    averaged; or the gradient of each response by the pixels is taken. Images are of the size that
    the core takes, behaviour is constant and the eye at rest: no shifter moves receptive field or
    image. All mice respond to the same noise, which is drawn on the device and not kept. To models
    that see time images are frames of movies, and fields are kernels: a map for each lag.

    Parameters
    ----------
    estimator : V1TRegressor, CNNRegressor, MovieCNNRegressor, ViSTRegressor or another model
        Fitted, alone, in a Pipeline or found by a search. It stays as it is; its `device` and
        `precision` count as in `predict`. Of a Pipeline the last step is mapped: pixels are those
        of the images that come to it, `images` and `behaviors` go through the steps before.
    n_images : int, optional
        Number of noise images, or frames, by default 500,000 as published. The error of a field
        falls with its square root. Not for "gradient".
    n_lags : int, optional
        Of models that see time: frames that are looked at, the one of the response and those before
        it; by default all that the model sees. Images have none.
    mice : sequence of str, optional
        The mice whose neurons are mapped; all by default.
    neurons : mapping of str to sequence, optional
        Unit ids of the neurons that are mapped, by mouse, in their order (places, where there are
        no ids); all neurons of mice that are not named.
    images : Trials, optional
        For "gradient": the images at which it is taken, and averaged over, those of each mouse for
        its own neurons. By default it is taken at the mean grey level; of models that see time
        always, in a grey movie as long as what they see.
    average : {"mean", "rms"}, default="mean"
        Of gradients over images: their mean, or the root of the mean of their squares, which shows
        where complex cells look, too, and has no sign.
    behaviors : mapping of str to float, optional
        Behaviour by column, in the units of the recordings. Columns that are not named are at the
        zero of what the core sees: their mean, or zero where they are only scaled.
    noise : {"uniform", "gaussian"}, default="uniform"
        Distribution of the pixels of noise, standardised ahead of the model: uniform between 0 and
        1 (published), or normal.
    method : {"covariance", "sum", "gradient"}, default="covariance"
        "covariance" of responses and standardised pixels; "sum", as published, over images of
        response times pixel as drawn; "gradient" of the predicted response by the pixels.
    batch_size : int or "auto", default="auto"
        Images that go through the core at once; "auto" as in `predict`, and 16 for "gradient",
        copies of one image, or the frames of movies, counted; a movie goes through as a whole. It
        changes no more than rounding errors.
    random_state : int, RandomState, Generator or None, default=0
        Seed of the noise. CPU and GPU draw other images.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    dict of str to DataArray (neuron, [lag,] channel, height, width)
        Per mouse, float32; of models that see time with ``lag``, in seconds back from the frame of
        the response, 0 first, or in frames where nobody told the frame rate at `fit`. For
        "covariance" and "gradient" in units of the responses per standard deviation of a pixel: of
        the noise, and of the images at `fit` (grey levels where these were not standardised). For
        "sum" in units of the responses times grey level. ``neuron`` bears the unit ids of the
        trials at `fit`, with ``area``, ``layer``... beside it; nothing where these had none.
        ``height`` and ``width`` tell where the pixels that the core sees lie in the images that
        came to `fit`, in pixels of these from the centre of the upper left one: row j of images
        that were resized to a quarter lies at 4 j + 1.5. The pixels of the core themselves are the
        places along both dimensions (``isel``).

    Raises
    ------
    TypeError
        If the estimator is no single model, or `images` are no trials.
    ValueError
        If a mouse, neuron or behaviour column is unknown, an option is out of its range, for
        another method or for models of images, `images` are not such as the model takes, or, for
        "gradient", features come from a callable of your own, through which there is none; if it
        is to be taken at grey, of a model that scales images by their own contrast.
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

    "gradient" has no chance in it. At grey it is the filter itself times the slope of the output
    non-linearity there, where a neuron is a filter with a non-linearity behind it. Averaged over
    normal noise it is what "covariance" estimates (Stein's lemma); natural images ask for the
    response around what the animal saw. A cell that responds to either contrast alike has the
    gradient 0 at grey, as it has no covariance with noise, and gradients of both signs elsewhere:
    their mean square shows where it looks. Images are encoded once for all neurons of a mouse.

    Of models that see time, responses r_t and frames x_(t-lag) take the places of response and
    image; every response has its whole context of noise, or of grey, before it, and, of one that
    looks ahead, behind it.

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
    n_images, batch_size = plain((n_images, batch_size))
    verbose = as_verbosity(verbose)
    found = one_model(estimator, "receptive fields")
    fitted, model, device = found.fitted, found.model, found.device
    _check(n_images, noise, method, batch_size, images, average)
    frames = frames_of(model, plain(n_lags))
    if frames is not None and images is not None:
        raise ValueError(
            "images came, and this model sees time: its gradients are taken "
            "in a grey movie, leave images out. Over many frames take method='covariance'."
        )
    mice = known_mice(fitted, mice)
    places = places_of(fitted, mice, neurons)
    groups = same_behavior(estimator, fitted, mice, behaviors or {})
    if images is not None:
        images = with_trials(found, estimator, _of_mice(images, mice)).trials
    elif method == "gradient" and model.core.needs_contrast:
        raise ValueError(
            f"the gradient at grey: the {type(model.core).__name__} of this model scales what it "
            "sees by its own contrast, of which grey has none. Give images, such as "
            "images=trials[:100], or take method='covariance'."
        )
    precision = resolve_precision(found.precision, device, training=False)
    told: dict[str, Any] = {"method": method, "units": _UNITS[method]}
    fields: dict[str, np.ndarray | Sums] = {}
    with numerics(precision, device, deterministic=found.deterministic):
        if method == "gradient":
            size = _COPIES if isinstance(batch_size, str) else batch_size  # or "auto"
            shown = _shown(fitted, model, mice, groups, images, size, device, frames)
            power = 2 if average == "rms" else 1
            fields |= gradient_fields(
                model, places, shown, size, precision, frames=frames, power=power, verbose=verbose
            )
            told |= {"images": "grey" if images is None else "trials", "average": average}
        else:
            if isinstance(batch_size, str):
                size = prediction_batch_size(model, device, deterministic=found.deterministic)
            else:
                size = batch_size
            seed = draw_seed(plain(random_state))
            drawn = Noise(
                noise,
                _PUBLISHED if n_images is None else int(n_images),
                (fitted.image_shape[0], *model.cropper.output_size),
                seed,
            )
            fields |= noise_sums(
                model, places, groups, drawn, size, precision, frames=frames, verbose=verbose
            )
            told |= {"noise": noise, "n_images": drawn.n_images, "seed": seed}
    out = {}
    for mouse in mice:  # one after the other, since all of them take memory
        values = fields.pop(mouse)
        if isinstance(values, Sums):
            values = values.fields(method)
        pixels = model.cropper.source_positions(mouse)
        told["from_cortex"] = int(computed_from_cortex(model, mouse))
        out[mouse] = labelled(fitted, mouse, places[mouse], values, pixels, **told)
    return out


def _shown(
    fitted: Fitted,
    model: EncodingModel,
    mice: list[str],
    groups: list[Group],
    images: Trials | None,
    size: int,
    device: torch.device,
    frames: Frames | None,
) -> Iterator[tuple[Group, Tensor]]:
    """Images, and who sees them with which behaviour; those of trials each mouse for itself."""
    if images is None:
        shape = [fitted.image_shape[0], *model.cropper.output_size]
        if frames is not None:
            shape = [frames.ahead + 1 + frames.after, *shape]
        grey = torch.zeros((1, *shape), device=device)
        yield from ((group, grey) for group in groups)
        return
    for behavior, together in groups:
        for mouse in together:
            for part in shown_images(fitted, model, images, mouse, size, device):
                yield (behavior, [mouse]), part


def _of_mice(images: Trials, mice: list[str]) -> Trials:
    if missing := [mouse for mouse in mice if mouse not in images.mice]:
        raise ValueError(
            f"images has no trials of the mice {missing}, whose neurons are mapped: add some, or "
            "name the other mice, mice=[...]."
        )
    return images.sel(mouse_id=mice)


def _check(
    n_images: Any, noise: str, method: str, batch_size: int | str, images: Any, average: str
) -> None:
    if n_images is not None:
        as_whole(n_images, "n_images", 2)
    choices = (
        ("noise", noise, NOISE),
        ("method", method, METHODS),
        ("average", average, _AVERAGES),
    )
    for name, value, known in choices:
        as_word(value, known, name)
    if not isinstance(batch_size, str) or batch_size != "auto":
        as_whole(batch_size, "batch_size", more="'auto' or ")
    if method == "gradient" and n_images is not None:
        raise ValueError(
            f"n_images={n_images} came for method='gradient', which sees no noise: leave it out, "
            "or give images, such as trials[:100], over which gradients are averaged."
        )
    if images is None:
        if average != "mean":
            raise ValueError(f"average={average!r} is over images, and none came: give images.")
        return
    if method != "gradient":
        raise ValueError(f"images came for method={method!r}, which sees noise: leave them out.")
    if not isinstance(images, Trials):
        raise TypeError(
            f"images is a {type(images).__name__}: expected Trials; arrays go through "
            "Trials.from_arrays."
        )
    if images.n_frames is not None:
        raise ValueError("images are movies: expected trials of images.")
