"""Blocked and compiled attention of the CPU against the definition in float64."""

import math
import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.nn.fast.attending import (
    ATTEND,
    TOLERANCES,
    TYPES,
    WAYS,
    LargestTensor,
    attend_and_go_back,
    defined,
    definition,
    each_variant,
    each_variant_and_type,
    each_way,
    each_way_and_type,
    kept_weights,
    kind,
    make_grad,
    make_qkv,
    relative_error,
    torch_threads,
    using,
    with_and_without_local,
)
from v1tlearn.nn import fast
from v1tlearn.nn.fast.compiled_attention import compiled_attention, shared_attention
from v1tlearn.nn.fast.variants import kernel
from v1tlearn.nn.layers.attention import Attention

TILE_OF_QUERIES, TILE_OF_KEYS, PANEL = (
    (kernel.QUERIES, kernel.KEYS, kernel.PANEL) if kernel else (64, 64, 48)
)


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """Let small inputs be shared out among threads, too."""
    with fast.using("compiled", parts=0.999):
        yield


# -- numbers -------------------------------------------------------------------------------------


def around(*sizes):
    """Strategy: one of some sizes, one less or one more."""
    return st.tuples(st.sampled_from(sizes), st.integers(-1, 1)).map(sum)


tiles = (TILE_OF_KEYS, TILE_OF_QUERIES, 2 * TILE_OF_KEYS, 2 * TILE_OF_QUERIES)
SHAPES = {
    "blocked": st.tuples(
        st.integers(1, 4), st.integers(2, 40), st.integers(1, 4), st.integers(1, 20)
    ),
    "compiled": st.tuples(
        st.integers(1, 3),
        st.one_of(st.integers(2, 50), st.integers(51, 300), around(*tiles)),
        st.integers(1, 3),
        st.one_of(st.integers(1, 40), around(48, 2 * PANEL, 3 * PANEL, 4 * PANEL, 160)),
    ),
}
RATES = {
    "blocked": st.sampled_from([0.0, 0.1, 0.2544, 0.5, 0.9]),
    # Steps of 2^-16.
    "compiled": st.sampled_from([0.0, 2**-10, 0.25, 0.5, 0.90625, round(0.98 * 2**16) / 2**16]),
}
# Of blocks of 2.8 MB: smaller and larger than a head.
PARTS = {"blocked": st.sampled_from([1 / 2800, 1 / 280, 0.999]), "compiled": st.just(0.999)}


def assert_defined(way, shape, dtype, options, parts, n_threads):
    qkv, grad = make_qkv(*shape, dtype), make_grad(*shape, dtype)
    kept = 1
    with fast.using("compiled", parts=parts), torch_threads(n_threads):
        if options["dropout"]:
            torch.manual_seed(3)
            # The plan of blocks depends on the length of heads, a kernel's draws do not.
            length = shape[3] if way == "blocked" else shape[1]
            kept = kept_weights(*shape[:3], length, dtype, dropout=options["dropout"], way=way)
        ours = attend_and_go_back(way, qkv, grad, **options)
    tolerance = TOLERANCES[dtype]
    if way == "blocked":
        # Scores are rounded, too: weights are wrong by as much as the largest of them.
        q, k, _ = qkv.detach().double().permute(2, 0, 3, 1, 4)
        largest = (options["scale"] * q @ k.transpose(-1, -2)).abs().max().item()
        tolerance += torch.finfo(dtype).eps / 2 * largest
    for got, expected in zip(ours, defined(qkv, grad, kept=kept, **options), strict=True):
        assert got.dtype == dtype
        assert relative_error(got, expected) <= tolerance


@each_way
@given(data=st.data())
@example(data=None)
def test_forward_and_gradient_are_those_of_the_definition(way, data):
    """Over shapes that end within blocks, tiles, panels and vectors, and at their ends."""
    if data is None:
        options = {"scale": 1.0, "dropout": 0.0, "local": False}
        assert_defined(way, (1, 31, 1, 14), torch.bfloat16, options, 1.0, 1)
        return
    shape, dtype = data.draw(SHAPES[kind(way)]), data.draw(st.sampled_from(TYPES[way]))
    scale = data.draw(st.floats(0.1, 2)) * data.draw(st.sampled_from([1, -1]))
    options = {
        "scale": scale / (1 if way == "blocked" else math.sqrt(shape[-1])),
        "dropout": data.draw(RATES[kind(way)]),
        "local": data.draw(st.booleans()),
    }
    parts, n_threads = data.draw(PARTS[kind(way)]), data.draw(st.integers(1, 3))
    assert_defined(way, shape, dtype, options, parts, n_threads)


