"""The convolutional core against a plain restatement in float64."""

import itertools
import re

import pytest
import torch

from v1tlearn import nn


def restated_convolution(maps, weight, bias, padding, groups=1):
    """Convolution, as a sum over the pixels of a filter; each group of outputs has its inputs."""
    n_images, _, height, width = maps.shape
    n_out, per_group, side, _ = weight.shape
    padded = maps.new_zeros(n_images, maps.shape[1], height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = maps
    rows, columns = (size + 2 * padding - side + 1 for size in (height, width))
    out = []
    for o in range(n_out):
        first = o // (n_out // groups) * per_group
        total = maps.new_zeros(n_images, rows, columns) + (0 if bias is None else bias[o])
        for i, y, x in itertools.product(range(per_group), range(side), range(side)):
            seen = padded[:, first + i, y : y + rows, x : x + columns]
            total = total + weight[o, i, y, x] * seen
        out.append(total)
    return torch.stack(out, 1)


def restated_core(core, p, images, linear, training):
    """Maps of a core with the parameters `p`, and in training those of its own batch statistics."""
    maps = images
    for i in range(len(core.layers)):
        steps = [f"layers.{i}.0"]
        if f"{steps[0]}.weight" not in p:
            steps = [f"layers.{i}.0.{step}" for step in range(3)]
        for step in steps:
            weight = p[f"{step}.weight"]
            padding = 0 if i == 0 else weight.shape[-1] // 2
            groups = maps.shape[1] // weight.shape[1]
            maps = restated_convolution(maps, weight, p.get(f"{step}.bias"), padding, groups)
        norm = core.layers[i][1]
        mean, var = norm.running_mean, norm.running_var
        if training:
            mean = maps.sum((0, 2, 3)) / (maps.numel() / maps.shape[1])
            var = (maps - mean[:, None, None]).square().mean((0, 2, 3))
        maps = (maps - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        gain, offset = (p[f"layers.{i}.1.{name}"][:, None, None] for name in ("weight", "bias"))
        maps = maps * gain + offset
        if not linear:
            maps = torch.where(maps > 0, maps, maps.clamp(max=0).expm1())
    return maps


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize(("separable", "bias"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_core_restated_forward_and_backward(channels, separable, bias, linear, training):
    torch.manual_seed(0)
    core = nn.Stacked2dCore(
        (channels, 9, 10),
        n_layers=3,
        hidden_channels=4,
        input_kernel=4,
        hidden_kernel=3,
        depth_separable=separable,
        linear=linear,
        bias=bias,
    ).double()
    with torch.no_grad():
        for p in core.parameters():
            p.normal_()
        for _, norm, _ in core.layers:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    images = torch.randn(2, channels, 9, 10, dtype=torch.float64, requires_grad=True)
    restated = {n: p.detach().clone().requires_grad_() for n, p in core.named_parameters()}
    expected = restated_core(core, restated, images, linear, training)
    maps = core.train(training)(images)
    assert maps.shape[1:] == core.output_shape
    torch.testing.assert_close(maps, expected, rtol=1e-8, atol=1e-9)
    assert maps.stride(1) == 1  # channels last, as readouts want them

    weights = torch.randn(maps.shape, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((out * weights).sum(), [*leaves, images])
        for out, leaves in ((maps, core.parameters()), (expected, restated.values()))
    ]
    # Comparing zeros with zeros would say nothing. In training the mean takes some biases away.
    for name, ours, theirs in zip([*restated, "images"], *gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8, msg=name)
        if not (training and re.fullmatch(r"layers\.\d\.0\..*bias", name)):
            assert ours.abs().max() > 1e-3, name


@pytest.mark.parametrize(
    ("channels", "options", "count"),
    [
        (1, {}, 40_256),
        (4, {}, 55_808),
        (1, {"bias": False}, 39_680),
        (4, {"bias": False}, 55_232),
        (1, {"linear": True, "n_layers": 3}, 28_608),
    ],
)
def test_published_parameter_counts(channels, options, count):
    core = nn.Stacked2dCore((channels, 36, 64), **options)
    assert sum(p.numel() for p in core.parameters()) == count
    assert core.output_shape == (64, 28, 56)


def test_published_initial_values():
    torch.manual_seed(0)
    core = nn.Stacked2dCore((1, 36, 64))
    filters = core.layers[0][0].weight
    assert filters.std().item() == pytest.approx((2 / (81 + 64 * 81)) ** 0.5, rel=0.05)
    pointwise = core.layers[2][0][0]
    assert pointwise.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert (pointwise.bias == 0).all()


@pytest.mark.parametrize("momentum", [0.1, 0.9])
def test_batch_norm_momentum(momentum):
    core = nn.Stacked2dCore((1, 12, 12), n_layers=1, batch_norm_momentum=momentum).double()
    images = torch.randn(3, 1, 12, 12, dtype=torch.float64)
    maps = core.layers[0][0](images).detach()
    core(images)
    norm = core.layers[0][1]
    torch.testing.assert_close(norm.running_mean, momentum * maps.mean((0, 2, 3)))
    torch.testing.assert_close(
        norm.running_var, 1 - momentum + momentum * maps.var((0, 2, 3), correction=1)
    )


def test_penalty_is_the_weighted_roughness_of_the_first_filters():
    core = nn.Stacked2dCore((2, 12, 12), hidden_channels=1, input_kernel=3, laplace=0.5)
    with torch.no_grad():
        core.layers[0][0].weight.fill_(2)
    # Laplacian of a constant 3 x 3 with zeros around: corners 2, edges 1, centre 0.
    assert core.penalty().item() == pytest.approx(0.5 * (4 * 4 + 4) / 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_kernel": 37}, "patch of 37 x 37 pixels does not fit into images of 36 x 64"),
        ({"hidden_kernel": 4}, "hidden_kernel must be odd.* got 4"),
        ({"n_layers": 0}, "n_layers and hidden_channels must be at least 1, got 0 and 64"),
    ],
)
def test_errors_name_what_came(options, message):
    with pytest.raises(ValueError, match=message):
        nn.Stacked2dCore((1, 36, 64), **options)


def test_one_value_per_channel_is_refused_in_training_only():
    core = nn.Stacked2dCore((1, 9, 9), n_layers=1, hidden_channels=2)
    with pytest.raises(ValueError, match=r"one image of 9 x 9 pixels.*another batch_size"):
        core(torch.zeros(1, 1, 9, 9))
    assert core(torch.zeros(2, 1, 9, 9)).shape == (2, 2, 1, 1)
    assert core.eval()(torch.zeros(1, 1, 9, 9)).shape == (1, 2, 1, 1)


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"images of shape \(1, 36, 64\), got \(4, 36, 64\)"):
        nn.Stacked2dCore((1, 36, 64))(torch.zeros(2, 4, 36, 64))
