"""Controls: images that were not seen, and responses whose trials are mixed neuron by neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from v1tlearn._values import plain
from v1tlearn.training import draw_seed


def generator(random_state: Any) -> np.random.Generator:
    """Random numbers of one call.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None

    Returns
    -------
    Generator
    """
    return np.random.default_rng(draw_seed(plain(random_state)))


def other_images(labels: Tensor, n_images: int, rng: np.random.Generator) -> Tensor:
    """Pair every trial with an image that it does not show, repeats with the same one.

    Parameters
    ----------
    labels : Tensor of int of shape (n_trials,)
    n_images : int
        At least 2.
    rng : Generator

    Returns
    -------
    Tensor of int of shape (n_trials,)
    """
    order = rng.permutation(n_images)
    other = np.empty(n_images, dtype=np.int64)
    other[order] = np.roll(order, int(rng.integers(1, n_images)))
    return torch.from_numpy(other).to(labels.device)[labels]


def shuffled_trials(responses: Tensor, rng: np.random.Generator) -> Tensor:
    """Mix the trials of every neuron on its own: its responses stay, what they have in common goes.

    Parameters
    ----------
    responses : Tensor of shape (n_trials, n_neurons)
    rng : Generator

    Returns
    -------
    Tensor of this shape
    """
    order = rng.permuted(np.arange(len(responses))[:, None].repeat(responses.shape[1], 1), axis=0)
    return responses.gather(0, torch.from_numpy(order).to(responses.device))
