"""Receptive fields as gradients: how the responses of all neurons change with each pixel.

Of models that see time with each pixel of the frames up to that of the response.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.inspection._field_inputs import Frames, Group, rows_of
from v1tlearn.nn import EncodingModel
from v1tlearn.training.devices import autocast
from v1tlearn.trials import Trials


def shown_images(
    fitted: Fitted,
    model: EncodingModel,
    trials: Trials,
    mouse: str,
    size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Images of a mouse's trials as its core sees them with the eye at rest, some at a time.

    Parameters
    ----------
    fitted : Fitted
    model : EncodingModel
    trials : Trials
    mouse : str
    size : int
    device : torch.device

    Yields
    ------
    Tensor of shape (n_images, channels, height, width)
    """
    moves = model.cropper.shifter(mouse) is not None
    for block in trials.blocks(mouse, size):
        data = mouse_data(fitted, block, mouse, device)
        with torch.no_grad():
            images = data.batch(torch.arange(len(data), device=device)).images
            yield model.cropper(images, None if moves else mouse)


def gradient_fields(
    model: EncodingModel,
    places: Mapping[str, np.ndarray],
    shown: Iterable[tuple[Group, Tensor]],
    size: int,
    precision: str,
    *,
    frames: Frames | None = None,
    power: int = 1,
    verbose: int = 0,
) -> dict[str, np.ndarray]:
    """Take gradients of standardised responses by the pixels of the core, averaged over images.

    Parameters
    ----------
    model : EncodingModel
        In evaluation mode.
    places : mapping of str to ndarray of int
        Of the neurons, by mouse.
    shown : iterable of (behaviour and mice, Tensor of shape (n, [n_frames,] channels, height, ...))
        Standardised images of the size that the core takes, and who sees them; or movies of the
        frames of one response, with those ahead of it and behind it.
    size : int
        Images or frames, copies included, that go through the core at once.
    precision : {"float32", "tf32", "bfloat16"}
    frames : Frames, optional
        Of a model that sees time.
    power : int, default=1
        2 takes the root of the mean of squares.
    verbose : int, default=0

    Returns
    -------
    dict of str to ndarray of shape (n_neurons, [n_lags,] channels height width)
        Float64.

    Raises
    ------
    ValueError
        If the core gives features without a gradient.
    """
    sums: dict[str, np.ndarray] = {}
    counts = dict.fromkeys(places, 0)
    with tqdm(desc="receptive fields", unit="gradient", disable=not verbose) as bar:
        for (behavior, mice), images in shown:
            own = {mouse: places[mouse] for mouse in mice}
            found = _summed(model, own, images, behavior, size, precision, frames, power)
            for mouse, slopes in found.items():
                sums[mouse] = sums[mouse] + slopes if mouse in sums else slopes
                counts[mouse] += len(images)
                bar.update(len(images) * len(slopes))
    means = {mouse: total / counts[mouse] for mouse, total in sums.items()}
    return {mouse: np.sqrt(mean) for mouse, mean in means.items()} if power == 2 else means


def _summed(
    model: EncodingModel,
    places: Mapping[str, np.ndarray],
    images: Tensor,
    behavior: np.ndarray | None,
    size: int,
    precision: str,
    frames: Frames | None,
    power: int,
) -> dict[str, np.ndarray]:
    """Sums of gradients (n, [n_lags,] pixels), or of their powers, over images alike for some mice.

    Images go through the core once, several copies of each, so that every pass backwards serves
    as many neurons.
    """
    n = len(images)
    copies = max(1, min(size // images.shape[:-3].numel(), max(map(len, places.values()))))
    out = {}
    with torch.enable_grad(), autocast(precision, images.device):
        pixels = images.detach().repeat(copies, *[1] * (images.ndim - 1)).requires_grad_()
        features = model.encode(next(iter(places)), pixels, rows_of(behavior, pixels))
        if not features.requires_grad:
            raise ValueError(
                f"the features of this model's {type(model.core).__name__} have no gradient: take "
                "method='covariance'."
            )
        for mouse, neurons in places.items():
            rates = model.respond(mouse, features).float()
            rates = rates if frames is None else rates[:, frames.ahead]
            own = torch.as_tensor(neurons, device=rates.device)
            parts = []
            for some in own.split(copies):
                rows = torch.arange(len(some) * n, device=rates.device)
                # the first n rows are for the first neuron, the next n for the second...
                total = rates[rows, some.repeat_interleave(n)].sum()
                (slopes,) = torch.autograd.grad(total, pixels, retain_graph=True)
                if frames is not None:  # lag 0 first
                    lags = slice(frames.ahead + 1 - frames.n_lags, frames.ahead + 1)
                    slopes = slopes[:, lags].flip(1)
                slopes = slopes[: len(rows)].unflatten(0, (len(some), n))
                parts.append(slopes.pow(power).sum(1).flatten(-3).cpu().double())
            out[mouse] = torch.cat(parts).numpy()
    return out
