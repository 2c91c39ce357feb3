"""The attention layer: each way gives what the plain one does, and is taken where it is due."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.nn.fast.attending import (
    TOLERANCES,
    each_way_and_type,
    needs_a_kernel,
    nodes_behind,
    relative_error,
    using,
    with_and_without_local,
)
from v1tlearn import nn
from v1tlearn.nn import fast
from v1tlearn.nn.fast.attention import attend, gather_tokens, in_parts, with_padded_heads
from v1tlearn.nn.fast.variants import kernel
from v1tlearn.nn.layers.attention import Attention

# Heads shorter than tokens of length 20, and not: to these, tokens are keys and values.
head_dims = pytest.mark.parametrize("head_dim", [7, 20])


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


def output_and_gradients(layer, tokens, grad):
    tokens = tokens.detach().requires_grad_()
    out = layer(tokens)
    gradients = torch.autograd.grad(out, [tokens, *layer.parameters()], grad.to(out.dtype))
    return out, [out.detach(), *gradients]


def attends_to_tokens(out):
    """Whether the kernel got queries and tokens apart."""
    behind = nodes_behind(out)["CompiledAttentionBackward"].next_functions
    return sum(node is not None for node, _ in behind) == 2


@each_way_and_type
@with_and_without_local
@head_dims
def test_layer_is_its_definition(head_dim, local, way, dtype):
    """Values and gradients of inputs and parameters, in evaluation."""
    layer = make_layer(head_dim, local=local, dropout=0.2).eval()
    tokens, grad = torch.randn(2, 2, 50, 20)
    if dtype == torch.float64:
        layer, tokens = layer.double(), tokens.double()
    with using(way, parts=1), autocast_to(dtype):
        out, ours = output_and_gradients(layer, tokens, grad)
    assert ("CompiledAttentionBackward" in nodes_behind(out)) == (way != "blocked")
    if way != "blocked":
        assert attends_to_tokens(out) == (head_dim == 20)
    with nn.plain():
        _, exact = output_and_gradients(layer.double(), tokens.double(), grad)
    for got, expected in zip(ours, exact, strict=True):
        assert relative_error(got, expected) < 3 * TOLERANCES[dtype]


@each_way_and_type
@head_dims
def test_each_way_trains_with_dropout(head_dim, way, dtype):
    layer, tokens = make_layer(head_dim, dropout=0.2), torch.randn(2, 50, 20)
    if dtype == torch.float64:
        layer, tokens = layer.double(), tokens.double()
    with using(way, parts=1), autocast_to(dtype):
        out = layer(tokens)
    if way != "blocked":
        expected = {"CompiledAttentionBackward", "CompiledDropoutBackward"}
    else:
        expected = {"BlockedAttentionBackward", "NumpyDropoutBackward"}
    assert expected <= set(nodes_behind(out))
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@needs_a_kernel
@head_dims
@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_processors_that_multiply_matrices_attend_by_torch_in_bfloat16(
    amx, head_dim, dtype, monkeypatch
):
    """Dropout, which multiplies none, is left to the kernel."""
    monkeypatch.setattr(kernel, "has_amx", lambda: amx)
    with autocast_to(dtype):
        out = make_layer(head_dim, dropout=0.2)(torch.randn(2, 50, 20))
    names = set(nodes_behind(out))
    assert ("CompiledAttentionBackward" in names) == (dtype == torch.float32 or not amx)
    assert "CompiledDropoutBackward" in names


@head_dims
@pytest.mark.parametrize("training", [False, True])
def test_float64_stays_so_under_autocast(training, head_dim):
    """As in torch's products."""
    layer = make_layer(head_dim, dropout=0.2).double().train(training)
    tokens = torch.randn(2, 50, 20, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    expected = layer(tokens)
    torch.manual_seed(1)
    with fast.using("compiled"), autocast_to(torch.bfloat16):
        out = layer(tokens)
    assert not {"CompiledAttentionBackward", "CompiledDropoutBackward"} & set(nodes_behind(out))
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    assert out.dtype == tokens.grad.dtype == torch.float64


@needs_a_kernel
@pytest.mark.parametrize(("head_dim", "n_images", "n_tokens"), [(5, 3, 50), (6, 1, 6)])
def test_tokens_are_keys_only_where_it_saves_products(head_dim, n_images, n_tokens):
    """Not with shorter heads, nor for fewer tokens than they are long."""
    layer = Attention(6, 2, n_tokens, head_dim=head_dim, scale=0.4)
    with fast.using("compiled"):
        assert not attends_to_tokens(layer(torch.randn(n_images, n_tokens, 6)))


@needs_a_kernel
@pytest.mark.parametrize("dtype", [torch.float32])
def test_same_weights_are_dropped_with_tokens_for_keys_and_without(dtype):
    layer = make_layer(20)
    tokens, grad = torch.randn(2, 3, 50, 20, dtype=dtype)
    leaves, found = [tokens.requires_grad_(), *list(layer.parameters())[2:]], []
    options = {"dropout": 0.3}
    with fast.using("compiled"):
        for gathers in (True, False):
            torch.manual_seed(1)
            if gathers:
                out = gather_tokens(
                    tokens, layer.to_qkv, layer.projection, 20, 0.5, local=False, **options
                )
            else:
                qkv = layer.to_qkv(tokens).unflatten(-1, (3, 2, 20))
                out = layer.projection(attend(qkv, 0.5, **options).flatten(2))
            found.append([out.detach(), *torch.autograd.grad(out, leaves, grad)])
    for ours, theirs in zip(*found, strict=True):
        assert relative_error(ours, theirs.double()) < 2e-6


# -- torch's own operations ----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.999, 1.0])
def test_rates_that_a_byte_does_not_tell_are_left_to_torch(rate):
    layer = Attention(6, 2, 7, head_dim=3, scale=0.5, dropout=rate)
    out = layer(torch.randn(2, 7, 6))
    assert out.isfinite().all()
    if rate == 1:
        assert (out == 0).all()


@pytest.mark.parametrize("head_dim", [5, 8, 155])
def test_padded_heads_attend_alike(head_dim):
    def attend(q, k, v):
        assert q.shape[-1] % 8 == k.shape[-1] % 8 == v.shape[-1] % 8 == 0
        return (q @ k.mT).softmax(-1) @ v

    shape = (2, 3, 7, head_dim)
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    q, k, v = tensors
    expected = (q @ k.mT).softmax(-1) @ v
    padded = with_padded_heads(attend, q, k, v)
    torch.testing.assert_close(padded, expected)
    weights = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((padded * weights).sum(), tensors),
        torch.autograd.grad((expected * weights).sum(), tensors),
    )


