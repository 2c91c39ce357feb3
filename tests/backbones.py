"""Small vision transformers with random weights, and those of the reference fixtures."""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

from v1tlearn import nn

REFERENCE = Path(__file__).parent / "reference" / "vit_encoding"
FAMILIES = ["dinov3", "dinov2", "dinov2_registers"]

_NEWER = {  # names of transformers 5 for those of 4.57
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 14,
    "image_size": 70,
    "initializer_range": 0.3,  # so that tokens attend to each other
}
DINOV2_REGISTERS = {**DINOV2, "model_type": "dinov2_with_registers", "num_register_tokens": 4}
DINOV3 = {
    **DINOV2,
    "model_type": "dinov3_vit",
    "intermediate_size": 64,
    "num_register_tokens": 4,
    "patch_size": 16,
}
CONFIGURATIONS = {"dinov3": DINOV3, "dinov2": DINOV2, "dinov2_registers": DINOV2_REGISTERS}


def arrays(name):
    """Arrays of a file of the reference."""
    return np.load(REFERENCE / f"{name}.npz")


def random_backbone(configuration, seed=0):
    """A model of transformers with random weights."""
    kind = transformers.AutoConfig.for_model(**configuration)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.AutoModel.from_config(kind).eval()


def own_name(published, names):
    """What the installed library calls a weight of version 4.57."""
    if published not in names:
        for older, newer in _NEWER.items():
            published = published.replace(older, newer)
        if published not in names:
            published = f"model.{published}"
    return published


def reference_backbone(family):
    """A model of the fixtures, with its weights."""
    found = arrays(f"{family}_backbone")
    configuration = json.loads(str(found["config"]))
    configuration.pop("transformers_version", None)
    model = random_backbone(configuration)
    names = set(model.state_dict())
    weights = {
        own_name(key.removeprefix("backbone/"), names): torch.tensor(found[key])
        for key in found.files
        if key.startswith("backbone/")
    }
    model.load_state_dict(weights)
    return model


def reference_pixels(found, dtype=torch.float32):
    """Pixels as the published code makes them: resized, left half, scaled; then resized again."""
    factor, size = float(found["downsample_factor"]), tuple(found["input_size"].tolist())
    resized = (round(64 / factor), round(128 / factor))
    cropper = nn.WindowCropper((66, 264), mice="A", columns="left_half", image_size=resized)
    pixels = nn.Pixels(1)(cropper(torch.tensor(found["raw_images"])[:, None], "A"))
    return nn.resize(pixels.to(dtype), size)
