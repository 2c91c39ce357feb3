"""A control: responses whose trials are mixed neuron by neuron."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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
