"""Images that explain responses best, through a fitted encoding model under an image prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.utils.validation import check_is_fitted

from v1tlearn._options import as_numbers, as_word
from v1tlearn._values import as_whole, plain
from v1tlearn.decoding._calls import IMAGE_DIMS, labels_of_answer
from v1tlearn.decoding._descent import minimize
from v1tlearn.decoding._posterior import LEAST_RATE, LIKELIHOODS, Coloring, Observed, Posterior
from v1tlearn.decoding.prior import ImagePrior, natural_image_prior
from v1tlearn.estimators._fitted import Fitted
from v1tlearn.estimators._like_fit import check_like_fit
from v1tlearn.estimators._populations import read_population
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.estimators.mouse_data import mouse_data
from v1tlearn.estimators.placement import scale_responses
from v1tlearn.training import draw_seed, isolated, numerics
from v1tlearn.trials import Responses, Trials

_BY = ("trial", "image")


@isolated()
@torch.inference_mode(False)
def reconstruct_images(
    encoder: BaseEncodingRegressor,
    responses: Any,
    mouse_ids: Any = None,
    *,
    prior: Any = None,
    likelihood: str = "gaussian",
    noise_std: Any = 1.0,
    by: str = "trial",
    n_starts: int = 3,
    n_steps: int = 100,
    batch_size: int = 32,
    random_state: Any = 0,
) -> xr.Dataset:
    r"""Reconstruct images as those that are most probable after the responses.

    Goes down on the image itself: what a fitted encoding model predicts for it is to be near the
    responses, and its spectrum near that of natural images (maximum a posteriori; Naselaris et
    al. 2009).

    Parameters
    ----------
    encoder : V1TRegressor, ViTRegressor, CNNRegressor, or another single encoding model
        Fitted. It stays as it is.
    responses : Trials, Responses, dict, ndarray, DataArray or DataFrame
        `Trials` bring theirs and their behaviour, and their stimuli are not looked at; a dict has
        (trials, neurons) per mouse, an array is of one mouse. In the units of those at `fit`, NaN
        where not recorded. Labelled dimensions and neurons are brought to the order of `fit`.
        Without `Trials` behaviour is at the zero of what the core sees, and the eye at rest.
    mouse_ids : str, optional
        Whose an array is, where the model has several mice.
    prior : ImagePrior, Trials or ndarray (n, channels, height, width), optional
        What images are like: from `natural_image_prior`, or training images whose spectrum is
        measured. By default power falls as one over squared frequency, with the mean and standard
        deviation of the images that the model was fitted to.
    likelihood : {"gaussian", "poisson"}, default="gaussian"
        How responses scatter around the prediction; "poisson" takes their units for counts.
    noise_std : float or dict of str to ndarray (n_neurons,), default=1.0
        For "gaussian": standard deviation of that scatter, in units of the standard deviation of
        each neuron over the training trials; single trials of most neurons are mostly noise.
    by : {"trial", "image"}, default="trial"
        One image for every trial; or one for all trials of an image, repeats and mice together.
    n_starts : int, default=3
        The first one is the mean of the prior, others are drawn from it; the most probable image
        that any leads to is given.
    n_steps : int, default=100
        Evaluations of the model per start.
    batch_size : int, default=32
        Images at once. It changes no more than rounding errors.
    random_state : int, RandomState, Generator or None, default=0
        Of the starts.

    Returns
    -------
    Dataset
        ``reconstructions`` (trial, channel, height, width), in the units of the stimuli at `fit`,
        not cut to their range; ``objective`` (trial, step), negative log probability, up to a
        constant, after every step of the start that was kept; ``start`` (trial,), which that was.
        Coordinates ``mouse_id`` and, where known, ``image_id``; with ``by="image"`` the dimension
        is ``image``, with ``image_id``.

    Raises
    ------
    TypeError
        If the encoder is no single encoding model.
    ValueError
        If a trial has no recorded response, responses are infinite or, for "poisson", negative or
        all below 1e-6 but not 0, images are wanted of responses that do not name them, or an option
        is out of its range.
    NotFittedError
        If the encoder is not fitted.

    Notes
    -----
    With images x of mean μ and covariance C, the circulant one of the spectrum, the objective is

    .. math:: -\log p(r \mid f(x)) + \tfrac{1}{2} (x - \mu)^T C^{-1} (x - \mu),

    minimised in the whitened z of :math:`x = \mu + C^{1/2} z`, in which all frequencies are
    equally hard, by limited-memory BFGS with steps of its own for every image. What the model
    does not see, beyond its crop, stays at what the prior makes of it.

    References
    ----------
    Naselaris et al., "Bayesian reconstruction of natural images from human brain activity", 2009.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.decoding import reconstruct_images
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> model = model.fit(trials.sel(tier="train"))
    >>> found = reconstruct_images(model, trials.sel(tier="test"), n_starts=1, n_steps=5)
    >>> found.reconstructions.shape, found.objective.shape
    ((12, 1, 16, 24), (12, 6))
    """
    n_starts, n_steps, batch_size = plain((n_starts, n_steps, batch_size))
    counts = {"n_starts": n_starts, "n_steps": n_steps, "batch_size": batch_size}
    _check(encoder, likelihood, by, counts)
    fitted, model = encoder._knows()
    if isinstance(responses, Trials):
        check_like_fit(fitted, model, responses)
    by_mouse, rows = read_population(fitted.mice, responses, mouse_ids)
    device = encoder.device_
    prior = _prior(prior, fitted, list(by_mouse))
    items, labels, dim = _items(responses, by_mouse, rows, by)
    observed = []
    for mouse, own in by_mouse.items():
        _check_counts(mouse, own, likelihood)
        observed.append(
            _observed(fitted, mouse, own, items[rows[mouse]], noise_std, responses, device)
        )
    n = int(items.max()) + 1
    seed, coloring = draw_seed(plain(random_state)), Coloring(prior, device)
    model.eval()
    images, traces, kept = [], [], []
    with numerics("float32", device, deterministic=plain(encoder.deterministic)):
        for first in range(0, n, batch_size):
            last = min(first + batch_size, n)
            parts = [part for one in observed if (part := one.of(first, last)) is not None]
            posterior = Posterior(model, coloring, parts, likelihood)
            white, trace, start = _best_of(posterior, range(first, last), n_starts, n_steps, seed)
            images.append(coloring(white).cpu().numpy())
            traces.append(trace.cpu().numpy())
            kept.append(start.cpu().numpy())
    return xr.Dataset(
        {
            "reconstructions": ((dim, *IMAGE_DIMS), np.concatenate(images)),
            "objective": ((dim, "step"), np.concatenate(traces)),
            "start": ((dim,), np.concatenate(kept)),
        },
        coords={name: (dim, of) for name, of in labels.items()},
        attrs={"likelihood": likelihood, "seed": seed},
    )


def _best_of(
    posterior: Posterior, items: range, n_starts: int, n_steps: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """White noise (n, pixels) of the best start of each image, its course, and which it was."""
    coloring = posterior.coloring
    size = (len(items), int(np.prod(coloring.shape)))
    best, trace = minimize(posterior, torch.zeros(size, device=coloring.mean.device), n_steps)
    kept = torch.zeros(len(items), dtype=torch.long, device=best.device)
    for start in range(1, n_starts):
        drawn = [
            np.random.default_rng([seed, start, item]).standard_normal(size[1], dtype=np.float32)
            for item in items
        ]
        found, course = minimize(
            posterior, torch.from_numpy(np.stack(drawn)).to(best.device), n_steps
        )
        better = course[:, -1] < trace[:, -1]
        best = torch.where(better[:, None], found, best)
        trace = torch.where(better[:, None], course, trace)
        kept = torch.where(better, start, kept)
    if not trace.isfinite().all():
        number = items[int((~trace.isfinite()).any(1).int().argmax())]
        raise ValueError(
            f"what the model predicts on the way to image {number} is not finite: look for extreme "
            "values in responses and behaviour, or fit the model with a lower lr."
        )
    return best, trace, kept


def _prior(given: Any, fitted: Fitted, mice: list[str]) -> ImagePrior:
    if given is None:
        known = [fitted.mice[mouse].statistics for mouse in mice]
        mean = float(np.mean([one["image_mean"] for one in known]))
        std = float(np.mean([one["image_std"] for one in known]))
        return natural_image_prior(image_shape=fitted.image_shape, mean=mean, std=std)
    prior = given if isinstance(given, ImagePrior) else natural_image_prior(given)
    if tuple(prior.image_shape) != tuple(fitted.image_shape):
        raise ValueError(
            f"the prior is of images (channels, height, width) {tuple(prior.image_shape)}, the "
            f"model was fitted on {tuple(fitted.image_shape)}: expected the same."
        )
    return prior


def _items(
    responses: Any, by_mouse: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], by: str
) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """Which image each trial belongs to, the labels of the images, and their dimension."""
    if by == "trial":
        labels = labels_of_answer(responses, by_mouse)
        return np.arange(sum(map(len, rows.values()))), labels, "trial"
    if not isinstance(responses, Trials | Responses):
        raise ValueError(
            f"by='image' with a {type(responses).__name__} of responses, which does not say what "
            "they are responses to: give Trials or Responses."
        )
    images, items = np.unique(responses.image_ids, return_inverse=True)
    return items, {"image_id": images}, "image"


def _observed(
    fitted: Fitted,
    mouse: str,
    responses: np.ndarray,
    items: np.ndarray,
    noise_std: Any,
    asked: Any,
    device: torch.device,
) -> Observed:
    statistics = fitted.mice[mouse].statistics
    scale = np.asarray(statistics["response_scale"], dtype=np.float32)
    scaled = scale_responses(responses, mouse, scale, np.arange(len(responses)))
    behavior = _behavior(fitted, mouse, len(responses), asked, device)
    return Observed(
        mouse,
        torch.from_numpy(scaled).to(device),
        torch.from_numpy(items).to(device),
        behavior,
        float(statistics["image_mean"]),
        float(statistics["image_std"]),
        torch.from_numpy(scale).to(device),
        torch.from_numpy(_noise(noise_std, mouse, len(scale))).to(device),
    )


def _behavior(
    fitted: Fitted, mouse: str, n: int, asked: Any, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Standardised behaviour of the trials, or, where nothing is known of it, zeros."""
    if isinstance(asked, Trials):
        batch = mouse_data(fitted, asked, mouse, device).batch(slice(None))
        return batch.behaviors, batch.pupil, batch.shifter_inputs
    core = torch.zeros(n, len(fitted.core_columns), device=device) if fitted.core_columns else None
    if not fitted.moves(mouse):
        return core, None, None
    moving = fitted.moving_columns
    pupil, others = torch.zeros(n, len(moving), device=device), None
    if fitted.parameters["shift"] == "both_behavior":
        names = fitted.mice[mouse].behavior_names or []
        others = torch.zeros(n, len(names), device=device)
    return core, pupil, others