def test_gradient_is_that_of_finite_differences():
    def attend(qkv):
        torch.manual_seed(0)  # drop the same weights
        return ATTEND["blocked"](qkv, scale=0.7, dropout=0.3, local=True)

    assert torch.autograd.gradcheck(attend, (make_qkv(2, 5, 2, 3),))


@each_way_and_type
def test_one_token_attends_to_itself(way, dtype):
    qkv, grad = make_qkv(2, 1, 3, 5, dtype), make_grad(2, 1, 3, 5, dtype)
    ours = attend_and_go_back(way, qkv, grad, scale=0.5)
    for got, expected in zip(ours, defined(qkv, grad, scale=0.5), strict=True):
        assert relative_error(got, expected) <= TOLERANCES[dtype]


@each_way_and_type
@with_and_without_local
def test_without_scale_all_weights_are_equal(local, way, dtype):
    qkv, grad = make_qkv(1, 40, 2, 5, dtype), make_grad(1, 40, 2, 5, dtype)
    ours = attend_and_go_back(way, qkv, grad, scale=0.0, local=local)
    for got, expected in zip(ours, defined(qkv, grad, scale=0.0, local=local), strict=True):
        assert relative_error(got, expected) <= TOLERANCES[dtype]
    assert (ours[1][:, :, :2] == 0).all()


@each_way_and_type
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e6, 1e12, 1e18])
def test_very_small_and_very_large_scores(size, way, dtype):
    """At the upper end, rows have one weight of 1 each, and scores are near the largest number."""
    qkv, grad = make_qkv(1, 250, 2, 8, dtype).detach(), make_grad(1, 250, 2, 8, dtype)
    qkv[:, :, :2] *= size
    ours = attend_and_go_back(way, qkv, grad)
    # In the rare rows where two scores are alike but for float32, weights are any.
    exact = definition(qkv.double())
    alike = (ours[0].double() - exact).norm(dim=-1) > 20 * TOLERANCES[dtype] * exact.norm(dim=-1)
    assert alike.double().mean() < 0.05
    assert all(got.isfinite().all() for got in ours)
    if size < 1:
        for got, expected in zip(ours, defined(qkv, grad), strict=True):
            assert relative_error(got, expected) <= TOLERANCES[dtype]


@each_way_and_type
def test_one_hot_rows_are_exact(way, dtype):
    """Each token attends to one other, and gets its value unchanged."""
    n = 256
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    qkv = torch.zeros(1, n, 3, 1, n, dtype=dtype)
    qkv[0, :, 0, 0] = torch.eye(n)[chosen] * 512
    qkv[0, :, 1, 0] = torch.eye(n)
    qkv[:, :, 2] = make_grad(1, n, 1, n, dtype)
    grad = make_grad(1, n, 1, n, dtype, seed=2)
    out, qkv_grad = attend_and_go_back(way, qkv, grad)
    assert torch.equal(out, qkv[:, chosen, 2])
    values = torch.empty_like(grad)
    values[:, chosen] = grad
    assert torch.equal(qkv_grad[:, :, 2], values)


@each_way
def test_scores_of_minus_infinity(way):
    """Also where they fill the first tile, as products of large numbers do."""
    qkv = make_qkv(1, TILE_OF_KEYS + 20, 1, 4, torch.float32).detach()
    qkv[:, :, 0] = 1e20
    qkv[:, :TILE_OF_KEYS, 1] = -1e20
    qkv[:, TILE_OF_KEYS:, 1] = 0
    expected = qkv[:, TILE_OF_KEYS:, 2].mean(1, keepdim=True).expand(-1, TILE_OF_KEYS + 20, -1, -1)
    torch.testing.assert_close(ATTEND[way](qkv), expected)


