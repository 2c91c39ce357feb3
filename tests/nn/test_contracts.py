"""What cores, readouts and heads fulfil, and what of it is given to those of one's own."""

import pytest
import torch
from torch.nn import functional as F

from v1tlearn import nn


@pytest.mark.parametrize("kind", [nn.GaussianReadout, nn.FactorizedReadout])
def test_readouts_tell_of_their_parameters_before_they_draw_them(kind):
    def refuse(module, name, parameter):
        raise MemoryError(name)

    before = torch.get_rng_state()
    hook = torch.nn.modules.module.register_module_parameter_registration_hook(refuse)
    try:
        with pytest.raises(MemoryError):
            kind((2, 3, 4), 5)
    finally:
        hook.remove()
    assert torch.equal(torch.get_rng_state(), before)


class Lines(nn.Core):
    """As little as a core can be."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.filters = torch.nn.Conv2d(input_shape[0], 3, (1, 2))
        self.norm = torch.nn.BatchNorm2d(3)
        self.of_mice = torch.nn.Parameter(torch.ones(2))
        self.output_shape = (3, input_shape[1], input_shape[2] - 1)

    def forward(self, images, behaviors=None, sizes=None):
        return self.norm(self.filters(images)) * self.of_mice.sum()


class LinesOfMice(Lines):
    def mouse_parameters(self):
        return ["of_mice"]


class Positive(nn.Readout):
    """Weights of all places, kept from being negative."""

    def __init__(self, core_shape, n_neurons):
        super().__init__(n_neurons)
        self.weights = torch.nn.Parameter(torch.randn(n_neurons, *core_shape))

    def forward(self, features, shift=None):
        return torch.einsum("bchw,nchw->bn", features, self.weights)

    def project_(self):
        with torch.no_grad():
            self.weights.clamp_(min=0)


class Squares(nn.Head):
    def forward(self, outputs):
        return outputs.square()


def vit(**options):
    return nn.ViTCore(
        (1, 8, 9), patch_size=4, patch_stride=2, n_blocks=2, n_heads=2, embed_dim=8, mlp_dim=5,
        **options,
    )  # fmt: skip


CORES = {
    "own": lambda: Lines((1, 8, 9)),
    "cnn": lambda: nn.Stacked2dCore((1, 8, 9), n_layers=2, hidden_channels=3, input_kernel=3),
    "two layers": lambda: nn.TwoLayerCore((1, 8, 9), channels=(2, 3), kernels=(3,)),
    "vit": vit,
    "vit per mouse": lambda: vit(behavior_mode="b_mlp_per_mouse", n_behaviors=2, mice=("A", "B")),
}
each_core = pytest.mark.parametrize("make", CORES.values(), ids=CORES.keys())


def maps_of(core, n=3):
    torch.manual_seed(1)
    sizes = [("A", 1), ("B", n - 1)]
    return core(torch.randn(n, *core.input_shape), torch.randn(n, 2), sizes)


@each_core
def test_maps_have_the_shape_that_a_core_says(make):
    core = make()
    assert core.input_shape == (1, 8, 9)
    assert maps_of(core).shape == (3, *core.output_shape)


def test_what_a_core_need_not_say():
    core = Lines((1, 8, 9))
    assert core.penalty() == 0
    assert core.penalty().dtype == torch.float32
    assert core.double().penalty().dtype == torch.float64
    assert core.mouse_parameters() == core.recomputed_parts() == []
    assert core.source_positions() is None
    assert not any((core.takes_planes, core.recomputes_on_cpu, core.frozen))
    before = maps_of(core.float())
    core.project_()
    assert torch.equal(maps_of(core), before)
    assert nn.Core((1, 2, 3)).penalty() == 0  # without any parameter
    with pytest.raises(NotImplementedError, match="Core does not say what it computes"):
        nn.Core((1, 2, 3))(torch.zeros(1, 1, 2, 3))


@each_core
def test_groups_hold_each_trained_parameter_once(make):
    core = make()
    held = [p for group in core.groups() for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in core.parameters()}
    assert len(held) == len(list(core.parameters()))
    optimizer = torch.optim.SGD(core.groups(), lr=0.1)
    before = [p.clone() for p in core.parameters()]
    (maps_of(core).square().sum() + core.penalty()).backward()
    optimizer.step()
    assert any(not torch.equal(p, q) for p, q in zip(core.parameters(), before, strict=True))


@each_core
def test_a_frozen_core_stays_as_it_is(make):
    core = make()
    maps_of(core.train())  # running statistics other than the initial ones
    core.freeze()
    of_mice = core.mouse_parameters()
    assert core.frozen
    assert [n for n, p in core.named_parameters() if p.requires_grad] == of_mice
    assert sum(len(group["params"]) for group in core.groups()) == len(of_mice)
    before = {n: v.clone() for n, v in core.state_dict().items()}
    expected = maps_of(core)
    assert not core.train().training
    assert torch.equal(maps_of(core), expected)  # no dropout, no batch statistics
    assert all(torch.equal(v, before[n]) for n, v in core.state_dict().items())
    assert not core.eval().training


@pytest.mark.parametrize("make", [CORES["vit per mouse"], lambda: LinesOfMice((1, 8, 9))])
def test_parameters_of_single_mice_go_on_learning(make):
    core = make()
    names = core.mouse_parameters()
    assert names
    core.freeze()
    maps_of(core).square().sum().backward()
    learning = [n for n, p in core.named_parameters() if p.grad is not None]
    assert learning == names
    trained = {id(p) for group in core.groups() for p in group["params"]}
    assert trained == {id(p) for n, p in core.named_parameters() if n in names}


@each_core
def test_blocks_cannot_be_counted(make):
    with pytest.raises(ValueError, match="cannot be frozen by 1 blocks: expected 'all'"):
        make().freeze(1)


def model_of(core=None, **options):
    core = core or Lines((1, 8, 9))
    readouts = {m: Positive(core.output_shape, n) for m, n in {"A": 4, "B": 2}.items()}
    return nn.EncodingModel(core, readouts, cropper=nn.ImageCropper((8, 9)), **options)


def test_a_frozen_core_costs_no_penalty():
    model = model_of(CORES["cnn"]())
    assert model.core_penalty() > 0
    model.core.freeze()
    assert model.core_penalty() == 0


# -- readouts ------------------------------------------------------------------------------------


def test_what_a_readout_need_not_say():
    readout = Positive((3, 2, 2), 4)
    assert readout.n_neurons == 4
    assert readout.takes_shift
    assert readout.spatial_moments() is None
    assert readout.penalty() == 0
    assert nn.Readout(2).penalty() == 0
    assert [group["params"] for group in readout.groups()] == [[readout.weights]]
    readout.weights.requires_grad_(False)
    assert [group["params"] for group in readout.groups()] == [[]]
    with pytest.raises(ValueError, match="at least one neuron, got n_neurons=0"):
        nn.Readout(0)
    with pytest.raises(NotImplementedError, match="Readout does not say what it computes"):
        nn.Readout(2)(torch.zeros(1, 1, 2, 2))


def test_constraints_are_restored_where_there_are_any():
    readout = Positive((3, 2, 2), 4)
    assert (readout.weights < 0).any()
    readout.project_()
    assert (readout.weights >= 0).all()
    gaussian = nn.GaussianReadout((3, 4, 4), 5)
    before = [p.clone() for p in gaussian.parameters()]
    gaussian.project_()
    assert all(torch.equal(p, q) for p, q in zip(gaussian.parameters(), before, strict=True))


def test_groups_of_the_gaussian_readout_hold_each_parameter_once():
    readout = nn.GaussianReadout((3, 4, 4), 5, positions=torch.rand(5, 2))
    held = [id(p) for group in readout.groups() for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in readout.parameters())


# -- heads ---------------------------------------------------------------------------------------

OUTPUTS = torch.linspace(-6, 30, 37, dtype=torch.float64)
steepnesses = pytest.mark.parametrize("steepness", [0.2, 1.0, 3.0])


def test_what_a_head_says():
    with pytest.raises(NotImplementedError, match="Head does not say what it computes"):
        nn.Head()(torch.zeros(1))
    with pytest.raises(NotImplementedError, match="Squares has no inverse"):
        Squares().inverse(torch.zeros(1))


def test_elu_head_restated():
    head = nn.EluHead()
    expected = torch.where(OUTPUTS > 0, OUTPUTS + 1, OUTPUTS.exp())
    torch.testing.assert_close(head(OUTPUTS), expected)
    torch.testing.assert_close(head.inverse(head(OUTPUTS)), OUTPUTS)
    assert head.inverse(torch.zeros(1)).isfinite()  # a silent neuron


@steepnesses
def test_softplus_head_restated(steepness):
    head = nn.SoftplusHead(steepness).double()
    b = head.log_steepness.detach().exp()
    x = OUTPUTS.clone().requires_grad_()
    # torch takes the line for its softplus where this differs by 2e-9.
    rates = head(x)
    expected = (OUTPUTS.clamp(min=0) * b + (-(b * OUTPUTS).abs()).exp().log1p()) / b
    torch.testing.assert_close(rates, expected, rtol=1e-6, atol=0)
    assert (rates > 0).all()
    by_x, by_log_b = torch.autograd.grad(rates.sum(), [x, head.log_steepness])
    slope = 1 / (1 + (-b * OUTPUTS).exp())
    torch.testing.assert_close(by_x, slope, rtol=1e-6, atol=0)
    torch.testing.assert_close(by_log_b, (OUTPUTS * slope - expected).sum(), rtol=1e-6, atol=1e-6)


@steepnesses
def test_softplus_head_and_its_inverse(steepness):
    head = nn.SoftplusHead(steepness).double()
    x = OUTPUTS[head(OUTPUTS) > 1e-3]
    assert len(x) > 20
    torch.testing.assert_close(head.inverse(head(x)), x, rtol=1e-6, atol=1e-6)
    silent, floor = head.inverse(torch.tensor([0.0, 1e-3], dtype=torch.float64))
    assert silent == floor
    assert torch.isfinite(floor)


def test_softplus_head_learns_its_steepness():
    target = F.softplus(3 * OUTPUTS[:15]) / 3
    head = nn.SoftplusHead().double()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (head(OUTPUTS[:15]) - target).square().sum().backward()
        optimizer.step()
    assert head.log_steepness.exp().item() == pytest.approx(3, rel=0.02)


def test_softplus_head_computes_in_float32_at_least_and_needs_a_positive_steepness():
    assert nn.SoftplusHead()(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"steepness must be positive, got 0"):
        nn.SoftplusHead(0.0)


def test_each_mouse_has_its_head():
    model = model_of(heads={"B": Squares(), "A": nn.SoftplusHead(2.0)}).eval()
    batches = {m: nn.MouseBatch(torch.randn(3, 1, 8, 9)) for m in ("A", "B")}
    outputs, rates = model(batches, activate=False), model(batches)
    torch.testing.assert_close(rates["A"], F.softplus(2 * outputs["A"]) / 2)
    torch.testing.assert_close(rates["B"], outputs["B"].square())
    features = model.encode("B", batches["B"].images)
    torch.testing.assert_close(model.respond("B", features), rates["B"])
    assert isinstance(model.head("B"), Squares)
    assert "heads.0.log_steepness" in model.state_dict()


def test_heads_are_elu_where_none_came_and_those_of_other_mice_are_refused():
    model = model_of()
    assert all(isinstance(model.head(m), nn.EluHead) for m in model.mice)
    assert not [n for n in model.state_dict() if n.startswith("heads")]
    with pytest.raises(ValueError, match=r"mice \['A'\], readouts for \['A', 'B'\]"):
        model_of(heads={"A": nn.EluHead()})
