"""Towers of the published DINA code as a fitted aligner."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from v1tlearn.estimators import DINAAligner
from v1tlearn.estimators._build import begin, bounded_by
from v1tlearn.estimators._fitted import Fitted, Mouse
from v1tlearn.interop.arrays import Arrays
from v1tlearn.interop.models import as_model, read_state
from v1tlearn.interop.statistics import told_shape
from v1tlearn.nn import AlignmentModel, MissingImageTower, MissingNeuralTower

_MOUSE = "mouse"
_BLOCK = {
    "pos_embed": "position",
    "norm1": "norm_in",
    "conv1": "conv_in",
    "norm_conv1": "conv_norm",
    "norm_sa1": "token_norm",
    "channel_up": "to_qkv",
    "norm_conv2": "cross_conv_norm",
    "cross_channel_up_conv": "cross_conv_qkv",
    "norm_sa2": "cross_token_norm",
    "cross_channel_up_sa": "cross_token_qkv",
    "fuse_channel_conv": "fuse_conv",
    "fuse_channel_sa": "fuse_tokens",
    "conv2": "conv_out",
    "norm2": "mlp_norm",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
_NEURAL = {
    "slope": "embedding.weight",
    "offset": "embedding.bias",
    "reader": "ff.weight",
    "reader_bias": "ff.bias",
    "to_query": "attention.w_q",
    "to_key": "attention.w_k",
    "to_value": "attention.w_v",
    "projection": "attention.w_concat",
    "to_map": "ff1",
}
_PER_NEURON = ("embedding", "ff")


def load_dina(
    image_state: str | os.PathLike | Mapping[str, Any] | None = None,
    neural_state: str | os.PathLike | Mapping[str, Any] | None = None,
    *,
    image_shape: tuple[int, int, int] = (1, 68, 270),
    map_size: tuple[int, int] = (16, 64),
    grid: tuple[int, int] | None = None,
    heads: int = 1,
    stage_heads: tuple[int, int] = (1, 2),
    stage_reductions: tuple[int, int] = (8, 4),
    cross_attention: str = "published",
    image_scale: tuple[float, float] = (0.0, 1.0),
    response_range: tuple[Any, Any] | None = None,
) -> DINAAligner:
    """Open the towers of the published DINA code as a fitted aligner of one animal, "mouse".

    Channels, blocks, neurons and layers are read from the arrays. Nothing in a file is executed.
    With one state alone the other tower is missing, not random: `transform_images` or
    `transform_responses` works, and what asks for the other tower raises
    `v1tlearn.nn.MissingTowerError`.

    Parameters
    ----------
    image_state : path or mapping of str to array, optional
        State of the image tower, or the file it was saved to (``.npz``, or by torch): names are
        ``base.patch_embed1.proj.weight``, ``base.blocks1.0.X``, ``my_conv.weight``. Stages after
        the second one have no influence, and are left out.
    neural_state : path or mapping of str to array, optional
        State of the neural tower: ``embedding.embedding_layers.0.weight``,
        ``attention.w_q.weight``, ``ff.embedding_layers.0.weight``, ``ff1.0.weight``; or with the
        layers of all neurons stacked, ``embedding.weight`` (neurons, length), ``ff.weight`` and
        biases.
    image_shape : (int, int, int), default=(1, 68, 270)
        Channels, height and width of the images.
    map_size : (int, int), default=(16, 64)
        Height and width of the maps.
    grid : (int, int), optional
        Of the map that the neural tower enlarges; half of `map_size` by default.
    heads : int, default=1
        Of the attention over neurons.
    stage_heads, stage_reductions : (int, int), default=(1, 2), (8, 4)
        Of the image tower; they leave no trace in the arrays.
    cross_attention : {"published", "stated"}, default="published"
        "published" is what the released code computes, and what its weights were trained with; see
        `v1tlearn.nn.MixBlock`.
    image_scale : (float, float), default=(0.0, 1.0)
        Mean and standard deviation that images are standardised with; the released code takes raw
        grey values.
    response_range : (ndarray, ndarray), optional
        Lowest and highest response of each neuron, which become 0 and 1; responses count as scaled
        already without.

    Returns
    -------
    DINAAligner
        Fitted, with the parameters of the preset "dina2026".

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If a state is no mapping from names to arrays, or none came.
    ValueError
        If a file is damaged or asks for code to be run; if arrays are missing, have other shapes
        than the rest asks for, hold NaN, or have no place in these towers.

    See Also
    --------
    load_sensorium : Encoding models of Sensorium 2022.

    References
    ----------
    Wang et al., arXiv 2605.04309, 2026; code at https://github.com/small-blingbling/DINA.
    """
    states = {"image_state": image_state, "neural_state": neural_state}
    if image_state is None and neural_state is None:
        raise TypeError("load_dina needs image_state, neural_state or both: none came.")
    image, neural = (None if s is None else read_state(s, name) for name, s in states.items())
    parameters: dict[str, Any] = {
        "map_size": tuple(map_size),
        "grid": tuple(max(1, side // 2) for side in map_size) if grid is None else tuple(grid),
        "n_heads": heads,
        "stage_heads": tuple(stage_heads),
        "stage_reductions": tuple(stage_reductions),
        "cross_attention": cross_attention,
    }
    n_neurons = 0
    if image is None:
        parameters |= {"image_tower": MissingImageTower, "train_image_tower": False}
    else:
        with as_model(image.origin):
            parameters |= _read_image(image)
    if neural is None:
        parameters["neural_tower"] = MissingNeuralTower
    else:
        with as_model(neural.origin):
            n_neurons = _read_neural(neural, parameters)
    estimator = DINAAligner.from_preset("dina2026", **parameters)
    estimator._validate_params()
    fitted = Fitted(
        parameters=estimator._plain_params(),
        mice={_MOUSE: _animal(n_neurons, image_scale, response_range)},
        image_shape=told_shape(image_shape),
        behavior_mode="none",
        core_columns=[],
    )
    towers = [tower for tower in (image, neural) if tower is not None]
    tensors = {f"{t.origin} {n}": w for t in towers for n, w in t.tensors().items()}
    with torch.inference_mode(False), as_model(towers[0].origin), bounded_by(tensors):
        model, state = begin(estimator._recipe(fitted.parameters), fitted)
        _fill(model, image, neural)
    return estimator._become(fitted, model, state)


def _read_image(arrays: Arrays) -> dict[str, Any]:
    """Parameters of the image tower; what comes after its second stage is dropped."""
    arrays.rename(lambda name: name.removeprefix("module."))
    kept = ("base.patch_embed1.", "base.patch_embed2.", "base.blocks1.", "base.blocks2.")
    arrays.drop(lambda name: name.startswith("base.") and not name.startswith(kept))
    weights = [arrays.get(f"base.patch_embed{stage}.proj.weight", 4) for stage in (1, 2)]
    depths = [arrays.parts(f"base.blocks{stage}.") for stage in (1, 2)]
    if any(blocks != [str(i) for i in range(len(blocks))] for blocks in depths):
        raise ValueError(f"{arrays.origin}: the stages have the blocks {depths}.")
    return {
        "stage_dims": tuple(len(weight) for weight in weights),
        "stage_depths": tuple(len(blocks) for blocks in depths),
        "map_channels": len(arrays.get("my_conv.weight", 4)),
    }


def _read_neural(arrays: Arrays, parameters: dict[str, Any]) -> int:
    """Number of neurons; their layers are stacked, and parameters of the tower added.

    Without an image tower it tells the channels of the maps, too.
    """
    arrays.rename(lambda name: name.removeprefix("module."))
    for part in _PER_NEURON:
        own = arrays.parts(f"{part}.embedding_layers.")
        if not own:
            continue
        for kind in ("weight", "bias"):
            names = [f"{part}.embedding_layers.{i}.{kind}" for i in range(len(own))]
            one_by_one = [arrays.take(name).reshape(-1) for name in names]
            if len(set(map(len, one_by_one))) > 1:
                raise ValueError(f"{arrays.origin}: the layers {names[0]}... differ in shape.")
            arrays.put(f"{part}.{kind}", torch.stack(one_by_one))
    if "ff.bias" in arrays:
        arrays.put("ff.bias", arrays.take("ff.bias").reshape(-1))
    n_neurons, embed_dim = arrays.get("embedding.weight", 2).shape
    layers = sorted(arrays.parts("ff1."), key=int)
    parameters["embed_dim"] = embed_dim
    parameters["hidden_units"] = tuple(len(arrays.get(f"ff1.{i}.bias", 1)) for i in layers[:-1])
    cells, grid = len(arrays.get(f"ff1.{layers[-1]}.bias", 1)), parameters["grid"]
    channels = parameters.setdefault("map_channels", max(1, cells // prod(grid)))
    if channels * prod(grid) != cells:
        raise ValueError(
            f"{arrays.origin}: the last layer gives {cells} cells, but grid={grid} has "
            f"{prod(grid)} for each of {channels} channels: give their height and width as grid."
        )
    return n_neurons


def _animal(n_neurons: int, image_scale: Sequence[float], response_range: Any) -> Mouse:
    low, high = (0.0, 1.0) if response_range is None else response_range
    low, high = (np.asarray(v, dtype=np.float32) for v in (low, high))
    for name, values in (("lowest", low), ("highest", high)):
        if values.shape not in ((), (n_neurons,)) or not np.isfinite(values).all():
            raise ValueError(
                f"response_range: the {name} responses have the shape {values.shape}, expected "
                f"({n_neurons},), one finite number per neuron."
            )
    if (low > high).any():
        raise ValueError(
            f"response_range: {int(np.sum(low > high))} of the lowest responses are above the "
            "highest ones: expected (lowest, highest)."
        )
    if np.shape(image_scale) != (2,) or not np.isfinite(image_scale).all() or image_scale[1] <= 0:
        raise ValueError(
            f"image_scale={image_scale!r}: expected a mean and a standard deviation above 0, both "
            "finite."
        )
    every = np.ones(n_neurons, np.float32)
    statistics = {
        "response_mean": (low + high) / 2 * every,
        "response_scale": every,
        "response_low": low * every,
        "response_high": high * every,
        "image_mean": float(image_scale[0]),
        "image_std": float(image_scale[1]),
    }
    return Mouse(n_neurons, None, [], None, {}, statistics)


def _fill(model: AlignmentModel, image: Arrays | None, neural: Arrays | None) -> None:
    """Give the model the weights of its towers, and check that all found their place."""
    weights = model.state_dict()
    for name, own in weights.items():
        part, _, rest = name.partition(".")
        if part not in ("core", "readouts"):
            continue  # scalers and temperature are not in the arrays
        arrays = image if part == "core" else neural
        assert arrays is not None  # a tower that is missing has no weights
        published = _image_name(rest) if part == "core" else _neural_name(rest.partition(".")[2])
        if published not in arrays and name.endswith("num_batches_tracked"):
            continue
        value = arrays.take(published)
        if value.shape != own.shape:
            raise ValueError(
                f"{arrays.origin}: {published!r} has the shape {tuple(value.shape)}, but the rest "
                f"of the towers asks for {tuple(own.shape)}."
            )
        weights[name] = value.to(own.dtype)
        if not weights[name].isfinite().all():
            raise ValueError(f"{arrays.origin}: {published!r} holds NaN or infinite values.")
    for arrays in (image, neural):
        if arrays is not None:
            arrays.check_empty()
    model.load_state_dict(weights)


def _image_name(name: str) -> str:
    """Published name of a weight of the image tower."""
    if not name.startswith("stages."):
        return name.replace("project", "my_conv")
    _, stage, part, rest = name.split(".", 3)
    if part == "0":
        return f"base.patch_embed{int(stage) + 1}.proj.{rest}"
    layer, _, kind = rest.rpartition(".")
    published = {own: theirs for theirs, own in _BLOCK.items()}.get(layer, layer)
    return f"base.blocks{int(stage) + 1}.{int(part) - 1}.{published}.{kind}"


def _neural_name(name: str) -> str:
    """Published name of a weight of the neural tower."""
    if name in _NEURAL:
        return _NEURAL[name]
    layer, _, rest = name.partition(".")
    return f"{_NEURAL[layer]}.{rest}"
