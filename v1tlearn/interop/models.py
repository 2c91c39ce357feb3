"""From parameters, mice and arrays of a checkpoint to a fitted estimator."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from v1tlearn._opening import reading
from v1tlearn.datasets.schema import BEHAVIOR_NAMES
from v1tlearn.estimators._build import begin, bounded_by
from v1tlearn.estimators._fitted import Fitted, Mouse, plain_labels
from v1tlearn.estimators.base_encoding import BaseEncodingRegressor
from v1tlearn.interop.arrays import Arrays, fill, readout_name
from v1tlearn.interop.safe_files import read_checkpoint, read_npz
from v1tlearn.interop.statistics import Known, scaling, used_names
from v1tlearn.nn import EncodingModel
from v1tlearn.preprocessing.statistics import PUPIL_POSITION

E = TypeVar("E", bound=BaseEncodingRegressor)

_POSITION_TOLERANCE = 1e-3  # of the largest coordinate
_WRAPPERS = ("model", "state_dict", "model_state_dict")  # of a state in a checkpoint
_SPREADS = {(2, 2): "full", (1, 2): "uncorrelated", (1, 1): "isotropic"}


def as_model(origin: str) -> AbstractContextManager[None]:
    """Name the files in whatever goes wrong when a model is read from their arrays."""
    return reading(origin, "is no model that these could be", "is it of another kind?")


def read_state(source: str | os.PathLike | Mapping[str, Any], name: str) -> Arrays:
    """Read the state of a model from a file, or from the argument of that name."""
    if not isinstance(source, str | os.PathLike):
        return Arrays(_unwrapped(source), name)
    path = Path(source)
    content = read_npz(path) if path.suffix == ".npz" else read_checkpoint(path)
    try:
        return Arrays(_unwrapped(content), str(path))
    except TypeError as error:
        raise ValueError(f"{error} Save the state_dict() of the model alone.") from error


def _unwrapped(content: Any) -> Any:
    """State of the model in a checkpoint that holds exactly one."""
    if not isinstance(content, Mapping):
        return content
    found = [content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    return found[0] if len(found) == 1 else content


def read_readouts(
    arrays: Arrays, prefix: str, mice: Sequence[str], features: str = "features"
) -> tuple[dict[str, Any], dict[str, int]]:
    """Read from the arrays what readouts a model has."""
    n_neurons, kinds = {}, {}
    for mouse in mice:
        base = f"{prefix}{mouse}."
        for name, why in (
            ("scales", "features shared between neurons"),
            ("feature_sharing_index", "features shared between neurons"),
            ("grid_sharing_index", "positions shared between neurons"),
        ):
            if base + name in arrays:
                raise ValueError(
                    f"{arrays.origin}: the readout of mouse {mouse!r} has {why} ({base + name}), "
                    "which these models have not."
                )
        n_neurons[mouse] = arrays.get(base + features, 4).shape[-1]
        sigma = tuple(arrays.get(base + "sigma", 4).shape[2:])
        if sigma not in _SPREADS:
            raise ValueError(
                f"{arrays.origin}: {base + 'sigma'!r} ends in the shape {sigma}: expected one of "
                f"{list(_SPREADS)}."
            )
        kinds[mouse] = {"gaussian": _SPREADS[sigma], **_position_parameters(arrays, base)}
    with_network = [m for m in mice if kinds[m]["position_network"]]
    merged = dict(kinds[with_network[0]] if with_network else kinds[mice[0]])
    for mouse, kind in kinds.items():
        for name, value in kind.items():
            if name != "position_network" and value != merged[name]:
                raise ValueError(
                    f"{arrays.origin}: {name} of mouse {mouse!r} is {value!r}, of others "
                    f"{merged[name]!r}, but it is one for all mice here. Load the mice one by one."
                )
    return merged, n_neurons


def _position_parameters(arrays: Arrays, base: str) -> dict[str, Any]:
    layers = sorted(map(int, arrays.parts(f"{base}mu_transform.")))
    if not layers:
        arrays.get(base + readout_name("free_mu"), 4)
        return {"position_network": False}
    weights = [arrays.get(f"{base}mu_transform.{i}.weight", 2) for i in layers]
    widths = {len(weight) for weight in weights[:-1]}
    if len(widths) > 1:
        raise ValueError(
            f"{arrays.origin}: the hidden layers of {base}mu_transform have "
            f"{[len(weight) for weight in weights[:-1]]} units: expected equal numbers."
        )
    out = {"position_network": True, "position_dims": weights[0].shape[1]}
    out["position_hidden_layers"] = len(weights) - 1
    return out | ({"position_hidden_units": widths.pop()} if widths else {})


def read_source_grids(
    arrays: Arrays, prefix: str, mice: Sequence[str]
) -> dict[str, torch.Tensor | None]:
    """Look up the positions that the position networks of the readouts see."""
    return {
        mouse: arrays.get(f"{prefix}{mouse}.{readout_name('positions')}", 2)
        if f"{prefix}{mouse}.mu_transform.0.weight" in arrays
        else None
        for mouse in mice
    }


def read_convolutions(arrays: Arrays, n_channels_read_out: int) -> dict[str, Any]:
    """Read from the arrays what a convolutional core is like, and bring variants to one form.

    Batch normalisation without weights gets those of the layers that stand for them, or 1 and 0;
    the bias of an ordinary convolution goes into the running mean that is subtracted next.
    """
    layers = arrays.parts("core.features.")
    if layers != [f"layer{i}" for i in range(len(layers))]:
        raise ValueError(
            f"{arrays.origin}: the core has the layers {layers}: expected 'layer0' on."
        )
    first = arrays.get("core.features.layer0.conv.weight", 4)
    channels, input_channels, kernel, width = first.shape
    out: dict[str, Any] = {
        "n_layers": len(layers),
        "hidden_channels": channels,
        "input_kernel": kernel,
        "input_channels": input_channels,
    }
    if kernel != width:
        raise ValueError(f"{arrays.origin}: the first filters are {kernel} x {width} pixels large.")
    if n_channels_read_out != channels:
        raise ValueError(
            f"{arrays.origin}: the readouts have {n_channels_read_out} features, the last layer of "
            f"the core {channels} channels. Readouts of several layers at once (stack) are not "
            "among these models."
        )
    if len(layers) > 1:
        base = "core.features.layer1."
        separable = f"{base}ds_conv.spatial_conv.weight" in arrays
        spatial = f"{base}{'ds_conv.spatial_conv' if separable else 'conv'}.weight"
        out |= {"depth_separable": separable, "hidden_kernel": arrays.get(spatial, 4).shape[-1]}
        out["bias"] = f"{base}ds_conv.in_depth_conv.bias" in arrays if separable else True
    for layer in layers:
        complete_norm(arrays, f"core.features.{layer}.", channels)
    return out


def complete_norm(arrays: Arrays, base: str, channels: int) -> None:
    """Bring variants of the batch normalisation of a layer to one form."""
    if f"{base}norm.running_mean" not in arrays:
        raise ValueError(
            f"{arrays.origin}: {base[:-1]} has no batch normalisation, which all layers of these "
            "models have."
        )
    halves = [f"norm.{name}" for name in ("weight", "bias") if f"{base}norm.{name}" in arrays]
    if len(halves) == 1:
        raise ValueError(
            f"{arrays.origin}: {base[:-1]} has {halves[0]} alone: expected norm.weight and "
            "norm.bias, or neither. Is a part of the model missing?"
        )
    for name, other, constant in (
        ("weight", "scale.scale", torch.ones(channels)),
        ("bias", "bias.bias", torch.zeros(channels)),
    ):
        stands_for = arrays.take(base + other).reshape(-1) if base + other in arrays else constant
        if f"{base}norm.{name}" not in arrays:
            arrays.put(f"{base}norm.{name}", stands_for)
        elif stands_for is not constant:
            raise ValueError(
                f"{arrays.origin}: {base[:-1]} has both norm.{name} and {other}: expected one."
            )
    if f"{base}norm.num_batches_tracked" not in arrays:
        arrays.put(f"{base}norm.num_batches_tracked", torch.tensor(0))
    if f"{base}conv.bias" in arrays:
        mean = arrays.take(f"{base}norm.running_mean")
        arrays.put(f"{base}norm.running_mean", mean - arrays.take(f"{base}conv.bias"))


@torch.inference_mode(False)  # whatever the caller's mode is: the model may train on
def build(
    estimator: E,
    arrays: Arrays,
    name_of: Callable[[str, EncodingModel], str],
    *,
    known: Mapping[str, Known],
    n_neurons: Mapping[str, int],
    image_shape: tuple[int, int, int],
    core_columns: Sequence[str],
    source_grids: Mapping[str, torch.Tensor | None],
    behavior_names: Sequence[str] | None = None,
    seed: int = 0,
) -> E:
    """Make an estimator fitted, with the weights of a checkpoint."""
    mice = list(n_neurons)
    pupil = list(PUPIL_POSITION) if estimator.shift != "none" else []
    needed = list(dict.fromkeys([*core_columns, *pupil]))
    if estimator.shift == "both_behavior":
        needed = list(BEHAVIOR_NAMES)
    recorded = any(one.image_shape is not None for one in known.values())
    assumed = bool(needed) and behavior_names is None and not recorded
    names = used_names(known, needed, behavior_names)
    if core_columns:
        published = {mouse: list(BEHAVIOR_NAMES) for mouse in mice}
        _set_columns(estimator, list(core_columns), published if assumed else names)
    if estimator.shift == "both_behavior":
        _check_order(names, needed)
    estimator.standardize = any(one.of_inputs for one in known.values())
    for mouse, one in known.items():
        if one.image_shape is not None and one.image_shape != tuple(image_shape):
            raise ValueError(
                f"mouse {mouse!r}: stimuli of the recording have the shape {one.image_shape} "
                f"(channels, height, width), the model takes {tuple(image_shape)}. Bring them to "
                "it first: Trials with Grayscale or ResizeStimuli."
            )
    animals = {
        m: Mouse(
            n_neurons=n_neurons[m],
            behavior_names=names[m],
            used_columns=[n for n in names[m] or [] if n in needed],
            position=_positions(known[m], source_grids[m], m),
            labels=plain_labels(known[m].neurons),
            statistics=scaling(known[m], names[m], m, n_neurons[m]),
        )
        for m in mice
    }
    fitted = Fitted(
        parameters=estimator.get_params(deep=False),
        mice=animals,
        image_shape=image_shape,
        behavior_mode=estimator.behavior_mode,
        core_columns=list(core_columns),
        columns_assumed=assumed,
        images_told=all("image" in one.pairs for one in known.values()),
        seed=seed,
    )
    with as_model(arrays.origin), bounded_by(arrays.tensors()):
        model, state = begin(type(estimator)._recipe(fitted.parameters), fitted)
        fill(model, arrays, lambda name: name_of(name, model))
    return estimator._become(fitted, model, state)


def _set_columns(
    estimator: BaseEncodingRegressor, wanted: list[str], names: Mapping[str, list[str] | None]
) -> None:
    """Choose the parameter that gives these columns in this order; their names if none does."""
    for choice in (estimator.behavior_columns, "all", "non_pupil"):
        dropped = PUPIL_POSITION if choice == "non_pupil" else ()
        chosen = [[c for c in columns or [] if c not in dropped] for columns in names.values()]
        if all(columns == wanted for columns in chosen):
            estimator.behavior_columns = choice
            return
    estimator.behavior_columns = wanted


def _check_order(names: Mapping[str, list[str] | None], needed: list[str]) -> None:
    order = [name for name in needed if name not in PUPIL_POSITION]
    for mouse, columns in names.items():
        if [name for name in columns or [] if name not in PUPIL_POSITION] != order:
            raise ValueError(
                f"mouse {mouse!r}: all behaviour moves the crop (shift='both_behavior'), in the "
                f"order {order}, but its columns are {columns}."
            )


def _positions(known: Known, grid: torch.Tensor | None, mouse: str) -> np.ndarray | None:
    """Positions in micrometres where a recording has them, else as the network sees them."""
    if grid is None:
        return None
    centred = grid.double().numpy()
    if known.positions is None:
        return centred.astype(np.float32)
    recorded = np.asarray(known.positions, dtype=np.float64)
    if recorded.shape[1] < centred.shape[1]:
        raise ValueError(
            f"mouse {mouse!r}: positions of the recording have {recorded.shape[1]} axes, those of "
            f"the model {centred.shape[1]}."
        )
    ours = recorded[:, : centred.shape[1]] - recorded[:, : centred.shape[1]].mean(axis=0)
    extent = np.abs(ours).max()
    ours = ours / extent if extent > 0 else ours
    if np.abs(ours - centred).max() > _POSITION_TOLERANCE:
        raise ValueError(
            f"mouse {mouse!r}: the neurons of the recording lie elsewhere than those of the model: "
            "they are others, or in another order. Give the recording that the model was trained "
            "on, or statistics as a dict."
        )
    return np.asarray(known.positions)
