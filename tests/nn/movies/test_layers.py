"""Layers of movies, against the numbers of the published code, and what they look at."""

import pytest
import torch

from tests.nn.movies.published_vist import (
    assert_gradients_agree,
    load,
    relative_error,
    tensors,
    under,
)
from v1tlearn import nn

DTYPES = (torch.float64, torch.float32)
WAYS = ("auto", "plain")
each = pytest.mark.parametrize
LAYER = {"conv_dilated": "convolution", "norm": "norm", "conv_1x1": "mix"}
MODULATION = {"adaLN_modulation.1": "condition", "net.1": "mix"}


def tolerance(dtype):
    return 1e-6 if dtype == torch.float64 else 1e-4


def own_block(part):
    if part.startswith("embed."):
        return f"branches.{part.split('.')[1]}"
    return {"mapping": "mix", "conv1x1": "skip"}[part]


def filled(module, weights, own_name, dtype):
    """Module with published weights, and the published names of its parameters."""
    names = {}
    for name in weights:
        part, _, kind = name.rpartition(".")
        names[name] = f"{own_name(part)}.{kind}"
    found = module.to(dtype).load_state_dict(
        {names[n]: w for n, w in tensors(weights, dtype).items()}, strict=False
    )
    assert not found.unexpected_keys
    assert all(n.endswith("num_batches_tracked") for n in found.missing_keys)
    return names


def gradients(module, inputs, out, cotangent, names):
    (out * cotangent).sum().backward()
    own = dict(module.named_parameters())
    found = {theirs: own[n].grad for theirs, n in names.items() if n in own}
    return found | {name: x.grad for name, x in inputs.items()}


@each("dtype", DTYPES)
@each("way", WAYS)
@each("direction", ["causal", "symmetric"])
@each("file", ["dilated_layer", "dilated_layer_long"])
def test_dilated_layers_agree_with_the_published_one(file, direction, way, dtype):
    arrays = load(file)
    cotangent = torch.from_numpy(arrays["cotangent"]).to(dtype)
    for dilation in arrays["dilations"]:
        weights = under(arrays, f"dilation{dilation}/w/")
        channels = arrays["x"].shape[1]
        for mode in ("train", "eval"):
            layer = nn.DilatedLayer(
                channels, int(dilation), causal=direction == "causal", dropout=0.0
            )
            names = filled(layer, weights, LAYER.get, dtype)
            layer.train(mode == "train")
            x = torch.from_numpy(arrays["x"]).to(dtype).requires_grad_()
            case = under(arrays, f"dilation{dilation}/{direction}/{mode}/")
            with nn.fast.using(way):
                y = layer(x)
                found = gradients(layer, {"x": x}, y, cotangent, names)
            assert relative_error(y, case["y"]) < tolerance(dtype)
            assert_gradients_agree(found, under(case, "grad/"), dtype, case["zero_gradient"])
            for name, value in under(case, "after/").items():
                assert relative_error(layer.state_dict()[name], value) < tolerance(dtype)


@each("dtype", DTYPES)
@each("variant", ["summed", "per_cell"])
def test_modulation_by_receptive_fields_agrees_with_the_published_one(variant, dtype):
    arrays = load("rf_modulation")
    modulation = nn.ReceptiveFieldModulation(4, per_cell=variant == "per_cell")
    names = filled(modulation, under(arrays, "w/"), MODULATION.get, dtype)
    x, rf = (torch.from_numpy(arrays[k]).to(dtype).requires_grad_() for k in ("x", "rf"))
    y = modulation(x, rf)
    cotangent = torch.from_numpy(arrays["cotangent"]).to(dtype)
    found = gradients(modulation, {"x": x, "rf": rf}, y, cotangent, names)
    case = under(arrays, f"{variant}/")
    assert relative_error(y, case["y"]) < tolerance(dtype)
    assert_gradients_agree(found, under(case, "grad/"), dtype)


def test_modulation_begins_as_the_identity_and_learns_all_the_same():
    modulation = nn.ReceptiveFieldModulation(3)
    x, rf = torch.randn(2, 3, 4, 5, 5), torch.rand(2, 3, 5, 5)
    assert torch.equal(modulation(x, rf), x)
    modulation(x, rf).square().sum().backward()
    assert modulation.condition.weight.grad.any()


def test_a_summed_condition_does_not_tell_whose_a_field_is():
    x, rf = torch.randn(1, 3, 4, 5, 5), torch.rand(1, 3, 5, 5)
    for per_cell in (False, True):
        modulation = nn.ReceptiveFieldModulation(3, per_cell=per_cell)
        torch.nn.init.normal_(modulation.condition.weight)
        same = torch.allclose(modulation(x, rf), modulation(x, rf.flip(1)), atol=1e-6)
        assert same is not per_cell


@each("dtype", DTYPES)
@each("way", WAYS)
@each("direction", ["causal", "symmetric"])
@each("file", ["multiscale_block", "multiscale_block_long"])
def test_multiscale_blocks_agree_with_the_published_one(file, direction, way, dtype):
    arrays = load(file)
    cotangent = torch.from_numpy(arrays["cotangent"]).to(dtype)
    cases = sorted({k.split("/")[0] for k in arrays if k.startswith("kernels")})
    assert len(cases) == 2
    for name in cases:
        kernels = tuple(map(int, name.split("_")[1:]))
        channels = arrays["x"].shape[1]
        block = nn.MultiscaleBlock(channels, kernels, causal=direction == "causal", dropout=0.0)
        names = filled(block, under(arrays, f"{name}/w/"), own_block, dtype)
        x = torch.from_numpy(arrays["x"]).to(dtype).requires_grad_()
        case = under(arrays, f"{name}/{direction}/")
        with nn.fast.using(way):
            y = block(x)
            found = gradients(block, {"x": x}, y, cotangent, names)
        assert relative_error(y, case["y"]) < tolerance(dtype)
        assert_gradients_agree(found, under(case, "grad/"), dtype)