def _noise(noise_std: Any, mouse: str, n_neurons: int) -> np.ndarray:
    given = noise_std
    if isinstance(noise_std, Mapping):
        if mouse not in noise_std:
            raise ValueError(f"noise_std has the mice {list(noise_std)}, not mouse {mouse!r}.")
        given = noise_std[mouse]
    values = as_numbers(given, f"mouse {mouse!r}: noise_std", of="neuron").astype(np.float32)
    if values.shape not in ((), (n_neurons,)) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(
            f"mouse {mouse!r}: noise_std is {given!r}: expected a finite number above 0, or one "
            f"for each of the {n_neurons} neurons."
        )
    return np.broadcast_to(values, (n_neurons,)).copy()


def _check_counts(mouse: str, responses: np.ndarray, likelihood: str) -> None:
    if likelihood != "poisson":
        return
    if (responses < 0).any():
        raise ValueError(
            f"mouse {mouse!r}: {int((responses < 0).sum())} responses are negative, which are no "
            "counts: use likelihood='gaussian'."
        )
    largest = np.nanmax(responses, initial=0.0)
    if 0 < largest < LEAST_RATE:
        raise ValueError(
            f"mouse {mouse!r}: responses are at most {largest:.3g}, which as counts tell nothing "
            "of images: give spikes per trial, to fit and here, or use likelihood='gaussian'."
        )


def _check(encoder: Any, likelihood: Any, by: Any, counts: Mapping[str, Any]) -> None:
    if not isinstance(encoder, BaseEncodingRegressor):
        what = encoder.__name__ if isinstance(encoder, type) else type(encoder).__name__
        raise TypeError(
            f"encoder: {what} came: expected one fitted encoding model, such as "
            "CNNRegressor().fit(trials). Of an ensemble take the members, estimators_; of a "
            "Pipeline its last step."
        )
    check_is_fitted(encoder)
    for name, value, known in (("likelihood", likelihood, LIKELIHOODS), ("by", by, _BY)):
        as_word(value, known, name)
    for name, value in counts.items():
        as_whole(value, name)
