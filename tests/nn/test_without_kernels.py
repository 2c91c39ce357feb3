"""Layers on the CPU where nothing was compiled, or the processor cannot run it."""

import importlib.util
import sys

import pytest
import torch

from tests.nn.attention_defined import relative_error
from tests.nn.kernels import TOLERANCES
from v1tlearn import nn
from v1tlearn.nn import _compiled
from v1tlearn.nn.attention import Attention
from v1tlearn.nn.dropout import Dropout

both_types = pytest.mark.parametrize("dtype", list(TOLERANCES))
# Heads shorter than tokens and not, of which the kernels attend to the tokens themselves.
head_dims = pytest.mark.parametrize("head_dim", [7, 20])


def autocast_to(dtype):
    """Compute in float32 or bfloat16."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def do_without(monkeypatch):
    """Have no kernel, and notice if one is used."""
    monkeypatch.setattr(_compiled, "TYPES", {})
    for name in ("compiled_attention", "shared_attention"):
        monkeypatch.setattr(f"v1tlearn.nn.attention.{name}", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("v1tlearn.nn.dropout._CompiledDropout", None)


def names_of_nodes(out):
    """What the gradient of an output goes through."""
    names, nodes = set(), [out.grad_fn]
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        nodes += [following for following, _ in node.next_functions if following is not None]
    return names


@both_types
@head_dims
@pytest.mark.parametrize("local", [False, True])
def test_layer_without_the_kernel_gives_the_same(local, head_dim, dtype, monkeypatch):
    torch.manual_seed(0)
    layer = Attention(20, 2, 50, head_dim=head_dim, scale=0.5, local=local, dropout=0.2).eval()
    tokens, grad = torch.randn(2, 2, 50, 20)
    results = []
    for without in (False, True):
        if without:
            do_without(monkeypatch)
        inputs = [tokens.clone().requires_grad_(), *layer.parameters()]
        with autocast_to(dtype):
            out = layer(inputs[0])
        results.append((out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))))
    for ours, theirs in zip(*results, strict=True):
        assert relative_error(ours, theirs.double()) < 3 * TOLERANCES[dtype]


@both_types
@head_dims
def test_without_the_kernel_blocks_train_with_dropout(head_dim, dtype, monkeypatch):
    do_without(monkeypatch)
    layer = Attention(20, 2, 50, head_dim=head_dim, scale=0.5, dropout=0.2)
    with autocast_to(dtype):
        out = layer(torch.randn(2, 50, 20))
    assert {"_BlockedAttentionBackward", "_DropoutBackward"} <= names_of_nodes(out)
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_without_the_kernel_numpy_draws(monkeypatch):
    do_without(monkeypatch)
    out = Dropout(0.5)(torch.ones(40, 50, requires_grad=True))
    assert "_DropoutBackward" in names_of_nodes(out)


def test_nothing_is_known_where_nothing_was_compiled(monkeypatch):
    monkeypatch.setitem(sys.modules, "v1tlearn.nn._kernels", None)
    monkeypatch.delattr(nn, "_kernels", raising=False)
    spec = importlib.util.spec_from_file_location("v1tlearn.nn._anew", _compiled.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    assert anew.kernel is None
    assert anew.TYPES == {}
    assert not anew.takes(torch.ones(1), 0.0)
