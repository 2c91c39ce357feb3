"""What a fitted model knows of its animals: one frozen value, of which all else is a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

PUPIL = ("pupil_x", "pupil_y")


@dataclass(frozen=True, eq=False)
class Mouse:
    """What a model knows of one animal.

    Attributes
    ----------
    n_neurons : int
    behavior_names : list of str or None
        Behaviour columns at `fit`, in their order; None without behaviour.
    used_columns : list of str
        Those without which the model cannot predict.
    position : ndarray of shape (n_neurons, 2 or 3) or None
        Cortical positions in micrometres.
    labels : dict of str to ndarray of shape (n_neurons,)
        What was told of the neurons: "neuron", the unit ids, "area", "layer"...
    statistics : dict of str to float or ndarray
        What inputs and responses are scaled with: "response_mean", "response_scale" (n_neurons,),
        "image_mean", "image_std", and, where behaviour is standardised, "behavior_shift" and
        "behavior_scale", one per behaviour column.
    """

    n_neurons: int
    behavior_names: list[str] | None
    used_columns: list[str]
    position: np.ndarray | None
    labels: dict[str, np.ndarray]
    statistics: dict[str, Any]

    @property
    def unit_ids(self) -> np.ndarray | None:
        """Unit ids of the neurons, where they were told."""
        return self.labels.get("neuron")


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a model knows of its animals, and the parameters that it was built with.

    Attributes
    ----------
    parameters : dict
        Of the estimator, at the time it was built.
    mice : dict of str to Mouse
        In the order of the recordings.
    image_shape : (int, int, int)
        Channels, height and width of the stimuli at `fit`.
    channels : list of str or None
        Names of the channels, where any mouse's recording told them.
    behavior_mode : str
        What "auto" became.
    core_columns : list of str
        Behaviour that enters the core.
    columns_assumed : bool
        Whether nobody told the behaviour columns, so that names decide.
    images_told : bool
        Whether the statistics of the images at training are known: without them images of a model
        that was opened have to come standardised.
    core_frozen : bool
    seed : int
    frame_rate : float or None
        Frames per second of the movies at `fit`, where they were movies and all mice saw the same
        rate.
    trained_on : dict of str to dict, or None
        Per mouse the number of "trials" of the last training, of "neurons", and their "hash".
    ranges : dict of str to dict, or None
        Per mouse in which range "stimuli" and "behaviors" were at fit, see `_ranges.ranges_of`.
    """

    parameters: Mapping[str, Any]
    mice: Mapping[str, Mouse]
    image_shape: tuple[int, int, int]
    behavior_mode: str
    core_columns: list[str]
    channels: list[str] | None = None
    columns_assumed: bool = False
    images_told: bool = True
    core_frozen: bool = False
    seed: int = 0
    frame_rate: float | None = None
    trained_on: Mapping[str, Mapping[str, Any]] | None = None
    ranges: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def moving_columns(self) -> tuple[str, ...]:
        """Behaviour that moves readout or stimulus."""
        return shift_columns(self.parameters["shift_columns"])

    def moves(self, mouse: str) -> bool:
        """Whether a mouse has the behaviour that moves readout or stimulus, and these move."""
        names = self.mice[mouse].behavior_names or []
        return self.parameters["shift"] != "none" and set(self.moving_columns) <= set(names)


def shift_columns(wanted: Any) -> tuple[str, ...]:
    """Decide on the behaviour that moves readout or stimulus: "pupil" is its two coordinates."""
    return PUPIL if isinstance(wanted, str) else tuple(str(column) for column in wanted)


def plain_labels(labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring labels of neurons to numbers and text, which every file can hold."""
    out = {}
    for name, values in labels.items():
        if values.dtype.kind in "biuf":
            values = values.astype(values.dtype.newbyteorder("="))
        elif values.dtype.kind != "U":
            values = np.array([str(value) for value in values])
        out[name] = values
    return out


def to_tree(fitted: Fitted) -> dict[str, Any]:
    """Turn a description into plain values and arrays."""
    mice = {name: dict(vars(mouse)) for name, mouse in fitted.mice.items()}
    return {**vars(fitted), "parameters": dict(fitted.parameters), "mice": mice}


def from_tree(tree: Mapping[str, Any]) -> Fitted:
    """Turn what `to_tree` gave into a description."""
    mice = {name: Mouse(**one) for name, one in tree["mice"].items()}
    for name, mouse in mice.items():  # before readouts are made for them
        n_scales = len(mouse.statistics["response_scale"])
        if mouse.n_neurons != n_scales:
            raise ValueError(
                f"mouse {name!r} has {mouse.n_neurons} neurons, but responses of {n_scales} are "
                "scaled"
            )
    return Fitted(**{**tree, "mice": mice})