def test_attention_computed_again_in_parts_has_the_gradient_of_its_own_dropout():
    """Where no kernel avoids keeping the weights: two images at a time, of five."""
    n_tokens, sizes = 9, []
    tensors = [
        torch.randn(5, 2, n_tokens, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)
    ]

    def attend(q, k, v):
        sizes.append(len(q))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.4)

    def attend_in_parts(q, k, v):
        torch.manual_seed(1)
        with fast.using("auto", parts=4 * n_tokens**2 / 2**24):
            return in_parts(attend, q, k, v)

    assert not torch.equal(attend_in_parts(*tensors), attend(*tensors))
    sizes.clear()
    attend_in_parts(*tensors)
    assert sizes == [2, 2, 1]
    assert torch.autograd.gradcheck(attend_in_parts, tensors, fast_mode=True)


# -- tensors without memory of their own ---------------------------------------------------------


@head_dims
def test_fake_tensors_are_left_to_torch(head_dim):
    with FakeTensorMode(), fast.using("compiled"):
        layer = make_layer(head_dim)
        assert layer(torch.randn(2, 50, 20)).shape == (2, 50, 20)


def test_default_device_does_not_matter():
    layer = Attention(6, 2, 7, head_dim=3, scale=0.5, dropout=0.2)
    tokens = torch.randn(2, 7, 6, requires_grad=True)
    with torch.device("meta"):
        layer(tokens).sum().backward()
    assert tokens.grad.device.type == "cpu"
