"""Images that excite, or suppress, neurons of a fitted model most, at a norm that is given."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from v1tlearn._models import last_step
from v1tlearn._options import as_verbosity, as_word
from v1tlearn._values import as_whole, first_few, plain
from v1tlearn._warn import warn
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.inspection._opened import OneModel, one_model
from v1tlearn.inspection.in_silico._ascent import (
    Ascent,
    Limits,
    filtered,
    frequency_weights,
    length,
)
from v1tlearn.inspection.in_silico._groups import weights_of_groups
from v1tlearn.inspection.in_silico._known import (
    chosen_neurons,
    core_pixels,
    neuron_coords,
    one_trial,
)
from v1tlearn.nn import EncodingModel
from v1tlearn.training import MouseData, draw_seed, isolated, numerics

_WHAT = "most exciting images"
_DIRECTIONS = ("exciting", "suppressing")


@isolated()
@torch.inference_mode(False)
def most_exciting_images(
    estimator: Any,
    neurons: Any = None,
    *,
    weights: Any = None,
    direction: str = "exciting",
    norm: float | str = "auto",
    limits: tuple[float, float] | None = None,
    behaviors: Mapping[str, float] | None = None,
    n_starts: int = 3,
    n_steps: int = 40,
    smoothness: float = 1.0,
    batch_size: int = 96,
    random_state: Any = 0,
    verbose: int = 0,
) -> dict[str, xr.Dataset]:
    """Look for the image that drives each neuron most, among images of one norm.

    Gradient ascent (Walker et al. 2019; Bashivan et al. 2019) of many neurons at a time: each has
    an image of its own, and of every image only its neuron is read. Behaviour stands still.

    Parameters
    ----------
    estimator : V1TRegressor, CNNRegressor, EncodingRegressor or another single model
        Fitted, of images. It stays as it is. Of a Pipeline the last step is taken, and the images
        are those that it sees.
    neurons : dict of str to sequence, or sequence, optional
        Unit ids of each mouse, or a mask over its neurons; a model of one mouse needs no dict. All
        neurons of all mice by default.
    weights : dict of str to array of shape (n_groups, n_neurons), or array, optional
        Weights of the chosen neurons in groups: images are those that drive the weighted sum of
        the responses of a group. A vector is one group. A DataArray has the dimensions "group" and
        "neuron".
    direction : {"exciting", "suppressing"}, default="exciting"
        "suppressing" looks for the lowest response.
    norm : float or "auto", default="auto"
        Euclidean norm of the image around the mean grey level, over the pixels that the core sees,
        in standard deviations of the stimuli at `fit`. "auto" is half the root of the number of
        pixels and channels: half the contrast of the stimuli, all over the image.
    limits : (float, float), optional
        Lowest and highest value of a pixel, in the units of the stimuli (of a Pipeline those that
        its last step sees), such as (0, 255). The mean grey level lies in between. None by default.
    behaviors : mapping of str to float, optional
        Behaviour by column, in the units of the recordings. Columns that are not named are at the
        zero of what the model sees: their mean, or zero where they are only scaled.
    n_starts : int, default=3
        Images of noise to begin with, the same for all neurons. All go a quarter of the steps, the
        best one goes on.
    n_steps : int, default=40
        Steps, of one forward and one backward pass each.
    smoothness : float, default=1.0
        Exponent of the preconditioner ``(1 + (f / f0)^2)^(-smoothness / 2)`` of gradients and of
        the spectrum of the noise, with f0 of one cycle per longer side. It lets low frequencies
        go ahead; where the ascent ends does not depend on it.
    batch_size : int, default=96
        Images that go through the model at once. It changes no more than rounding errors.
    random_state : int, RandomState, Generator or None, default=0
        Seed of the noise, which is drawn on the CPU.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    dict of str to Dataset
        Per mouse, over ``neuron`` (or ``group``): ``image`` with ``channel``, ``height`` and
        ``width``, in the units of the stimuli, of the size that the core sees, its places in pixels
        of the stimuli as in `receptive_fields`; the ``response`` to it, in units of the responses;
        its ``norm``; ``start``, the number of the noise image that was kept, and
        ``start_response`` after a quarter of the steps, by ``starts``; ``center_x``, ``center_y``
        and ``spread``, mean place and standard deviation along one axis of its squared contrast, in
        pixels of the stimuli.

    Raises
    ------
    TypeError
        If the estimator is no single model of images.
    ValueError
        If a mouse, a neuron or a behaviour column is unknown, an option out of its range, or the
        model lets no gradient through.
    NotFittedError
        If the estimator is not fitted.

    Warns
    -----
    UserWarning
        Where the response of a neuron does not depend on the image, or an image does not reach the
        norm within the limits.

    See Also
    --------
    receptive_fields : What excites a neuron on average, to first order.
    MostExcitingImagesDisplay : Draw them.

    Notes
    -----
    The image maximises the response r(x) among images x of norm c, and within `limits`. The output
    ahead of an increasing non-linearity has its maximum at the same place, and a gradient
    everywhere: it is what is raised. For a linear-nonlinear neuron of filter w the image is
    ``c w / |w|``; within limits ``clip(s w)``, with the s that gives it the norm.

    A constant eye position moves the image as it does in `predict`: `response` is what the model
    predicts for the image at this behaviour. Stimulus shifters come ahead of what is sought here.

    The maximum is a local one. `start_response` tells whether starts agree.

    References
    ----------
    Walker et al., "Inception loops discover what excites neurons most using deep predictive
    models", Nature Neuroscience, 2019. Bashivan et al., "Neural population control via deep image
    synthesis", Science, 2019.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import most_exciting_images
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0)).sel(tier="train")
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> images = most_exciting_images(model.fit(trials), [1, 4], limits=(0, 255))
    >>> images["A"]["image"].dims, images["A"]["image"].shape
    (('neuron', 'channel', 'height', 'width'), (2, 1, 16, 24))
    """
    found = _of_images(estimator)
    fitted, model, device = found.fitted, found.model, found.device
    n_starts, n_steps = as_whole(n_starts, "n_starts"), as_whole(n_steps, "n_steps")
    batch_size = as_whole(batch_size, "batch_size")
    direction = as_word(direction, _DIRECTIONS, "direction")
    verbose = as_verbosity(verbose)
    smoothness = _number(smoothness, "smoothness", 0)
    places = chosen_neurons(fitted, neurons)
    groups = None if weights is None else weights_of_groups(fitted, places, weights)
    shape = (fitted.image_shape[0], *model.cropper.output_size)
    own = 0.5 * float(np.prod(shape)) ** 0.5 if isinstance(norm, str) else norm
    if isinstance(norm, str) and norm != "auto":
        raise ValueError(f"norm={norm!r}: expected 'auto' or a positive number.")
    own = _number(own, "norm", np.nextafter(0, 1))
    seed = draw_seed(plain(random_state))
    preconditioner = frequency_weights((shape[1], shape[2]), smoothness)
    noise = torch.randn((n_starts, *shape), generator=torch.Generator().manual_seed(seed))
    noise = filtered(noise, preconditioner).to(device)
    still = copy.deepcopy(model).eval().requires_grad_(False)  # no gradients of weights
    out = {}
    n_all = sum(len(p if groups is None else groups[m]) for m, p in places.items())
    with (
        numerics("float32", device, deterministic=found.deterministic),
        tqdm(total=n_all, desc=_WHAT, unit="image", disable=not verbose) as bar,
    ):
        for mouse, chosen in places.items():
            trial = one_trial(estimator, fitted, mouse, behaviors)
            drive = _Drive(
                still,
                fitted,
                mouse_data(fitted, trial, mouse, device),
                mouse,
                chosen,
                None if groups is None else groups[mouse],
                -1.0 if direction == "suppressing" else 1.0,
                device,
            )
            best = _search(
                drive,
                noise,
                own,
                drive.limits(limits, own, shape),
                preconditioner.to(device),
                n_steps,
                max(1, batch_size // n_starts),
                bar,
            )
            attrs = {
                "mouse_id": mouse,
                "direction": direction,
                "requested_norm": own,
                "n_steps": n_steps,
                "smoothness": smoothness,
                "seed": seed,
                "image_size": list(fitted.image_shape[1:]),
            }
            out[mouse] = _labelled(fitted, still, drive, best, attrs)
            if limits is not None:  # which rounding may have passed
                out[mouse]["image"] = out[mouse]["image"].clip(*map(np.float32, limits))
    return out


def _of_images(estimator: Any) -> OneModel:
    found = one_model(estimator, _WHAT)
    if found.model.context_frames is not None:
        raise TypeError(
            f"{_WHAT} are those of models of images, and {type(last_step(estimator)).__name__} "
            "sees time: take tuning_curves of movies, or the kernels of KernelDisplay."
        )
    return found


def _number(value: Any, name: str, least: float) -> float:
    number = plain(value, name)
    good = isinstance(number, Real) and not isinstance(number, bool)
    if not good or not np.isfinite(float(number)) or number < least:
        raise ValueError(
            f"{name}={value!r}: expected a number {'from 0' if not least else 'above 0'}."
        )
    return float(number)


class _Drive:
    """What the images of one mouse are to raise: values and gradients, at constant behaviour."""

    def __init__(
        self,
        model: EncodingModel,
        fitted: Fitted,
        data: MouseData,
        mouse: str,
        chosen: np.ndarray,
        groups: xr.DataArray | None,
        sign: float,
        device: torch.device,
    ) -> None:
        self.model, self.mouse, self.sign = model, mouse, sign
        self.neurons, self.groups = torch.as_tensor(chosen, device=device), groups
        self.behaviors, self.pupil = data.behaviors, data.pupil
        self.mean, self.std = data.image_mean, data.image_std
        self.scale = torch.as_tensor(
            fitted.mice[mouse].statistics["response_scale"], device=device, dtype=torch.float32
        )
        self.weights = None
        if groups is not None:
            self.weights = torch.as_tensor(groups.values, device=device, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.neurons) if self.weights is None else len(self.weights)

    def limits(self, limits: Sequence[float] | None, norm: float, shape: tuple[int, ...]) -> Limits:
        """Limits of what the core sees, within which some image has the norm."""
        if limits is None:
            return None
        try:
            low, high = (float(limit) for limit in limits)
        except (TypeError, ValueError):
            low = high = np.nan
        if not -np.inf < low < self.mean < high < np.inf:
            raise ValueError(
                f"limits={limits!r}: expected two values on either side of the mean grey level, "
                f"which is {self.mean:.4g} of mouse {self.mouse!r}, in the units of the stimuli."
            )
        own = tuple(self.scale.new_tensor((x - self.mean) / self.std) for x in (low, high))
        most = float(np.prod(shape)) ** 0.5 * max(float(limit.abs()) for limit in own)
        if norm > most:
            raise ValueError(
                f"mouse {self.mouse!r}: within limits={limits!r} no image has a norm above "
                f"{most:.4g}, norm={norm:.4g} came: take a smaller norm, or wider limits."
            )
        return own  # type: ignore[return-value]

    def outputs(self, images: Tensor, which: Tensor, *, activate: bool) -> Tensor:
        """Outputs (B,) for images; with `activate` in the units of the responses."""
        model, n = self.model, len(images)
        behaviors, pupil = (
            None if x is None else x.expand(n, -1) for x in (self.behaviors, self.pupil)
        )
        if self.weights is not None:
            features = model.encode(self.mouse, images, behaviors)
            rates = model.respond(self.mouse, features, pupil) * self.scale
            return (rates[:, self.neurons] * self.weights[which]).sum(1)
        neurons = self.neurons[which]
        raised = activate or not model.head(self.mouse).increasing
        found = model.respond_to_each(
            self.mouse, images, neurons, behaviors, pupil, activate=raised
        )
        return found * self.scale[neurons] if activate else found

    def __call__(self, images: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B,) that are raised, and their gradients."""
        with torch.enable_grad():
            images = images.detach().requires_grad_(True)
            values = self.outputs(images, which, activate=False)
            if not values.requires_grad:
                raise ValueError(
                    "the core of this model lets no gradient through to the image: it computes "
                    "without torch, or within torch.no_grad()."
                )
            (gradients,) = torch.autograd.grad(values.sum(), images)
        if not (values.isfinite().all() and gradients.isfinite().all()):
            raise ValueError(
                f"mouse {self.mouse!r}: the response to an image, or its gradient, is not finite: "
                "take a smaller norm, or limits."
            )
        return self.sign * values.detach(), self.sign * gradients


