"""The convolutional core against a plain restatement in float64."""

import copy
import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v1tlearn import nn
from v1tlearn.nn import fast
from v1tlearn.nn.fast import convolution


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


def random_core(input_shape, **options):
    """A float64 core with random parameters and running statistics, and leaves like them."""
    core = nn.Stacked2dCore(input_shape, **options).double()
    with torch.no_grad():
        for p in core.parameters():
            p.normal_()
        for _, norm, _ in core.layers:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return core, {n: p.detach().clone().requires_grad_() for n, p in core.named_parameters()}


def with_planes(images, behaviors):
    planes = behaviors[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat((images, planes), 1)


@settings(max_examples=25)
@given(
    n_images=st.integers(2, 5),
    channels=st.integers(1, 2),
    planes=st.integers(0, 3),
    n_layers=st.integers(1, 3),
    input_kernel=st.integers(1, 4),
    hidden_kernel=st.sampled_from([1, 3, 5]),
    separable=st.booleans(),
    bias=st.booleans(),
    linear=st.booleans(),
    training=st.booleans(),
    parts=st.sampled_from([2**-19, 150 / 2**19, 1.0]),
    size=st.tuples(st.integers(4, 9), st.integers(5, 9)),
)
def test_any_core_restated_with_planes_as_numbers(
    n_images, channels, planes, n_layers, input_kernel, hidden_kernel, separable, bias, linear,
    training, parts, size,
):  # fmt: skip
    torch.manual_seed(n_images + 7 * planes)
    core, leaves = random_core(
        (channels + planes, *size),
        n_layers=n_layers,
        hidden_channels=3,
        input_kernel=input_kernel,
        hidden_kernel=hidden_kernel,
        depth_separable=separable,
        linear=linear,
        bias=bias,
    )
    images, behaviors = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((n_images, channels, *size), (n_images, planes))
    )
    expected = restated_core(core, leaves, with_planes(images, behaviors), linear, training)
    core.train(training)
    with fast.using("auto", parts=parts):  # one image, a few, or all at a time
        maps = core(images, behaviors if planes else None)
        torch.testing.assert_close(maps, expected, rtol=1e-8, atol=1e-8)
        weights = torch.randn(maps.shape, dtype=torch.float64)
        inputs = [images, behaviors] if planes else [images]
        gradients = [
            torch.autograd.grad((out * weights).sum(), [*given, *inputs])
            for out, given in ((maps, core.parameters()), (expected, leaves.values()))
        ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


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


def test_statistics_run_as_those_of_plain_layers():
    torch.manual_seed(0)
    core, _ = random_core((2, 8, 9), n_layers=3, hidden_channels=4, input_kernel=3)
    plain = copy.deepcopy(core.layers)  # modules of torch, called one after the other
    for _ in range(3):
        images = torch.randn(4, 2, 8, 9, dtype=torch.float64)
        torch.testing.assert_close(core(images), plain(images))
    for (_, ours, _), (_, theirs, _) in zip(core.layers, plain, strict=True):
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)
        assert ours.num_batches_tracked == theirs.num_batches_tracked == 3


