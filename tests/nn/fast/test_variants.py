"""The variants of the compiled kernels: each drops the same, and each can be chosen."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.nn.fast.attending import (
    VARIANTS,
    each_variant,
    each_variant_and_type,
    kept_weights,
    make_grad,
    make_qkv,
    needs_a_kernel,
    using,
)
from v1tlearn.nn import fast
from v1tlearn.nn.fast.compiled_attention import compiled_attention
from v1tlearn.nn.fast.variants import kernel
from v1tlearn.nn.layers.dropout import Dropout


def dropped(way, inputs, rate, seed):
    torch.manual_seed(seed)
    with using(way):
        return Dropout(rate)(inputs)


def bits(kept):
    return "".join(map(str, kept.int().tolist()))


# -- what is dropped -----------------------------------------------------------------------------


@pytest.mark.slow
@each_variant_and_type
@given(n_tokens=st.integers(2, 400), rate=st.floats(0.001, 0.98), seed=st.integers(0, 2**40))
def test_every_variant_drops_the_same_weights(way, dtype, n_tokens, rate, seed):
    found = []
    for variant in (way, "generic"):
        torch.manual_seed(seed)
        found.append(kept_weights(2, n_tokens, 2, n_tokens, dtype, dropout=rate, way=variant))
    assert torch.equal(*found)


@each_variant_and_type
@given(n=st.integers(1, 40_000), rate=st.floats(0.01, 0.95), seed=st.integers(0, 2**40))
@example(n=2**14, rate=0.5, seed=0)
def test_every_variant_drops_the_same_elements(way, dtype, n, rate, seed):
    """Values are the same bit for bit, too: there is one multiplication, and one rounding."""
    inputs = torch.randn(n, generator=torch.Generator().manual_seed(seed)).to(dtype)
    found = [dropped(variant, inputs, rate, seed) for variant in (way, "generic")]
    assert torch.equal(*found)


@each_variant_and_type
def test_what_is_dropped_stays_so(way, dtype):
    """Results with dropout can be had again, on any processor and in any version."""
    torch.manual_seed(7)
    kept = kept_weights(1, 300, 2, 300, dtype, dropout=0.25, way=way)[0]
    assert kept.sum((1, 2)).tolist() == [67309, 67476]
    assert bits(kept[1, 299, 268:]) == "11000111000001111011111101101110"
    kept = dropped(way, torch.ones(40_000, dtype=dtype), 0.25, seed=7) != 0
    assert kept.sum() == 29941
    assert bits(kept[-32:]) == "11010111010111010010100111001011"


@each_variant_and_type
def test_elements_that_are_not_finite_or_tiny(way, dtype):
    """Dropped, they are zero; kept, what the product is, of which tiny bfloat16 may be zero."""
    values = [math.nan, math.inf, -math.inf, -0.0, 3e38, 1e-40, -1.5]
    inputs = torch.tensor(values).repeat(401).to(dtype)
    kept = dropped(way, torch.ones_like(inputs), 0.5, seed=0) != 0
    out = dropped(way, inputs, 0.5, seed=0)
    assert (out[~kept] == 0).all()
    expected = (2 * inputs.double()).to(dtype)[kept]
    torch.testing.assert_close(out[kept], expected, rtol=0, atol=3e-40, equal_nan=True)


# -- which is used -------------------------------------------------------------------------------


@each_variant
def test_the_way_back_is_that_of_the_way_forth(way):
    """Where the choice has ended before the backward pass."""
    qkv, grad = make_qkv(1, 60, 2, 9, torch.float32), make_grad(1, 60, 2, 9, torch.float32)
    found = []
    for later in (way, "generic"):
        with using(way):
            out = compiled_attention(qkv)
        with using(later):
            found.append(torch.autograd.grad(out, qkv, grad)[0])
    assert torch.equal(*found)


@needs_a_kernel
def test_the_first_variant_is_used():
    qkv = make_qkv(2, 60, 2, 40, torch.float32).detach()
    with using(VARIANTS[0]):
        expected = compiled_attention(qkv)
    assert torch.equal(compiled_attention(qkv), expected)
    assert VARIANTS[-1] == "generic"
    assert f"compiled kernels for {VARIANTS[0]}" in fast.describe_kernels()
    assert all(variant in fast.describe_kernels() for variant in VARIANTS)


@needs_a_kernel
def test_variants_that_do_not_run_here_are_refused():
    with pytest.raises(ValueError, match=r"those that run here .*'generic'.*, got 'mmx'"):
        fast.using("compiled", variant="mmx").__enter__()


@needs_a_kernel
@pytest.mark.parametrize(
    ("variant", "name"), [("generic", "float64"), ("generic", ""), ("mmx", "float32")]
)
def test_types_and_variants_without_a_kernel(variant, name):
    with pytest.raises(ValueError, match=f"no kernel '{variant}' .* type '{name}'"):
        kernel.memory_size(variant, name, (4, 1, 2), False)
    with pytest.raises(ValueError, match="no kernel"):
        kernel.run(variant, name, (1, 4, 1, 2), (1.0, 1.0, 0, False), *[0] * 9, 1, 0)
    with pytest.raises(ValueError, match="no kernel"):
        kernel.drop(variant, name, 4, 2.0, 1, 0, 0, 0, 1, 4, 0)


@pytest.mark.slow
def test_nothing_is_known_where_nothing_was_compiled():
    script = """
