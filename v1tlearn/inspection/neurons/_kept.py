"""Which neurons are attended to when the others are masked, and what is left of the maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from v1tlearn.inspection.neurons._population import Population, found
from v1tlearn.inspection.neurons._rankings import places
from v1tlearn.nn import scale_maps, structural_similarity, unit_length

KEPT = ("key", "non_key")
MEASURES = ("ssim_full", "correlation_full", "ssim_image", "correlation_image", "top1")

_CPU_MASKS, _OTHER_MASKS = 2**23, 2**28  # flags of neurons that are there at once


class Steps(NamedTuple):
    """Steps of a masking curve: thresholds of key weights, or shares of the neurons.

    Attributes
    ----------
    values : Tensor of shape (n_steps,)
    are_thresholds : bool
    """

    values: Tensor
    are_thresholds: bool


def masks(
    ranking: Tensor | None, key_weights: Tensor, steps: Steps, kept: str
) -> tuple[Tensor, Tensor]:
    """Which neurons are attended to at every step.

    Parameters
    ----------
    ranking : Tensor of int of shape (n_trials, 1, n_neurons), or None
        Places of the neurons; None where key weights rank.
    key_weights : Tensor of shape (n_trials, n_heads, n_neurons)
    steps : Steps
    kept : {"key", "non_key"}

    Returns
    -------
    Tensor of bool of shape (n_steps, n_trials, n_heads, n_neurons)
    Tensor of int of shape (n_steps, n_trials, n_heads)
        How many these are.
    """
    n = key_weights.shape[-1]
    if steps.are_thresholds:
        at = steps.values.to(key_weights)[:, None, None, None]
        flags = key_weights > at if kept == "key" else key_weights < at
        counts = flags.sum(-1)
        if ranking is None:
            return flags, counts
    else:
        counts = (steps.values * n).round().long().to(key_weights.device)[:, None, None]
        counts = counts.expand(-1, *key_weights.shape[:2])
        ranking = places(key_weights) if ranking is None else ranking
    if kept == "key":
        return ranking < counts[..., None], counts
    return ranking >= n - counts[..., None], counts


def masked_measures(
    population: Population,
    rows: slice,
    key_weights: Tensor,
    rankings: Mapping[str, Tensor | None],
    steps: Steps,
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """Sums over some trials of what masked maps share with whole ones, and with those of images.

    Parameters
    ----------
    population : Population
    rows : slice
        The trials.
    key_weights : Tensor of shape (n_these, n_heads, n_neurons)
    rankings : mapping of str to Tensor of int (n_these, 1, n_neurons), or None
        Places of the neurons.
    steps : Steps

    Yields
    ------
    ranking : str
    kept : str
    sums : Tensor of shape (n_measures, n_steps)
        In the order of `MEASURES`; on the CPU.
    share : Tensor of shape (n_steps,)
        Sum of the share of neurons that are kept; there, too.
    """
    responses, tower = population.responses[rows], population.attending
    whole = scale_maps(tower(responses), population.map_scale)
    images, labels = population.gallery[population.labels[rows]], population.labels[rows]
    vectors = population.images
    for name, ranking in rankings.items():
        for kept in KEPT:
            flags, counts = masks(ranking, key_weights, steps, kept)
            reads = tower.read_subsets(responses, flags).flatten(0, 1)
            read = torch.cat([tower.maps_of(part) for part in reads.split(population.at_once)])
            maps = scale_maps(read, population.map_scale).unflatten(0, (len(flags), -1))
            sums = [
                *_shared(maps, whole),
                *_shared(maps, images),
                found(_unit(maps), vectors, labels).cpu().double().sum(1),
            ]
            share = counts.cpu().double().mean(2).sum(1) / key_weights.shape[-1]
            yield name, kept, torch.stack(sums), share


def _shared(maps: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over trials of structural similarity and correlation (n_steps,)."""
    ssim, correlation = shared(maps.flatten(0, 1), others.repeat(len(maps), 1, 1, 1))
    return tuple(v.cpu().double().unflatten(0, maps.shape[:2]).sum(1) for v in (ssim, correlation))


def shared(maps: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Structural similarity, of maps brought from 0 to 1, and correlation over all their values.

    Parameters
    ----------
    maps, others : Tensor of shape (n, channels, height, width)

    Returns
    -------
    ssim, correlation : Tensor of shape (n,)
        The correlation is 0 where a map is flat.
    """
    ssim = structural_similarity(scale_maps(maps), scale_maps(others)).flatten(1).mean(1)
    first, second = (m.flatten(1) for m in (maps, others))
    centred = unit_length(first - first.mean(1, keepdim=True))
    return ssim, (centred * unit_length(second - second.mean(1, keepdim=True))).sum(1)


def _unit(maps: Tensor) -> Tensor:
    return unit_length(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])


def key_overlap(key_weights: Tensor, strongest: Tensor, steps: Steps) -> tuple[Tensor, Tensor]:
    """How many of the keys are among as many of the strongest responses, and how many by chance.

    Parameters
    ----------
    key_weights : Tensor of shape (n_trials, n_heads, n_neurons)
    strongest : Tensor of int of shape (n_trials, 1, n_neurons)
        Places of the neurons by response.
    steps : Steps

    Returns
    -------
    overlap, chance : Tensor of shape (n_steps, n_trials, n_heads)
        Shares, on the CPU; NaN where there are no keys.
    """
    flags, counts = masks(None, key_weights, steps, "key")
    both = (flags & (strongest < counts[..., None])).sum(-1).cpu().double()
    counts = counts.cpu()
    chance = counts.double() / key_weights.shape[-1]
    return both / counts, torch.where(counts > 0, chance, torch.nan)


def trials_at_once(population: Population, n_steps: int, n_heads: int) -> int:
    """How many trials are masked at once, in all steps of a curve.

    Parameters
    ----------
    population : Population
    n_steps, n_heads : int

    Returns
    -------
    int
    """
    flags = _CPU_MASKS if population.responses.device.type == "cpu" else _OTHER_MASKS
    gallery = population.gallery
    values = max(n_heads * population.n_neurons, gallery[0].numel(), len(gallery))
    return max(1, flags // (n_steps * values))
