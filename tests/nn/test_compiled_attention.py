"""The compiled attention of the CPU against plain statements of the same in float64."""

import math
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.nn.attention_defined import (
    LargestTensor,
    make_qkv,
    plain_attention,
    relative_error,
    torch_threads,
)
from tests.nn.drawn import kept_weights
from tests.nn.kernels import (
    KNOWN_TYPES,
    TOLERANCES,
    each_known_type,
    skip_module_without_kernels,
)
from v1tlearn.nn import _compiled_attention
from v1tlearn.nn._compiled import TYPES, kernel
from v1tlearn.nn._compiled_attention import compiled_attention, shared_attention
from v1tlearn.nn.attention import Attention

skip_module_without_kernels()
TILE_OF_QUERIES, TILE_OF_KEYS, PANEL = kernel.QUERIES, kernel.KEYS, kernel.PANEL
with_and_without_local = pytest.mark.parametrize("local", [False, True])


@pytest.fixture(autouse=True, scope="module")
def all_sizes_and_types():
    """Let small inputs be shared out, too, and layers attend by the kernel in all types."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled_attention, "_PRODUCTS_WORTH_THREADS", 0)
        patch.setattr(kernel, "has_amx", lambda: False)
        yield


def attend_and_go_back(qkv, grad, *, seed=3, **options):
    """Output and gradient of the kernel after a seed."""
    qkv = qkv.detach().requires_grad_()
    torch.manual_seed(seed)
    out = compiled_attention(qkv, **options)
    out.backward(grad)
    return out.detach(), qkv.grad


def defined(qkv, grad, **options):
    """Output and gradient of the definition."""
    exact = qkv.detach().double().requires_grad_()
    out = plain_attention(exact, **options)
    out.backward(grad.double())
    return out.detach(), exact.grad


def make_grad(n_images, n_tokens, n_heads, head_dim, dtype, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, n_tokens, n_heads, head_dim, generator=generator).to(dtype)


# -- numbers -------------------------------------------------------------------------------------


def around(*sizes):
    """Strategy: one of some sizes, one less or one more."""
    return st.tuples(st.sampled_from(sizes), st.integers(-1, 1)).map(sum)


tiles = (TILE_OF_KEYS, TILE_OF_QUERIES, 2 * TILE_OF_KEYS, 2 * TILE_OF_QUERIES)
token_counts = st.one_of(st.integers(2, 50), st.integers(51, 300), around(*tiles))
widths = st.one_of(st.integers(1, 40), around(48, 2 * PANEL, 3 * PANEL, 4 * PANEL, 160))
# Steps of 2^-16.
rates = st.sampled_from([0.0, 2**-10, 0.25, 0.5, 0.90625, round(0.98 * 2**16) / 2**16])


@given(
    shape=st.tuples(st.integers(1, 3), token_counts, st.integers(1, 3), widths),
    dtype=st.sampled_from(KNOWN_TYPES),
    scale=st.floats(0.1, 2),
    sign=st.sampled_from([1, -1]),
    dropout=rates,
    local=st.booleans(),
    n_threads=st.integers(1, 3),
)
def test_forward_and_gradient_are_those_of_the_definition(
    shape, dtype, scale, sign, dropout, local, n_threads
):
    """Over shapes that end within tiles, panels and vectors, and at their ends."""
    qkv, grad = make_qkv(*shape, dtype), make_grad(*shape, dtype)
    options = {"scale": sign * scale / math.sqrt(shape[-1]), "dropout": dropout, "local": local}
    kept = 1
    if dropout:  # of which the length of heads decides on nothing
        torch.manual_seed(3)
        heads = (*shape[:3], shape[1])
        kept = kept_weights(*heads, dtype, dropout=dropout, attend=compiled_attention)
    with torch_threads(n_threads):
        ours = attend_and_go_back(qkv, grad, **options)
    for got, expected in zip(ours, defined(qkv, grad, kept=kept, **options), strict=True):
        assert got.dtype == dtype
        assert relative_error(got, expected) <= TOLERANCES[dtype]


@each_known_type
def test_one_token_attends_to_itself(dtype):
    qkv, grad = make_qkv(2, 1, 3, 5, dtype), make_grad(2, 1, 3, 5, dtype)
    ours = attend_and_go_back(qkv, grad, scale=0.5)
    for got, expected in zip(ours, defined(qkv, grad, scale=0.5), strict=True):
        assert relative_error(got, expected) <= TOLERANCES[dtype]


@each_known_type
@with_and_without_local
def test_without_scale_all_weights_are_equal(local, dtype):
    qkv, grad = make_qkv(1, 40, 2, 5, dtype), make_grad(1, 40, 2, 5, dtype)
    ours = attend_and_go_back(qkv, grad, scale=0.0, local=local)
    for got, expected in zip(ours, defined(qkv, grad, scale=0.0, local=local), strict=True):
        assert relative_error(got, expected) <= TOLERANCES[dtype]
    assert (ours[1][:, :, :2] == 0).all()


@each_known_type
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e6, 1e12, 1e18])
def test_very_small_and_very_large_scores(size, dtype):
    """At the upper end, rows have one weight of 1 each, and scores are near the largest number."""
    qkv, grad = make_qkv(1, 250, 2, 8, dtype).detach(), make_grad(1, 250, 2, 8, dtype)
    qkv[:, :, :2] *= size
    ours = attend_and_go_back(qkv, grad)
    # In the rare rows where two scores are alike but for float32, weights are any.
    exact = plain_attention(qkv.double(), scale=1.0)
    alike = (ours[0].double() - exact).norm(dim=-1) > 20 * TOLERANCES[dtype] * exact.norm(dim=-1)
    assert alike.double().mean() < 0.05
    assert all(got.isfinite().all() for got in ours)
    if size < 1:
        for got, expected in zip(ours, defined(qkv, grad, scale=1.0), strict=True):
            assert relative_error(got, expected) <= TOLERANCES[dtype]


@each_known_type
def test_one_hot_rows_are_exact(dtype):
    """Each token attends to one other, and gets its value unchanged."""
    n = 256
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    qkv = torch.zeros(1, n, 3, 1, n, dtype=dtype)
    qkv[0, :, 0, 0] = torch.eye(n)[chosen] * 512
    qkv[0, :, 1, 0] = torch.eye(n)
    qkv[:, :, 2] = make_grad(1, n, 1, n, dtype)
    grad = make_grad(1, n, 1, n, dtype, seed=2)
    out, qkv_grad = attend_and_go_back(qkv, grad)
    assert torch.equal(out, qkv[:, chosen, 2])
    values = torch.empty_like(grad)
    values[:, chosen] = grad
    assert torch.equal(qkv_grad[:, :, 2], values)


def test_scores_of_minus_infinity():
    """Also where they fill the first tile, as products of large numbers do."""
    qkv = make_qkv(1, TILE_OF_KEYS + 20, 1, 4, torch.float32).detach()
    qkv[:, :, 0] = 1e20
    qkv[:, :TILE_OF_KEYS, 1] = -1e20
    qkv[:, TILE_OF_KEYS:, 1] = 0
    expected = qkv[:, TILE_OF_KEYS:, 2].mean(1, keepdim=True).expand(-1, TILE_OF_KEYS + 20, -1, -1)
    torch.testing.assert_close(compiled_attention(qkv), expected)


@each_known_type
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("token", [3, TILE_OF_KEYS + 18])
def test_inputs_that_are_not_finite(token, part, value, dtype):
    """Spread as far as by the definition, and not to other heads and images."""
    shape = (2, TILE_OF_KEYS + 21, 2, 3)
    qkv, grad = make_qkv(*shape, dtype).detach(), make_grad(*shape, dtype)
    qkv[1, token, part, 1, 2] = value
    ours = attend_and_go_back(qkv, grad, scale=0.6)
    tolerance = 5 * TOLERANCES[dtype]
    for got, expected in zip(ours, defined(qkv, grad, scale=0.6), strict=True):
        assert not expected.isfinite().all()
        torch.testing.assert_close(
            got.double(), expected, rtol=tolerance, atol=tolerance, equal_nan=True
        )


# -- threads and memory --------------------------------------------------------------------------


@each_known_type
def test_number_of_threads_changes_no_bit(dtype):
    """In both directions, also where it is another one in the backward pass."""
    qkv, grad = make_qkv(3, 201, 3, 9, dtype), make_grad(3, 201, 3, 9, dtype)
    results = []
    for forward, backward in ((1, 1), (2, 2), (3, 3), (40, 40), (3, 1), (1, 2)):
        with torch_threads(forward):
            torch.manual_seed(0)
            out = compiled_attention(qkv, scale=0.4, dropout=0.3)
        with torch_threads(backward):
            results.append((out, *torch.autograd.grad(out, qkv, grad)))
    for out, qkv_grad in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(qkv_grad, results[0][1])


def test_python_threads_at_once():
    """Each works in memory of its own."""
    inputs = [make_qkv(2, 60 + 10 * i, 2, 7, torch.float32, seed=i).detach() for i in range(4)]
    expected = [compiled_attention(qkv) for qkv in inputs]
    wrong = []

    def attend(qkv, expected):
        for _ in range(20):
            if not torch.equal(compiled_attention(qkv), expected):
                wrong.append(len(expected))

    pairs = zip(inputs, expected, strict=True)
    threads = [threading.Thread(target=attend, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_of_inference_serves_training():
    """In a thread where it is the first to be used, and on any default device."""
    grads = []

    def attend():
        with torch.inference_mode(), torch.device("meta"):
            out = compiled_attention(make_on_cpu().detach(), dropout=0.1)
            assert out.is_inference()
        qkv = make_on_cpu()
        compiled_attention(qkv, dropout=0.1).sum().backward()
        grads.append(qkv.grad)

    def make_on_cpu():
        with torch.device("cpu"):
            return make_qkv(1, 30, 2, 4, torch.float32)

    thread = threading.Thread(target=attend)
    thread.start()
    thread.join()
    assert grads[0].isfinite().all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_processes_attend_with_one_thread():
    """Those of OpenMP do not outlive a fork: more threads would not be there."""
    script = """
