"""Agreement with numbers computed by the published implementations; see tests/reference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.cuda.amp.grad_scaler import GradScaler as CudaGradScaler

from v1tlearn import nn

REFERENCE = Path(__file__).parents[1] / "reference"
V1T_FILES = ("v1t", "vit", "v1t_lsa_crop")
CNN_FILES = ("cnn_gray", "cnn_behavior_channels")
BLOCK_NAMES = {
    "mha.scale": "attention.scale",
    "mha.layer_norm": "attention.norm",
    "mha.to_qkv": "attention.to_qkv",
    "mha.projection.0": "attention.projection",
    "mlp.model": "mlp",
}


def assert_agrees(value, reference, tolerance=1e-4):
    value = value.detach().double().numpy() if torch.is_tensor(value) else np.asarray(value)
    reference = np.asarray(reference, dtype=np.float64)
    assert value.shape == reference.shape
    difference = np.abs(value - reference).max()
    assert difference <= tolerance * np.abs(reference).max(), difference


def tensor(array):
    return torch.from_numpy(np.array(array))


def own_name(name, readout_mice=("A", "B")):
    """Parameter of the published V1T code under its name in this package."""
    part, _, rest = name.partition(".")
    if part == "readouts":
        mouse, _, rest = rest.partition(".")
        rest = rest.replace("mu_transform", "position_network")
        return f"readouts.{readout_mice.index(mouse)}." + rest.replace("source_grid", "positions")
    if part == "core_shifter":
        mouse, _, rest = rest.partition(".")
        return f"shifters.{readout_mice.index(mouse)}." + rest.replace("mlp", "network")
    rest = rest.removeprefix("patch_embedding.").removeprefix("transformer.")
    if rest.startswith("blocks"):
        _, block, rest = rest.split(".", 2)
        if rest.startswith("b-mlp"):
            layer = {"0": "0", "3": "2"}[rest.split(".")[3]]
            return f"core.behavior_mlps.{block}.networks.0.{layer}.{rest.split('.')[4]}"
        for theirs, ours in BLOCK_NAMES.items():
            rest = rest.replace(theirs, ours)
        return f"core.blocks.{block}.{rest}"
    names = {"cls_token": "class_token", "pos_embedding": "positions"}
    return "core." + names.get(rest, rest.replace("projection.2", "tokenizer.projection"))


def load_v1t(name):
    """Model, batches, standardised responses and arrays of one V1T run directory."""
    io = dict(np.load(REFERENCE / name / "io.npz"))
    with torch.serialization.safe_globals([torch.amp.GradScaler, CudaGradScaler]):
        checkpoint = torch.load(REFERENCE / name / "ckpt" / "model_state.pt", weights_only=True)
    channels = name == "vit"
    core = nn.ViTCore(
        (4 if channels else 1, 36, 64),
        patch_size=8,
        patch_stride=3,
        n_blocks=2,
        n_heads=2,
        embed_dim=12,
        mlp_dim=20,
        behavior_mode="none" if channels else "b_mlp",
        n_behaviors=5,
        attention="lsa" if "lsa" in name else "standard",
    )
    readouts = {
        mouse: nn.GaussianReadout(
            core.output_shape,
            len(io[f"{mouse}/coordinates"]),
            positions=io[f"{mouse}/coordinates"][:, :2],
        )
        for mouse in "AB"
    }
    scale = 0.8 if "crop" in name else 1.0
    model = nn.EncodingModel(
        core,
        readouts,
        cropper=nn.ImageCropper((144, 256), crop_scale=scale, image_size=(36, 64)),
        shifters={mouse: nn.Shifter() for mouse in "AB"},
        behavior_channels=channels,
    ).eval()
    for mouse, readout in readouts.items():
        assert_agrees(readout.positions, checkpoint["model"][f"readouts.{mouse}.source_grid"])
    state = model.state_dict()
    for key, value in checkpoint["model"].items():
        if (own := own_name(key)) in state:
            if key.endswith("features"):
                value = value[0, :, 0].T
            state[own] = value.reshape(state[own].shape)
    model.load_state_dict(state)

    batches, responses = {}, {}
    for mouse in "AB":
        image = {s: float(io[f"{mouse}/stats/image/{s}"]) for s in ("mean", "std")}
        behavior = tensor(io[f"{mouse}/standardized_behavior"])
        pupil = tensor(io[f"{mouse}/standardized_pupil_center"])
        batches[mouse] = nn.MouseBatch(
            (tensor(io[f"{mouse}/images"]).float() - image["mean"]) / image["std"],
            behavior if channels else torch.cat((behavior, pupil), 1),
            pupil,
        )
        responses[mouse] = tensor(io[f"{mouse}/standardized_responses"])
    return model, batches, responses, io


def core_input(model, mouse, batch):
    """Cropped images, and planes of behaviour after them where the model takes these."""
    images = model.cropper(batch.images, mouse, batch.pupil)
    if not model.behavior_channels:
        return images
    planes = batch.behaviors[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat((images, planes), 1)


def total_loss(model, batches, responses, io):
    """Loss as published: scaled by trials, penalties of the core once per mouse."""
    total = 0
    for mouse, prediction in model(batches).items():
        scale = (float(io[f"{mouse}/n_train"]) / len(prediction)) ** 0.5
        total = total + scale * nn.poisson_loss(prediction, responses[mouse])
        total = total + model.core_penalty() + model.readout_penalty(mouse)
    return total


@pytest.mark.parametrize("name", V1T_FILES)
def test_v1t_activations(name):
    model, batches, _, io = load_v1t(name)
    together = model(batches)
    for mouse, batch in batches.items():
        images = core_input(model, mouse, batch)
        assert_agrees(images, io[f"{mouse}/core_input"])
        behaviors = None if name == "vit" else batch.behaviors
        assert_agrees(model.core(images, behaviors), io[f"{mouse}/core_output"])
        assert_agrees(model.shifter(mouse)(batch.pupil), io[f"{mouse}/readout_shift"])
        assert_agrees(model.readout(mouse).mu(), io[f"{mouse}/readout_mu"])
        assert_agrees(together[mouse], io[f"{mouse}/prediction"])
        assert_agrees(model({mouse: batch})[mouse], io[f"{mouse}/prediction"])


@pytest.mark.parametrize("name", V1T_FILES)
def test_v1t_attention_weights(name):
    model, batches, _, io = load_v1t(name)
    images = core_input(model, "A", batches["A"])[:1]
    weights = nn.attention_weights(model.core, images, batches["A"].behaviors[:1])
    assert_agrees(weights, io["A/attention"])


@pytest.mark.parametrize("name", V1T_FILES)
@pytest.mark.parametrize("mouse", ["A", "B"])
def test_v1t_attention_of_two_images(name, mouse):
    """Rows of some tokens, and the mean over all rows."""
    model, batches, _, _ = load_v1t(name)
    images = core_input(model, mouse, batches[mouse])[:2]
    weights = nn.attention_weights(model.core, images, batches[mouse].behaviors[:2])
    expected = np.load(REFERENCE / name / "attention.npz")
    some = weights[..., torch.from_numpy(expected["tokens"]), :]
    assert_agrees(some, expected[f"{mouse}/attention_of_tokens"])
    assert_agrees(weights.mean(-2), expected[f"{mouse}/attention_received"])


@pytest.mark.parametrize("name", V1T_FILES)
def test_v1t_attention_rollout(name):
    model, batches, _, _ = load_v1t(name)
    expected = np.load(REFERENCE / name / "rollout.npz")
    for mouse, batch in batches.items():
        images = core_input(model, mouse, batch)
        maps = nn.attention_rollout(model.core, images, batch.behaviors, head_reduction="max")
        assert_agrees(maps, expected[f"{mouse}/attention_rollout_max"])


@pytest.mark.parametrize("name", V1T_FILES)
def test_v1t_losses_and_penalties(name):
    model, batches, responses, io = load_v1t(name)
    assert_agrees(model.core_penalty(), io["core_reg"])
    for mouse, prediction in model(batches).items():
        scale = (float(io[f"{mouse}/n_train"]) / len(prediction)) ** 0.5
        loss = scale * nn.poisson_loss(prediction, responses[mouse])
        assert_agrees(loss, io[f"{mouse}/loss"])
        assert_agrees(model.readout_penalty(mouse), io[f"{mouse}/readout_reg"])


@pytest.mark.parametrize("name", V1T_FILES)
def test_v1t_gradients(name):
    model, batches, responses, io = load_v1t(name)
    total_loss(model, batches, responses, io).backward()
    parameters = dict(model.named_parameters())
    references = {own_name(k.removeprefix("grad_norm/")): io[k] for k in io if "grad_norm" in k}
    assert references.keys() == parameters.keys()
    for key, reference in references.items():
        gradient = parameters[key].grad
        norm = torch.tensor(0.0) if gradient is None else gradient.norm()
        assert_agrees(norm, reference)


@pytest.mark.parametrize("name", V1T_FILES)
def test_v1t_four_training_steps(name):
    model, batches, responses, io = load_v1t(name)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.001647, betas=(0.9, 0.9999), eps=1e-8, weight_decay=0
    )
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = total_loss(model, batches, responses, io)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert_agrees(losses, io["train_total_loss"])
    for mouse, prediction in model(batches).items():
        assert_agrees(prediction, io[f"{mouse}/prediction_after_4_steps"], 1e-3)


def load_cnn(name):
    arrays = dict(np.load(REFERENCE / f"{name}.npz"))
    n_behaviors = arrays["behaviors"].shape[1]
    core = nn.Stacked2dCore(arrays["x"].shape[1:], hidden_channels=6)
    layer_names = {"in_depth_conv": "0", "spatial_conv": "1", "out_depth_conv": "2"}
    state = {}
    for key in arrays:
        if key.startswith("core/features"):
            own = key.removeprefix("core/features.layer").replace("norm", "1")
            for theirs, ours in layer_names.items():
                own = own.replace(f"ds_conv.{theirs}", f"0.{ours}")
            state["layers." + own.replace("conv", "0")] = tensor(arrays[key])
    core.load_state_dict(state)
    readout = nn.GaussianReadout(core.output_shape, 11, positions=arrays["coordinates"])
    assert_agrees(readout.positions, arrays["readout/source_grid"])
    state = {
        key.removeprefix("readout/").replace("mu_transform", "position_network"): tensor(value)
        for key, value in arrays.items()
        if key.startswith("readout/")
    }
    state["features"] = state.pop("_features")[0, :, 0].T
    state["positions"] = state.pop("source_grid")
    state["sigma"] = state["sigma"][0]
    readout.load_state_dict(state)
    shifter = nn.Shifter()
    shifter.load_state_dict(
        {
            key.replace("shifter/mlp", "network"): tensor(value)
            for key, value in arrays.items()
            if key.startswith("shifter/")
        }
    )
    model = nn.EncodingModel(
        core,
        {"A": readout},
        cropper=nn.ImageCropper((36, 64)),
        shifters={"A": shifter},
        behavior_channels=n_behaviors > 0,
    ).eval()
    batch = nn.MouseBatch(
        tensor(arrays["x"][:, :1]), tensor(arrays["behaviors"]), tensor(arrays["pupil_center"])
    )
    return model, batch, arrays


@pytest.mark.parametrize("name", CNN_FILES)
def test_cnn_activations(name):
    model, batch, arrays = load_cnn(name)
    images = core_input(model, "A", batch)
    assert_agrees(images, arrays["x"])
    assert_agrees(model.core(images), arrays["core_output"])
    assert_agrees(model.shifter("A")(batch.pupil), arrays["shift"])
    assert_agrees(model.readout("A").mu(), arrays["mu"])
    assert_agrees(model({"A": batch})["A"], arrays["prediction"])


@pytest.mark.parametrize("name", CNN_FILES)
def test_cnn_with_batch_statistics(name):
    model, _, arrays = load_cnn(name)
    assert_agrees(model.core.train()(tensor(arrays["x"])), arrays["core_output_train_mode"])


@pytest.mark.parametrize("name", CNN_FILES)
def test_cnn_loss_and_penalties(name):
    model, batch, arrays = load_cnn(name)
    prediction = model({"A": batch})["A"]
    assert_agrees(nn.poisson_loss(prediction, tensor(arrays["responses"])), arrays["poisson_sum"])
    assert_agrees(model.readout_penalty("A"), arrays["readout_reg"])
    filters = model.core.layers[0][0].weight
    assert_agrees(
        model.core.laplace * nn.laplace_penalty(filters, padding=0), arrays["laplace_reg"]
    )
