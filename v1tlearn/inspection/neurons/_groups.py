"""What a map loses when the attention of one group of neurons to another one is taken away."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from v1tlearn.inspection.neurons._kept import shared
from v1tlearn.inspection.neurons._population import Population, found
from v1tlearn.inspection.neurons._rankings import places, random_places
from v1tlearn.nn import scale_maps, unit_length

GROUPS = ("keys attend keys", "keys attend others", "others attend keys", "others attend others")
MEASURES = ("correlation_full", "correlation_image", "top1")


@torch.no_grad()
def without_groups(
    population: Population, n_keys: int, rng: np.random.Generator | None = None
) -> dict[str, np.ndarray]:
    """Set the attention of each group to each other one to 0, and compare the maps.

    Keys are, in every trial, the neurons with the highest key weights over heads; or any where a
    generator is given.

    Parameters
    ----------
    population : Population
    n_keys : int
    rng : Generator, optional

    Returns
    -------
    dict of str to ndarray of shape (4,)
        ``correlation_full``, ``correlation_image`` and ``top1``, in the order of `GROUPS`.
    """
    tower = population.attending
    sums = {name: np.zeros(len(GROUPS)) for name in MEASURES}
    for start in range(0, len(population.responses), population.at_once):
        rows = slice(start, start + population.at_once)
        responses = population.responses[rows]
        if rng is None:
            order = places(tower.key_weights(responses).mean(1))
        else:
            order = random_places(responses.shape, rng, responses.device)
        keys = order < n_keys  # (b, N)
        of_keys, of_others = (_read(population, responses, keep) for keep in (keys, ~keys))
        whole = tower.read(responses)
        full = scale_maps(tower.maps_of(whole), population.map_scale)
        images = population.gallery[population.labels[rows]]
        for i, group in enumerate(GROUPS):
            rest = of_others if group.endswith("keys") else of_keys
            attending = keys if group.startswith("keys") else ~keys
            maps = tower.maps_of(torch.where(attending, rest, whole))
            maps = scale_maps(maps, population.map_scale)
            hits = found(unit_length(maps), population.images, population.labels[rows])
            values = shared(maps, full)[1], shared(maps, images)[1], hits
            for name, value in zip(MEASURES, values, strict=True):
                sums[name][i] += value.cpu().double().sum().item()
    return {name: values / len(population.responses) for name, values in sums.items()}


def _read(population: Population, responses: Tensor, keep: Tensor) -> Tensor:
    tower = population.attending
    return tower.read(responses, keep[:, None].expand(-1, tower.n_heads, -1))
