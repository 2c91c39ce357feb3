"""Minimodels of the reference files, several in one readout, and of any sizes."""

import numpy as np
import torch

from tests.nn.minimodel_files import REFERENCE
from v1tlearn import nn

FILES = ("minimodel_neuron0", "minimodel_neuron1")
NAMES = {
    "first_gain": "core.features.layer0.norm.weight",
    "first_offset": "core.features.layer0.norm.bias",
    "first_mean": "core.features.layer0.norm.running_mean",
    "first_variance": "core.features.layer0.norm.running_var",
    "mixing": "core.features.layer1.ds_conv.in_depth_conv.weight",
    "filters": "core.features.layer1.ds_conv.spatial_conv.weight",
    "second_gain": "core.features.layer1.norm.weight",
    "second_offset": "core.features.layer1.norm.bias",
    "second_mean": "core.features.layer1.norm.running_mean",
    "second_variance": "core.features.layer1.norm.running_var",
    "reading.rows": "readout.Wy",
    "reading.columns": "readout.Wx",
    "reading.channels": "readout.Wc",
    "reading.bias": "readout.bias",
}


def load(*names):
    files = []
    for name in names:
        with np.load(REFERENCE / f"{name}.npz") as file:
            files.append(dict(file))
    return files


def array_of(files, prefix, name, like):
    """One array of all files, neurons first, in the shape of ours."""
    values = [file[f"{prefix}{NAMES[name]}"] for file in files]
    return torch.from_numpy(np.stack([v.reshape(like.shape[1:]) for v in values]))


def model_of(files, dtype=torch.float32):
    """One model of the minimodels of several files, with their weights at the beginning."""
    first = torch.from_numpy(files[0]["state0/core.features.layer0.conv.weight"])
    filters = files[0]["state0/core.features.layer1.ds_conv.spatial_conv.weight"]
    shape = (1, *files[0]["images"].shape[1:])
    core = nn.FirstConvolution(shape, len(first), first.shape[-1])
    with torch.no_grad():
        core.filters.copy_(first)
    core.freeze()
    readout = nn.MinimodelReadout(
        core.output_shape,
        len(files),
        hidden_channels=len(filters),
        hidden_kernel=filters.shape[-1],
        batch_norm_momentum=0.9,
        factorized={
            "channel_hoyer": float(files[0]["coef/hoyer"]),
            "space_weight_decay": 1.0,
            "channel_weight_decay": 0.2,
        },
    )
    state = readout.state_dict()
    readout.load_state_dict({n: array_of(files, "state0/", n, v) for n, v in state.items()})
    cropper = nn.ImageCropper(shape[1:])
    return nn.EncodingModel(core, {"mouse": readout}, cropper=cropper).to(dtype)


def random_readout(core_shape, n_neurons, seed=0, dtype=torch.float64, **options):
    """A readout none of whose weights is as it begins: gains of both signs, and zeros in space."""
    torch.manual_seed(seed)
    readout = nn.MinimodelReadout(core_shape, n_neurons, **options).to(dtype)
    with torch.no_grad():
        for name, p in readout.named_parameters():
            scale = 0.3 if "filters" in name or "bias" in name else 1.0
            p.copy_(scale * torch.randn_like(p))
        for name, b in readout.named_buffers():
            b.copy_(torch.rand_like(b) + 0.5 if "variance" in name else torch.randn_like(b))
        readout.reading.rows.clamp_(min=0)
    return readout
