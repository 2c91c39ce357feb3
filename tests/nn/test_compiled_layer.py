"""Layers that use the compiled kernels: what they give, and when they do not use them."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.nn.attention_defined import relative_error
from tests.nn.kernels import TOLERANCES, each_known_type, skip_module_without_kernels
from v1tlearn.nn._compiled import kernel
from v1tlearn.nn.attention import Attention

skip_module_without_kernels()
with_and_without_local = pytest.mark.parametrize("local", [False, True])
# Heads shorter than tokens of length 20, and not: these attend to the tokens themselves.
head_dims = pytest.mark.parametrize("head_dim", [7, 20])


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the kernels, and in which type; layers may attend in all types."""
    seen = []

    def noted(name):
        compute = getattr(kernel, name)

        def note(dtype, *inputs):
            seen.append((name, dtype))
            return compute(dtype, *inputs)

        return note

    for name in ("run", "drop"):
        monkeypatch.setattr(kernel, name, noted(name))
    monkeypatch.setattr(kernel, "has_amx", lambda: False)
    return seen


def make_layer(head_dim, *, local=False, dropout=0.0):
    """Layer for 50 tokens of length 20."""
    torch.manual_seed(0)
    layer = Attention(20, 2, 50, head_dim=head_dim, scale=0.5, local=local, dropout=dropout)
    if local:
        layer.scale.data = torch.tensor([0.3, -0.9])
    return layer


def autocast_to(dtype):
    """Compute in float32 or bfloat16."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


@each_known_type
@with_and_without_local
@head_dims
def test_layer_is_that_in_float64(head_dim, local, dtype, calls):
    """Values and gradients of inputs and parameters, without dropout and the kernel there."""
    layer = make_layer(head_dim, local=local)
    tokens, grad = torch.randn(2, 2, 50, 20)
    results = []
    for precision in (dtype, torch.float64):
        if precision == torch.float64:
            layer, tokens = layer.double(), tokens.double()
        inputs = [tokens.requires_grad_(), *layer.parameters()]
        with autocast_to(precision):
            out = layer(tokens)
        results.append((out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))))
        tokens = tokens.detach()
    assert calls == [("run", str(dtype).removeprefix("torch."))] * 2  # and back
    for got, expected in zip(*results, strict=True):
        assert relative_error(got, expected) < 3 * TOLERANCES[dtype]


@each_known_type
@head_dims
@pytest.mark.parametrize("amx", [False, True])
def test_processors_that_multiply_matrices_attend_by_torch_in_bfloat16(
    amx, head_dim, dtype, calls, monkeypatch
):
    """Dropout, which multiplies none, is left to the kernel."""
    monkeypatch.setattr(kernel, "has_amx", lambda: amx)
    layer = make_layer(head_dim, dropout=0.2)
    tokens = torch.randn(2, 50, 20, requires_grad=True)
    with autocast_to(dtype):
        out = layer(tokens)
    name = str(dtype).removeprefix("torch.")
    attends = dtype == torch.float32 or not amx
    assert calls == [("run", name)] * attends + [("drop", name)]
    out.float().square().sum().backward()
    assert tokens.grad.isfinite().all()


@head_dims
def test_float64_stays_so_under_autocast(head_dim, calls):
    """As in torch's products."""
    layer = make_layer(head_dim).double()
    tokens = torch.randn(2, 50, 20, dtype=torch.float64)
    with autocast_to(torch.bfloat16):
        out = layer(tokens)
    assert out.dtype == torch.float64
    assert not calls
    torch.testing.assert_close(out, layer(tokens))


@head_dims
def test_training_in_float64_under_autocast(head_dim, calls):
    layer = make_layer(head_dim, dropout=0.2).double()
    tokens = torch.randn(2, 50, 20, dtype=torch.float64, requires_grad=True)
    with autocast_to(torch.bfloat16):
        out = layer(tokens)
    out.square().sum().backward()
    assert out.dtype == tokens.grad.dtype == torch.float64
    assert not calls


# -- tensors without memory of their own ---------------------------------------------------------


@head_dims
def test_fake_tensors_are_left_to_torch(head_dim, calls):
    with FakeTensorMode():
        layer = make_layer(head_dim)
        assert layer(torch.randn(2, 50, 20)).shape == (2, 50, 20)
    assert not calls


@with_and_without_local
@head_dims
def test_vjp_of_a_layer_in_evaluation(head_dim, local, calls):
    layer = make_layer(head_dim, local=local, dropout=0.2).eval()
    tokens, grad = torch.randn(2, 2, 50, 20)
    out, go_back = torch.func.vjp(layer, tokens)
    (found,) = go_back(grad)
    assert not calls
    expected = layer(tokens.requires_grad_())
    assert relative_error(out.detach(), expected.detach().double()) < TOLERANCES[torch.float32]
    expected.backward(grad)
    assert relative_error(found.detach(), tokens.grad.double()) < 3 * TOLERANCES[torch.float32]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # in torch's own kernel
@with_and_without_local
@head_dims
def test_vmap_of_a_layer_in_evaluation(head_dim, local, calls):
    layer = make_layer(head_dim, local=local, dropout=0.2).eval()
    tokens = torch.randn(3, 2, 50, 20)
    with torch.no_grad():
        out = torch.func.vmap(layer)(tokens)
        assert not calls
        expected = layer(tokens.flatten(0, 1)).unflatten(0, (3, 2))
    assert relative_error(out, expected.double()) < TOLERANCES[torch.float32]
