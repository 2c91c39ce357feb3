"""From parameters and a description of the mice to an estimator that counts as fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from v1tlearn.estimators._modules import make_model
from v1tlearn.training import initial_rng, new_state, private_rng

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor

E = TypeVar("E", bound="EncodingRegressor")


def assemble(
    estimator: E,
    description: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> E:
    """Give an estimator its model, untrained or with given weights.

    Parameters
    ----------
    estimator : EncodingRegressor
        Changed in place; what an earlier fit left is replaced.
    description : dict
        Fitted attributes by name, as `v1tlearn.estimators._tensors.describe` returns them.
    weights : dict of str to Tensor, optional
        State of the module; without it the initial weights that the seed gives.
    seed : int, default=0
        Of the initial weights and of the training to come.

    Returns
    -------
    EncodingRegressor
        The same estimator.
    """
    for name in ("feature_names_in_", "device_"):
        estimator.__dict__.pop(name, None)
    estimator.__dict__.update(description)
    estimator.core_frozen_ = False
    estimator.seed_ = seed
    estimator.parameters_ = estimator.get_params(deep=False)
    rng = initial_rng(seed)
    with private_rng(rng):
        estimator.module_ = make_model(estimator)
    if weights is not None:
        estimator.module_.load_state_dict(weights)
    estimator.module_.eval()
    estimator.state_ = new_state(rng)
    return estimator
