"""How many neurons it takes to find the image that was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from v1tlearn._values import whole_numbers
from v1tlearn.inspection._controls import check_counts, check_share, generator
from v1tlearn.inspection.neurons._greedy import greedy_places
from v1tlearn.inspection.neurons._population import (
    Population,
    check_halves,
    found,
    populations,
    some_trials,
)
from v1tlearn.inspection.neurons._rankings import (
    amplitude,
    check_rankings,
    importance,
    own_scores,
    places,
    random_places,
    reliability,
)
from v1tlearn.training import isolated

_RANKINGS = ("importance", "amplitude", "reliability", "random", "greedy")
_STEPS = 20  # of the counts, from one neuron to all


class _Seed(NamedTuple):
    """What one division of the images gives."""

    top1: np.ndarray  # (rankings, counts)
    places: np.ndarray  # (rankings, neurons), NaN where not chosen
    top1_all: float
    chance: float
    ranked_on: np.ndarray  # (trials,)


@isolated()
@torch.inference_mode(False)  # wherever it is called
def neurons_for_performance(
    aligner: Any,
    trials: Any,
    share: float = 0.9,
    *,
    rankings: str | Sequence[str] = ("importance", "amplitude", "random"),
    scores: Mapping[str, Any] | None = None,
    counts: Sequence[int] | None = None,
    n_seeds: int = 10,
    n_candidates: int = 50,
    n_greedy: int = 20,
    random_state: Any = 0,
) -> dict[str, xr.Dataset]:
    """Find images with the best neurons only, and count how many of them reach most of it.

    Neurons are ranked on the trials of one half of the images, drawn anew for every seed; then the
    images of the other half are looked for among each other with the k best neurons alone, all
    others being at their mean over the trials at `fit`, as if they had not been recorded. The sets
    of a ranking are nested.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted, with any neural tower. It stays as it is.
    trials : Trials
        With responses to at least 4 images, not those of the training.
    share : float, default=0.9
        Of the performance with all neurons that is to be reached, above 0 and up to 1.
    rankings : str or sequence of {"importance", "amplitude", "reliability", "random", "greedy"}
        What ranks neurons: ``signed`` of `neuron_importance` by gradients; the mean scaled
        response; the correlation over repeats (`v1tlearn.metrics.oracle_correlation`), for which
        the trials need repeats; nothing; or forward selection, which adds step by step the neuron
        with the smallest contrastive loss of the responses, among those best by importance.
    scores : dict of str to array of shape (n_neurons,), optional
        Rankings of your own by name, the highest first; a dict per mouse instead of an array where
        there are several mice.
    counts : sequence of int, optional
        Numbers of neurons; from 1 to all in about equal ratios by default. All neurons are always
        among them.
    n_seeds : int, default=10
        How often images are divided, which shows the spread.
    n_candidates : int, default=50
        "greedy": neurons among which it chooses.
    n_greedy : int, default=20
        "greedy": how many it chooses at most. The tower is passed about
        `n_candidates` x `n_greedy` times per trial and seed.
    random_state : int, RandomState, Generator or None, default=0
        Of the halves and of random rankings.

    Returns
    -------
    dict of str to Dataset
        Per mouse: ``top1`` (ranking, seed, count), the share of the trials whose image is found;
        ``top1_all`` and ``chance`` (seed), with all neurons and by chance; ``needed`` and
        ``needed_share`` (ranking, seed), the smallest count with at least `share` of ``top1_all``,
        and what share of all neurons it is; ``place`` (ranking, seed, neuron), 0 for the best; and
        ``ranked_on`` (seed, trial), whether a trial of the mouse ranked neurons, or was judged.
        "greedy" is NaN beyond what it chose. ``needed`` is NaN where nothing reaches the share, and
        where all neurons together find no more than chance.

    Raises
    ------
    TypeError
        If `aligner` is no `DINAAligner`, or `trials` are no `Trials`.
    ValueError
        If an option is out of its range, the trials are not of the mice and neurons of `fit`, a
        mouse saw fewer than 4 images, its responses are the same in all trials, or reliability is
        asked for without repeats.

    Notes
    -----
    Ranking and performance are on different images, as otherwise selected neurons are good by
    chance, "greedy" above all. The control is "random". Neurons that tell the same are ranked alike
    by all but "greedy", which may need fewer. A tower may find more with some neurons silenced than
    with all: the counts of ``needed`` are of the first to reach the share.

    References
    ----------
    Wang et al., arXiv 2605.04309, 2026.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=8, n_trials=40, n_test_images=6, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> found = v1.inspection.neurons_for_performance(est, trials.sel(tier="test"), n_seeds=3)["A"]
    >>> found["top1"].sizes["seed"], found["count"].values.tolist()
    (3, [1, 2, 3, 4, 5, 6, 7, 8])
    """
    names = check_rankings(rankings, _RANKINGS, scores)
    check_share(share)
    check_counts(1, n_seeds=n_seeds, n_candidates=n_candidates, n_greedy=n_greedy)
    rng = generator(random_state)
    out = {}
    for population in populations(aligner, trials):
        check_halves(population)
        steps = _counts(counts, population)
        order: dict[str, Callable[[Population], Tensor]] = {
            "amplitude": amplitude,
            "reliability": reliability,
            **{n: partial(own_scores, v, n) for n, v in (scores or {}).items()},
        }
        temperature = float(aligner.module_.temperature.detach())
        greedy = (int(n_candidates), int(n_greedy), temperature)
        adds = importance(population) if {"importance", "greedy"} & set(names) else None
        seeds = [
            _one_seed(population, names, order, adds, steps, greedy, rng) for _ in range(n_seeds)
        ]
        out[population.mouse] = _summary(population, names, steps, seeds, float(share))
    return out


def _counts(counts: Sequence[int] | None, population: Population) -> list[int]:
    n = population.n_neurons
    if counts is None:
        return np.unique(np.geomspace(1, n, _STEPS).round().astype(int)).tolist()
    wanted = whole_numbers(counts) or ()
    if not wanted or max(wanted) > n:
        raise ValueError(
            f"counts={counts!r}: expected whole numbers from 1 to {n}, the neurons of mouse "
            f"{population.mouse!r}."
        )
    return sorted({*wanted, n})


def _one_seed(
    population: Population,
    names: list[str],
    order: Mapping[str, Callable[[Population], Tensor]],
    adds: Tensor | None,
    counts: list[int],
    greedy: tuple[int, int, float],
    rng: np.random.Generator,
) -> _Seed:
    """Rank on one half of the images, and find those of the other half."""
    n_images, n_neurons = len(population.gallery), population.n_neurons
    device = population.responses.device
    in_half = torch.from_numpy(rng.permutation(n_images) < n_images // 2).to(device)
    ranks = in_half[population.labels]
    first, second = (some_trials(population, rows.nonzero()[:, 0]) for rows in (ranks, ~ranks))
    if adds is not None:
        mean = adds[ranks.cpu()].sum(0) / first.recorded.sum(0).cpu().clamp(min=1)
    found_by, placed = [], []
    for name in names:
        if name == "random":
            order_of = random_places((n_neurons,), rng, device)
        elif name == "importance":
            order_of = places(mean).to(device)
        elif name == "greedy":
            n_candidates, n_greedy, temperature = greedy
            candidates = mean.argsort(dim=-1, descending=True, stable=True)[:n_candidates].to(
                device
            )
            order_of = greedy_places(first, candidates, n_greedy, temperature)
        else:
            order_of = places(order[name](first)).to(device)
        placed.append(order_of.cpu().double().numpy())
        found_by.append(_found_by(second, order_of, counts))
    every = torch.arange(n_neurons, device=device)
    return _Seed(
        np.array(found_by),
        np.where(np.array(placed) < n_neurons, placed, np.nan),
        _found_by(second, every, [n_neurons])[0],
        1 / len(second.gallery),
        ranks.cpu().numpy(),
    )


@torch.no_grad()
def _found_by(population: Population, order: Tensor, counts: list[int]) -> list[float]:
    """Share of the trials whose image is found with the best neurons, of each count."""
    n_ranked, out = int((order < population.n_neurons).sum()), []
    for count in counts:
        if count > n_ranked and n_ranked < population.n_neurons:
            out.append(np.nan)  # not chosen
            continue
        given = torch.where(order < count, population.responses, population.mean)
        vectors = torch.cat([population.vectors(part) for part in given.split(population.at_once)])
        hits = found(vectors, population.images, population.labels)
        out.append(hits.cpu().double().mean().item())
    return out


def _summary(
    population: Population,
    names: list[str],
    counts: list[int],
    seeds: list[_Seed],
    share: float,
) -> xr.Dataset:
    top1 = np.stack([seed.top1 for seed in seeds], 1)  # (rankings, seeds, counts)
    whole, chance = (np.array([getattr(s, n) for s in seeds]) for n in ("top1_all", "chance"))
    reached = (top1 >= share * whole[:, None] - 1e-12) & (whole > chance)[:, None]
    first = np.array(counts, dtype=float)[reached.argmax(-1)]
    needed = np.where(reached.any(-1), first, np.nan)
    return population.label(
        {
            "top1": (("ranking", "seed", "count"), top1),
            "top1_all": ("seed", whole),
            "chance": ("seed", chance),
            "ranked_on": (("seed", "trial"), np.stack([seed.ranked_on for seed in seeds])),
            "needed": (("ranking", "seed"), needed),
            "needed_share": (("ranking", "seed"), needed / population.n_neurons),
            "place": (("ranking", "seed", "neuron"), np.stack([seed.places for seed in seeds], 1)),
        },
        share=share,
    ).assign_coords(ranking=names, count=counts)
