"""Published full models and minimodels of the reference files, as models of this package."""

from pathlib import Path

import numpy as np
import torch

from v1tlearn import nn

REFERENCE = Path(__file__).parents[1] / "reference" / "minimodel"
OPTIONS = {
    "fullmodel_linear_avgpool": {"activation": "none", "pooling": "mean"},
    "fullmodel_2layer_stride_no_pool": {"pooling": "stride"},
    "minimodel_neuron0": {"activation": "relu", "pointwise_output": False},
    "minimodel_neuron1": {"activation": "relu", "pointwise_output": False},
}
READOUT = {"Wy": "rows", "Wx": "columns", "Wc": "channels", "bias": "bias"}
SEPARABLE = ("in_depth_conv", "spatial_conv", "out_depth_conv")


def our_name(name):
    """Name of a published array among those of a model."""
    if name.startswith("readout."):
        return f"readouts.0.{READOUT[name.removeprefix('readout.')]}"
    _, _, layer, part, *rest = name.split(".")
    place = f"core.layers.{layer.removeprefix('layer')}"
    if part == "norm":
        return f"{place}.1.{rest[0]}"
    return f"{place}.0.weight" if part == "conv" else f"{place}.0.{SEPARABLE.index(rest[0])}.weight"


def state(arrays, prefix, precision="float32"):
    """Arrays below a prefix of a file under our names; float64 ones where there are."""
    out = {}
    for name in (n for n in arrays if n.startswith(prefix)):
        value = arrays[f"f64/{name}" if precision == "float64" else name]
        out[our_name(name.removeprefix(prefix))] = torch.from_numpy(np.asarray(value))
    return out


def starting_state(arrays, precision="float32"):
    """Weights of the beginning, which are float32 numbers in either precision."""
    found = state(arrays, "state0/")
    if precision == "float64":
        return {n: v.double() if v.is_floating_point() else v for n, v in found.items()}
    return found


def model_of(arrays, name, precision="float32", momentum=0.9):
    """The model that a file tells of, with its weights at the beginning."""
    weights = starting_state(arrays, precision)
    layers = sorted({n.split(".")[2] for n in weights if n.startswith("core.layers.")})
    first = [weights[n] for n in (f"core.layers.{i}.0.weight" for i in layers) if n in weights]
    deeper = [weights[f"core.layers.{i}.0.1.weight"] for i in layers[1:]]
    options = OPTIONS.get(name, {})
    core = nn.TwoLayerCore(
        (1, *arrays["images"].shape[1:]),
        channels=[len(w) for w in (*first, *deeper)],
        kernels=[w.shape[-1] for w in (*first, *deeper)],
        batch_norm_momentum=momentum,
        weight_decay=0.1,
        **options,
    )
    mini = name.startswith("minimodel")
    if mini:
        core.freeze("filters")
    n_neurons = arrays["responses"].shape[1]
    hoyer = float(arrays["coef/hoyer"]) if "coef/hoyer" in arrays else 0.0
    readout = nn.FactorizedReadout(
        core.output_shape,
        n_neurons,
        channel_hoyer=hoyer,
        space_weight_decay=1.0,
        channel_weight_decay=0.2 if mini else 0.1,
    )
    cropper = nn.ImageCropper(core.input_shape[1:])
    model = nn.EncodingModel(core, {"mouse": readout}, cropper=cropper)
    model = model.to(getattr(torch, precision))
    model.load_state_dict(weights)
    return model


def images_of(values, precision="float32"):
    return torch.from_numpy(values).to(getattr(torch, precision))[:, None]
