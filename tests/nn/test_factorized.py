"""Factorised readout against sums written out, and against the published implementation."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn import nn
from v1tlearn.training.optimizers import make_optimizer

REFERENCE = Path(__file__).parents[1] / "reference" / "minimodel"
CASES = ("readout_small", "readout_wide")
SIZES = st.integers(1, 6)


def readout(shape, n_neurons, seed=0, **options):
    torch.manual_seed(seed)
    made = nn.FactorizedReadout(shape, n_neurons, **options).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


def zeros_outside(maps, y, x):
    """Bilinear value of (C, h, w) maps at a row and column that need not be whole."""
    height, width = maps.shape[1:]
    value = np.zeros(len(maps))
    top, left = int(np.floor(y)), int(np.floor(x))
    for r, c in product((top, top + 1), (left, left + 1)):
        if 0 <= r < height and 0 <= c < width:
            value += (1 - abs(y - r)) * (1 - abs(x - c)) * maps[:, r, c]
    return value


def written_out(made, maps, shift=None):
    """Outputs (B, n), one term after the other."""
    rows, columns, channels, bias = (p.detach().numpy() for p in made.parameters())
    height, width = maps.shape[2:]
    out = np.empty((len(maps), made.n_neurons))
    for b, n in np.ndindex(*out.shape):
        total = bias[n]
        for k, y, x in np.ndindex(rows.shape[1], height, width):
            dx, dy = (0, 0) if shift is None else shift[b]
            seen = zeros_outside(maps[b], y + dy * (height - 1) / 2, x + dx * (width - 1) / 2)
            total += rows[n, k, y] * columns[n, k, x] * (channels[n, k] @ seen)
        out[b, n] = total
    return out


@given(SIZES, SIZES, SIZES, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_outputs_are_the_sum_over_space_channels_and_ranks(c, h, w, n, rank, moves):
    made = readout((c, h, w), n, rank=rank, seed=c + h)
    maps, shift = torch.randn(2, c, h, w, dtype=torch.float64), None
    if moves:
        shift = torch.rand(2, 2, dtype=torch.float64) * 3 - 1.5
    expected = written_out(made, maps.numpy(), None if shift is None else shift.numpy())
    np.testing.assert_allclose(made(maps, shift).detach().numpy(), expected, atol=1e-11)


@pytest.mark.parametrize("moves", [False, True])
def test_derivatives_of_any_order(moves):
    made = readout((2, 3, 4), 2, rank=2)
    maps = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    inputs = (maps, *made.parameters())
    if moves:
        shift = (torch.rand(2, 2, dtype=torch.float64) - 0.45).requires_grad_()
        inputs = (maps, shift)

    def outputs(maps, *rest):
        return made(maps, rest[0] if moves else None)

    assert torch.autograd.gradcheck(outputs, inputs)
    assert torch.autograd.gradgradcheck(outputs, inputs)


def test_weights_of_space_are_put_back_to_zero():
    made = readout((3, 4, 5), 6, rank=2)
    before = [p.detach().clone() for p in made.parameters()]
    made.project_()
    for name, old in zip(("rows", "columns"), before, strict=False):
        assert torch.equal(getattr(made, name), old.clamp(min=0))
    assert torch.equal(made.channels, before[2])


def test_a_neuron_that_would_see_nothing_keeps_its_largest_weight():
    made = nn.FactorizedReadout((2, 3, 2), 1, space_init=0.5)
    with torch.no_grad():
        made.rows.copy_(torch.tensor([-1.0, -0.2, -3.0]))
        made.columns.copy_(torch.tensor([-1.0, 2.0]))
    made.project_()
    torch.testing.assert_close(made.rows.flatten(), torch.tensor([0.0, 0.05, 0.0]))
    torch.testing.assert_close(made.columns.flatten(), torch.tensor([0.0, 2.0]))


@given(st.integers(1, 3), st.integers(1, 3))
def test_no_neuron_is_blind_after_the_first_step(height, width):
    torch.manual_seed(height)
    made = nn.FactorizedReadout((2, height, width), 50, rank=2)
    made.project_()
    assert (made.rows.amax(-1) > 0).all()
    assert (made.columns.amax(-1) > 0).all()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([3.0, 0, 0, 0], 1.0), ([2.0, -2, 2, -2], 4.0), ([0.0, 0, 0], 0.0), ([1.0, 3], 1.6)],
)
def test_the_hoyer_square_counts_weights(weights, expected):
    weights = torch.tensor(weights, requires_grad=True)
    found = nn.hoyer_square(weights)
    assert found.item() == pytest.approx(expected)
    found.backward()
    assert weights.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"space_init": 0.0}, "space_init must be positive"),
        ({"channel_init": float("nan")}, "channel_init must be positive"),
        ({"bias_init": [0.0]}, "one finite value for each of 2 neurons"),
        ({"bias_init": [0.0, np.inf]}, "1 not finite"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nn.FactorizedReadout((2, 3, 4), 2, **options)


def test_maps_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\), got \(2, 4, 3\)"):
        readout((2, 3, 4), 1)(torch.zeros(1, 2, 4, 3, dtype=torch.float64))


# -------------------------------------------------------------------- the published implementation


@pytest.fixture(params=[(case, kind) for case in CASES for kind in ("float32", "float64")])
def published(request):
    """Arrays of one file, the precision, and a readout with its weights."""
    name, kind = request.param
    arrays = np.load(REFERENCE / f"{name}.npz")
    dtype = getattr(torch, kind)
    prefix = "f64/" if kind == "float64" else ""

    def get(key):
        return torch.as_tensor(np.array(arrays[prefix + key]), dtype=dtype)

    def given(key):  # inputs stand there once
        return torch.as_tensor(np.array(arrays[key]), dtype=dtype)

    return get, given, 1e-5 if kind == "float32" else 1e-10


NAMES = {"Wy": "rows", "Wx": "columns", "Wc": "channels", "bias": "bias"}


def with_weights(given, **options):
    maps = given("maps")
    made = nn.FactorizedReadout(tuple(maps.shape[1:]), len(given("param/bias")), **options)
    made = made.to(maps.dtype)
    with torch.no_grad():
        for theirs, ours in NAMES.items():
            getattr(made, ours).copy_(given(f"param/{theirs}"))
    return made


def loss(made, maps, responses):
    """As published: per neuron the sum over images, then the mean over neurons."""
    rates = torch.nn.functional.elu(made(maps)) + 1 + 1e-12
    return (rates - responses * rates.log()).sum(0).mean()


def same(found, expected, tolerance):
    error = (found.detach() - expected).abs().max() / expected.abs().max()
    assert error <= tolerance


def test_published_outputs_and_gradients(published):
    get, given, tolerance = published
    made, maps = with_weights(given), given("maps").requires_grad_()
    same(torch.nn.functional.elu(made(maps)), get("elu_output"), tolerance)
    value = loss(made, maps, given("responses"))
    same(value, get("loss"), tolerance)
    value.backward()
    same(maps.grad, get("grad/maps"), tolerance)
    for theirs, ours in NAMES.items():
        same(getattr(made, ours).grad, get(f"grad/{theirs}"), tolerance)


def test_published_penalties(published):
    """They are means over neurons there, and sums here."""
    get, given, tolerance = published
    l1, l2, hoyer = (float(given(f"coef/{name}")) for name in ("l1", "l2", "hoyer"))
    made = with_weights(given, space_l2=l2, channel_l1=l1, channel_l2=l2, channel_hoyer=hoyer)
    for options, name in (
        ({"channel_l1": 1.0}, "l1"),
        ({"channel_l2": 1.0, "space_l2": 1.0}, "l2"),
        ({"channel_hoyer": 1.0}, "hoyer_square"),
    ):
        same(with_weights(given, **options).penalty(), get(f"penalty/{name}").sum(), tolerance)
    value = loss(made, given("maps"), given("responses")) + made.penalty() / made.n_neurons
    same(value, get("penalised_loss"), tolerance)
    value.backward()
    for theirs, ours in NAMES.items():
        same(getattr(made, ours).grad, get(f"penalised_grad/{theirs}"), tolerance)


@pytest.mark.parametrize("what", ["step", "epoch"])
def test_published_steps(what, published):
    """AdamW with a weight decay per group, and the constraint after each step."""
    get, given, tolerance = published
    space, _, channel, bias = given("optim/weight_decay_Wy_Wx_Wc_bias").tolist()
    assert bias == 0
    made = with_weights(
        given,
        space_weight_decay=space,
        channel_weight_decay=channel,
        channel_hoyer=float(given("coef/hoyer")),
    )
    maps, responses = given("maps"), given("responses")
    lr = float(given("optim/lr"))
    groups = [{"weight_decay": 0.0, **group} for group in made.groups()]
    optimizer = torch.optim.AdamW(groups, lr=lr)

    def step(rows):
        """Take a step on some images, and give the loss before it."""
        optimizer.zero_grad()
        value = loss(made, maps[rows], responses[rows]) + made.penalty() / made.n_neurons
        value.backward()
        optimizer.step()
        return value.item()

    if what == "epoch":
        batches = given("epoch/order").long().split(int(given("epoch/batch_size")))
        losses = []
        for rows in batches:
            losses.append(step(rows))
            made.project_()
        same(torch.tensor(losses, dtype=maps.dtype), get("epoch/batch_losses"), tolerance)
        same(
            torch.tensor(sum(losses) / len(maps), dtype=maps.dtype),
            get("epoch/train_loss"),
            tolerance,
        )
        for theirs, ours in NAMES.items():
            same(getattr(made, ours), get(f"after_epoch/{theirs}"), tolerance)
        return
    step(slice(None))
    for theirs, ours in NAMES.items():
        same(getattr(made, ours), get(f"after_step_unclamped/{theirs}"), tolerance)
    made.project_()
    for theirs, ours in NAMES.items():
        same(getattr(made, ours), get(f"after_step_clamped/{theirs}"), tolerance)


def test_the_paired_components_of_rank_two(published):
    get, given, tolerance = published
    maps = given("maps")
    total = torch.ones(())
    for k in range(2):
        n_neurons = given("rank2/param/bias").shape[1]
        made = nn.FactorizedReadout(tuple(maps.shape[1:]), n_neurons).to(maps.dtype)
        with torch.no_grad():
            for theirs, ours in NAMES.items():
                weights = given(f"rank2/param/{theirs}")
                getattr(made, ours).copy_(weights[k] if ours == "bias" else weights[:, k : k + 1])
        total = total + torch.nn.functional.elu(made(maps))
    same(total, get("rank2/paired_components_prediction"), tolerance)


def test_groups_reach_the_optimiser():
    core = nn.Stacked2dCore((1, 9, 9), n_layers=1, hidden_channels=2, input_kernel=3)
    made = nn.FactorizedReadout(core.output_shape, 3, space_weight_decay=1.0)
    model = nn.EncodingModel(core, {"A": made}, cropper=nn.ImageCropper((9, 9)))
    optimizer = make_optimizer(model, "adamw", lr=0.1, weight_decay=0.5)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert [decay[id(p)] for p in made.parameters()] == [1.0, 1.0, 0.5, 0.0]
    assert {decay[id(p)] for p in core.parameters()} == {0.5}
    plain = nn.FactorizedReadout(core.output_shape, 3)
    assert [set(group) for group in plain.groups()] == [{"params"}]
