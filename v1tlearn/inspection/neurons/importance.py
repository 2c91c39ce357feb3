"""Which neurons of a population tell what was seen, in a fitted alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from v1tlearn._options import as_word
from v1tlearn.inspection._controls import check_counts, generator, other_images
from v1tlearn.inspection.neurons._contributions import METHODS, contributions
from v1tlearn.inspection.neurons._population import Population, populations
from v1tlearn.training import isolated

_BASELINES = ("mean", "silence")


@isolated()
@torch.inference_mode(False)  # wherever it is called
def neuron_importance(
    aligner: Any,
    trials: Any,
    method: str = "gradient",
    *,
    baseline: str = "mean",
    n_steps: int = 50,
    n_shuffles: int = 5,
    random_state: Any = 0,
) -> dict[str, xr.Dataset]:
    """Measure what each neuron adds to the similarity of responses and the image that was seen.

    The similarity of a pair is the cosine of the maps of response and image. What neuron i adds to
    it in a trial is told in one of three ways, all against a response :math:`b_i` that tells
    nothing: the slope of the similarity times :math:`s_i - b_i` ("gradient"); the integral of that
    slope along the line from all :math:`b` to all :math:`s` ("integrated_gradients", Sundararajan
    et al. 2017), whose sum over neurons is the difference of both similarities; or by how much the
    similarity falls where :math:`b_i` takes the place of :math:`s_i` alone ("ablation").

    Parameters
    ----------
    aligner : DINAAligner
        Fitted, with any neural tower. It stays as it is.
    trials : Trials
        With responses, not those of the training.
    method : {"gradient", "integrated_gradients", "ablation"}, default="gradient"
        "integrated_gradients" are computed by captum, the extra ``attribution``. "ablation" passes
        the tower once per neuron and trial.
    baseline : {"mean", "silence"}, default="mean"
        The response that tells nothing: the neuron's mean over the trials at `fit`, which also
        takes the place of what was not recorded; or no activity at all.
    n_steps : int, default=50
        Of the integral.
    n_shuffles : int, default=5
        How often trials are paired with images that they do not show, for the control.
    random_state : int, RandomState, Generator or None, default=0
        Of these pairs.

    Returns
    -------
    dict of str to Dataset (neuron)
        Per mouse: ``signed``, the mean over trials of what the neuron adds, positive where it
        speaks for the image that was seen; ``absolute``, the mean of its magnitude; both again as
        ``signed_shuffled`` and ``absolute_shuffled`` (shuffle, neuron) of the control;
        ``n_trials``, in how many the neuron was recorded, of which alone means are taken (NaN
        where 0); and ``similarity`` and ``baseline_similarity``, the means over trials of the
        similarity as it is and with all neurons at the baseline. ``neuron`` bears the unit ids.

    Raises
    ------
    TypeError
        If `aligner` is no `DINAAligner`, or `trials` are no `Trials`.
    ValueError
        If an option is unknown, the trials are not of the mice and neurons of `fit`, a mouse saw
        one image only, or its responses are the same in all trials.
    ImportError
        For integrated gradients without captum.

    Notes
    -----
    The control keeps responses and tower, and changes the image: where a neuron tells of the image,
    ``signed`` is far above ``signed_shuffled``, which scatters around 0. ``absolute`` does not fall
    to chance there, since a tower weighs neurons whatever image they are compared with: it is a
    measure of the tower, and its control is a tower that was fitted to shuffled pairs.

    References
    ----------
    Wang et al., arXiv 2605.04309, 2026. Sundararajan et al., "Axiomatic attribution for deep
    networks", 2017.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> found = v1.inspection.neuron_importance(est, trials.sel(tier="test"))["A"]
    >>> found["signed"].dims, found["signed_shuffled"].sizes["shuffle"]
    (('neuron',), 5)
    """
    method = as_word(method, METHODS, "method")
    baseline = as_word(baseline, _BASELINES, "baseline")
    check_counts(1, n_steps=n_steps)
    check_counts(0, n_shuffles=n_shuffles)
    rng = generator(random_state)
    out = {}
    for population in populations(aligner, trials):
        labels, n_images = population.labels, len(population.gallery)
        others = [
            torch.from_numpy(other_images(n_images, rng)).to(labels.device)[labels]
            for _ in range(n_shuffles)
        ]
        out[population.mouse] = _importance(
            population, torch.stack([labels, *others]), method, baseline, int(n_steps)
        )
    return out


def _importance(
    population: Population, pairs: torch.Tensor, method: str, baseline: str, n_steps: int
) -> xr.Dataset:
    base = population.mean if baseline == "mean" else population.silence
    signed = torch.zeros(len(pairs), population.n_neurons, dtype=torch.float64)
    absolute = torch.zeros_like(signed)
    for rows, values in contributions(population, pairs, method, base, n_steps):
        values = torch.where(population.recorded[rows], values, 0).cpu().double()
        signed += values.sum(1)
        absolute += values.abs().sum(1)
    counts = population.recorded.sum(0).cpu().numpy()
    with np.errstate(invalid="ignore"):
        means = {"signed": signed.numpy() / counts, "absolute": absolute.numpy() / counts}
    similarity, at_base = _similarities(population, base)
    return population.label(
        {
            **{name: ("neuron", values[0]) for name, values in means.items()},
            **{f"{n}_shuffled": (("shuffle", "neuron"), v[1:]) for n, v in means.items()},
            "n_trials": ("neuron", counts),
            "similarity": ((), similarity),
            "baseline_similarity": ((), at_base),
        },
        method=method,
        baseline=baseline,
    )


@torch.no_grad()
def _similarities(population: Population, base: torch.Tensor) -> tuple[float, float]:
    """Mean similarity of the pairs, as they are and with all neurons at the baseline."""
    wanted = population.images[population.labels]
    parts = population.responses.split(population.at_once)
    vectors = torch.cat([population.vectors(part) for part in parts])
    similarity = (vectors * wanted).sum(1).cpu().double().mean().item()
    return similarity, (population.vectors(base[None]) @ wanted.T).cpu().double().mean().item()
