"""How few of the neurons that are attended to make the map: masking curves of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn._options import as_numbers
from v1tlearn.inspection._controls import check_counts, generator
from v1tlearn.inspection.neurons._kept import (
    KEPT,
    MEASURES,
    Steps,
    key_overlap,
    masked_measures,
    shared,
    trials_at_once,
)
from v1tlearn.inspection.neurons._population import Population, found, populations
from v1tlearn.inspection.neurons._rankings import (
    check_rankings,
    own_scores,
    places,
    random_places,
    reliability,
)
from v1tlearn.inspection.neurons._shuffles import shuffled_trials
from v1tlearn.nn import unit_length
from v1tlearn.training import isolated

PUBLISHED_THRESHOLDS = tuple(float(t) for t in 10.0 ** -np.linspace(1, 3.15, 44))
"""Key weights at which the published analysis masks: from 0.1 in steps of 0.05 of the exponent."""

_RANKINGS = ("attention", "amplitude", "reliability", "random")
_POPULATIONS = ("recorded", "shuffled")


@isolated()
@torch.inference_mode(False)  # wherever it is called
def attention_masking(
    aligner: Any,
    trials: Any,
    *,
    rankings: str | Sequence[str] = ("attention", "amplitude", "random"),
    scores: Mapping[str, Any] | None = None,
    thresholds: Sequence[float] | None = None,
    fractions: Sequence[float] | None = None,
    n_random: int = 20,
    random_state: Any = 0,
) -> dict[str, xr.Dataset]:
    """Mask the neurons that are attended to least, or most, and compare what is left of the maps.

    The key weight of a neuron is the attention that it gets of the average neuron, in one trial
    and head. Where a neuron is masked its attention weights are set to 0 and those of the others
    stay as they are, without normalising again; all that follows in the tower follows. Keys are
    the neurons above a threshold, non-keys those below, strictly both (the analysis of Wang et
    al. 2026). Other rankings keep as many neurons of each trial and head.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted with ``neural_tower="attention"``. It stays as it is.
    trials : Trials
        With responses, not those of the training.
    rankings : str or sequence of {"attention", "amplitude", "reliability", "random"}
        What ranks neurons: their key weight in the trial; their scaled response in the trial;
        their correlation over repeats (`v1tlearn.metrics.oracle_correlation`), for which the
        trials need repeats; nothing, `n_random` times anew.
    scores : dict of str to array of shape (n_neurons,), optional
        Rankings of your own by name, the highest first; a dict per mouse instead of an array where
        there are several mice.
    thresholds : sequence of float, optional
        Of the key weights; those of the published analysis by default.
    fractions : sequence of float, optional
        Instead of thresholds: which share of the neurons is kept, above 0 and up to 1, in every
        trial and head.
    n_random : int, default=20
        Random rankings.
    random_state : int, RandomState, Generator or None, default=0
        Of random rankings and of shuffled responses.

    Returns
    -------
    dict of str to Dataset
        Per mouse, over ``responses`` ("recorded", and the control "shuffled", where the trials of
        every neuron are mixed on their own), ``ranking``, ``keep`` ("key", "non_key") and ``step``
        (with ``threshold`` or ``wanted_fraction``), means over trials: ``ssim_full`` and
        ``correlation_full`` of the masked and the whole map, ``ssim_image`` and
        ``correlation_image`` of the masked map and that of the image, ``top1``, the share of
        trials whose image is found among those of these trials; and ``fraction``, the share of
        neurons that is kept. The ranking "random" is the mean of its draws, ``X_random``
        (responses, draw, keep, step) has them all. ``X_unmasked`` (responses) is without masking.

        Of the key weights: ``key_weight`` (responses, neuron), the mean over trials; ``gini``, from
        0 where all neurons are alike, and ``participation``, the number of neurons that an even
        distribution with this sum of squares would have, both (responses, trial); ``overlap``
        (responses, step), the share of the keys that are among as many of the strongest responses
        of the trial, NaN where there are no keys, and ``overlap_chance``.

    Raises
    ------
    TypeError
        If `aligner` is no `DINAAligner`, its tower has no attention, or `trials` are no `Trials`.
    ValueError
        If an option is out of its range, the trials are not of the mice and neurons of `fit`, a
        mouse saw one image only, its responses are the same in all trials, or reliability is asked
        for without repeats.

    See Also
    --------
    MaskingDisplay : Draws the curves.

    Notes
    -----
    A neuron's token is a line in its response, so that strong responses and high key weights can go
    together by construction: compare ``overlap`` with that of the shuffled responses, in which
    every neuron responds as strongly, but to other images. Even with all neurons masked a tower
    gives a map, that of its biases, which may resemble the whole one.

    A response that was not recorded is at the neuron's mean, here as everywhere in an aligner, and
    can be kept or masked like any other.

    The structural similarity is that of maps brought from 0 to 1. The correlation of a flat map is
    0. Attention weights are there in blocks only, and are computed once for all steps of a curve.

    References
    ----------
    Wang et al., arXiv 2605.04309, 2026.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=8, n_trials=40, n_test_images=4, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(
    ...     neural_tower="attention", embed_dim=4, max_epochs=2, map_size=(4, 6), map_channels=2,
    ...     random_state=0).fit(trials.sel(tier="train"))
    >>> curves = v1.inspection.attention_masking(
    ...     est, trials.sel(tier="test"), fractions=[0.25, 0.5, 1])["A"]
    >>> whole = curves["correlation_full"].sel(responses="recorded", keep="key")[:, -1]
    >>> whole.sel(ranking="attention").round(3).item()
    1.0
    """
    names = check_rankings(rankings, _RANKINGS, scores)
    steps = _steps(thresholds, fractions)
    check_counts(1, n_random=n_random)
    rng = generator(random_state)
    out = {}
    for population in populations(aligner, trials, attention=True):
        seed = int(rng.integers(2**31))
        mixed = replace(population, responses=shuffled_trials(population.responses, rng))
        given = (scores or {}).items()
        fixed = {str(n): places(own_scores(values, n, population)) for n, values in given}
        if "reliability" in names:
            fixed["reliability"] = places(reliability(population))
        parts = [
            _curves(own, names, fixed, steps, int(n_random), np.random.default_rng(seed))
            for own in (population, mixed)
        ]
        curves = xr.concat(parts, xr.IndexVariable("responses", list(_POPULATIONS)))
        step = "threshold" if steps.are_thresholds else "wanted_fraction"
        out[population.mouse] = curves.assign_coords(
            {step: ("step", steps.values.numpy()), **population.coords}
        )
    return out


def _steps(thresholds: Any, fractions: Any) -> Steps:
    if thresholds is not None and fractions is not None:
        raise ValueError("thresholds and fractions came: give one of them.")
    name, values = ("fractions", fractions) if fractions is not None else ("thresholds", thresholds)
    if values is None:
        values = PUBLISHED_THRESHOLDS
    array = as_numbers(values, name)
    high = np.inf if name == "thresholds" else 1
    if array.ndim != 1 or not array.size or not ((array > 0) & (array <= high)).all():
        raise ValueError(
            f"{name}={values!r}: expected numbers above 0{' and up to 1' if high == 1 else ''}, "
            "at least one."
        )
    return Steps(torch.from_numpy(array), name == "thresholds")


@torch.no_grad()
def _curves(
    population: Population,
    names: list[str],
    fixed: Mapping[str, Tensor],
    steps: Steps,
    n_random: int,
    rng: np.random.Generator,
) -> xr.Dataset:
    """All curves of one population of responses."""
    n_trials, n_neurons = population.responses.shape
    n_steps, device = len(steps.values), population.responses.device
    draws = [f"random {i}" for i in range(n_random)] if "random" in names else []
    curves = [*(name for name in names if name != "random"), *draws]
    zeros = torch.zeros(len(MEASURES), n_steps, dtype=torch.float64)
    sums = {(curve, kept): zeros.clone() for curve in curves for kept in KEPT}
    shares = {kept: zeros[0].clone() for kept in KEPT}
    weights, overlaps = [], []
    size = trials_at_once(population, n_steps, population.attending.n_heads)
    for start in range(0, n_trials, size):
        rows = slice(start, start + size)
        responses = population.responses[rows]
        keys = population.attending.key_weights(responses)
        strongest = places(responses)[:, None]
        given = {
            **{n: order.to(device).expand(len(responses), 1, -1) for n, order in fixed.items()},
            "attention": None,
            "amplitude": strongest,
            **{name: random_places((len(responses), 1, n_neurons), rng, device) for name in draws},
        }
        measured = masked_measures(
            population, rows, keys, {name: given[name] for name in curves}, steps
        )
        for name, kept, values, share in measured:
            sums[name, kept] += values
            if name == curves[0]:
                shares[kept] += share
        weights.append(keys)
        overlaps.append(key_overlap(keys, strongest, steps))
    overlap, chance = (_known_mean(torch.cat(part, 1)) for part in zip(*overlaps, strict=True))
    variables = _measures(names, draws, sums, n_trials)
    variables["fraction"] = (
        ("keep", "step"),
        np.stack([shares[kept].numpy() for kept in KEPT]) / n_trials,
    )
    variables |= _unmasked(population)
    variables |= {"overlap": ("step", overlap), "overlap_chance": ("step", chance)}
    variables |= _of_keys(torch.cat(weights))
    return xr.Dataset(variables, coords={"ranking": names, "keep": list(KEPT)})


def _measures(
    names: list[str], draws: list[str], sums: Mapping[Any, Tensor], n_trials: int
) -> dict[str, Any]:
    """Curves of every measure: of each ranking, and of the draws of the random one."""

    def stacked(curves: list[str], i: int) -> np.ndarray:
        """Values (curves, keep, steps)."""
        parts = [[sums[c, kept][i].numpy() for kept in KEPT] for c in curves]
        return np.array(parts) / n_trials

    out: dict[str, Any] = {}
    for i, measure in enumerate(MEASURES):
        own = [stacked([n], i)[0] if n != "random" else stacked(draws, i).mean(0) for n in names]
        out[measure] = (("ranking", "keep", "step"), np.stack(own))
        if draws:
            out[f"{measure}_random"] = (("draw", "keep", "step"), stacked(draws, i))
    return out


def _unmasked(population: Population) -> dict[str, Any]:
    parts = population.responses.split(population.at_once)
    maps = torch.cat([population.maps(part) for part in parts])
    ssim, correlation = shared(maps, population.gallery[population.labels])
    top1 = found(unit_length(maps), population.images, population.labels)
    means = {"ssim_image": ssim, "correlation_image": correlation, "top1": top1}
    return {f"{n}_unmasked": ((), v.cpu().double().mean().item()) for n, v in means.items()}


def _known_mean(values: Tensor) -> np.ndarray:
    """Mean over the trials and heads (n_steps,) that are not NaN; NaN where all are."""
    return values.flatten(1).nanmean(1).numpy()


def _of_keys(keys: Tensor) -> dict[str, Any]:
    """How unevenly attention is spread over neurons."""
    keys = keys.cpu().double()
    ordered = keys.sort(-1).values
    n, total = ordered.shape[-1], ordered.sum(-1)
    ranks = torch.arange(1, n + 1, dtype=torch.float64)
    gini = (2 * (ordered * ranks).sum(-1) / total - (n + 1)) / n
    participation = total.square() / ordered.square().sum(-1)
    return {
        "key_weight": ("neuron", keys.mean((0, 1)).numpy()),
        "gini": ("trial", gini.mean(1).numpy()),
        "participation": ("trial", participation.mean(1).numpy()),
    }
