"""Second derivatives: of any kind where layers are plain, and never wrong elsewhere."""

import contextlib

import pytest
import torch

from v1tlearn import nn
from v1tlearn.nn import fast
from v1tlearn.nn.fast.attention import attend
from v1tlearn.nn.fast.contraction import contract_separable
from v1tlearn.nn.layers.attention import Attention, weigh
from v1tlearn.nn.layers.dropout import Dropout
from v1tlearn.nn.sharing import Shared, shared, total

NAMED = r"v1tlearn\.nn\.plain\(\)"


def randomised(module, seed=0):
    """Module in float64 whose parameters are random, also those that begin at zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in module.double().parameters():
            p.normal_(0, 0.5)
    return module


def cnn(training=False, **options):
    core = nn.Stacked2dCore(
        (2, 5, 6), n_layers=2, hidden_channels=3, input_kernel=3, hidden_kernel=3, **options
    )
    return randomised(core).train(training)


def two_layers(training=False, **options):
    core = nn.TwoLayerCore((2, 5, 6), channels=(2, 3), kernels=(3,), **options)
    return randomised(core).train(training)


def vit(training=False, **options):
    sizes = {"patch_size": 3, "patch_stride": 2, "n_blocks": 2, "n_heads": 2, "embed_dim": 4}
    rates = dict.fromkeys(("patch_dropout", "attention_dropout", "mlp_dropout"), 0.0)
    core = nn.ViTCore((2, 5, 6), mlp_dim=3, **{**sizes, **rates, **options})
    return randomised(core).train(training)


def attention(local=False, dropout=0.0, training=False):
    layer = Attention(4, 2, 6, head_dim=3, scale=0.7, local=local, dropout=dropout)
    return randomised(layer).train(training)


def readout(training=False, **options):
    return randomised(nn.GaussianReadout((2, 5, 6), 7, **options)).train(training)


def neurons(n_heads=1):
    tower = nn.AttentionTower(
        6, (1, 3, 4), grid=(2, 2), embed_dim=4, n_heads=n_heads, hidden_units=()
    )
    return randomised(tower)


def minimodels(training=False):
    options = {"hidden_channels": 2, "hidden_kernel": 3}
    return randomised(nn.MinimodelReadout((2, 6, 8), 2, **options)).train(training)


def mixed_block(training=False):
    return randomised(nn.MixBlock(8, 1, 2)).train(training)


def whole_model(core, shift="none", channels=False):
    """Two mice; "A" has what moves with the eye."""
    readouts = {
        m: nn.GaussianReadout(core.output_shape, n, positions=torch.rand(n, 2) if n > 2 else None)
        for m, n in {"A": 3, "B": 2}.items()
    }
    cropper = nn.ImageCropper(
        (8, 10),
        crop_scale=0.7,
        image_size=(5, 6),
        shifters={"A": nn.StimulusShifter(max_shift=0.3)} if shift == "stimulus" else None,
    )
    shifters = {"A": nn.Shifter()} if shift == "readout" else None
    heads = {"A": nn.EluHead(), "B": nn.SoftplusHead(2.0)}
    model = nn.EncodingModel(
        core,
        readouts,
        cropper=cropper,
        shifters=shifters,
        heads=heads,
        behavior_channels=channels,
    )
    return randomised(model).train(core.training)


def movies(training=False, **options):
    """Layers of Vi-ST without dropout, of frames of 5 x 6."""
    layers = nn.DilatedLayer(2, 2, dropout=0.0), nn.MultiscaleBlock(2, (1, 3), dropout=0.0)
    return randomised(torch.nn.Sequential(*layers)).train(training)


PARTS = {
    "cnn": (cnn, (2, 2, 5, 6)),
    "cnn, training": (lambda: cnn(training=True), (2, 2, 5, 6)),
    "cnn, not separable": (lambda: cnn(depth_separable=False), (1, 2, 5, 6)),
    "ln": (lambda: cnn(linear=True), (1, 2, 5, 6)),
    "two layers": (two_layers, (2, 2, 5, 6)),
    "two layers, training": (lambda: two_layers(training=True), (2, 2, 5, 6)),
    "two layers, means": (
        lambda: two_layers(pooling="mean", depth_separable=False, activation="none"),
        (1, 2, 5, 6),
    ),
    "vit": (vit, (1, 2, 5, 6)),
    "vit, lsa": (lambda: vit(attention="lsa"), (1, 2, 5, 6)),
    "vit, cct": (lambda: vit(tokenizer="cct"), (1, 2, 5, 6)),
    "vit, dual norm": (lambda: vit(tokenizer="dual_norm"), (1, 2, 5, 6)),
    "attention": (attention, (2, 6, 4)),
    "attention, lsa": (lambda: attention(local=True), (2, 6, 4)),
    "readout": (readout, (2, 2, 5, 6)),
    "neurons": (neurons, (2, 6)),
    "neurons, two heads": (lambda: neurons(n_heads=2), (2, 6)),
    "minimodels": (minimodels, (2, 2, 6, 8)),
    "minimodels, training": (lambda: minimodels(training=True), (2, 2, 6, 8)),
    "mixed block": (mixed_block, (1, 8, 5, 6)),
    "mixed block, training": (lambda: mixed_block(training=True), (2, 8, 5, 6)),
    "movies": (movies, (1, 2, 4, 5, 6)),
    "movies, training": (lambda: movies(training=True), (1, 2, 4, 5, 6)),
}
each_part = pytest.mark.parametrize("name", PARTS)


def scalar(out):
    """A function of outputs that is not linear in them."""
    weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out)
    return (weights * out.sin()).sum()


@each_part
def test_plain_parts_give_what_quick_ones_do(name):
    make, shape = PARTS[name]
    module = make()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves, results = [x, *module.parameters()], []
    for choice in (contextlib.nullcontext(), nn.plain()):
        with choice:
            out = module(x)
            found = torch.autograd.grad(scalar(out), leaves, allow_unused=True)
        results.append([out.detach(), *(g for g in found if g is not None)])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


@each_part
@pytest.mark.parametrize("order", [2, 3])
def test_plain_derivatives_are_those_of_finite_differences(name, order):
    """Of the gradient, and of its own, along one direction of inputs and parameters together."""
    make, shape = PARTS[name]
    module = make()
    x, parameters = torch.randn(shape, dtype=torch.float64), dict(module.named_parameters())
    inputs = [x, *parameters.values()]
    direction = [torch.randn_like(v) for v in inputs]

    def lower(step):
        moved = [
            (v + step * d).detach().requires_grad_() for v, d in zip(inputs, direction, strict=True)
        ]
        state = dict(zip(parameters, moved[1:], strict=True))
        value = scalar(torch.func.functional_call(module, state, moved[0]))
        for i in range(order - 1):
            found = torch.autograd.grad(value, moved, create_graph=True, allow_unused=True)
            # Not all parameters count in evaluation.
            value = sum(scalar(g + i) for g in found if g is not None)
        return value, moved

    step = 1e-7 if "mixed" in name else 1e-6  # which normalises few channels, and bends more
    with nn.plain():
        value, moved = lower(0)
        gradients = torch.autograd.grad(value, moved, allow_unused=True)
        near, far = ((lower(s)[0] - lower(-s)[0]) / (2 * s) for s in (step, 2 * step))
    difference = (4 * near - far) / 3  # of fourth order (Richardson)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-6)


def test_plain_hessian_of_attention_in_closed_form():
    """The softmax-weighted mean of values has covariances of keys for its second derivative."""
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 1, 1, 5, 4, dtype=torch.float64, generator=generator)
    q = torch.randn(4, dtype=torch.float64, generator=generator)
    hessian = torch.autograd.functional.hessian(
        lambda q: (weigh(q.view(1, 1, 1, 4), keys) @ values)[0, 0, 0, 1], q
    )
    weights = (keys[0, 0] @ q).softmax(0)
    centred = keys[0, 0] - weights @ keys[0, 0]
    v = values[0, 0, :, 1]
    expected = torch.einsum("n,n,ni,nj->ij", weights, v - weights @ v, centred, centred)
    torch.testing.assert_close(hessian, expected)


def test_plain_hessian_of_a_readout_in_closed_form():
    """Bilinear: of one coordinate twice it is zero, of both the mixed difference of four cells."""
    features = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    f = features[0, 0]
    hessian = torch.autograd.functional.hessian(
        lambda point: nn.sample_features(features, point[None, None]).sum(),
        torch.tensor([-0.3, 0.4], dtype=torch.float64),
    )
    mixed = f[1, 0] - f[1, 1] - f[2, 0] + f[2, 1]
    torch.testing.assert_close(hessian, torch.tensor([[0, mixed], [mixed, 0]]).double())


SHIFTS = ("none", "readout", "stimulus")


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_plain_hessian_of_a_whole_model(kind, shift):
    """Of the Poisson loss, with regard to images: hand in hand with finite differences."""
    core = cnn() if kind == "cnn" else vit(behavior_mode="b_mlp", n_behaviors=1)
    model = whole_model(core, shift, channels=kind == "cnn")
    behaviors = torch.randn(2, 1, dtype=torch.float64)
    n_channels = 1 if kind == "cnn" else 2
    images = torch.randn(2, n_channels, 8, 10, dtype=torch.float64)
    pupil = torch.randn(2, 2, dtype=torch.float64)

    def loss(images):
        batch = nn.MouseBatch(images, behaviors, pupil)
        rates = model({"A": batch, "B": batch})
        return sum(nn.poisson_loss(r, torch.ones_like(r)) for r in rates.values())

    direction = torch.randn_like(images)
    with nn.plain():
        _, found = torch.autograd.functional.hvp(loss, images, direction)
        step = 1e-5
        ahead, behind = (
            torch.autograd.functional.jacobian(loss, images + s * direction) for s in (step, -step)
        )
    assert found.abs().max() > 1e-4
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in PARTS if "training" not in name])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself
def test_transforms_of_torch_func(name):
    """Which are plain without being asked."""
    make, shape = PARTS[name]
    module = make().eval()
    batch = torch.randn(3, *shape, dtype=torch.float64)

    def value(steps):
        return scalar(module(torch.einsum("s,s...->...", steps, batch)))

    with torch.no_grad():
        one_by_one = torch.stack([module(x) for x in batch])
        torch.testing.assert_close(torch.func.vmap(module)(batch), one_by_one)
    steps = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    with nn.plain():
        gradient = torch.autograd.functional.jacobian(value, steps)
        hessian = torch.autograd.functional.hessian(value, steps)
    torch.testing.assert_close(torch.func.jacrev(value)(steps), gradient)
    torch.testing.assert_close(torch.func.hessian(value)(steps), hessian)


def test_transforms_of_torch_func_of_a_whole_model():
    model = whole_model(cnn(), "stimulus")
    images, pupil = torch.randn(3, 1, 2, 8, 10).double(), torch.randn(3, 1, 2).double()

    def rates(images, pupil):
        batch = nn.MouseBatch(images, None, pupil)
        return torch.cat(list(model({"A": batch, "B": batch}).values()), 1)

    with torch.no_grad():
        expected = torch.stack([rates(*one) for one in zip(images, pupil, strict=True)])
        torch.testing.assert_close(torch.func.vmap(rates)(images, pupil), expected)
    ours = torch.func.jacrev(rates)(images[0], pupil[0])
    expected = torch.autograd.functional.jacobian(lambda x: rates(x, pupil[0]), images[0])
    torch.testing.assert_close(ours, expected)


# -- where layers are not plain ------------------------------------------------------------------


def of_soft_dtw():
    target = torch.randn(2, 4, 3, dtype=torch.float64)
    return lambda x: nn.soft_dtw_divergence(x, target), (2, 3, 3)


def of_attention(**options):
    """How heads of two images gather, by the way that is chosen."""
    others = ~torch.eye(6, dtype=torch.bool) if options.pop("local", False) else None
    dtype = options.pop("dtype", torch.float64)

    def gather(qkv):
        torch.manual_seed(0)
        return attend(qkv.to(dtype), 0.7, others=others, **{"dropout": 0.0, **options})

    return gather, (2, 6, 3, 2, 3)


def of_contraction():
    """How a factorised readout sums maps, by the quick way."""
    torch.manual_seed(0)
    space, channels = torch.rand(4, 6).double(), torch.rand(4, 3).double()
    return lambda maps: contract_separable(maps, space, channels), (2, 3, 2, 3)


QUICK = {
    "two layers": (two_layers, (2, 2, 5, 6)),
    "two layers, training": (lambda: two_layers(training=True), (2, 2, 5, 6)),
    "contraction": of_contraction,
    "soft-DTW": of_soft_dtw,
    "movies": (movies, (1, 2, 4, 5, 6)),
    "cnn": (cnn, (2, 2, 5, 6)),
    "cnn, training": (lambda: cnn(training=True), (2, 2, 5, 6)),
    "ln": (lambda: cnn(linear=True), (2, 2, 5, 6)),
    "vit": (vit, (1, 2, 5, 6)),
    "vit, training": (lambda: vit(training=True, attention_dropout=0.3), (1, 2, 5, 6)),
    "readout": (readout, (2, 2, 5, 6)),
    "readout, training": (lambda: readout(training=True), (2, 2, 5, 6)),
    "neurons": (neurons, (2, 6)),
    "neurons, two heads": (lambda: neurons(n_heads=2), (2, 6)),
    "mixed block": (mixed_block, (1, 8, 5, 6)),
    "mixed block, training": (lambda: mixed_block(training=True), (2, 8, 5, 6)),
    "torch's attention": of_attention,
    "torch's attention, lsa": lambda: of_attention(local=True),
    "torch's attention, in parts": lambda: of_attention(dropout=0.999),
    "blocks": lambda: of_attention(dropout=0.3),
    "blocks, lsa": lambda: of_attention(dropout=0.3, local=True),
    "blocks, bfloat16": lambda: of_attention(dtype=torch.bfloat16),
    "kernel": lambda: of_attention(dtype=torch.float32),
    "kernel, dropout": lambda: of_attention(dtype=torch.float32, dropout=0.3),
}


def quick_part(name):
    """A module or function, and an input; without a kernel torch or blocks take its place."""
    made = QUICK[name]
    module, shape = made() if callable(made) else (made[0](), made[1])
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return module, x


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(("linear", "vectorize"), [(True, False), (False, False), (True, True)])
def test_hessians_of_quick_parts_are_refused_and_never_zero(name, linear, vectorize):
    """Also where what comes in from above is constant: torch takes the gradient for constant."""
    module, x = quick_part(name)

    def value(x):
        out = module(x)
        return out.sum() if linear else scalar(out)

    with fast.using("compiled"), pytest.raises(RuntimeError, match=NAMED):
        torch.autograd.functional.hessian(value, x, vectorize=vectorize)


@pytest.mark.parametrize("name", QUICK)
def test_gradients_with_a_graph_are_those_without_and_lead_to_the_refusal(name):
    module, x = quick_part(name)
    torch.manual_seed(0)
    (expected,) = torch.autograd.grad(module(x).sum(), x)
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    assert torch.equal(gradient, expected)
    with pytest.raises(RuntimeError, match=NAMED):
        torch.autograd.grad(gradient.sum(), x, allow_unused=True)


def turned(x):
    """The same values, in another order of memory."""
    return x.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("layout", [turned, lambda x: x[:1].expand(x.shape), lambda x: 2 * x])
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.filterwarnings("ignore:Using backward")  # by torch, of the cycle
def test_no_layout_of_what_comes_in_hides_the_refusal(name, layout, linear, backward):
    """By `grad` and by `backward`, of a leaf and of what follows from it."""
    module, x = quick_part(name)
    with fast.using("compiled"):
        out = module(layout(x)).double()
        value = out.sum() if linear else scalar(out)
        if backward:
            value.backward(create_graph=True, inputs=[x])
            gradient = x.grad
        else:
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        with pytest.raises(RuntimeError, match=NAMED):
            torch.autograd.grad(scalar(gradient), x)
    x.grad = None  # which is part of a cycle now


def own_functions(kind=torch.autograd.Function):
    for child in kind.__subclasses__():
        if child.__module__.startswith("v1tlearn."):
            yield child
        yield from own_functions(child)


# What has derivatives of any order; all others refuse them, which the parts above go through.
ANY_ORDER = {"CompiledDropout", "NumpyDropout", "_OntoMap", "_Total"}
REFUSING = {"CompiledAttention", "BlockedAttention", "_ActivatedConvolutions", "_Read", "_Once"}
REFUSING |= {"SoftDTW", "CompiledWarping", "SquaredDistances", "_DepthwiseInTime"}
REFUSING |= {"_LargeFilters", "_Separable", "_Minimodels", "NeuronAttention", "_NearestPixels"}


def test_every_own_function_is_tested_here():
    """A new one comes with a part above, or with a test of its second derivatives."""
    assert {f.__name__ for f in own_functions()} == ANY_ORDER | REFUSING | {"_Refusal"}


@pytest.mark.parametrize("way", ["compiled", "blocked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_gradients_of_dropout(way, dtype):
    x, v = torch.randn(2, 5, 8, dtype=dtype, requires_grad=True)
    x, v = (t.detach().T.contiguous().T.requires_grad_() for t in (x, v))
    with fast.using(way):
        torch.manual_seed(0)
        kept = (Dropout(0.3)(torch.ones_like(x).T.contiguous().T) != 0).to(dtype) / 0.7
        torch.manual_seed(0)
        (first,) = torch.autograd.grad((Dropout(0.3)(x).pow(2) * v).sum(), x, create_graph=True)
        second = torch.autograd.grad(first.sum(), (x, v))
    for found, expected in zip(second, (2 * kept**2 * v, 2 * kept**2 * x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["cnn", "cnn, training", "vit", "readout"])
def test_second_derivatives_by_parameters_are_refused(name):
    module, x = quick_part(name)
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(
        module(x.detach()).sum(), parameters, create_graph=True, allow_unused=True
    )
    total = sum(g.sum() for g in gradients if g is not None)
    with pytest.raises(RuntimeError, match=NAMED):
        torch.autograd.grad(total, parameters, allow_unused=True)


@pytest.mark.parametrize("way", ["compiled", "blocked", "plain"])
def test_dropout_has_all_derivatives_in_every_way(way):
    x = torch.randn(40, requires_grad=True)

    def value(x):
        torch.manual_seed(0)
        return Dropout(0.3)(x).pow(3).sum()

    with fast.using(way):
        torch.manual_seed(0)
        kept = Dropout(0.3)(torch.ones(40)) != 0
        hessian = torch.autograd.functional.hessian(value, x)
    torch.testing.assert_close(hessian, torch.diag(6 * x * kept / 0.7**3))


def test_moved_crops_have_second_derivatives_by_images_and_refuse_those_by_the_shift():
    images = torch.randn(2, 1, 6, 7, dtype=torch.float64)
    shift = torch.randn(2, 2, dtype=torch.float64) * 0.1
    crop = nn.center_crop(images, 0.5, shift)

    def value(images):
        return nn.center_crop(images, 0.5, shift).pow(3).sum()

    hessian = torch.autograd.functional.hessian(value, images)
    assert hessian.sum().item() == pytest.approx(6 * crop.sum().item())
    with pytest.raises(RuntimeError, match=NAMED):
        torch.autograd.functional.hessian(
            lambda shift: nn.center_crop(images, 0.5, shift).square().sum(), shift
        )


def test_ways_are_named_and_left_again():
    with pytest.raises(ValueError, match="'blocked', 'plain', got 'quick'"), fast.using("quick"):
        pass
    with pytest.raises(ValueError, match="parts must be positive, got 0"):
        fast.using("auto", parts=0).__enter__()
    assert not fast.is_plain()
    with nn.plain():
        assert fast.is_plain()
        with pytest.raises(ZeroDivisionError), fast.using("blocked"):
            _ = 1 / fast.is_plain()
        assert fast.is_plain()
    assert not fast.is_plain()


def test_gradients_of_gradients_of_sums_over_processes():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    with shared(Shared(0, 3, lambda values: 3 * values)):
        assert torch.autograd.gradcheck(lambda x: total(x**3), x)
        assert torch.autograd.gradgradcheck(lambda x: total(x**3), x)
