"""Attention to the tokens themselves, where heads are not shorter than tokens."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.nn.attention_defined import plain_attention, relative_error, torch_threads
from tests.nn.drawn import kept_weights
from tests.nn.kernels import (
    KNOWN_TYPES,
    TOLERANCES,
    each_known_type,
    skip_module_without_kernels,
)
from v1tlearn.nn import _compiled, _compiled_attention, attention
from v1tlearn.nn._compiled_attention import compiled_attention, shared_attention
from v1tlearn.nn.attention import Attention

skip_module_without_kernels()


@pytest.fixture(autouse=True, scope="module")
def kernel_for_all_types():
    """Let layers attend by the kernel in all types."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled.kernel, "has_amx", lambda: False)
        yield


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 400), st.integers(1, 4), st.integers(1, 70)),
    dtype=st.sampled_from(KNOWN_TYPES),
    dropout=st.sampled_from([0.0, 0.25, 0.5]),
    local=st.booleans(),
    n_threads=st.integers(1, 3),
)
def test_forward_and_gradient_are_those_of_the_definition(shape, dtype, dropout, local, n_threads):
    n_images, n_tokens, n_heads, width = shape
    generator = torch.Generator().manual_seed(0)
    queries, grad = torch.randn(2, n_images, n_tokens, n_heads, width, generator=generator)
    queries = queries.to(dtype).requires_grad_()
    tokens = torch.randn(n_images, n_tokens, width, generator=generator).to(dtype)
    tokens.requires_grad_()
    options = {"scale": 1 / math.sqrt(width), "dropout": dropout, "local": local}
    kept = 1
    if dropout:
        torch.manual_seed(3)
        heads = (n_images, n_tokens, n_heads, n_tokens)
        kept = kept_weights(*heads, dtype, dropout=dropout, attend=compiled_attention)
    with pytest.MonkeyPatch.context() as patch, torch_threads(n_threads):
        patch.setattr(_compiled_attention, "_PRODUCTS_WORTH_THREADS", 0)
        torch.manual_seed(3)
        out = shared_attention(queries, tokens, **options)
        out.backward(grad.to(dtype))
    exact = [x.detach().double().requires_grad_() for x in (queries, tokens)]
    of_all_heads = exact[1][:, :, None].expand_as(exact[0])
    expected = plain_attention(
        torch.stack([exact[0], of_all_heads, of_all_heads], 2), kept=kept, **options
    )
    expected.backward(grad.to(dtype).double())
    found = (torch.cat([x.grad.flatten() for x in both]) for both in ((queries, tokens), exact))
    for ours, theirs in ((out.detach(), expected.detach()), found):
        assert relative_error(ours, theirs) < TOLERANCES[dtype]
    assert out.dtype == queries.grad.dtype == tokens.grad.dtype == dtype


def output_and_gradients(layer, tokens, grad):
    """Output, and gradients of tokens and parameters, in float64."""
    tokens = tokens.detach().requires_grad_()
    layer.zero_grad()
    out = layer(tokens)
    out.backward(grad.to(out.dtype))
    found = [out.detach(), tokens.grad, *(p.grad for p in layer.parameters())]
    return [x.double().clone() for x in found]


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("head_dim", [6, 9])
@each_known_type
def test_layer_gives_what_it_gives_with_keys_and_values(local, head_dim, dtype, monkeypatch):
    calls = []

    def noted(*args, **kwargs):
        calls.append(args)
        return shared_attention(*args, **kwargs)

    monkeypatch.setattr(attention, "shared_attention", noted)
    torch.manual_seed(0)
    layer = Attention(6, 2, 50, head_dim=head_dim, scale=0.4, local=local)
    if local:
        layer.scale.data = torch.tensor([0.3, 0.9])
    tokens, grad = torch.randn(2, 3, 50, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        ours = output_and_gradients(layer, tokens, grad)
    assert len(calls) == 1
    exact = output_and_gradients(layer.double(), tokens.double(), grad)
    assert len(calls) == 1  # there is no kernel for float64
    for got, expected in zip(ours, exact, strict=True):
        assert relative_error(got, expected) < (3e-2 if dtype == torch.bfloat16 else 2e-6)


@pytest.mark.parametrize(("head_dim", "n_images", "n_tokens"), [(5, 3, 50), (6, 1, 6)])
def test_only_where_it_saves_products(head_dim, n_images, n_tokens, monkeypatch):
    """Not with shorter heads, nor for fewer tokens than they are long."""
    monkeypatch.setattr(attention, "shared_attention", lambda *_, **__: 1 / 0)
    layer = Attention(6, 2, n_tokens, head_dim=head_dim, scale=0.4)
    assert layer(torch.randn(n_images, n_tokens, 6)).isfinite().all()


def test_same_weights_are_dropped_whichever_way():
    torch.manual_seed(0)
    layer = Attention(6, 2, 40, head_dim=6, scale=0.4, dropout=0.3)
    layer.dropout.p = 0.0
    tokens, grad = torch.randn(2, 3, 40, 6)
    found = []
    for gathers in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layer, "_gathers_tokens", lambda _, gathers=gathers: gathers)
            torch.manual_seed(1)
            found.append(output_and_gradients(layer, tokens, grad))
    for ours, theirs in zip(*found, strict=True):
        assert relative_error(ours, theirs) < 2e-6