import sys
sys.modules["v1tlearn.nn.fast._kernels"] = None
import torch
from v1tlearn import nn
assert nn.fast.kernel_types() == nn.fast.kernel_variants() == ()
assert "no compiled kernels" in nn.fast.describe_kernels()
layer = nn.Attention(20, 2, 50, head_dim=20, scale=0.5, dropout=0.2)
with nn.fast.using("compiled"):
    layer(torch.randn(2, 50, 20)).square().sum().backward()
assert all(p.grad.isfinite().all() for p in layer.parameters())
try:
    with nn.fast.using("compiled", variant="generic"):
        raise AssertionError
except ValueError as error:
    assert "(none)" in str(error)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("has_bf16", "amx", "told"),
    [
        (False, False, 1),
        pytest.param(True, False, 0, marks=pytest.mark.slow),
        pytest.param(False, True, 0, marks=pytest.mark.slow),
    ],
)
def test_where_bfloat16_is_emulated_the_log_says_so_once(has_bf16, amx, told):
    """On a processor with AVX2, with AVX-512 and its bfloat16, or with AMX."""
    script = f"""
import sys, types
sys.modules["v1tlearn.nn.fast._kernels"] = types.SimpleNamespace(
    variants=lambda: (("avx512_bf16", {has_bf16}, True), ("avx2", True, False)),
    has_amx=lambda: {amx},
)
import torch
from v1tlearn.nn import fast
from v1tlearn.training import resolve_precision
for precision in ("auto", "float32", "bfloat16", "bfloat16"):
    resolve_precision(precision, torch.device("cpu"), training=True)
print(fast.describe_kernels())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stderr.count("precision='bfloat16' gains no time here") == told
    if not has_bf16:
        assert done.stdout == "compiled kernels for avx2 (not avx512_bf16: not on this processor)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        pytest.param({"neon": True, "bf16": False}, False, marks=pytest.mark.slow),
        pytest.param({}, None, marks=pytest.mark.slow),
    ],
)
def test_where_nothing_was_compiled_torch_is_asked_for_bfloat16(told, expected):
    script = f"""
import sys
sys.modules["v1tlearn.nn.fast._kernels"] = None
import torch
torch.cpu.get_capabilities = lambda: {told}
from v1tlearn.training.devices import multiplies_bfloat16
assert multiplies_bfloat16(torch.device("cpu")) is {expected}
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
