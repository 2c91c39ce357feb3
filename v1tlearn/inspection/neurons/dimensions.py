"""How many neurons make a dimension of the maps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.linear_model import orthogonal_mp

from v1tlearn.inspection._controls import check_counts, check_share, generator
from v1tlearn.inspection.neurons._population import Population, check_halves, populations
from v1tlearn.training import isolated


@isolated()
@torch.inference_mode(False)  # wherever it is called
def neurons_per_dimension(
    aligner: Any,
    trials: Any,
    share: float = 0.9,
    *,
    n_dimensions: int = 10,
    max_neurons: int = 30,
    n_seeds: int = 5,
    random_state: Any = 0,
) -> dict[str, xr.Dataset]:
    """Reconstruct the leading dimensions of the maps of responses from as few neurons as possible.

    Dimensions are the principal components of the maps over trials. Each is predicted linearly from
    the scaled responses of k neurons, which orthogonal matching pursuit chooses: step by step the
    neuron that correlates most with what is left, all weights being fitted anew. Neurons and
    weights are chosen on the trials of one half of the images, and judged on those of the other.

    Parameters
    ----------
    aligner : DINAAligner
        Fitted, with any neural tower. It stays as it is.
    trials : Trials
        With responses to at least 4 images, not those of the training; the more, the better.
    share : float, default=0.9
        Of the variance of a dimension that is to be reconstructed, above 0 and up to 1.
    n_dimensions : int, default=10
        Leading components; fewer where trials or maps have fewer.
    max_neurons : int, default=30
        At most; fewer where there are fewer neurons, or fewer than twice as many trials to choose
        them on.
    n_seeds : int, default=5
        How often images are divided, which shows the spread.
    random_state : int, RandomState, Generator or None, default=0
        Of the halves, and of the control.

    Returns
    -------
    dict of str to Dataset
        Per mouse: ``explained`` (seed, dimension, count), the share of the variance of a dimension
        that k neurons explain in the other half of the trials: one minus the mean squared error
        over the variance in all trials, negative where the mean is better; ``needed`` (seed,
        dimension), the smallest count that explains `share`, NaN where none does; ``variance``
        (dimension), the share of the variance of all maps that is the dimension's; and, as the
        control, ``explained_shuffled`` and ``needed_shuffled``, where the responses are those of
        other trials.

    Raises
    ------
    TypeError
        If `aligner` is no `DINAAligner`, or `trials` are no `Trials`.
    ValueError
        If an option is out of its range, the trials are not of the mice and neurons of `fit`, a
        mouse saw fewer than 4 images, its responses or maps are the same in all trials.

    See Also
    --------
    neurons_for_performance : How many neurons find images.

    Notes
    -----
    This is a measure of maps, which come of the responses, not of images: with all neurons a linear
    tower is reconstructed entirely, however little it tells. The neurons of a dimension are not the
    only ones that could make it.

    References
    ----------
    Wang et al., arXiv 2605.04309, 2026. Pati et al., "Orthogonal matching pursuit", 1993.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=8, n_trials=40, n_test_images=6, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> found = v1.inspection.neurons_per_dimension(
    ...     est, trials.sel(tier="test"), n_dimensions=3)["A"]
    >>> found["explained"].sizes["dimension"], found["count"].values[-1].item()
    (3, 4)
    """
    check_share(share)
    check_counts(1, n_dimensions=n_dimensions, max_neurons=max_neurons, n_seeds=n_seeds)
    rng = generator(random_state)
    out = {}
    for population in populations(aligner, trials):
        check_halves(population)
        scores, variance = _components(population, int(n_dimensions))
        out[population.mouse] = _summary(
            population, scores, variance, float(share), int(max_neurons), int(n_seeds), rng
        )
    return out


@torch.no_grad()
def _components(population: Population, n_dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (trials, dimensions) of the leading components, and their shares of the variance."""
    parts = population.responses.split(population.at_once)
    maps = torch.cat([population.maps(part) for part in parts]).flatten(1).cpu().double()
    maps = maps - maps.mean(0)
    left, values, _ = torch.linalg.svd(maps, full_matrices=False)
    total = values.square().sum()
    if not total > 0:
        raise ValueError(
            f"mouse {population.mouse!r}: the maps of its responses are the same in all trials: "
            "there are no dimensions. Train the aligner longer."
        )
    n = min(n_dimensions, int((values > 1e-6 * values[0]).sum()))
    return (left * values)[:, :n].numpy(), (values.square() / total)[:n].numpy()


def _summary(
    population: Population,
    scores: np.ndarray,
    variance: np.ndarray,
    share: float,
    max_neurons: int,
    n_seeds: int,
    rng: np.random.Generator,
) -> xr.Dataset:
    responses = population.responses.cpu().double().numpy()
    labels, n_images = population.labels.cpu().numpy(), len(population.gallery)
    explained: dict[str, list[np.ndarray]] = {"": [], "_shuffled": []}
    halves = [rng.permutation(n_images) < n_images // 2 for _ in range(n_seeds)]
    chosen = [half[labels] for half in halves]
    fitted_to = min(int(first.sum()) for first in chosen)
    n_counts = max(1, min(max_neurons, responses.shape[1], fitted_to // 2))
    for first in chosen:
        mixed = responses[rng.permutation(len(responses))]
        for control, given in (("", responses), ("_shuffled", mixed)):
            explained[control].append(_explained(given, scores, first, n_counts))
    variables: dict[str, Any] = {"variance": ("dimension", variance)}
    for control, values in explained.items():
        curves = np.stack(values)  # (seeds, dimensions, counts)
        reached = curves >= share
        needed = np.where(reached.any(-1), reached.argmax(-1) + 1.0, np.nan)
        variables[f"explained{control}"] = (("seed", "dimension", "count"), curves)
        variables[f"needed{control}"] = (("seed", "dimension"), needed)
    counts = np.arange(1, n_counts + 1)
    return xr.Dataset(variables, coords={"count": counts}, attrs={"share": share})


def _explained(
    responses: np.ndarray, scores: np.ndarray, first: np.ndarray, n_counts: int
) -> np.ndarray:
    """Share of the variance (dimensions, counts) that is explained where nothing was fitted."""
    mean, std = responses[first].mean(0), responses[first].std(0)
    heard = std > 0
    given = (responses[:, heard] - mean[heard]) / std[heard]
    middle = scores[first].mean(0)
    out = np.full((scores.shape[1], n_counts), -np.inf)
    n = min(n_counts, int(heard.sum()))
    for i, target in enumerate((scores - middle).T):
        weights = _pursuit(given[first], target[first], n)
        rest = ((target[~first, None] - given[~first] @ weights) ** 2).sum(0)
        own = 1 - rest / (~first).sum() / scores[:, i].var()
        out[i] = np.pad(own, (0, n_counts - len(own)), mode="edge")
    return out


def _pursuit(given: np.ndarray, target: np.ndarray, n_counts: int) -> np.ndarray:
    """Weights (neurons, counts) of orthogonal matching pursuit, of as many steps as there are."""
    with warnings.catch_warnings():
        # it ends where what is left cannot be explained, which is told by how many came
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended prematurely")
        weights = orthogonal_mp(given, target, n_nonzero_coefs=n_counts, return_path=True)
    return weights.reshape(given.shape[1], -1)
