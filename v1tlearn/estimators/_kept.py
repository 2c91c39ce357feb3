"""What is kept of an encoding model in a file or a pickle, and the model that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from v1tlearn.estimators import _files
from v1tlearn.estimators._build import Recipe, begin, bounded_by
from v1tlearn.estimators._fitted import Fitted, from_tree, to_tree
from v1tlearn.estimators._runs import Start
from v1tlearn.nn import EncodingModel
from v1tlearn.nn.cores.weight_names import renamed
from v1tlearn.training.state import copy_weights, not_finite

RecipeOf = Callable[[Mapping[str, Any]], Recipe]


def content_of(parameters: dict[str, Any], now: Start, precision: str | None) -> dict[str, Any]:
    """Give what is kept, as a tree of plain values, arrays and tensors."""
    seed = now.fitted.seed
    known = {**to_tree(now.fitted), "parameters": {**now.fitted.parameters}}
    if not isinstance(known["parameters"].get("random_state"), int | None):
        known["parameters"]["random_state"] = seed
    return {
        "parameters": _parameters(parameters, seed),
        "fitted": known,
        "weights": kept_weights(now.model, now.state),
        "state": now.state,
        "precision": precision,
    }


def check_parameters_can_be_kept(parameters: Mapping[str, Any]) -> None:
    """Refuse what no file holds, ahead of a training whose states are to be written."""
    _files.check({"parameters": _parameters(parameters, 0)})


def _parameters(parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
    # estimators inside are kept by the class that takes them
    out = {n: None if isinstance(v, BaseEstimator) else v for n, v in parameters.items()}
    if isinstance(out["random_state"], np.random.RandomState | np.random.Generator):
        out["random_state"] = seed
    return {**out, "device": "auto"}


def kept_weights(model: EncodingModel, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights that predict: while a training goes on, the best so far."""
    weights, last = model.state_dict(), state["model"]
    goes_on = last is not None and all(torch.equal(v, last[k]) for k, v in weights.items())
    return dict(state["best"] if goes_on else weights)


def opened(recipe_of: RecipeOf, content: Mapping[str, Any]) -> Start:
    """Make what a training goes on from of what `content_of` gave."""
    fitted, state = from_tree(content["fitted"]), content["state"]
    for weights in (content["weights"], state["model"] or {}, state["best"] or {}):
        if lost := not_finite(weights):
            raise ValueError(f"the weights {lost[:3]} hold NaN or infinite values")
    with bounded_by(content["weights"]):
        model = with_weights(recipe_of, fitted, content["weights"])
    known = {name: values.shape for name, values in model.state_dict().items()}
    for part in ("model", "best"):
        if state[part]:
            state[part] = renamed(state[part], known)
        weights = state[part] or {}
        if lost := [name for name, values in weights.items() if values.shape != known.get(name)]:
            raise ValueError(f"the model has no weights {lost[:3]} of these shapes")
    return Start(fitted, model, state)


def with_weights(
    recipe_of: RecipeOf, fitted: Fitted, weights: Mapping[str, torch.Tensor]
) -> EncodingModel:
    """Build the model of what is known, with weights of before."""
    model, _ = begin(recipe_of(fitted.parameters), fitted)
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    model.load_state_dict(renamed(weights, names))
    return model.eval()


def rebuilt(recipe_of: RecipeOf, now: Start) -> Start:
    """Make the model of a training that goes on with other penalties or other trained parts.

    Its weights are those that predict; the optimiser begins anew.
    """
    model = with_weights(recipe_of, now.fitted, now.model.state_dict())
    weights = {"model": copy_weights(model), "best": copy_weights(model)}
    anew = dict.fromkeys(("optimizer", "schedule", "average")) | {"finished": False}
    return Start(now.fitted, model, deepcopy(now.state) | weights | anew)