import os, torch
from v1tlearn.nn import _compiled_attention as compiled
compiled._PRODUCTS_WORTH_THREADS = 0
torch.set_num_threads(2)
qkv = torch.randn(2, 9, 3, 2, 4)
expected = compiled.compiled_attention(qkv)
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    os._exit(0 if torch.equal(compiled.compiled_attention(qkv), expected) else 1)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0"


@each_known_type
@with_and_without_local
def test_training_never_holds_tokens_times_tokens(local, dtype, monkeypatch):
    """Nor do the bytes that a thread works in, which are kept, come to as many."""
    monkeypatch.setattr(_compiled_attention, "_own", threading.local())
    n_tokens = 1654
    torch.manual_seed(0)
    layer = Attention(12, 2, n_tokens, head_dim=6, scale=0.4, local=local, dropout=0.2544)
    tokens = torch.randn(1, n_tokens, 12, requires_grad=True)
    autocast = torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16)
    with torch_threads(1), LargestTensor() as mode, autocast:
        layer(tokens).float().square().sum().backward()
    assert 0 < mode.largest < n_tokens**2
    assert tokens.grad.isfinite().all()


@each_known_type
@pytest.mark.parametrize("backward", [False, True])
def test_twice_the_tokens_need_at_most_twice_the_memory(backward, dtype):
    name = TYPES[dtype]
    for n_tokens in (10, TILE_OF_KEYS, 1654):
        once, twice = (
            kernel.memory_size(name, (n, 4, 48), backward) for n in (n_tokens, 2 * n_tokens)
        )
        assert 0 < twice <= 2 * once


