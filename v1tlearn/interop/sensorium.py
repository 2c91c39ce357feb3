"""Opening saved models of Sensorium 2022 (sinzlab/sensorium, on neuralpredictors)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from v1tlearn._warn import warn
from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.estimators import CNNRegressor, LNRegressor
from v1tlearn.interop.arrays import Arrays, sensorium_name
from v1tlearn.interop.models import (
    as_model,
    build,
    read_convolutions,
    read_readouts,
    read_source_grids,
    read_state,
)
from v1tlearn.interop.statistics import Known, read_statistics, told_names, told_shape
from v1tlearn.preprocessing.statistics import PUPIL_POSITION

_SHIFTER = {"0.weight": (5, 2), "2.weight": (5, 5), "4.weight": (2, 5)}


def load_sensorium(
    state_dict: str | os.PathLike | Mapping[str, Any],
    statistics: Any = None,
    *,
    linear: bool | None = None,
    image_shape: tuple[int, int, int] | None = None,
    behavior_names: Sequence[str] | None = None,
) -> CNNRegressor:
    """Open a saved CNN or LN model of Sensorium 2022 as a fitted estimator.

    Sizes are read from the arrays: layers, channels and filters, with or without depth-separable
    convolutions and their biases, position networks of any depth or free positions, any spread,
    with or without shifters. Nothing in a file is executed.

    Parameters
    ----------
    state_dict : path or mapping of str to array
        ``model.state_dict()`` of sinzlab/sensorium, or the file it was saved to: names are
        ``core.X``, ``readout.{data_key}.X`` and ``shifter.{data_key}.mlp.X``. A file ends in
        ``.npz`` or was written by torch. A checkpoint may also hold it under "model",
        "state_dict" or "model_state_dict".
    statistics : dict, DataTree, Dataset or Trials, optional
        What the data were standardised with, see `load_v1t`. Mice are called by their data keys,
        as `read_sensorium` does, or by their letters in the paper. Recordings also tell
        `image_shape` and `behavior_names`.
    linear : bool, optional
        The model is an LN model. That leaves no trace in the arrays: without being told, a model
        counts as a CNN, with a warning where the name of its file says LN.
    image_shape : (int, int, int), optional
        Channels, height and width of the stimuli, in pixels. Without recordings the default is
        (1, 144, 256) for a core of one input channel, and of four, the image and three planes of
        behaviour. Stimuli of 144 x 256 are resized to 36 x 64, as published, and may come resized;
        any others are taken as they are.
    behavior_names : sequence of str, optional
        Behaviour columns that trials will bring, in this order. Without them, or recordings, the
        columns of the published data are assumed, see `load_v1t`. The core gets those that are no
        pupil position, or all of them if it has as many channels.

    Returns
    -------
    CNNRegressor or LNRegressor
        Fitted, with the parameters of the preset "sensorium2022". With statistics `predict` takes
        and gives data units, without them standardised ones.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If this is no mapping from names to arrays.
    ValueError
        If the file is damaged or asks for code to be run; if an argument is needed that arrays do
        not tell; if the model has parts that these models have not, such as readouts of several
        layers, shared features, skip connections or layers without batch normalisation.

    See Also
    --------
    load_v1t : Models of the published V1T code.

    Notes
    -----
    Some options leave no trace in the arrays either, and are taken to be the published ones: no
    padding of the first layer, no dilation, ELU, and a position network that ends in tanh.

    References
    ----------
    Willeke et al., "The Sensorium competition on predicting large-scale mouse primary visual
    cortex activity", arXiv:2206.08666, 2022; code at https://github.com/sinzlab/sensorium.
    """
    if linear is None and _named_linear(state_dict):
        warn(
            f"{state_dict} is called as an LN model is, but is opened as a CNN: arrays do not tell "
            "whether layers are linear. Say linear=True, or linear=False if it is a CNN indeed."
        )
    arrays = _read_arrays(state_dict)
    mice = arrays.parts("readout.")
    if not mice:
        raise ValueError(
            f"{arrays.origin} has no readout: expected names like 'readout.21067-10-18.sigma', the "
            "state_dict() of a whole model."
        )
    with as_model(arrays.origin):
        readouts, n_neurons = read_readouts(arrays, "readout.", mice, "_features")
        n_features = arrays.get(f"readout.{mice[0]}._features").shape[1]
        parameters = read_convolutions(arrays, n_features) | readouts
        parameters["shift"] = _shift(arrays, mice)
        source_grids = read_source_grids(arrays, "readout.", mice)
    known = read_statistics(statistics, n_neurons)
    input_channels = parameters.pop("input_channels")
    image_shape = _image_shape(image_shape, known, input_channels)
    told = told_names(behavior_names)
    names = _behavior_names(known) if told is None else told
    core_columns = _core_columns(input_channels - image_shape[0], names)
    parameters["behavior_mode"] = "channels" if core_columns else "none"
    arrays.drop(lambda name: name.startswith("core._input_weights_regularizer."))
    _complete_readouts(arrays, mice)
    kind = LNRegressor if linear else CNNRegressor
    return build(
        kind.from_preset("sensorium2022", **parameters),
        arrays,
        sensorium_name,
        known=known,
        n_neurons=n_neurons,
        image_shape=image_shape,
        core_columns=core_columns,
        source_grids=source_grids,
        behavior_names=told,
    )


def _named_linear(state_dict: Any) -> bool:
    if not isinstance(state_dict, str | os.PathLike):
        return False
    words = re.split(r"[^a-z]+", Path(os.fsdecode(state_dict)).stem.lower())
    return "ln" in words or "linear" in words


def _read_arrays(state_dict: str | os.PathLike | Mapping[str, Any]) -> Arrays:
    arrays = read_state(state_dict, "state_dict")

    def new_name(name: str) -> str:  # older versions have no underscore
        is_old = name.startswith("readout.") and name.endswith(".features")
        return name.removesuffix("features") + "_features" if is_old else name

    arrays.rename(new_name)
    return arrays


def _image_shape(
    given: Sequence[int] | None, known: Mapping[str, Known], input_channels: int
) -> tuple[int, int, int]:
    recorded = {one.image_shape for one in known.values() if one.image_shape is not None}
    if given is not None:
        shape = told_shape(given)
    elif len(recorded) == 1:
        shape = recorded.pop()
    elif recorded:
        raise ValueError(f"stimuli of the recordings differ in shape: {sorted(recorded)}.")
    elif input_channels in (1, 4):
        shape = (1, 144, 256)
    else:
        raise ValueError(
            f"the core has {input_channels} input channels, and the arrays do not tell how many of "
            "them are channels of the image: pass image_shape=(channels, height, width)."
        )
    if shape[0] > input_channels:
        raise ValueError(
            f"image_shape has {shape[0]} channels, but the core takes {input_channels} in all."
        )
    return shape


def _behavior_names(known: Mapping[str, Known]) -> list[str]:
    recorded = [one.behavior_names for one in known.values() if one.image_shape is not None]
    return recorded[0] if recorded and recorded[0] else list(BEHAVIOR_NAMES)


def _core_columns(n_planes: int, names: list[str]) -> list[str]:
    others = [name for name in names if name not in PUPIL_POSITION]
    for columns in ([], others, names):
        if len(columns) == n_planes:
            return list(columns)
    raise ValueError(
        f"the core takes {n_planes} channels beside those of the image, but of the behaviour "
        f"columns {names} it would get {len(others)} without pupil position, or {len(names)}: pass "
        "behavior_names, or image_shape=(channels, height, width) if these are image channels."
    )


def _shift(arrays: Arrays, mice: Sequence[str]) -> str:
    having = arrays.parts("shifter.")
    if not having:
        return "none"
    if set(having) != set(mice):
        raise ValueError(
            f"{arrays.origin} has shifters of the mice {having}, readouts of {list(mice)}: "
            "expected shifters of all of them, or none."
        )
    for mouse in mice:
        base = f"shifter.{mouse}.mlp."
        found = {
            name: tuple(arrays.get(base + name).shape)
            for name in (f"{i}.weight" for i in arrays.parts(base))
        }
        if found != _SHIFTER:
            raise ValueError(
                f"{arrays.origin}: the shifter of mouse {mouse!r} has layers of the shapes "
                f"{list(found.values())}: expected perceptrons with the layers "
                f"{list(_SHIFTER.values())}, the published ones."
            )
    return "readout"


def _complete_readouts(arrays: Arrays, mice: Sequence[str]) -> None:
    """Readouts that were made without bias have one of zero here."""
    for mouse in mice:
        if f"readout.{mouse}.bias" not in arrays:
            features = arrays.get(f"readout.{mouse}._features")
            arrays.put(f"readout.{mouse}.bias", features.new_zeros(features.shape[-1]))