LAYERS = {
    "dilated": lambda causal: nn.DilatedLayer(3, 4, causal=causal),
    "block": lambda causal: nn.MultiscaleBlock(3, (1, 5, 9), causal=causal),
}
each_layer = each("make", LAYERS.values(), ids=LAYERS.keys())


@each("way", WAYS)
@each_layer
def test_causal_layers_look_back_as_far_as_they_say_and_not_ahead(make, way):
    for causal in (True, False):
        torch.manual_seed(0)
        layer = make(causal).eval()
        before, after = layer.context_frames
        assert (after == 0) is causal
        x = torch.randn(2, 3, 30, 6, 6)
        changed = x.clone()
        changed[:, :, 15] += 1
        with nn.fast.using(way), torch.no_grad():
            frames = (layer(changed) != layer(x)).flatten(3).any(3).any(1).any(0).nonzero()
        assert frames.min() == 15 - after
        assert frames.max() == 15 + before


@each("parts", [1e-4, 0.05, 1.0])
@each_layer
def test_whatever_the_size_of_parts_results_are_the_same(make, parts):
    torch.manual_seed(0)
    layer, x = make(True), torch.randn(2, 3, 30, 6, 6)
    layer.dropout = torch.nn.Identity() if isinstance(layer, nn.DilatedLayer) else 0.0
    if isinstance(layer, nn.DilatedLayer):
        layer.dropout.p = 0.0
    results = []
    for choice in (nn.fast.using("auto", parts=parts), nn.plain()):
        leaf = x.clone().requires_grad_()
        with choice:
            y = layer(leaf)
            results.append([y, *torch.autograd.grad(y.sin().sum(), [leaf, *layer.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


@each("size", [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_frames_of_one_pixel_are_computed_alike_and_leave_weights_as_they_are(size):
    """The bias of a convolution once was what its results were summed up in."""
    torch.manual_seed(0)
    layer, x = nn.DilatedLayer(3, 2, dropout=0.0), torch.randn(2, 3, *size)
    weights = [p.detach().clone() for p in layer.parameters()]
    results = []
    for way in WAYS:
        leaf = x.clone().requires_grad_()
        with nn.fast.using(way):
            y = layer(leaf)
            results.append([y, *torch.autograd.grad(y.sin().sum(), [leaf, *layer.parameters()])])
        torch.testing.assert_close(list(layer.parameters()), weights, rtol=0, atol=0)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


@each("way", WAYS)
@each_layer
def test_layers_compute_in_half_precision_under_autocast(make, way):
    torch.manual_seed(0)
    layer = make(True).eval()
    x = torch.randn(2, 3, 30, 6, 6)

    def outputs_and_gradients(movies, *, autocast):
        leaf = movies.clone().requires_grad_()
        with nn.fast.using(way), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(leaf)
        return [y, *torch.autograd.grad(y.double().square().sum(), [leaf, *layer.parameters()])]

    half = outputs_and_gradients(x.bfloat16(), autocast=True)  # as a layer before would give them
    single = outputs_and_gradients(x, autocast=False)
    assert half[1].dtype == torch.bfloat16
    for found, wanted in zip(half, single, strict=True):
        # a few roundings to 8 bits; where one turns a sign, gradients of single places are others
        assert (found - wanted).norm() < 4 * 2**-8 * wanted.norm()


def test_dropout_takes_its_share_of_what_a_layer_adds_and_gradients_follow():
    torch.manual_seed(0)
    layer, x = nn.DilatedLayer(16, dropout=0.4), torch.randn(2, 16, 30, 6, 6, requires_grad=True)
    added = layer(x) - x
    dropped = added == 0
    assert dropped.float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert not torch.equal(layer(x) - x == 0, dropped)
    bias = layer.mix.bias
    (by_bias,) = torch.autograd.grad(added.sum(), bias)
    torch.testing.assert_close(by_bias, (~dropped).sum((0, 2, 3, 4)) / 0.6)
    assert not (layer.eval()(x) == x).any()


def test_dropout_of_a_block_takes_whole_channels():
    torch.manual_seed(0)
    block = nn.MultiscaleBlock(40, (3,), dropout=0.5)
    torch.nn.init.zeros_(block.skip.weight)
    torch.nn.init.zeros_(block.skip.bias)
    torch.nn.init.zeros_(block.mix.bias)
    torch.nn.init.eye_(block.mix.weight[:, :, 0, 0, 0].data)
    alive = (block(torch.randn(3, 40, 8, 6, 6)) != 0).flatten(2)
    assert torch.equal(alive.any(2), alive.all(2))
    assert 0.3 < alive.float().mean() < 0.7


@each_layer
def test_second_derivatives_are_plain_ones_and_refused_elsewhere(make):
    torch.manual_seed(0)
    layer = make(True).double().eval()
    x = torch.randn(1, 3, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    with nn.plain():
        assert torch.autograd.gradgradcheck(lambda x: layer(x).pow(2).sum(), x)
    (gradient,) = torch.autograd.grad(layer(x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"v1tlearn\.nn\.plain"):
        torch.autograd.grad(gradient.sum(), x)


def test_layers_say_what_they_need():
    with pytest.raises(ValueError, match="at least one branch"):
        nn.MultiscaleBlock(3, ())
    with pytest.raises(ValueError, match="symmetric kernel of 4 frames"):
        nn.MultiscaleBlock(3, (4,), causal=False)
    with pytest.raises(ValueError, match="causal kernel of 0 frames"):
        nn.MultiscaleBlock(3, (0,))
