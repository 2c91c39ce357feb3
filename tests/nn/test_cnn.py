"""The convolutional core against a plain restatement in float64."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from v1tlearn import nn


def restated_convolution(images, weight, bias, padding, groups=1):
    """Convolution, plane by plane."""
    images = np.pad(images, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    out = []
    per_group = weight.shape[1]
    for o, filters in enumerate(weight):
        first = o // (len(weight) // groups) * per_group
        planes = [
            sum(correlate2d(image[first + i], f, "valid") for i, f in enumerate(filters))
            for image in images
        ]
        out.append(np.stack(planes) + (0 if bias is None else bias[o]))
    return np.stack(out, 1)


def restated_core(core, images, linear, training):
    maps = images.numpy()
    for i, (convolution, norm, _) in enumerate(core.layers):
        steps = convolution if isinstance(convolution, torch.nn.Sequential) else [convolution]
        for step in steps:
            weight = step.weight.detach().numpy()
            bias = None if step.bias is None else step.bias.detach().numpy()
            padding = 0 if i == 0 else weight.shape[-1] // 2
            maps = restated_convolution(maps, weight, bias, padding, step.groups)
        mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
        if training:
            mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
        mean, var, gain, offset = (
            np.asarray(a)[:, None, None]
            for a in (mean, var, norm.weight.detach(), norm.bias.detach())
        )
        maps = (maps - mean) / np.sqrt(var + 1e-5) * gain + offset
        if not linear:
            maps = np.where(maps > 0, maps, np.expm1(np.minimum(maps, 0)))
    return maps


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize(("separable", "bias"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_core_restated(channels, separable, bias, linear, training):
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
    images = torch.randn(2, channels, 9, 10, dtype=torch.float64)
    expected = restated_core(core, images, linear, training)
    maps = core.train(training)(images).detach()
    assert maps.shape[1:] == core.output_shape
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-8, atol=1e-9)
    assert maps.stride(1) == 1  # channels last, as readouts want them


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
    means = core.layers[0][0](images).mean((0, 2, 3))
    core(images)
    torch.testing.assert_close(core.layers[0][1].running_mean, momentum * means)


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
