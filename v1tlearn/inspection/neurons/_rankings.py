"""Orders of the neurons of a population: by their responses, by what they tell, at random.

What ranks is on the CPU, in float64, which not every device has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v1tlearn._options import as_numbers, as_words
from v1tlearn.inspection.neurons._contributions import contributions
from v1tlearn.inspection.neurons._population import Population
from v1tlearn.metrics import oracle_correlation


def check_rankings(rankings: Any, known: Collection[str], scores: Any) -> list[str]:
    """Check which rankings are asked for, and give their names, those of `scores` last.

    Parameters
    ----------
    rankings : str or sequence of str
    known : collection of str
        Those there are.
    scores : mapping of str, or None
        Rankings of the caller.

    Returns
    -------
    list of str
    """
    empty = isinstance(rankings, list | tuple) and not rankings
    names = [] if empty else as_words(rankings, "rankings", of="random")
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"rankings: {unknown[0]!r} came, expected some of {tuple(known)}. Give rankings of "
            "your own as scores={name: one value per neuron}."
        )
    if scores is not None and not isinstance(scores, Mapping):
        raise TypeError(
            f"scores is a {type(scores).__name__}: expected a dict of names to values per neuron."
        )
    own = [str(name) for name in scores or ()]
    if taken := [name for name in own if name in known]:
        raise ValueError(f"scores: {taken[0]!r} is the name of a ranking here: choose another.")
    if not names + own:
        raise ValueError(f"rankings is empty: expected at least one of {tuple(known)}.")
    return list(dict.fromkeys(names + own))


def own_scores(values: Any, name: str, population: Population) -> Tensor:
    """Values of a ranking of the caller for the neurons of a mouse.

    Parameters
    ----------
    values : array of shape (n_neurons,), or a mapping of mouse to these
    name : str
    population : Population

    Returns
    -------
    Tensor of shape (n_neurons,)
    """
    mouse = population.mouse
    if isinstance(values, Mapping):
        if mouse not in values:
            raise ValueError(f"scores[{name!r}] has the mice {list(values)}, not {mouse!r}.")
        values = values[mouse]
    array = as_numbers(values, f"scores[{name!r}], mouse {mouse!r}", of="neuron")
    if array.shape != (population.n_neurons,) or np.isnan(array).any():
        raise ValueError(
            f"scores[{name!r}], mouse {mouse!r}: values of the shape {array.shape} came"
            f"{', with NaN' * bool(np.isnan(array).any())}: expected one number for each of the "
            f"{population.n_neurons} neurons."
        )
    return torch.from_numpy(array)


def amplitude(population: Population) -> Tensor:
    """Mean scaled response of every neuron (n_neurons,), of the trials it was recorded in."""
    recorded = population.recorded
    total = torch.where(recorded, population.responses, 0).cpu().double().sum(0)
    return total / recorded.sum(0).cpu().clamp(min=1)


def reliability(population: Population) -> Tensor:
    """Correlation of responses with those to other repeats (n_neurons,); -1 where there are none.

    Raises
    ------
    ValueError
        If no image was repeated.
    """
    trials, mouse = population.trials, population.mouse
    try:
        found = oracle_correlation(
            trials.get("responses", mouse),
            image_ids=trials.image_ids,
            multioutput="raw_values",
        )
    except ValueError as error:
        raise ValueError(
            f"mouse {mouse!r}: reliability needs repeats ({error}) Leave 'reliability' out of "
            "rankings, or give trials with repeats."
        ) from error
    values = np.nan_to_num(np.asarray(found, dtype=np.float64), nan=-1.0)
    return torch.from_numpy(values)


def importance(population: Population) -> Tensor:
    """What neurons add to the similarity of pairs (n_trials, n_neurons), by slope times response.

    0 where a neuron was not recorded.
    """
    pairs = population.labels[None]
    parts = [v[0] for _, v in contributions(population, pairs, "gradient", population.mean)]
    return torch.where(population.recorded, torch.cat(parts), 0).cpu().double()


def places(scores: Tensor) -> Tensor:
    """Place of each neuron (..., n_neurons) among all, 0 for the highest; of equals by their order.

    Parameters
    ----------
    scores : Tensor of shape (..., n_neurons)

    Returns
    -------
    Tensor of int of this shape
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order.argsort(-1)


def random_places(shape: Sequence[int], rng: np.random.Generator, device: Any) -> Tensor:
    """Places at random, as `places` gives them.

    Parameters
    ----------
    shape : (int, ..., int)
        The last is the number of neurons.
    rng : Generator
    device : torch.device

    Returns
    -------
    Tensor of int of this shape
    """
    return torch.from_numpy(rng.random(tuple(shape)).argsort(-1).argsort(-1)).to(device)