Found = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _search(
    drive: _Drive,
    noise: Tensor,
    norm: float,
    limits: Limits,
    weights: Tensor,
    n_steps: int,
    at_once: int,
    bar: Any,
) -> Found:
    """Images, responses, number of the start, responses of all starts; and what did not move."""
    parts: list[Found] = []
    n_starts, first = len(noise), max(1, n_steps // 4)
    for which in torch.arange(len(drive), device=noise.device).split(at_once):
        images = noise.repeat(len(which), 1, 1, 1)  # the starts of a neuron lie together
        climb = Ascent(drive, images, norm, limits, weights, which.repeat_interleave(n_starts))
        begun = climb.values
        for step in range(n_steps):
            climb.step()
            if step + 1 == first:
                with torch.no_grad():
                    early = drive.outputs(climb.images, climb.which, activate=True)
                best = climb.values.view(-1, n_starts).argmax(1)
                rows = best + n_starts * torch.arange(len(which), device=best.device)
                climb.keep(rows)
                begun = begun[rows]
        with torch.no_grad():
            responses = drive.outputs(climb.images, which, activate=True)
        stuck = climb.values <= begun
        parts.append((climb.images, responses, best, early.view(-1, n_starts), stuck))
        bar.update(len(which))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))  # type: ignore[return-value]


