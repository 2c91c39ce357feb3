"""The core of full models and minimodels: written out in numpy, and published values."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from tests.nn.minimodel_files import REFERENCE, images_of, model_of, our_name, state
from v1tlearn import nn
from v1tlearn.nn import MouseBatch
from v1tlearn.training import PoissonObjective
from v1tlearn.training.optimizers import make_optimizer

FULL = ("1layer", "2layer", "3layer", "linear_avgpool", "2layer_stride_no_pool")
NAMES = (*(f"fullmodel_{name}" for name in FULL), "minimodel_neuron0", "minimodel_neuron1")

# ------------------------------------------------------------------------ written out


def convolved(maps, weight, stride=1, groups=1):
    """Correlation of (B, C, h, w) with (out, C / groups, k, k), zeros around."""
    pad = weight.shape[-1] // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(padded, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    out = len(weight) // groups
    parts = [
        np.einsum(
            "bcyxkl,ockl->boyx",
            windows[:, g * weight.shape[1] : (g + 1) * weight.shape[1]],
            weight[g * out : (g + 1) * out],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, 1)


def normalised(maps, norm, training):
    mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
    if training:
        mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
    gain, offset = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    mean, variance, gain, offset = (v[:, None, None] for v in (mean, variance, gain, offset))
    return (maps - mean) / np.sqrt(variance + 1e-5) * gain + offset


def pooled(maps, how):
    height, width = (side // 2 for side in maps.shape[2:])
    cells = maps[:, :, : 2 * height, : 2 * width].reshape(*maps.shape[:2], height, 2, width, 2)
    return cells.max((3, 5)) if how == "max" else cells.mean((3, 5))


ACTIVATED = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "none": lambda x: x,
}


def written_out(core, images, training, *, pooling, activation, depth_separable, **_):
    maps = images
    for i, (convolution, norm, *_) in enumerate(core.layers):
        parts = [convolution] if isinstance(convolution, torch.nn.Conv2d) else convolution
        stride = 2 if pooling == "stride" and i == 0 else 1
        for part in parts:
            maps = convolved(maps, part.weight.detach().numpy(), stride, part.groups)
        maps = ACTIVATED[activation](normalised(maps, norm, training))
        if (i == 0 or not depth_separable) and pooling != "stride":
            maps = pooled(maps, pooling)
    return maps


OPTIONS = st.fixed_dictionaries(
    {
        "channels": st.lists(st.integers(1, 4), min_size=1, max_size=3),
        "kernels": st.lists(st.integers(1, 6), min_size=1, max_size=3),
        "pooling": st.sampled_from(["max", "mean", "stride"]),
        "activation": st.sampled_from(["elu", "relu", "none"]),
        "depth_separable": st.booleans(),
        "pointwise_output": st.booleans(),
    }
)
SHAPES = st.tuples(st.integers(1, 2), st.integers(5, 13), st.integers(5, 13))


def seeded(shape, options, seed=0):
    torch.manual_seed(seed)
    core = nn.TwoLayerCore(shape, **options).double()
    for layer in core.layers:
        for values in (layer[1].weight.data, layer[1].running_var):
            values.uniform_(0.5, 1.5)
        layer[1].running_mean.normal_()
        layer[1].bias.data.normal_()
    return core


def seeded_if_it_fits(shape, options):
    """Leave out those whose maps become too small, as layers with pooling can."""
    try:
        return seeded(shape, options)
    except ValueError as error:
        if "does not fit" not in str(error):
            raise
        assume(False)


@given(shape=SHAPES, options=OPTIONS, training=st.booleans())
def test_maps_are_those_written_out(shape, options, training):
    core = seeded_if_it_fits(shape, options)
    images = np.random.default_rng(0).standard_normal((3, *shape))
    core.train(training)
    assume(not training or 3 * np.prod(core.output_shape[1:]) > 1)
    expected = written_out(core, images, training, **options)
    assert expected.shape[1:] == core.output_shape
    found = core(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@given(shape=SHAPES, options=OPTIONS, frozen=st.booleans())
def test_quick_and_plain_ways_agree_forward_and_backward(shape, options, frozen):
    core = seeded_if_it_fits(shape, options)
    if frozen:
        core.freeze("filters")
    images = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(core.output_shape, dtype=torch.float64)
    inputs = [images, *(p for p in core.parameters() if p.requires_grad)]
    found = []
    running = {name: value.clone() for name, value in core.state_dict().items()}
    for way in (nn.fast.using("auto"), nn.fast.using("auto", parts=1e-5), nn.plain()):
        core.load_state_dict(running)
        with way:
            maps = core(images)
            gradients = torch.autograd.grad((maps * weights).sum(), inputs)
        buffers = dict(core.named_buffers())
        found.append([maps.detach(), *gradients, *(b.clone() for b in buffers.values())])
    for other in found[:2]:
        for one, plain in zip(other, found[2], strict=True):
            scale = max(1.0, plain.abs().max().item())
            torch.testing.assert_close(one, plain, rtol=1e-8, atol=1e-9 * scale)


def test_the_last_convolution_alone_can_learn():
    core = seeded((1, 9, 9), {"channels": (2, 3), "kernels": (3,)})
    core.requires_grad_(False)
    last = core.layers[1][0][-1].weight.requires_grad_(True)
    images = torch.randn(3, 1, 9, 9, dtype=torch.float64)
    (quick,) = torch.autograd.grad(core(images).square().sum(), last)
    with nn.plain():
        (plain,) = torch.autograd.grad(core(images).square().sum(), last)
    torch.testing.assert_close(quick, plain, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("activation", ["elu", "relu"])
def test_gradients_are_those_of_differences(activation):
    core = seeded((1, 6, 7), {"channels": (2, 3), "kernels": (3, 3), "activation": activation})
    images = torch.randn(2, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(core.train(), (images,))
    with nn.plain():
        assert torch.autograd.gradgradcheck(core.eval(), (images,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, r"channels=\(\): expected a whole number for each layer"),
        ({"channels": (4, 0)}, "at least 1"),
        ({"channels": (True, 8)}, "expected a whole number for each layer"),
        ({"kernels": ()}, r"kernels=\(\): expected"),
        ({"pooling": "sum"}, "pooling='sum': expected one of 'max', 'mean', 'stride'"),
        ({"activation": "gelu"}, "activation='gelu': expected one of 'elu', 'relu', 'none'"),
        ({"kernels": (1,), "depth_separable": False, "channels": (2,) * 4}, "does not fit"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nn.TwoLayerCore((1, 8, 8), **{"channels": (2, 3), "kernels": (3,), **options})


def test_images_of_another_shape_and_single_places_are_named():
    core = nn.TwoLayerCore((1, 2, 2), channels=(2,), kernels=(3,))
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), got \(1, 4, 4\)"):
        core(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="two values per channel in training"):
        core(torch.zeros(1, 1, 2, 2))
    assert core.eval()(torch.zeros(1, 1, 2, 2)).shape == (1, 2, 1, 1)


def test_the_lists_of_the_caller_stay_as_they_are():
    channels, kernels = [2, 3, 4, 5], [5, 3]
    core = nn.TwoLayerCore((1, 12, 12), channels=channels, kernels=kernels)
    assert (channels, kernels) == ([2, 3, 4, 5], [5, 3])
    assert [layer[0][1].kernel_size[0] for layer in core.layers[1:]] == [3, 3, 3]


def test_published_sizes():
    core = nn.TwoLayerCore((1, 66, 130))
    assert core.output_shape == (320, 33, 65)
    assert sum(p.numel() for p in core.parameters()) == 144_112
    mini = nn.TwoLayerCore((1, 66, 130), channels=(16, 64), pointwise_output=False)
    mini.freeze("filters")
    assert sum(p.numel() for p in mini.parameters()) == 16_368
    assert sum(p.numel() for p in mini.parameters() if p.requires_grad) == 16_368 - 10_000
    (group,) = nn.TwoLayerCore((1, 66, 130), weight_decay=0.1).groups()
    assert group["weight_decay"] == 0.1
    with pytest.raises(ValueError, match="cannot be frozen by 3 blocks"):
        mini.freeze(3)


def test_frozen_filters_stay_and_the_rest_learns():
    core = nn.TwoLayerCore((1, 9, 9), channels=(2, 3), kernels=(3,))
    core.freeze("filters")
    core(torch.randn(4, 1, 9, 9)).square().sum().backward()
    assert core.filters.grad is None
    assert all(p.grad is not None for p in core.parameters() if p is not core.filters)
    assert core.training
    assert not core.frozen
    core.freeze()
    assert core.frozen


# ------------------------------------------------------------------------ published values


@pytest.fixture(params=[(n, p) for n in NAMES for p in ("float32", "float64")], ids="-".join)
def published(request):
    """Arrays of a file, what makes its model, the prefix of the precision, and the precision."""
    name, precision = request.param
    with np.load(REFERENCE / f"{name}.npz") as file:
        arrays = dict(file)
    prefix = "f64/" if precision == "float64" else ""
    return arrays, partial(model_of, arrays, name, precision), prefix, precision


def near(found, expected, tolerance):
    found, expected = np.asarray(found), np.asarray(expected)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < tolerance, error


def batch_of(arrays, precision, rows):
    images = images_of(arrays["images"][rows], precision)
    return {"mouse": MouseBatch(images, None, None, None)}


def objective():
    return PoissonObjective(loss_scale="per_neuron", loss_epsilon=1e-12)


def loss_of(model, arrays, precision, rows):
    """Loss and penalty of some trials, as they are minimised."""
    responses = torch.from_numpy(arrays["responses"][rows]).to(getattr(torch, precision))
    data = {"mouse": type("Trials", (), {"n_neurons": responses.shape[1], "n_counted": 1})}
    given = batch_of(arrays, precision, rows), {"mouse": (responses, None)}
    (loss,) = objective().loss(model, *given, data, {"mouse": len(rows)}).values()
    return loss.minimised + objective().penalty(model, ["mouse"])


def test_published_activations(published):
    arrays, make, _, precision = published
    batch = batch_of(arrays, precision, arrays["batch_index"])
    for mode in ("eval", "train"):
        model = make().train(mode == "train")
        maps = batch["mouse"].images
        with torch.no_grad():
            for i, layer in enumerate(model.core.layers):
                prefix = f"{mode}/layer{i}"
                convolved = layer[0](maps)
                near(convolved, arrays["layer0/conv" if i == 0 else f"{prefix}/ds_conv"], 1e-5)
                activated = layer[2](layer[1](convolved))
                near(activated, arrays[f"{prefix}/activation"], 1e-5)
                maps = layer[3](activated)
                if f"{prefix}/pool" in arrays:
                    near(maps, arrays[f"{prefix}/pool"], 1e-5)


def test_published_predictions_losses_and_gradients(published):
    arrays, make, prefix, precision = published
    model = make()
    rows, double = arrays["batch_index"], precision == "float64"
    for mode in ("eval", "train"):
        model.train(mode == "train")
        loss = loss_of(model, arrays, precision, rows)
        near(loss.item(), arrays[f"{prefix}{mode}/loss"], 1e-10 if double else 1e-5)
    loss.backward()
    parameters = dict(model.named_parameters())
    for name in (n for n in arrays if n.startswith("grad_norm/")):
        published_name = name.removeprefix("grad_norm/")
        found = parameters[our_name(published_name)].grad
        if np.isnan(arrays[name]):
            assert found is None
            continue
        expected = arrays[f"{prefix}grad/{published_name}"]
        near(found.reshape(expected.shape), expected, 1e-10 if double else 1e-4)
    running = state(arrays, "running_after_one_training_pass/", precision)
    for name, value in running.items():
        near(model.state_dict()[name], value, 1e-10 if double else 1e-4)
    for mode in ("eval", "train"):
        out = make().train(mode == "train")(batch_of(arrays, precision, rows))["mouse"].detach()
        near(out, arrays[f"{prefix}{mode}/prediction"], 1e-10 if double else 1e-5)


def test_published_steps(published):
    arrays, make, prefix, precision = published
    model = make()
    double, order = precision == "float64", arrays["step/order"]
    optimizer = make_optimizer(model, "adamw", lr=float(arrays["optim/lr"]))
    size, total = int(arrays["step/batch_size"]), 0.0
    model.train()
    for step, start in enumerate(range(0, len(order), size)):
        loss = loss_of(model, arrays, precision, order[start : start + size])
        expected = arrays[f"{prefix}step/batch_losses"][step]
        near(loss.item(), expected, 1e-10 if double else 1e-4)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.readouts[0].project_()
        total += loss.item()
        if not double and step in (0, 2):
            for name, value in state(arrays, f"state{step + 1}/").items():
                near(model.state_dict()[name], value, 1e-4)
    near(total / len(order), arrays[f"{prefix}step/train_loss"], 1e-10 if double else 1e-4)
    after = f"{prefix}validation_after_3_steps"
    with torch.no_grad():
        images = images_of(arrays["val_images"], precision)
        out = model.eval()({"mouse": MouseBatch(images, None, None, None)})["mouse"]
    near(out, arrays[f"{after}/prediction"], 1e-9 if double else 1e-4)
