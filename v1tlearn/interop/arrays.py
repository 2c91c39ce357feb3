"""The arrays of published checkpoints, and which of them goes into which of a model here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v1tlearn.nn import EncodingModel, ViTCore

# How often a byte may stand for several, beyond a small size.
_MOST_SHARED = 8
_SMALL = 2**24
_SEPARABLE = {"0": "in_depth_conv", "1": "spatial_conv", "2": "out_depth_conv"}
_TOKENIZERS = {
    "unfold": {"projection": "2"},
    "conv": {"projection": "0"},
    "spt": {"patch_norm": "3", "projection": "4"},
    "dual_norm": {"patch_norm": "2", "projection": "3", "token_norm": "4"},
}


class Arrays:
    """The arrays of a checkpoint, each to be taken once, so that none is overlooked."""

    def __init__(self, arrays: Mapping[str, Any], origin: str) -> None:
        self.origin = origin
        self._arrays: dict[str, Tensor] = {}
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{origin} is a {type(arrays).__name__}: expected arrays by name.")
        for name, value in arrays.items():
            if not isinstance(name, str) or not isinstance(value, Tensor | np.ndarray):
                raise TypeError(
                    f"{origin} holds {name!r}, a {type(value).__name__}: expected nothing but "
                    "arrays by name, the state_dict() of a model."
                )
            self._arrays[_plain_name(name)] = _as_tensor(name, value, origin)
        if not self._arrays:
            raise ValueError(f"{origin} holds no array.")
        _check_sizes(self._arrays, origin)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def get(self, name: str, n_dims: int | None = None) -> Tensor:
        """Look at an array without taking it."""
        if name not in self._arrays:
            raise ValueError(
                f"{self.origin} has no array {name!r}. It holds, among others, "
                f"{list(self._arrays)[:3]}: is this a model of another kind?"
            )
        if n_dims is not None and self._arrays[name].ndim != n_dims:
            raise ValueError(
                f"{self.origin}: {name!r} has the shape {tuple(self._arrays[name].shape)}: "
                f"expected {n_dims} dimensions."
            )
        return self._arrays[name]

    def take(self, name: str) -> Tensor:
        """Take an array out."""
        self.get(name)
        return self._arrays.pop(name)

    def put(self, name: str, value: Tensor) -> None:
        """Add an array that follows from others."""
        self._arrays[name] = value

    def parts(self, prefix: str) -> list[str]:
        """Next parts of the names that begin with a prefix, in order, each once."""
        rests = [name[len(prefix) :] for name in self._arrays if name.startswith(prefix)]
        return list(dict.fromkeys(rest.split(".")[0] for rest in rests))

    def drop(self, wanted: Callable[[str], bool]) -> None:
        """Leave out arrays that follow from the parameters, like the scale of a penalty."""
        for name in [name for name in self._arrays if wanted(name)]:
            del self._arrays[name]

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Bring names of older versions to those of today."""
        self._arrays = {new_name(name): value for name, value in self._arrays.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Those that are left, by name."""
        return dict(self._arrays)

    def check_empty(self) -> None:
        """Check that every array was taken."""
        if self._arrays:
            names = list(self._arrays)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(
                f"{self.origin} holds arrays that these models have no place for: {names[:5]}"
                f"{more}. Is this a model of another kind or version?"
            )


def _as_tensor(name: str, value: Tensor | np.ndarray, origin: str) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf" or np.ma.is_masked(value):
            raise TypeError(
                f"{origin} holds {name!r}, of dtype {value.dtype}: expected numbers, none masked."
            )
        value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    odd = value.layout != torch.strided or value.is_quantized or value.is_complex()
    if odd or value.is_meta or value.is_nested:
        raise TypeError(
            f"{origin} holds {name!r}, which is sparse, quantised, nested, without values or "
            "complex: expected plain real numbers."
        )
    return value.detach()


def _check_sizes(arrays: Mapping[str, Tensor], origin: str) -> None:
    """Refuse few bytes that stand for many, as where strides are 0: they are all copied."""
    storages = {
        a.untyped_storage().data_ptr(): a.untyped_storage().nbytes() for a in arrays.values()
    }
    sizes = {name: math.prod(a.shape) * a.element_size() for name, a in arrays.items()}
    needed, there = sum(sizes.values()), sum(storages.values())
    if needed > _MOST_SHARED * there + _SMALL:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f"{origin}: its arrays would take {needed} bytes, but {there} are there; the largest "
            f"is {largest!r}, of shape {tuple(arrays[largest].shape)}: save the state_dict() of "
            "the model alone, with .contiguous() arrays."
        )


def _plain_name(name: str) -> str:
    """Name without what `torch.compile` and `DataParallel` put into it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def readout_name(rest: str, features: str = "features") -> str:
    """Published name of an array of a readout."""
    names = {"positions": "source_grid", "free_mu": "_mu", "features": features}
    return names.get(rest, rest.replace("position_network", "mu_transform"))


def convolution_name(rest: str) -> str:
    """Published name of an array of a convolutional core."""
    _, layer, part, *last = rest.split(".")
    if part == "1":
        middle = "norm"
    elif len(last) == 2:
        middle = f"ds_conv.{_SEPARABLE[last[0]]}"
    else:
        middle = "conv"
    return f"features.layer{layer}.{middle}.{last[-1]}"


def v1t_name(name: str, model: EncodingModel, tokenizer: str) -> str:
    """Name of an array in a checkpoint of the published V1T code."""
    part, _, rest = name.partition(".")
    if part == "core":
        return "core." + _core_name(rest, model, tokenizer)
    if part == "cropper":
        _, index, _, rest = rest.split(".", 3)
        moving = [m for m in model.mice if model.cropper.shifter(m) is not None]
        return f"image_cropper.image_shifter.{moving[int(index)]}.mlp.{rest}"
    index, _, rest = rest.partition(".")
    if part == "readouts":
        return f"readouts.{model.mice[int(index)]}.{readout_name(rest)}"
    moving = [m for m in model.mice if model.shifter(m) is not None]
    return f"core_shifter.{moving[int(index)]}.mlp.{rest.partition('.')[2]}"


def _core_name(rest: str, model: EncodingModel, tokenizer: str) -> str:
    if not isinstance(model.core, ViTCore):
        return convolution_name(rest)
    compact = tokenizer == "cct"
    embedding = "tokenizer" if compact else "patch_embedding"
    part, _, rest = rest.partition(".")
    if part == "class_token":
        return f"{embedding}.cls_token"
    if part == "positions":
        return f"{embedding}.pos_embedding"
    if part == "tokenizer":
        layer, _, rest = rest.partition(".")
        if compact:
            return f"tokenizer.conv2d.{rest}"
        return f"patch_embedding.projection.{_TOKENIZERS[tokenizer][layer]}.{rest}"
    block, _, rest = rest.partition(".")
    if part == "behavior_mlps":
        _, network, layer, rest = rest.split(".")
        per_mouse = model.core.behavior_mode == "b_mlp_per_mouse"
        whose = model.mice[int(network)] if per_mouse else "share"
        module = "b_mlp" if compact else "b-mlp"
        rest = f"{module}.models.{whose}.{'3' if layer == '2' else layer}.{rest}"
    elif rest.startswith("mlp."):
        rest = rest if compact else rest.replace("mlp.", "mlp.model.", 1)
    else:
        names = {"norm": "layer_norm", "projection": "projection.0", "scale": "scale"}
        names["to_qkv"] = "qkv" if compact else "to_qkv"
        layer, _, last = rest.removeprefix("attention.").partition(".")
        rest = f"mha.{names[layer]}" + (f".{last}" if last else "")
    return f"transformer.blocks.{block}.{rest}"


def sensorium_name(name: str, model: EncodingModel) -> str:
    """Name of an array in a saved model of Sensorium."""
    part, _, rest = name.partition(".")
    if part == "core":
        return f"core.{convolution_name(rest)}"
    index, _, rest = rest.partition(".")
    if part == "readouts":
        return f"readout.{model.mice[int(index)]}.{readout_name(rest, '_features')}"
    moving = [m for m in model.mice if model.shifter(m) is not None]
    return f"shifter.{moving[int(index)]}.mlp.{rest.partition('.')[2]}"


def fill(model: EncodingModel, arrays: Arrays, name_of: Callable[[str], str]) -> None:
    """Give a model the weights of a checkpoint, and check that all of them found their place."""
    weights = {}
    for name, own in model.state_dict().items():
        published = name_of(name)
        value = arrays.take(published)
        expected = _published_shape(name, own, value.ndim)
        if tuple(value.shape) != expected:
            raise ValueError(
                f"{arrays.origin}: {published!r} has the shape {tuple(value.shape)}, but the rest "
                f"of the model asks for {expected}."
            )
        value = value[0, :, 0].T if name.endswith(".features") else value.reshape(own.shape)
        weights[name] = value.to(own.dtype)
        if not weights[name].isfinite().all():
            raise ValueError(f"{arrays.origin}: {published!r} holds NaN or infinite values.")
    arrays.check_empty()
    model.load_state_dict(weights)


def _published_shape(name: str, own: Tensor, n_dims: int) -> tuple[int, ...]:
    shape, last = tuple(own.shape), name.rsplit(".", 1)[-1]
    if name.startswith("readouts.") and last == "features":
        return (1, shape[1], 1, shape[0])  # of (n, C)
    if name.startswith("readouts.") and last in ("free_mu", "sigma"):
        return (1, shape[0], 1, shape[1]) if own.ndim == 2 else (1, *shape)
    if name == "core.positions" and n_dims == own.ndim + 1:  # of the compact transformer
        return (1, *shape)
    return shape
