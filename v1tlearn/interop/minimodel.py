"""Opening released full models and minimodels of Du et al. (2025)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import xarray as xr

from v1tlearn.estimators import FullModelRegressor
from v1tlearn.interop.arrays import Arrays, convolution_name
from v1tlearn.interop.models import as_model, build, complete_norm, read_state
from v1tlearn.interop.statistics import read_statistics, told_shape
from v1tlearn.nn import EncodingModel, two_layer_map
from v1tlearn.trials import Trials

_MOUSE = "mouse"
_READOUT = {"rows": "Wy", "columns": "Wx", "channels": "Wc", "bias": "bias"}


def load_minimodel(
    source: str | os.PathLike | Mapping[str, Any],
    statistics: Any = None,
    *,
    activation: str = "elu",
    pooling: str = "max",
    image_shape: tuple[int, int, int] | None = None,
) -> FullModelRegressor:
    """Open a released full model or minimodel as a fitted estimator of one animal, "mouse".

    Sizes are read from the arrays: layers, channels and filters, depth-separable or not, with or
    without their second pointwise convolutions, and neurons. Nothing in a file is executed.

    Parameters
    ----------
    source : path or mapping of str to array
        The state of a model of MouseLand/minimodel, or the file it was saved to: names are
        ``core.features.layer0.conv.weight``, ``core.features.layer1.ds_conv.X``,
        ``core.features.layer1.norm.X`` and ``readout.Wx``, ``Wy``, ``Wc``, ``bias``. A file ends in
        ``.npz`` or was written by torch.
    statistics : dict, DataTree, Dataset or Trials, optional
        What the data were scaled with: ``{"mouse": {"image": (mean, std), "response": (mean,
        std)}}``, either entry alone, too, or the recording of the animal, see `load_sensorium`.
        Without it images and responses count as scaled already. The published models see images
        that were z-scored with one mean and one standard deviation of all images, those of the test
        included, after cropping.
    activation : {"elu", "relu", "none"}, default="elu"
        Of the layers of a full model, which leaves no trace in the arrays; "none" is the
        linear-nonlinear one. A model of one neuron without second pointwise convolutions is a
        minimodel, whose layers have ReLU in any case.
    pooling : {"max", "mean", "stride"}, default="max"
        After the first layer, which leaves no trace either.
    image_shape : (int, int, int), optional
        Channels, height and width of the images. Without it, and without a recording, the sides are
        the even ones that give the maps which the readout takes.

    Returns
    -------
    FullModelRegressor
        Fitted, with the parameters of the preset "minimodel2025". With statistics `predict` takes
        and gives data units, without them scaled ones.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If this is no mapping from names to arrays.
    ValueError
        If the file is damaged or asks for code to be run; if arrays are missing, have other shapes
        than the rest of the model asks for, hold NaN, or have no place in such a model; if the
        readout is of rank 2 or more, whose published form is another one; if an argument is none of
        its values.

    See Also
    --------
    load_sensorium : Models of Sensorium 2022.

    Notes
    -----
    For minimodels on the loaded convolution give it as ``FrozenEstimator(full)``, of
    ``sklearn.frozen``: scikit-learn's `clone`, and with it every search and cross-validation,
    forgets the weights of a full model that is given as it is.

    References
    ----------
    Du et al., "Towards a simplified model of primary visual cortex", 2025; code and models at
    https://github.com/MouseLand/minimodel.
    """
    for name, value, allowed in (
        ("activation", activation, ("elu", "relu", "none")),
        ("pooling", pooling, ("max", "mean", "stride")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}.")
    arrays = read_state(source, "source")
    with as_model(arrays.origin):
        parameters = _read_layers(arrays)
        n_neurons, map_size = _read_readout(arrays, parameters["channels"][-1])
    if n_neurons == 1 and not parameters["pointwise_output"]:
        if activation == "none":
            raise ValueError(
                f"{arrays.origin} is a minimodel, whose layers have ReLU: activation='none' is for "
                "full models."
            )
        activation = "relu"
    parameters |= {"activation": activation, "pooling": pooling}
    called = _name_of_the_one(statistics)
    known = {_MOUSE: read_statistics(statistics, {called: n_neurons})[called]}
    shape = known[_MOUSE].image_shape if image_shape is None else told_shape(image_shape)
    if shape is None:
        with as_model(arrays.origin):
            n_channels = arrays.get("core.features.layer0.conv.weight", 4).shape[1]
            height, width = _sides(map_size, parameters)
            shape = (n_channels, height, width)
    return build(
        FullModelRegressor.from_preset("minimodel2025", **parameters),
        arrays,
        _published_name,
        known=known,
        n_neurons={_MOUSE: n_neurons},
        image_shape=shape,
        core_columns=[],
        source_grids={_MOUSE: None},
    )


def _read_layers(arrays: Arrays) -> dict[str, Any]:
    """Parameters of the core that leave their traces in the arrays."""
    layers = arrays.parts("core.features.")
    if not layers or layers != [f"layer{i}" for i in range(len(layers))]:
        raise ValueError(
            f"{arrays.origin}: the core has the layers {layers}: expected 'layer0' on."
        )
    channels, kernels = [], []
    second = "core.features.layer1."
    separable = len(layers) == 1 or f"{second}conv.weight" not in arrays
    mixed = f"{second}ds_conv.out_depth_conv.weight" in arrays
    for i, layer in enumerate(layers):
        full = i == 0 or not separable
        name = f"core.features.{layer}.{'conv' if full else 'ds_conv.spatial_conv'}.weight"
        weight = arrays.get(name, 4)
        if weight.shape[2] != weight.shape[3]:
            raise ValueError(
                f"{arrays.origin}: {name!r} has filters of {weight.shape[2]} x {weight.shape[3]} "
                "pixels: expected square ones."
            )
        channels.append(weight.shape[0])
        kernels.append(weight.shape[2])
        complete_norm(arrays, f"core.features.{layer}.", weight.shape[0])
    return {
        "channels": tuple(channels),
        "kernels": tuple(kernels),
        "depth_separable": separable,
        "pointwise_output": mixed if len(layers) > 1 and separable else len(layers) > 1,
    }


def _read_readout(arrays: Arrays, n_channels: int) -> tuple[int, tuple[int, int]]:
    """Number of neurons, and the size of the maps they look at."""
    shapes = {name: tuple(arrays.get(f"readout.{name}", 3).shape) for name in ("Wy", "Wx", "Wc")}
    if any(shape[1] != 1 for shape in shapes.values()):
        raise ValueError(
            f"{arrays.origin}: the readout has the shapes {shapes}, of rank "
            f"{shapes['Wc'][1]}: expected rank 1. In the published form of others the ranks go "
            "through the non-linearity one by one, which these models do not."
        )
    if shapes["Wc"][2] != n_channels:
        raise ValueError(
            f"{arrays.origin}: 'readout.Wc' has {shapes['Wc'][2]} channels, the last layer of the "
            f"core {n_channels}."
        )
    return shapes["Wc"][0], (shapes["Wy"][2], shapes["Wx"][2])


def _sides(map_size: Sequence[int], parameters: Mapping[str, Any]) -> list[int]:
    """Find sides of images that give maps of this size, even ones if they can be."""
    kernels, sides = parameters["kernels"], []
    geometry = {name: parameters[name] for name in ("pooling", "depth_separable")}
    for wanted in map_size:
        fitting = []
        for side in range(1, 2 ** len(kernels) * (wanted + 2)):
            with suppress(ValueError):  # smaller than filters or pooling
                if two_layer_map((side, side), kernels, **geometry) == (wanted, wanted):
                    fitting.append(side)
        if not fitting:
            raise ValueError(
                f"the readout takes maps of {map_size[0]} x {map_size[1]} places, which no image "
                f"gives with filters of {kernels} pixels and pooling={parameters['pooling']!r}"
            )
        sides.append(min(fitting, key=lambda side: (side % 2, side)))
    return sides


def _published_name(name: str, model: EncodingModel) -> str:
    part, _, rest = name.partition(".")
    if part == "core":
        return f"core.{convolution_name(rest)}"
    return f"readout.{_READOUT[rest.rpartition('.')[2]]}"


def _name_of_the_one(statistics: Any) -> str:
    """What the animal is called in its statistics, where there is but one."""
    if isinstance(statistics, xr.Dataset | xr.DataTree):
        statistics = Trials(statistics)
    names = getattr(statistics, "mice", statistics if isinstance(statistics, Mapping) else ())
    return str(*names) if len(names) == 1 else _MOUSE
