"""Responses that come to a fitted model by themselves, brought to the neurons that it knows.

Dimensions and labels of labelled arrays are used or refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from v1tlearn._models import by_text
from v1tlearn._values import as_dims, as_names, as_responses, labels_along, order_like
from v1tlearn.estimators._like_fit import told_apart
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials._places import in_trials


class Known(Protocol):
    """What a model knows of the neurons of one mouse, such as `Mouse` does."""

    @property
    def n_neurons(self) -> int:
        """How many there were at `fit`."""

    @property
    def unit_ids(self) -> Any:
        """Their ids, or None."""


class Population(NamedTuple):
    """Responses of each mouse (trials, neurons), and the places of their trials in all."""

    by_mouse: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]

    @property
    def order(self) -> np.ndarray:
        """Which of the trials, mouse by mouse, comes at each place."""
        return np.argsort(np.concatenate(list(self.rows.values())))


def read_population(mice: Mapping[str, Known], responses: Any, mouse_ids: Any) -> Population:
    """Bring responses to one matrix per mouse, with the neurons in the order of those at `fit`."""
    if isinstance(responses, Trials | Responses | Mapping) and mouse_ids is not None:
        raise TypeError(
            f"mouse_ids={mouse_ids!r} came beside a {type(responses).__name__}, which tells whose "
            "the responses are: leave mouse_ids out."
        )
    if isinstance(responses, Trials):
        responses = responses.responses
    if isinstance(responses, Responses):
        _check_known(responses.mice, mice)
        given = {mouse: _of_view(responses, mouse, mice[mouse]) for mouse in responses.mice}
        rows = {mouse: responses.rows(mouse)[0] for mouse in responses.mice}
    else:
        if not isinstance(responses, Mapping):
            responses = {_whose(mouse_ids, list(mice)): responses}
        given = by_text("responses", responses)
        _check_known(given, mice)
        given = {mouse: _of_array(own, mouse, mice[mouse]) for mouse, own in given.items()}
        ends = np.cumsum([0, *map(len, given.values())])
        rows = {mouse: np.arange(*ends[i : i + 2]) for i, mouse in enumerate(given)}
    if not given or not all(map(len, given.values())):
        raise ValueError("there are no responses: expected those of at least one trial.")
    for mouse, own in given.items():
        check_recorded(own, mouse, np.arange(len(own)))
    return Population(given, rows)


def check_recorded(responses: np.ndarray, mouse: str, rows: np.ndarray) -> None:
    """Refuse trials of which no response was recorded: they would pass for the mean."""
    if responses.dtype.kind != "f":
        return
    lost = np.isnan(responses).all(axis=1)
    if lost.any():
        raise ValueError(
            f"mouse {mouse!r}: no response was recorded in {in_trials(rows[lost])}, all are NaN: "
            "leave these trials out."
        )


def _check_known(came: Collection[str], mice: Mapping[str, Known]) -> None:
    for mouse in came:
        if mouse not in mice:
            raise ValueError(f"unknown mouse {mouse!r}: this model was fitted on {list(mice)}.")


def _whose(mouse_ids: Any, known: list[str]) -> Hashable:
    """Name the mouse that an array is of."""
    if mouse_ids is None:
        if len(known) > 1:
            raise ValueError(
                f"mouse_ids is missing: this model has the mice {known}. Say whose responses these "
                "are, or give a dict per mouse."
            )
        return known[0]
    if np.ndim(mouse_ids):
        raise TypeError(
            f"mouse_ids is a {type(mouse_ids).__name__}: expected the id of one mouse, whose "
            "responses an array holds; those of several mice are given as a dict per mouse."
        )
    return as_names([mouse_ids], "mouse_ids")[0]


def _of_view(responses: Responses, mouse: str, known: Known) -> np.ndarray:
    values = _shaped(responses.get(mouse), mouse, known)
    found = responses.neuron_labels(mouse).get("neuron")
    if difference := told_apart(known.unit_ids, found):
        raise ValueError(
            f"mouse {mouse!r}: the responses are not of the neurons that the model was fitted on: "
            f"{difference}. Select those of fit, in their order."
        )
    return values


def _of_array(values: Any, mouse: str, known: Known) -> np.ndarray:
    name = f"mouse {mouse!r}: responses"
    values = as_dims(values, ("trial", "neuron"), name)
    ids = None if known.unit_ids is None else pd.Index(known.unit_ids)
    found = labels_along(values, "neuron")
    matrix = _shaped(as_responses(values, name), mouse, known)
    told = f"{name} are of other neurons than those of fit"
    order = order_like(ids, found, told, names=_SIDES)
    return matrix if order is None else matrix[:, order]


_SIDES = ("those of fit", "what came")


def _shaped(values: np.ndarray, mouse: str, known: Known) -> np.ndarray:
    if values.ndim != 2 or values.shape[1] != known.n_neurons:
        raise ValueError(
            f"mouse {mouse!r}: responses have the shape {values.shape}, expected (trials, "
            f"{known.n_neurons} neurons), those of fit in their order."
        )
    return values
