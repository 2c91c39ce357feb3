"""Forward selection of neurons: the one that helps most is added, step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from v1tlearn.inspection.neurons._population import Population


@torch.no_grad()
def greedy_places(
    population: Population, candidates: Tensor, n_chosen: int, temperature: float
) -> Tensor:
    """Places of the neurons that are chosen one by one, all others being at their mean.

    Every step adds the neuron with which the images that were seen are most likely among all those
    of these trials: the smallest cross entropy of similarities over the temperature, which is the
    contrastive loss of the responses. Of equals the first candidate is taken.

    Parameters
    ----------
    population : Population
    candidates : Tensor of int of shape (n_candidates,)
        Neurons that may be chosen.
    n_chosen : int
        At most.
    temperature : float

    Returns
    -------
    Tensor of int of shape (n_neurons,)
        0 for the first one; the number of neurons for those that were not chosen.
    """
    n = population.n_neurons
    places = torch.full((n,), n, device=population.responses.device)
    known = population.mean.expand_as(population.responses).clone()
    for step in range(min(n_chosen, len(candidates))):
        best = int(_losses(population, known, candidates, temperature).argmin())
        chosen = candidates[best]
        candidates = torch.cat((candidates[:best], candidates[best + 1 :]))
        places[chosen] = step
        known[:, chosen] = population.responses[:, chosen]
    return places


def _losses(
    population: Population, known: Tensor, candidates: Tensor, temperature: float
) -> Tensor:
    """Contrastive loss with each candidate (n_candidates,) beside the neurons that are known."""
    losses = []
    for some in candidates.split(max(1, population.at_once // len(known))):
        given = known.repeat(len(some), 1, 1)
        given[torch.arange(len(some)), :, some] = population.responses.T[some]
        parts = given.flatten(0, 1).split(population.at_once)
        vectors = torch.cat([population.vectors(part) for part in parts])
        logits = vectors @ population.images.T / temperature
        labels = population.labels.repeat(len(some))
        loss = F.cross_entropy(logits, labels, reduction="none")
        losses.append(loss.unflatten(0, (len(some), -1)).mean(1))
    return torch.cat(losses)