@each_way_and_type
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("token", [3, TILE_OF_KEYS + 18])
def test_inputs_that_are_not_finite(token, part, value, way, dtype):
    """Spread as far as by the definition, and not to other heads and images."""
    shape = (2, TILE_OF_KEYS + 21, 2, 3)
    qkv, grad = make_qkv(*shape, dtype).detach(), make_grad(*shape, dtype)
    qkv[1, token, part, 1, 2] = value
    ours = attend_and_go_back(way, qkv, grad, scale=0.6)
    tolerance = 5 * TOLERANCES[dtype]
    for got, expected in zip(ours, defined(qkv, grad, scale=0.6), strict=True):
        assert not expected.isfinite().all()
        torch.testing.assert_close(
            got.double(), expected, rtol=tolerance, atol=tolerance, equal_nan=True
        )


# -- kinds of tensors ----------------------------------------------------------------------------


@each_way_and_type
def test_inputs_and_gradients_of_any_strides(way, dtype):
    qkv, grad = make_qkv(2, 40, 3, 5, dtype).detach(), make_grad(2, 40, 3, 5, dtype)
    expected = attend_and_go_back(way, qkv, grad, dropout=0.25)
    turned = qkv.permute(2, 4, 3, 1, 0).contiguous().permute(4, 3, 0, 2, 1)
    gaps = torch.stack([grad, grad], -1)[..., 0]
    torch.testing.assert_close(attend_and_go_back(way, turned, gaps, dropout=0.25), expected)
    shifted = torch.cat([qkv.new_zeros(1), qkv.flatten()])[1:].view(qkv.shape)  # not aligned
    assert torch.equal(attend_and_go_back(way, shifted, grad, dropout=0.25)[1], expected[1])
    same = qkv[:1].expand(2, -1, -1, -1, -1)
    ones = grad.new_ones(()).expand(grad.shape)
    repeated = attend_and_go_back(way, same, ones)
    torch.testing.assert_close(repeated, attend_and_go_back(way, same.clone(), ones.clone()))


@each_way_and_type
def test_no_image_at_all(way, dtype):
    qkv = make_qkv(0, 5, 2, 4, dtype)
    for dropout in (0.0, 0.5):
        mixed = ATTEND[way](qkv, dropout=dropout)
        mixed.sum().backward()
        assert mixed.shape == (0, 5, 2, 4)
        assert qkv.grad.shape == qkv.shape


@each_variant_and_type
@pytest.mark.parametrize("shape", [(0, 5, 2, 4), (2, 0, 3, 4), (2, 5, 0, 4), (2, 5, 3, 0)])
def test_without_images_tokens_heads_or_width(shape, way, dtype):
    """Results and gradients of the kernel are empty."""
    n_images, n_tokens, _, width = shape
    qkv = make_qkv(*shape, dtype)
    queries = torch.empty(shape, dtype=dtype, requires_grad=True)
    tokens = torch.randn(n_images, n_tokens, width, dtype=dtype, requires_grad=True)
    for dropout in (0.0, 0.5):
        with using(way):
            mixed = compiled_attention(qkv, dropout=dropout)
            shared = shared_attention(queries, tokens, dropout=dropout)
        (mixed.sum() + shared.sum()).backward()
        assert mixed.shape == shared.shape == shape
        assert mixed.dtype == shared.dtype == dtype
    for tensor in (qkv, queries, tokens):
        assert tensor.grad.shape == tensor.shape
        assert (tensor.grad == 0).all()


# -- keys and values that are the tokens themselves ----------------------------------------------


@each_variant
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 400), st.integers(1, 4), st.integers(1, 70)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    dropout=st.sampled_from([0.0, 0.25, 0.5]),
    local=st.booleans(),
    n_threads=st.integers(1, 3),
)
def test_tokens_for_keys_and_values_are_those_of_the_definition(
    way, shape, dtype, dropout, local, n_threads
):
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
        kept = kept_weights(*heads, dtype, dropout=dropout, way=way)
    with using(way), torch_threads(n_threads):
        torch.manual_seed(3)
        out = shared_attention(queries, tokens, **options)
        out.backward(grad.to(dtype))
    exact = [x.detach().double().requires_grad_() for x in (queries, tokens)]
    of_all_heads = exact[1][:, :, None].expand_as(exact[0])
    expected = definition(
        torch.stack([exact[0], of_all_heads, of_all_heads], 2), kept=kept, **options
    )
    expected.backward(grad.to(dtype).double())
    found = (torch.cat([x.grad.flatten() for x in both]) for both in ((queries, tokens), exact))
    for ours, theirs in ((out.detach(), expected.detach()), found):
        assert relative_error(ours, theirs) < TOLERANCES[dtype]
    assert out.dtype == queries.grad.dtype == tokens.grad.dtype == dtype


