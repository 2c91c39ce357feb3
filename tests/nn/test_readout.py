"""Gaussian readout and shifters against brute force in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.nn.fast.attending import LargestTensor, torch_threads
from v1tlearn import nn
from v1tlearn.nn import fast
from v1tlearn.nn.fast.reading import read_points

KINDS = ("full", "uncorrelated", "isotropic")


def interpolate(feature_map, x, y):
    """Bilinear value of a (C, h, w) map at (x, y), zeros outside, corner cells at -1 and 1."""
    n_channels, height, width = feature_map.shape
    column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    value = np.zeros(n_channels)
    for r in (int(np.floor(row)), int(np.floor(row)) + 1):
        for c in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= r < height and 0 <= c < width:
                value += (1 - abs(row - r)) * (1 - abs(column - c)) * feature_map[:, r, c]
    return value


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_sampling_is_bilinear_with_zeros_outside(n_images, n_channels, height, width):
    rng = np.random.default_rng(height + 10 * width)
    features = rng.normal(size=(n_images, n_channels, height, width))
    points = rng.uniform(-1.6, 1.6, size=(n_images, 9, 2))
    points[:, 0], points[:, 1], points[:, 2] = (-1, -1), (1, 1), (0, 0)
    expected = [
        [interpolate(m, *point) for point in some] for m, some in zip(features, points, strict=True)
    ]
    sampled = nn.sample_features(torch.tensor(features), torch.tensor(points))
    np.testing.assert_allclose(sampled.numpy(), expected, atol=1e-12)


def test_sampling_gradients():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(2, 6, 2, dtype=torch.float64) * 2.4 - 1.2).requires_grad_()
    assert torch.autograd.gradcheck(nn.sample_features, (features, points))


def test_sampling_is_the_same_on_channels_last_maps_and_every_time():
    features = torch.randn(4, 8, 7, 9)
    points = torch.rand(4, 50, 2) * 2 - 1
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last, torch.channels_last):
        leaf = features.clone(memory_format=layout).requires_grad_()
        nn.sample_features(leaf, points).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[1], gradients[2])


@given(
    st.integers(1, 18), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 7)
)
def test_readouts_are_products_with_bilinear_samples(n_images, n_channels, height, width, n):
    rng = np.random.default_rng(height + 10 * width)
    features = rng.normal(size=(n_images, n_channels, height, width))
    points = rng.uniform(-2.6, 2.6, size=(n_images, n, 2))
    points[:, 0] = rng.choice([(-1, -1), (1, 1), (0, 0), (1e30, 0), (-1e30, 1)])
    weights = rng.normal(size=(n, n_channels))
    finite = points.clip(-9, 9)
    expected = [
        [interpolate(m, *point) @ w for point, w in zip(some, weights, strict=True)]
        for m, some in zip(features, finite, strict=True)
    ]
    read = read_points(*(torch.tensor(values) for values in (features, points, weights)))
    np.testing.assert_allclose(read.numpy(), expected, atol=1e-12)


@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 60), st.booleans(), st.booleans())
def test_blocks_without_gradients_read_the_same(n_images, height, n, moved, last):
    generator = torch.Generator().manual_seed(height + 10 * n)
    shape = (n_images, 3, height, height + 1)
    features = torch.randn(shape, dtype=torch.float64, generator=generator)
    features = features.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    sets = (n_images if moved else 1, n, 2)
    points = 3 * torch.rand(sets, dtype=torch.float64, generator=generator) - 1.5
    weights = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    expected = read_points(features, points, weights.clone().requires_grad_()).detach()
    with fast.using("auto", parts=2**-14):  # of 2^19 values and 2^15 points
        read = read_points(features, points, weights)
    torch.testing.assert_close(read, expected, rtol=0, atol=1e-12)
    sampled = nn.sample_features(features, points.expand(n_images, -1, -1))
    torch.testing.assert_close(read, (sampled * weights).sum(-1), rtol=0, atol=1e-12)


def test_one_set_of_points_gets_the_gradients_of_all_images():
    torch.manual_seed(0)
    features, weights = torch.randn(9, 3, 4, 5).double(), torch.randn(6, 3).double()
    points = (torch.rand(1, 6, 2).double() * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: read_points(features, p, weights), (points,))


def test_no_more_feature_vectors_than_a_block_without_gradients():
    features = torch.randn(20, 16, 5, 6)
    for n_neurons in (300, 600):
        points, weights = torch.zeros(1, n_neurons, 2), torch.ones(n_neurons, 16)
        # of 2^19 values
        with fast.using("auto", parts=2**-5), torch_threads(1), LargestTensor() as mode:
            read_points(features, points, weights)
        assert mode.largest <= max(2**14, 20 * 9 * 10 * 16)  # a block, and the padded maps
        assert mode.largest < 20 * n_neurons * 16


@pytest.mark.parametrize(("n_images", "height", "width", "n"), [(2, 4, 5, 6), (9, 3, 1, 1)])
def test_readout_gradients(n_images, height, width, n):
    torch.manual_seed(0)
    features = torch.randn(n_images, 3, height, width, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(n_images, n, 2, dtype=torch.float64) * 2.8 - 1.4).requires_grad_()
    weights = torch.randn(n, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(read_points, (features, points, weights))


def test_positions_far_from_the_map_get_no_gradient():
    points = torch.tensor([[[-2.5, 0.0], [0.0, 7.0]]], requires_grad=True)
    read = read_points(torch.ones(1, 1, 3, 3), points, torch.ones(2, 1))
    read.sum().backward()
    assert (read == 0).all()
    assert (points.grad == 0).all()


def test_readouts_are_the_same_in_either_layout_and_every_time():
    torch.manual_seed(0)
    features, points, weights = torch.randn(11, 8, 7, 9), torch.rand(11, 50, 2), torch.randn(50, 8)
    runs = []
    for layout in (torch.contiguous_format, torch.channels_last, torch.channels_last):
        leaves = [features.clone(memory_format=layout), points.clone(), weights.clone()]
        read = read_points(*(leaf.requires_grad_() for leaf in leaves))
        runs.append([read.detach(), *torch.autograd.grad(read.square().sum(), leaves)])
    for one, other, third in zip(*runs, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(other, third)


def test_bfloat16_maps_are_read_in_float32():
    torch.manual_seed(0)
    features = torch.randn(3, 4, 5, 6).bfloat16().requires_grad_()
    readout = nn.GaussianReadout((4, 5, 6), 7).eval()
    exact = features.detach().float().requires_grad_()
    read, expected = readout(features), readout(exact)
    assert torch.equal(read, expected)
    (gradient,) = torch.autograd.grad(read.square().sum(), features)
    (expected,) = torch.autograd.grad(expected.square().sum(), exact)
    assert torch.equal(gradient, expected.bfloat16())


def test_training_keeps_no_feature_vectors():
    readout = nn.GaussianReadout((16, 5, 6), 300)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    features = torch.randn(8, 16, 5, 6, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        readout(features)
    assert sum(kept.values()) < 8 * 300 * 16 * 4  # n_images x n_neurons x n_channels


@pytest.mark.gpu
def test_gpu_readouts_and_gradients_are_those_of_the_cpu():
    torch.manual_seed(0)
    shapes = ((5, 4, 6, 7), (5, 30, 2), (30, 4))
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    runs = []
    for device in ("cpu", "cuda"):
        leaves = [t.to(device).requires_grad_() for t in tensors]
        read = read_points(*leaves)
        gradients = torch.autograd.grad(read.square().sum(), leaves)
        runs.append([read.detach().cpu(), *(g.cpu() for g in gradients)])
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_a_position_that_is_nan_gives_nan_instead_of_a_crash():
    points = torch.tensor([[[torch.nan, 0.0], [0.0, 0.0], [1e30, 0.0]]])
    sampled = nn.sample_features(torch.ones(1, 1, 3, 3), points)[0, :, 0]
    assert sampled.isnan().tolist() == [True, False, False]
    assert sampled[1] == 1
    read = read_points(torch.ones(1, 1, 3, 3), points, torch.ones(3, 1))
    assert torch.equal(read.isnan(), sampled.isnan()[None])


@pytest.mark.parametrize("gaussian", KINDS)
@pytest.mark.parametrize("n_axes", [None, 2, 3])
def test_evaluation_reads_at_the_position(gaussian, n_axes):
    torch.manual_seed(0)
    positions = None if n_axes is None else np.random.default_rng(0).normal(size=(7, n_axes))
    readout = nn.GaussianReadout((4, 5, 6), 7, positions=positions, gaussian=gaussian).double()
    with torch.no_grad():
        readout.features.normal_()
        readout.bias.normal_()
    features = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    shift = torch.randn(3, 2, dtype=torch.float64)
    out = readout.eval()(features, shift).detach().numpy()
    weights, bias = readout.features.detach().numpy(), readout.bias.detach().numpy()
    for b in range(3):
        for n, mu in enumerate(readout.mu().detach().numpy()):
            value = interpolate(features[b].numpy(), *(mu + shift[b].numpy()))
            assert out[b, n] == pytest.approx(value @ weights[n] + bias[n], abs=1e-12)


def test_position_network_restated():
    positions = np.random.default_rng(0).normal(size=(9, 3)) * 400 + 100
    readout = nn.GaussianReadout((2, 4, 4), 9, positions=positions, hidden_layers=2).double()
    centred = positions - positions.mean(0)
    values = (centred / np.abs(centred).max()).astype(np.float32).astype(float)
    layers = [m for m in readout.position_network if isinstance(m, torch.nn.Linear)]
    assert [tuple(m.weight.shape) for m in layers] == [(30, 3), (30, 30), (2, 30)]
    for i, layer in enumerate(layers):
        values = values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        values = np.tanh(values) if i == 2 else np.where(values > 0, values, np.expm1(values))
    np.testing.assert_allclose(readout.mu().detach().numpy(), values, atol=1e-12)


def test_read_only_arrays_are_taken_without_a_warning():
    arrays = {"positions": np.eye(3), "bias_init": np.ones(3, dtype=np.float32)}
    for array in arrays.values():
        array.setflags(write=False)
    readout = nn.GaussianReadout((2, 4, 4), 3, **arrays)
    with torch.no_grad():
        readout.bias.zero_()
    assert (arrays["bias_init"] == 1).all()


def test_equal_positions_do_not_divide_by_zero():
    readout = nn.GaussianReadout((2, 4, 4), 3, positions=np.full((3, 2), 250.0))
    assert readout.mu().isfinite().all()


@pytest.mark.parametrize("gaussian", KINDS)
def test_training_draws_positions_with_the_spread_of_each_neuron(gaussian):
    torch.manual_seed(0)
    readout = nn.GaussianReadout((2, 33, 33), 1, gaussian=gaussian, init_sigma=0.1)
    with torch.no_grad():
        readout.free_mu.zero_()
        if gaussian == "full":
            readout.sigma.copy_(torch.tensor([[[0.1, 0.02], [0.05, 0.08]]]))
        if gaussian == "uncorrelated":
            readout.sigma.copy_(torch.tensor([[0.1, 0.03]]))
        readout.features.copy_(torch.tensor([[1.0, 0.0]]))
    ramp = torch.linspace(-1, 1, 33)
    x, y = ramp.expand(33, 33), ramp[:, None].expand(33, 33)
    draws = []
    for plane in (x, y, x + y):
        features = torch.stack((plane, torch.zeros_like(plane)))[None].expand(20000, -1, -1, -1)
        draws.append(readout(features).detach().var().item())
    covariance = torch.zeros(2, 2)
    if gaussian == "full":
        covariance = readout.sigma[0] @ readout.sigma[0].T
    else:
        covariance = torch.diag(readout.sigma[0].expand(2) ** 2)
    expected = [covariance[0, 0], covariance[1, 1], covariance.sum()]
    np.testing.assert_allclose(draws, [v.item() for v in expected], rtol=0.05)


def test_published_initial_values():
    torch.manual_seed(0)
    readout = nn.GaussianReadout((64, 28, 56), 4000, init_sigma=0.1, init_mu_range=0.3)
    assert (readout.features == 1 / 64).all()
    assert (readout.bias == 0).all()
    for values, limit in ((readout.sigma, 0.1), (readout.free_mu, 0.3)):
        assert values.abs().max() <= limit
        assert values.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
    isotropic = nn.GaussianReadout((64, 28, 56), 5, gaussian="isotropic", init_sigma=0.2)
    assert isotropic.sigma.shape == (5, 1)
    assert (isotropic.sigma == 0.2).all()
    biases = np.arange(5.0)
    started = nn.GaussianReadout((64, 28, 56), 5, bias_init=biases)
    assert started.bias.tolist() == biases.tolist()


@pytest.mark.parametrize(("n_channels", "count"), [(64, 577_820), (155, 1_339_672)])
def test_published_parameter_counts(n_channels, count):
    readout = nn.GaussianReadout((n_channels, 28, 56), 8372, positions=torch.rand(8372, 2))
    assert sum(p.numel() for p in readout.parameters()) == count


def test_free_positions_return_to_the_map_in_training():
    readout = nn.GaussianReadout((1, 3, 3), 2)
    with torch.no_grad():
        readout.free_mu.copy_(torch.tensor([[1.5, 0.0], [0.2, -3.0]]))
    assert readout.mu().abs().max() == 1
    readout.train()(torch.zeros(1, 1, 3, 3))
    assert readout.free_mu.tolist() == [[1, 0], [pytest.approx(0.2), -1]]


def test_permuted_neurons_give_permuted_responses():
    readout = nn.GaussianReadout((3, 4, 5), 6).eval()
    features = torch.randn(2, 3, 4, 5)
    responses = readout(features)
    order = torch.randperm(6)
    with torch.no_grad():
        for p in readout.parameters():
            p.copy_(p[order].clone())
    torch.testing.assert_close(readout(features), responses[:, order])


def test_penalty_is_the_weighted_sum_of_absolute_weights():
    readout = nn.GaussianReadout((3, 4, 5), 6, l1=0.5)
    with torch.no_grad():
        readout.features.fill_(-2)
    assert readout.penalty().item() == pytest.approx(0.5 * 2 * 18)


def test_bfloat16_maps_are_read_at_full_precision():
    readout = nn.GaussianReadout((3, 4, 5), 6, positions=torch.rand(6, 2)).eval()
    features = torch.randn(2, 3, 4, 5).bfloat16()
    expected = readout(features.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(readout(features), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neurons": 0}, "at least one neuron"),
        ({"gaussian": "round"}, "'uncorrelated', 'isotropic', got 'round'"),
        ({"init_sigma": 0.0}, "init_sigma must be positive"),
        ({"init_mu_range": 1.2}, r"init_mu_range must be above 0 and at most 1, got 1\.2"),
        ({"hidden_layers": -1}, "hidden_layers >= 0"),
        ({"positions": np.zeros((4, 2))}, r"with 3 neurons, got shape \(4, 2\)"),
        ({"positions": np.full((3, 2), np.nan)}, "positions hold NaN"),
        ({"bias_init": np.zeros(2)}, "one finite value for each of 3 neurons"),
        ({"bias_init": np.full(3, -np.inf)}, "3 not finite"),
    ],
)
def test_errors_name_what_came(options, message):
    with pytest.raises(ValueError, match=message):
        nn.GaussianReadout((2, 4, 4), **{"n_neurons": 3} | options)


def test_a_map_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"maps of shape \(2, 4, 4\), got \(2, 4, 5\)"):
        nn.GaussianReadout((2, 4, 4), 3)(torch.zeros(1, 2, 4, 5))


def test_shifter_restated():
    shifter = nn.Shifter().double()
    assert sum(p.numel() for p in shifter.parameters()) == 57
    inputs = np.random.default_rng(0).normal(size=(4, 2))
    values = inputs
    for layer in shifter.network[::2]:
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        values = np.tanh(values @ weight.T + bias)
    out = shifter(torch.tensor(inputs)).detach().numpy()
    np.testing.assert_allclose(out, values, atol=1e-14)


@pytest.mark.parametrize(("n_inputs", "count"), [(2, 162), (5, 192)])
def test_stimulus_shifter_stays_within_its_reach(n_inputs, count):
    shifter = nn.StimulusShifter(n_inputs, max_shift=0.2)
    assert sum(p.numel() for p in shifter.parameters()) == count
    inputs = 100 * torch.randn(50, n_inputs)
    assert shifter(inputs).abs().max() <= 0.2
    torch.testing.assert_close(shifter(inputs), 0.2 * shifter.network(inputs))


def test_shifter_refuses_other_inputs():
    with pytest.raises(ValueError, match=r"takes 2 standardised variables .* shape \(3, 5\)"):
        nn.Shifter()(torch.zeros(3, 5))
