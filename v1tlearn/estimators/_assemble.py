"""From parameters and a description of the mice to an estimator that counts as fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from v1tlearn.estimators._modules import make_model
from v1tlearn.training import initial_rng, isolated_rng, new_state

if TYPE_CHECKING:
    from v1tlearn.estimators.base import EncodingRegressor

E = TypeVar("E", bound="EncodingRegressor")


def assemble(
    estimator: E,
    description: Mapping[str, Any],
    seed: int = 0,
) -> E:
    """Give an estimator its model, untrained.

    Parameters
    ----------
    estimator : EncodingRegressor
        Changed in place; what an earlier fit left is replaced.
    description : dict
        Fitted attributes by name, as `v1tlearn.estimators._tensors.describe` returns them.
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
    with isolated_rng(rng, torch.device("cpu")):
        estimator.module_ = make_model(estimator)
    estimator.module_.eval()
    estimator.state_ = new_state(rng)
    return estimator