# -- threads and memory of the kernel ------------------------------------------------------------


@each_variant_and_type
def test_number_of_threads_changes_no_bit(way, dtype):
    """In both directions, also where it is another one in the backward pass."""
    qkv, grad = make_qkv(3, 201, 3, 9, dtype), make_grad(3, 201, 3, 9, dtype)
    results = []
    for forward, backward in ((1, 1), (2, 2), (3, 3), (40, 40), (3, 1), (1, 2)):
        with torch_threads(forward), using(way):
            torch.manual_seed(0)
            out = compiled_attention(qkv, scale=0.4, dropout=0.3)
        with torch_threads(backward):
            results.append((out, *torch.autograd.grad(out, qkv, grad)))
    for out, qkv_grad in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(qkv_grad, results[0][1])


@each_way
def test_python_threads_at_once(way):
    """Each works in memory of its own."""
    inputs = [make_qkv(2, 60 + 10 * i, 2, 7, torch.float32, seed=i).detach() for i in range(4)]
    expected = [ATTEND[way](qkv) for qkv in inputs]
    wrong = []

    def attend(qkv, expected):
        for _ in range(20):
            if not torch.equal(ATTEND[way](qkv), expected):
                wrong.append(len(expected))

    pairs = zip(inputs, expected, strict=True)
    threads = [threading.Thread(target=attend, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def in_a_new_thread(function):
    """Run a function where no memory was used before."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@each_way
def test_memory_of_inference_serves_training(way):
    """In a thread where it is the first to be used, and on any default device."""
    grads = []

    def make_on_cpu():
        with torch.device("cpu"):
            return make_qkv(1, 30, 2, 4, torch.float32)

    def attend():
        with torch.inference_mode(), torch.device("meta"):
            out = ATTEND[way](make_on_cpu().detach(), dropout=0.1)
            assert out.is_inference()
        qkv = make_on_cpu()
        ATTEND[way](qkv, dropout=0.1).sum().backward()
        grads.append(qkv.grad)

    in_a_new_thread(attend)
    assert grads[0].isfinite().all()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("way", WAYS[:2])
def test_forked_processes_attend(way):
    """Blocks with threads of their own, kernels with one: those of OpenMP do not outlive a fork."""
    script = f"""
import os, torch
from tests.nn.fast.attending import ATTEND, using
with using("{way}"):
    torch.set_num_threads(2)
    qkv = torch.randn(2, 9, 3, 2, 4)
    expected = ATTEND["{way}"](qkv)
    child = os.fork()
    if child == 0:
        torch.set_num_threads({2 if way == "blocked" else 1})
        os._exit(0 if torch.allclose(ATTEND["{way}"](qkv), expected) else 1)
    print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0"


@each_way_and_type
@with_and_without_local
def test_training_never_holds_tokens_times_tokens(local, way, dtype):
    """Nor do the bytes that a thread works in, which are kept, come to as many."""
    n_tokens, largest = 1654, []
    torch.manual_seed(0)
    layer = Attention(12, 2, n_tokens, head_dim=6, scale=0.4, local=local, dropout=0.2544)
    tokens = torch.randn(1, n_tokens, 12, requires_grad=True)
    if dtype == torch.float64:
        layer, tokens = layer.double(), tokens.detach().double().requires_grad_()

    def train():
        autocast = torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16)
        with using(way), torch_threads(1), LargestTensor() as mode, autocast:
            layer(tokens).float().square().sum().backward()
        largest.append(mode.largest)

    in_a_new_thread(train)
    assert 0 < largest[0] < n_tokens**2
    assert tokens.grad.isfinite().all()


@each_variant_and_type
@pytest.mark.parametrize("backward", [False, True])
def test_twice_the_tokens_need_at_most_twice_the_memory(backward, way, dtype):
    name = str(dtype).removeprefix("torch.")
    for n_tokens in (10, TILE_OF_KEYS, 1654):
        once, twice = (
            kernel.memory_size(way, name, (n, 4, 48), backward) for n in (n_tokens, 2 * n_tokens)
        )
        assert 0 < twice <= 2 * once
