"""Who attends to whom, beside how the responses of the two go together."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.stats import rankdata
from torch import Tensor

from v1tlearn.inspection._controls import check_counts, generator
from v1tlearn.inspection.neurons._correlations import (
    distances,
    noise_correlations,
    signal_correlations,
)
from v1tlearn.inspection.neurons._groups import GROUPS, MEASURES, without_groups
from v1tlearn.inspection.neurons._population import Population, populations
from v1tlearn.inspection.neurons._shuffles import shuffled_trials
from v1tlearn.training import isolated

_WHAT = ("weight", "excess")


@isolated()
@torch.inference_mode(False)  # wherever it is called
def functional_interactions(
    aligner: Any,
    trials: Any,
    *,
    n_neurons: int = 500,
    n_edges: int = 100,
    key_share: float = 0.1,
    n_shuffles: int = 5,
    random_state: Any = 0,
) -> dict[str, xr.Dataset]:
    """Compare the attention between neurons with their signal and noise correlations.

    An edge is the attention weight :math:`A_{ij}` with which neuron i attends to neuron j, mean
    over trials and heads. The signal correlation of a pair is that of the mean responses to images;
    the noise correlation is that of the deviations from them, over repeats.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted with ``neural_tower="attention"``. It stays as it is.
    trials : Trials
        With responses, not those of the training.
    n_neurons : int, default=500
        Of how many neurons all pairs are given: all, or so many at random. Attention is always that
        among all neurons.
    n_edges : int, default=100
        How many of the largest edges of the whole population are listed, none from a neuron to
        itself.
    key_share : float, default=0.1
        Share of the neurons that are keys in a trial, those with the highest key weights; above 0
        and below 1.
    n_shuffles : int, default=5
        How often the controls are drawn.
    random_state : int, RandomState, Generator or None, default=0
        Of neurons that are picked, and of the controls.

    Returns
    -------
    dict of str to Dataset
        Per mouse, for pairs of neurons (query, key): ``attention``; ``excess``, how far it is above
        the mean over all queries, which is what the pair has beyond the key weight of the key;
        ``signal_correlation``, ``noise_correlation`` (NaN without repeats, and for neurons that do
        not vary) and, where positions were given, ``distance`` in their unit.

        ``agreement`` (what, compared): Spearman's correlation over pairs of different neurons, of
        the attention in both directions ("weight") or its excess ("excess"), with each of these;
        NaN where there are no two pairs that differ. ``agreement_shuffled`` (shuffle, what,
        compared) is the same for the attention among responses whose trials are mixed neuron by
        neuron.

        ``edge_weight`` (edge), the largest edges of all, with the unit ids ``edge_query`` and
        ``edge_key``.

        Of maps where one group of edges is set to 0, over ``group`` ("keys attend keys", "keys
        attend others", ...), means over trials: ``correlation_full`` with the whole map,
        ``correlation_image`` with that of the image, and ``top1``, the share of trials whose image
        is found; ``edges``, the share of all edges that is in the group; and with as many neurons
        at random as keys ``X_random`` (shuffle, group), with shuffled responses ``X_shuffled``.

    Raises
    ------
    TypeError
        If `aligner` is no `DINAAligner`, its tower has no attention, or `trials` are no `Trials`.
    ValueError
        If an option is out of its range, the trials are not of the mice and neurons of `fit`, a
        mouse saw one image only, or its responses are the same in all trials.

    Notes
    -----
    Scores are products of two lines in responses: neurons that respond strongly together can have
    high edges by construction, hence the shuffled control. Most of an edge is the key weight of its
    key, the same for all who attend to it, hence ``excess``.

    Attention weights of all neurons are there in blocks of rows only. A pair's correlations are of
    the trials in which both were recorded; a tower takes the neuron's mean for what was not.

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
    >>> edges = v1.inspection.functional_interactions(est, trials.sel(tier="test"), n_edges=3)["A"]
    >>> edges["attention"].sizes["query"], edges["edge_weight"].size
    (8, 3)
    """
    check_counts(2, n_neurons=n_neurons)
    check_counts(1, n_edges=n_edges)
    check_counts(0, n_shuffles=n_shuffles)
    if not isinstance(key_share, Real) or not 0 < key_share < 1:
        raise ValueError(f"key_share={key_share!r}: expected a number above 0 and below 1.")
    rng = generator(random_state)
    out = {}
    for population in populations(aligner, trials, attention=True):
        n = population.n_neurons
        picked = np.sort(rng.permutation(n)[: min(n_neurons, n)])
        mixed = [
            replace(population, responses=shuffled_trials(population.responses, rng))
            for _ in range(n_shuffles)
        ]
        pairs = _pairs(population, picked, int(n_edges))
        controls = [_pairs(own, picked, 0) for own in mixed]
        variables = _compared(population, picked, pairs, controls)
        n_keys = min(n - 1, max(1, round(key_share * n)))
        variables |= _grouped(population, mixed, n_keys, rng)
        ids = population.coords["neuron"][1]
        coords = {"query": ids[picked], "key": ids[picked], "group": list(GROUPS)}
        coords |= {f"edge_{end}": ("edge", ids[pairs[end]]) for end in ("query", "key")}
        out[population.mouse] = xr.Dataset(variables, coords).assign_coords(what=list(_WHAT))
    return out


@torch.no_grad()
def _pairs(population: Population, picked: np.ndarray, n_edges: int) -> dict[str, np.ndarray]:
    """Attention and excess among some neurons, and the largest edges among all."""
    n, device = population.n_neurons, population.responses.device
    among = torch.from_numpy(picked).to(device)
    rows_of, key_weights = [], torch.zeros(n, dtype=torch.float64)
    best, ends = torch.empty(0, device=device), torch.empty(0, dtype=torch.long, device=device)
    for rows, by_head in population.attending.mean_attention(population.responses):
        weights = by_head.mean(0)  # (r, N)
        key_weights += weights.sum(0).cpu()
        queries = torch.arange(n, device=device)[rows]
        rows_of.append(weights[torch.isin(queries, among)][:, among].cpu())
        if n_edges:
            best, ends = _largest(weights, queries, best, ends, n_edges)
    attention = torch.cat(rows_of).double()
    excess = attention - (key_weights / n)[torch.from_numpy(picked)]
    places = ends.cpu().numpy()
    return {
        "weight": attention.numpy(),
        "excess": excess.numpy(),
        "edge_weight": best.cpu().double().numpy(),
        "query": places // n,
        "key": places % n,
    }


def _largest(
    weights: Tensor, queries: Tensor, best: Tensor, ends: Tensor, n_edges: int
) -> tuple[Tensor, Tensor]:
    """Largest edges of some queries and those so far, and their places in the whole matrix."""
    n = weights.shape[1]
    weights = weights.clone()
    weights[torch.arange(len(queries), device=queries.device), queries] = -1  # not to itself
    top, places = weights.flatten().topk(min(n_edges, len(queries) * (n - 1)))
    best = torch.cat((best.to(top.dtype), top))
    ends = torch.cat((ends, places + queries[0] * n))
    best, order = best.sort(descending=True, stable=True)
    return best[:n_edges], ends[order[:n_edges]]


def _compared(
    population: Population,
    picked: np.ndarray,
    pairs: dict[str, np.ndarray],
    controls: list[dict[str, np.ndarray]],
) -> dict[str, Any]:
    responses = population.trials.responses.get(population.mouse)
    responses = responses[:, picked].astype(np.float64)
    labels = population.labels.cpu().numpy()
    beside = {
        "signal_correlation": signal_correlations(responses, labels),
        "noise_correlation": noise_correlations(responses, labels),
    }
    positions = population.trials.positions(population.mouse)
    if positions is not None:
        beside["distance"] = distances(np.asarray(positions, dtype=float)[picked])

    def agreement(own: dict[str, np.ndarray]) -> np.ndarray:
        """Of both kinds of attention with all that is known of pairs (what, compared)."""
        both = (own[what] + own[what].T for what in _WHAT)
        return np.array([[_spearman(sums, other) for other in beside.values()] for sums in both])

    dims = ("query", "key")
    shuffled = np.array([agreement(own) for own in controls])
    return {
        "attention": (dims, pairs["weight"]),
        "excess": (dims, pairs["excess"]),
        **{name: (dims, values) for name, values in beside.items()},
        "agreement": (("what", "compared"), agreement(pairs)),
        "agreement_shuffled": (
            ("shuffle", "what", "compared"),
            shuffled.reshape(len(controls), len(_WHAT), len(beside)),
        ),
        "compared": list(beside),
        "edge_weight": ("edge", pairs["edge_weight"]),
    }


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Of the pairs above the diagonal that are known in both."""
    above = np.triu_indices(len(first), 1)
    x, y = first[above], second[above]
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = rankdata(x[known]), rankdata(y[known])
    if not known.any() or not np.ptp(x) or not np.ptp(y):
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def _grouped(
    population: Population, mixed: list[Population], n_keys: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Maps without one group of edges, and the same with other keys and other responses."""
    n, n_others = population.n_neurons, population.n_neurons - n_keys
    controls = {
        "random": [without_groups(population, n_keys, rng) for _ in mixed],
        "shuffled": [without_groups(own, n_keys) for own in mixed],
    }
    edges = [n_keys**2, n_keys * n_others, n_keys * n_others, n_others**2]
    variables: dict[str, Any] = {"edges": ("group", np.array(edges) / n**2)}
    for name, values in without_groups(population, n_keys).items():
        variables[name] = ("group", values)
    for control, drawn in controls.items():
        for name in MEASURES:
            values = np.array([one[name] for one in drawn]).reshape(len(drawn), len(GROUPS))
            variables[f"{name}_{control}"] = (("shuffle", "group"), values)
    return variables
