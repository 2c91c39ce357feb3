"""What every neuron adds to the similarity of a pair, in every trial: three ways to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from v1tlearn.inspection.neurons._population import Population

METHODS = ("gradient", "integrated_gradients", "ablation")


def contributions(
    population: Population,
    pairs: Tensor,
    method: str,
    baseline: Tensor,
    n_steps: int = 50,
) -> Iterator[tuple[slice, Tensor]]:
    """Contribution of every neuron to the similarity of trials and images.

    Parameters
    ----------
    population : Population
    pairs : Tensor of int of shape (n_pairings, n_trials)
        Places in the gallery of the images that trials are paired with.
    method : {"gradient", "integrated_gradients", "ablation"}
    baseline : Tensor of shape (n_neurons,)
        Scaled responses that tell nothing.
    n_steps : int, default=50
        Of the integral.

    Yields
    ------
    rows : slice
        Some trials.
    values : Tensor of shape (n_pairings, n_these, n_neurons)
    """
    methods: dict[str, Callable[[Population, Tensor, Tensor, Tensor], Tensor]] = {
        "gradient": _gradient,
        "integrated_gradients": partial(_integrated, n_steps=n_steps),
        "ablation": _ablated,
    }
    of_some = methods[method]
    images, n = population.images, len(population.responses)
    for start in range(0, n, population.at_once):
        rows = slice(start, start + population.at_once)
        targets = images[pairs[:, rows]]  # (pairings, b, features)
        yield rows, of_some(population, population.responses[rows], targets, baseline)


def _gradient(population: Population, responses: Tensor, targets: Tensor, base: Tensor) -> Tensor:
    with torch.enable_grad():
        given = responses.clone().requires_grad_()
        similarity = (population.vectors(given) * targets).sum(-1)  # (pairings, b)
        slopes = [torch.autograd.grad(own.sum(), given, retain_graph=True)[0] for own in similarity]
    return torch.stack(slopes) * (responses - base)


def _integrated(
    population: Population, responses: Tensor, targets: Tensor, base: Tensor, n_steps: int
) -> Tensor:
    integrated = _captum().IntegratedGradients(
        lambda given, wanted: (population.vectors(given) * wanted).sum(-1)
    )
    with torch.enable_grad():
        return torch.stack(
            [
                integrated.attribute(
                    responses,
                    base.expand_as(responses),
                    additional_forward_args=(own,),
                    n_steps=n_steps,
                    internal_batch_size=max(population.at_once, len(responses)),
                ).detach()
                for own in targets
            ]
        )


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError as error:
        raise ImportError(
            "integrated gradients are those of captum, which is not here: install the extra "
            '"attribution", from the folder of v1tlearn with pip install -e ".[attribution]", or '
            "take method='gradient' or 'ablation'."
        ) from error
    return captum.attr


@torch.no_grad()
def _ablated(population: Population, responses: Tensor, targets: Tensor, base: Tensor) -> Tensor:
    whole = (population.vectors(responses) * targets).sum(-1)  # (pairings, b)
    n, parts = population.n_neurons, []
    for i in range(len(responses)):
        for start in range(0, n, population.at_once):
            gone = torch.arange(start, min(start + population.at_once, n), device=base.device)
            without = responses[i].repeat(len(gone), 1)
            without[torch.arange(len(gone), device=base.device), gone] = base[gone]
            parts.append(population.vectors(without) @ targets[:, i].T)  # (some, pairings)
    return whole[..., None] - torch.cat(parts).unflatten(0, (-1, n)).permute(2, 0, 1)