def _labelled(
    fitted: Fitted, model: EncodingModel, drive: _Drive, found: Found, attrs: dict[str, Any]
) -> xr.Dataset:
    images, responses, best, early, stuck = found
    if drive.groups is None:
        dim, coords = "neuron", neuron_coords(fitted, drive.mouse, drive.neurons.cpu().numpy())
    else:
        dim, coords = "group", {"group": drive.groups["group"].values}
    if stuck.any():
        ids = np.asarray(coords[dim][1] if dim == "neuron" else coords[dim])[stuck.cpu().numpy()]
        warn(
            f"mouse {drive.mouse!r}: responses of {first_few(list(ids), dim)} do not depend on the "
            "image, or did not rise from any start: their images are noise."
        )
    norms = length(images).flatten().cpu().numpy()
    if (short := norms < 0.999 * attrs["requested_norm"]).any():
        ids = np.asarray(coords[dim][1] if dim == "neuron" else coords[dim])[short]
        warn(
            f"mouse {drive.mouse!r}: within the limits images of {first_few(list(ids), dim)} do "
            f"not reach norm={attrs['requested_norm']:.4g}, the shortest has {norms.min():.4g}: "
            "their pixels are all at a limit. Take a smaller norm, or wider limits."
        )
    coords |= core_pixels(model, drive.mouse, images.shape[1])
    squares = images.square().sum(1).cpu().numpy().astype(np.float64)
    x, y = coords["width"][1], coords["height"][1]
    total = squares.sum((1, 2))
    cx, cy = (squares.sum(1) @ x) / total, (squares.sum(2) @ y) / total
    apart = (x - cx[:, None])[:, None] ** 2 + (y - cy[:, None])[:, :, None] ** 2
    spread = np.sqrt((squares * apart).sum((1, 2)) / total / 2)
    pixel = {"units": "pixel"}
    unit = {"units": "response unit"}
    std = {"units": "standard deviation of the stimuli"}
    values = (drive.mean + drive.std * images).cpu().numpy()
    data = {
        "image": ((dim, "channel", "height", "width"), values, {"units": "stimulus unit"}),
        "response": (dim, responses.cpu().numpy(), unit),
        "norm": (dim, norms, std),
        "start": (dim, best.cpu().numpy()),
        "start_response": ((dim, "starts"), early.cpu().numpy(), unit),
        "center_x": (dim, cx, pixel),
        "center_y": (dim, cy, pixel),
        "spread": (dim, spread, pixel),
    }
    return xr.Dataset(data, coords, attrs | {"image_mean": drive.mean, "image_std": drive.std})
