"""The published names of weights, and how numbers are compared; see tests/reference."""

from pathlib import Path

import numpy as np
import torch

from v1tlearn import nn

REFERENCE = Path(__file__).parents[2] / "reference" / "dina"
BLOCK = {
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
NEURAL = {
    "embedding.weight": "slope",
    "embedding.bias": "offset",
    "ff.weight": "reader",
    "ff.bias": "reader_bias",
    "attention.w_q": "to_query",
    "attention.w_k": "to_key",
    "attention.w_v": "to_value",
    "attention.w_concat": "projection",
}


def load(name):
    with np.load(REFERENCE / f"{name}.npz") as file:
        return dict(file)


def under(arrays, prefix):
    """Arrays whose names begin so, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def own_block(name):
    part, _, kind = name.rpartition(".")
    return f"{BLOCK.get(part, part)}.{kind}"


def own_image(name):
    """Name of a weight of the image tower here."""
    rest = name.removeprefix("base.")
    if rest.startswith("patch_embed"):
        return f"stages.{int(rest[11]) - 1}.0.{rest.rpartition('.')[2]}"
    if rest.startswith("blocks"):
        stage, block, rest = rest.removeprefix("blocks").split(".", 2)
        return f"stages.{int(stage) - 1}.{int(block) + 1}.{own_block(rest)}"
    return rest.replace("my_conv", "project")


def own_neural(name):
    """Name of a weight of the neural tower here."""
    if name in NEURAL:
        return NEURAL[name]
    part, _, kind = name.rpartition(".")
    return f"{NEURAL.get(part, part)}.{kind}".replace("ff1", "to_map")


def load_weights(module, weights, own_name):
    """Put published weights into a module; all but counters of batches have to be there."""
    state = {own_name(name): torch.from_numpy(np.array(w)) for name, w in weights.items()}
    found = module.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in found.missing_keys)
    return module


def assert_agrees(value, reference, tolerance):
    value = value.detach().double().numpy() if torch.is_tensor(value) else np.asarray(value)
    reference = np.asarray(reference, dtype=np.float64)
    assert value.shape == reference.shape
    difference = np.abs(value - reference).max()
    assert difference <= tolerance * np.abs(reference).max(), difference


def assert_gradients_agree(module, gradients, own_name, dtype, zero=()):
    """Relative to the largest gradient in single precision, else to that of the array."""
    own = dict(module.named_parameters())
    known = {n: g for n, g in gradients.items() if n != "x" and n != "s"}
    assert set(map(own_name, known)) == {n for n, p in own.items() if p.grad is not None}
    largest = max(np.abs(g).max() for g in known.values())
    for name, reference in known.items():
        difference = np.abs(own[own_name(name)].grad.double().numpy() - reference).max()
        if dtype == torch.float32 or name in zero:
            assert difference < 1e-5 * largest, name
        else:
            assert difference < 1e-6 * np.abs(reference).max(), name


def image_tower(arrays, readout="stated", **options):
    """Image tower of a fixture's sizes."""
    return nn.DSNetTower(
        arrays["image"].shape[1:],
        (1, *arrays["map_size"].tolist()),
        dims=arrays["dims"].tolist(),
        depths=arrays["depth"].tolist(),
        n_heads=arrays["heads"].tolist(),
        cross_attention=readout,
        **options,
    )


def neural_tower(arrays, weights, heads):
    """Neural tower of a fixture's sizes."""
    n_neurons, embed_dim = weights["embedding.weight"].shape
    hidden = [len(weights[f"ff1.{i}.bias"]) for i in range(2)]
    return nn.AttentionTower(
        n_neurons,
        (1, *arrays["map_size"].tolist()),
        grid=arrays["grid"].tolist(),
        embed_dim=embed_dim,
        n_heads=heads,
        hidden_units=hidden,
    )


def images_of(arrays, dtype=torch.float32):
    return (torch.from_numpy(arrays["image"]).to(dtype) - 128) / 64
