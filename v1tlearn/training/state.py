"""The training state: one plain dict of tensors, numbers and lists, enough to go on exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def new_state(rng: dict[str, Any]) -> dict[str, Any]:
    """State before the first epoch.

    Parameters
    ----------
    rng : dict
        Random number states, see `v1tlearn.training.rng`.

    Returns
    -------
    dict
        ``epoch`` (int), ``history`` (list of records), ``model``, ``best``, ``optimizer``,
        ``schedule``, ``average`` (None before training, the last one also where weights are not
        averaged) and ``rng``. ``model`` holds the weights after the last epoch, ``best`` those
        with the highest validation score, which are of ``best_epoch``, 0 before the first.
        ``stop_reason`` says why the last run ended, None while it goes on.
    """
    return {
        "epoch": 0,
        "history": [],
        "model": None,
        "best": None,
        "best_epoch": 0,
        "optimizer": None,
        "schedule": None,
        "average": None,
        "finished": False,
        "stop_reason": None,
        "rng": rng,
    }


def copy_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers, detached from the module that goes on changing."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def not_finite(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of weights and buffers that hold NaN or infinite values."""
    return [name for name, value in weights.items() if not value.isfinite().all()]


def map_tensors(tree: Any, function: Any) -> Any:
    """Apply a function to every tensor in nested dicts, lists and tuples."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(value, function) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(value, function) for value in tree)
    return tree