@pytest.mark.parametrize("name", ["float64", "", "float32 "])
def test_types_without_a_kernel(name, monkeypatch):
    with pytest.raises(ValueError, match="no kernel"):
        kernel.memory_size(name, (4, 1, 2), False)
    calls, run = [], kernel.run
    monkeypatch.setattr(kernel, "run", lambda *inputs: calls.append(inputs))
    compiled_attention(make_qkv(1, 4, 1, 2, torch.float32).detach())
    with pytest.raises(ValueError, match="no kernel"):
        run(name, *calls[0][1:])


# -- kinds of tensors ----------------------------------------------------------------------------


@each_known_type
def test_inputs_and_gradients_of_any_strides(dtype):
    qkv, grad = make_qkv(2, 40, 3, 5, dtype).detach(), make_grad(2, 40, 3, 5, dtype)
    expected = attend_and_go_back(qkv, grad, dropout=0.25)
    turned = qkv.permute(2, 4, 3, 1, 0).contiguous().permute(4, 3, 0, 2, 1)
    gaps = torch.stack([grad, grad], -1)[..., 0]
    torch.testing.assert_close(attend_and_go_back(turned, gaps, dropout=0.25), expected)
    shifted = torch.cat([qkv.new_zeros(1), qkv.flatten()])[1:].view(qkv.shape)  # not aligned
    assert torch.equal(attend_and_go_back(shifted, grad, dropout=0.25)[1], expected[1])
    same = qkv[:1].expand(2, -1, -1, -1, -1)
    ones = grad.new_ones(()).expand(grad.shape)
    repeated = attend_and_go_back(same, ones)
    torch.testing.assert_close(repeated, attend_and_go_back(same.clone(), ones.clone()))


@each_known_type
@pytest.mark.parametrize("shape", [(0, 5, 2, 4), (2, 0, 3, 4), (2, 5, 0, 4), (2, 5, 3, 0)])
def test_without_images_tokens_heads_or_width(shape, dtype, monkeypatch):
    """Results and gradients are empty, and so is the work."""
    memory = torch.full((2**22,), 7, dtype=torch.uint8)
    monkeypatch.setattr(_compiled_attention, "_own", SimpleNamespace(memory=memory))
    n_images, n_tokens, _, width = shape
    qkv = make_qkv(*shape, dtype)
    queries = torch.empty(shape, dtype=dtype, requires_grad=True)
    tokens = torch.randn(n_images, n_tokens, width, dtype=dtype, requires_grad=True)
    for dropout in (0.0, 0.5):
        mixed = compiled_attention(qkv, dropout=dropout)
        shared = shared_attention(queries, tokens, dropout=dropout)
        (mixed.sum() + shared.sum()).backward()
        assert mixed.shape == shared.shape == shape
        assert mixed.dtype == shared.dtype == dtype
    for tensor in (qkv, queries, tokens):
        assert tensor.grad.shape == tensor.shape
        assert (tensor.grad == 0).all()
    assert (memory == 7).all()