def test_a_normalisation_in_evaluation_mode_keeps_its_statistics_in_a_core_that_trains():
    torch.manual_seed(0)
    core, _ = random_core((2, 8, 9), n_layers=2, hidden_channels=3, input_kernel=3)
    core.layers[0][1].eval()
    plain = copy.deepcopy(core.layers)
    images = torch.randn(4, 2, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(core(images), plain(images))
    assert core.layers[0][1].num_batches_tracked == plain[0][1].num_batches_tracked


def test_maps_far_from_zero_do_not_bend_the_gradient():
    torch.manual_seed(0)
    how = convolution.ActivatedConvolutions(True, 1e-5, "elu", torch.float32, ())
    maps = 30 + 0.3 * torch.randn(8, 4, 20, 20).contiguous(memory_format=torch.channels_last)
    weights, gain, offset = torch.randn(8, 4, 20, 20), torch.rand(4) + 0.5, torch.randn(4)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        x = maps.to(dtype).requires_grad_()
        mean, variance = maps.double().mean((0, 2, 3)), maps.double().var((0, 2, 3), correction=0)
        out = convolution.activated_convolutions(
            *(t.to(dtype) for t in (x, gain, offset, mean, variance)), how._replace(dtype=dtype)
        )
        gradients.append(torch.autograd.grad((out * weights).sum(), x)[0].double())
    # Of a constant plane ahead of normalisation this is the gradient: the truth is zero.
    drift = (gradients[0] - gradients[1]).sum((0, 2, 3)).abs()
    assert (drift < 2e-7 * gradients[1].abs().sum((0, 2, 3))).all()


@pytest.mark.parametrize("side", [1, 3, 7])
def test_filters_gradient_by_large_filters_is_that_of_torch(side):
    maps, gradient = torch.randn(2, 4, 5, 8, 9, dtype=torch.float64)
    weight = torch.randn(5, 1, side, side, dtype=torch.float64, requires_grad=True)
    out = torch.nn.functional.conv2d(maps, weight, padding=side // 2, groups=5)
    (expected,) = torch.autograd.grad(out, weight, gradient)
    found = convolution.depthwise_weight_gradient(gradient, maps, side // 2)
    torch.testing.assert_close(found, expected)


def test_training_keeps_one_map_per_layer():
    core = nn.Stacked2dCore((1, 20, 24), hidden_channels=8, input_kernel=3)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        maps = core(torch.randn(6, 1, 20, 24))
    weights = sum(p.nbytes for p in core.parameters()) + 6 * 20 * 24 * 4
    assert sum(kept.values()) < 4 * maps.nbytes + 3 * weights


def test_a_core_without_gradients_passes_them_on():
    core, _ = random_core((1, 8, 9), n_layers=2, hidden_channels=3, input_kernel=3)
    images = torch.randn(3, 1, 8, 9, dtype=torch.float64, requires_grad=True)
    core.eval()
    (expected,) = torch.autograd.grad(core(images).square().sum(), images)
    core.requires_grad_(False)
    (gradient,) = torch.autograd.grad(core(images).square().sum(), images)
    torch.testing.assert_close(gradient, expected)
    assert not core(images.detach()).requires_grad


@pytest.mark.parametrize("planes", [0, 2])
def test_bfloat16_is_within_its_rounding(planes):
    torch.manual_seed(0)
    core = nn.Stacked2dCore((1 + planes, 12, 14), n_layers=3, hidden_channels=8, input_kernel=5)
    exact = nn.Stacked2dCore((1 + planes, 12, 14), n_layers=3, hidden_channels=8, input_kernel=5)
    exact.load_state_dict(core.state_dict())
    exact.double()
    images, behaviors = torch.randn(6, 1, 12, 14), torch.randn(6, planes)
    weights = torch.randn(6, 8, 8, 10)
    with torch.autocast("cpu", torch.bfloat16):
        maps = core(images, behaviors if planes else None)
    assert maps.dtype == torch.bfloat16
    expected = exact(with_planes(images, behaviors).double())
    assert (maps - expected).abs().mean() < 0.01 * expected.abs().mean()
    (maps.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, ours), theirs in zip(core.named_parameters(), exact.parameters(), strict=True):
        if not re.fullmatch(r"layers\.\d\.0\..*bias", name):  # zero but for rounding
            assert ours.grad.dtype == torch.float32
            error = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
            assert error < 0.05, name


def test_the_same_images_give_the_same_bits():
    torch.manual_seed(0)
    core = nn.Stacked2dCore((1, 12, 14), n_layers=3, hidden_channels=8, input_kernel=5)
    images = torch.randn(6, 1, 12, 14)
    runs = []
    for _ in range(2):
        core.zero_grad()
        maps = core(images)
        maps.square().sum().backward()
        runs.append([maps.detach(), *(p.grad.clone() for p in core.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_no_image_gives_no_map():
    assert nn.Stacked2dCore((1, 12, 14)).eval()(torch.zeros(0, 1, 12, 14)).shape == (0, 64, 4, 6)


@pytest.mark.gpu
@pytest.mark.parametrize("training", [False, True])
def test_gpu_maps_and_gradients_are_those_of_the_cpu(training):
    torch.manual_seed(0)
    core, _ = random_core((3, 16, 20), n_layers=3, hidden_channels=8, input_kernel=5)
    images, behaviors = torch.randn(4, 1, 16, 20), torch.randn(4, 2)
    runs = []
    for device in ("cpu", "cuda"):
        core.to(device).train(training).zero_grad()
        maps = core(images.double().to(device), behaviors.double().to(device))
        maps.square().sum().backward()
        runs.append([maps.detach().cpu(), *(p.grad.cpu() for p in core.parameters())])
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


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
