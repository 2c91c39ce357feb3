"""Blocked attention and dropout of the CPU against plain statements of the same in float64."""

import math
import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.nn.attention_defined import (
    LargestTensor,
    make_qkv,
    plain_attention,
    relative_error,
    torch_threads,
)
from tests.nn.drawn import kept_weights
from v1tlearn.nn import _blocked_attention
from v1tlearn.nn._blocked_attention import blocked_attention
from v1tlearn.nn.attention import Attention

TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True, scope="module")
def nothing_compiled():
    """Let layers attend in blocks where there is a kernel, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("v1tlearn.nn._compiled.TYPES", {})
        yield


sizes = st.tuples(st.integers(1, 4), st.integers(2, 40), st.integers(1, 4), st.integers(1, 20))


@given(
    shape=sizes,
    dtype=st.sampled_from(list(TOLERANCES)),
    scale=st.floats(0.1, 2),
    dropout=st.sampled_from([0.0, 0.1, 0.2544, 0.5, 0.9]),
    local=st.booleans(),
    block_bytes=st.sampled_from([1_000, 10_000, 2_800_000]),
    n_threads=st.integers(1, 3),
)
@example(
    shape=(1, 31, 1, 14),
    dtype=torch.bfloat16,
    scale=1.0,
    dropout=0.0,
    local=False,
    block_bytes=2_800_000,
    n_threads=1,
)
def test_forward_and_gradient_are_those_of_the_definition(
    shape, dtype, scale, dropout, local, block_bytes, n_threads
):
    """Over shapes, blocks smaller and larger than a head, and threads."""
    qkv = make_qkv(*shape, dtype)
    exact = qkv.detach().double().requires_grad_()
    with pytest.MonkeyPatch.context() as patch, torch_threads(n_threads):
        patch.setattr(_blocked_attention, "_BLOCK_BYTES", block_bytes)
        patch.setattr(_blocked_attention, "_WEIGHTS_WORTH_THREADS", 1)
        kept = torch.ones(())
        if dropout:
            torch.manual_seed(3)
            kept = kept_weights(*shape, dtype, dropout=dropout)
        torch.manual_seed(3)
        mixed = blocked_attention(qkv, scale=scale, dropout=dropout, local=local)
        grad = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        mixed.backward(grad)
    expected = plain_attention(exact, scale=scale, local=local, kept=kept, dropout=dropout)
    expected.backward(grad.double())
    assert mixed.dtype == qkv.grad.dtype == dtype
    # Scores are rounded, too: weights are wrong by as much as the largest of them.
    q, k, _ = exact.detach().permute(2, 0, 3, 1, 4)
    largest = (scale * q @ k.transpose(-1, -2)).abs().max().item()
    tolerance = TOLERANCES[dtype] + torch.finfo(dtype).eps / 2 * largest
    for ours, theirs in ((mixed, expected), (qkv.grad, exact.grad)):
        assert relative_error(ours.detach(), theirs.detach()) <= tolerance


def test_gradient_is_that_of_finite_differences():
    qkv = make_qkv(2, 5, 2, 3)

    def attend(qkv):
        torch.manual_seed(0)  # drop the same weights
        return blocked_attention(qkv, scale=0.7, dropout=0.3, local=True)

    assert torch.autograd.gradcheck(attend, (qkv,))


@pytest.mark.parametrize("dropout", [0.0009, 0.1, 0.2544, 0.5, 0.98])
def test_rate_of_dropped_weights(dropout):
    """Within four standard deviations, also where 256 steps would not tell the rates apart."""
    torch.manual_seed(0)
    kept = kept_weights(4, 256, 8, 256, torch.float32, dropout=dropout)
    n = kept.numel()
    rate = 1 - kept.double().mean().item()
    assert abs(rate - dropout) < 4 * math.sqrt(dropout * (1 - dropout) / n)


def test_weights_are_dropped_independently():
    """Neighbours along images, heads, queries and keys, and those of two calls."""
    torch.manual_seed(0)
    kept, other = (
        kept_weights(4, 128, 4, 128, torch.float32, dropout=0.25).double() - 0.75 for _ in range(2)
    )
    variance = 0.25 * 0.75
    pairs = {"calls": (kept, other)}
    for axis, name in enumerate(("images", "heads", "queries", "keys")):
        n = kept.shape[axis]
        pairs[name] = (kept.narrow(axis, 0, n - 1), kept.narrow(axis, 1, n - 1))
    for name, (left, right) in pairs.items():
        correlation = (left * right).mean() / variance
        assert abs(correlation) < 4 / math.sqrt(left.numel()), name


def test_mean_over_draws_is_attention_without_dropout():
    qkv = make_qkv(1, 12, 2, 4, torch.float32).detach()
    torch.manual_seed(0)
    many = blocked_attention(qkv.expand(4000, -1, -1, -1, -1), dropout=0.3)
    exact = blocked_attention(qkv)
    error = (many.mean(0) - exact[0]).abs()
    assert (error < 5 * many.std(0) / math.sqrt(4000)).all()


def test_same_seed_same_result_and_calls_differ():
    qkv = make_qkv(2, 30, 2, 5, torch.float32).detach()
    torch.manual_seed(5)
    first, second = (blocked_attention(qkv, dropout=0.4) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(blocked_attention(qkv, dropout=0.4), first)
    assert not torch.equal(first, second)


def test_without_dropout_no_random_number_is_drawn():
    state = torch.get_rng_state()
    blocked_attention(make_qkv(1, 6, 1, 2)).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_give_what_one_thread_gives_without_dropout(monkeypatch):
    monkeypatch.setattr(_blocked_attention, "_WEIGHTS_WORTH_THREADS", 1)
    monkeypatch.setattr(_blocked_attention, "_BLOCK_BYTES", 8_000)
    qkv = make_qkv(3, 50, 4, 6).detach()
    n_before = torch.get_num_threads()
    try:
        results = []
        for n_threads in (1, 4):
            torch.set_num_threads(n_threads)
            with torch.inference_mode():
                results.append(blocked_attention(qkv))
        assert torch.get_num_threads() == 4
        assert results[1].is_inference()
    finally:
        torch.set_num_threads(n_before)
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


def test_number_of_threads_may_change_before_the_backward_pass(monkeypatch):
    """The same weights are dropped in both directions."""
    monkeypatch.setattr(_blocked_attention, "_WEIGHTS_WORTH_THREADS", 1)
    qkv = make_qkv(5, 12, 3, 4)
    n_before, gradients = torch.get_num_threads(), []
    try:
        for n_later in (3, 1):
            torch.set_num_threads(3)
            torch.manual_seed(0)
            mixed = blocked_attention(qkv, dropout=0.3)
            torch.set_num_threads(n_later)
            gradients.append(torch.autograd.grad(mixed.square().sum(), qkv)[0])
    finally:
        torch.set_num_threads(n_before)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_threads_that_begin_meanwhile_keep_their_number(monkeypatch):
    """Those that come once the threads of attention are there, however often it is called."""
    monkeypatch.setattr(_blocked_attention, "_WEIGHTS_WORTH_THREADS", 1)
    n_before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        qkv = make_qkv(2, 40, 3, 4).detach()
        blocked_attention(qkv)
        stop = threading.Event()

        def attend():
            while not stop.is_set():
                blocked_attention(qkv)

        def look():
            torch.zeros(1) + 1
            seen.append(torch.get_num_threads())

        attending = threading.Thread(target=attend)
        attending.start()
        for _ in range(50):
            looking = threading.Thread(target=look)
            looking.start()
            looking.join()
        stop.set()
        attending.join()
    finally:
        torch.set_num_threads(n_before)
    assert set(seen) == {3}


def test_each_thread_does_its_operations_alone(monkeypatch):
    """Otherwise threads would start threads, and there would be more of them than cores."""
    monkeypatch.setattr(_blocked_attention, "_WEIGHTS_WORTH_THREADS", 1)
    weigh, seen = _blocked_attention._Forward.weigh, []

    def look(*args):
        torch.zeros(1) + 1
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return weigh(*args)

    monkeypatch.setattr(_blocked_attention._Forward, "weigh", look)
    with torch_threads(3):
        blocked_attention(make_qkv(4, 40, 3, 4).detach())
        assert torch.get_num_threads() == 3
    assert {n for _, n in seen} == {1}
    assert all(name.startswith("v1tlearn-attention") for name, _ in seen)


def test_no_thread_waits_for_one_that_cannot_begin(monkeypatch):
    monkeypatch.setattr(_blocked_attention, "_WEIGHTS_WORTH_THREADS", 1)
    monkeypatch.setattr(_blocked_attention, "_pools", {})
    start, started = threading.Thread.start, []

    def no_third(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    qkv = make_qkv(4, 9, 3, 4).detach()
    with torch_threads(3):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_third)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                blocked_attention(qkv)
        assert len(started) == 2
        assert not any(thread.is_alive() for thread in started)
        assert torch.get_num_threads() == 3
        mixed = blocked_attention(qkv)  # once there is room
        for pool in _blocked_attention._pools.values():
            pool.shutdown()
    torch.testing.assert_close(mixed, plain_attention(qkv, scale=1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_processes_have_threads_of_their_own():
    script = """
import os, torch
from v1tlearn.nn import _blocked_attention as blocked
blocked._WEIGHTS_WORTH_THREADS = 1
torch.set_num_threads(2)
qkv = torch.randn(2, 9, 3, 2, 4)
expected = blocked.blocked_attention(qkv)
child = os.fork()
if child == 0:
    torch.set_num_threads(2)
    os._exit(0 if torch.allclose(blocked.blocked_attention(qkv), expected) else 1)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0"


def test_no_image_at_all():
    qkv = make_qkv(0, 5, 2, 4)
    mixed = blocked_attention(qkv, dropout=0.5)
    mixed.sum().backward()
    assert mixed.shape == (0, 5, 2, 4)
    assert qkv.grad.shape == qkv.shape


def test_default_device_does_not_matter():
    layer = Attention(6, 2, 7, head_dim=3, scale=0.5, dropout=0.2)
    tokens = torch.randn(2, 7, 6, requires_grad=True)
    with torch.device("meta"):
        layer(tokens).sum().backward()
    assert tokens.grad.device.type == "cpu"


def test_errors_of_threads_reach_the_caller(monkeypatch):
    monkeypatch.setattr(_blocked_attention, "_WEIGHTS_WORTH_THREADS", 1)
    monkeypatch.setattr(_blocked_attention._Forward, "weigh", lambda *_: 1 / 0)
    n_before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            blocked_attention(make_qkv(2, 8, 2, 3).detach())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_before)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("local", [False, True])
def test_training_never_holds_tokens_times_tokens(local, precision):
    n_tokens = 1654
    torch.manual_seed(0)
    layer = Attention(12, 2, n_tokens, head_dim=6, scale=0.4, local=local, dropout=0.2544)
    tokens = torch.randn(1, n_tokens, 12, requires_grad=True)
    with LargestTensor() as mode, torch.autocast("cpu", torch.bfloat16, precision != torch.float32):
        layer(tokens).float().square().sum().backward()
    assert 0 < mode.largest < n_tokens**2
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_layer_in_evaluation_is_the_definition(local, bfloat16):
    torch.manual_seed(0)
    layer = Attention(10, 2, 9, head_dim=4, scale=0.5, local=local, dropout=0.3).eval()
    if local:
        layer.scale.data = torch.tensor([0.3, 0.9])
    tokens = torch.randn(3, 9, 10)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        got = layer(tokens)
    qkv = layer._projected(layer.double().norm(tokens.double()))
    scale = layer.scale[:, None, None] if local else 0.5
    mixed = plain_attention(qkv, scale=scale, local=local, kept=1, dropout=0)
    expected = layer.projection(mixed.flatten(2))
    tolerance = 2e-2 if bfloat16 else 1e-6
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rate", [0.999, 1.0])
def test_rates_that_a_byte_does_not_tell_are_left_to_torch(rate):
    layer = Attention(6, 2, 7, head_dim=3, scale=0.5, dropout=rate)
    out = layer(torch.randn(2, 7, 6))
    assert out.isfinite().all()
    if rate == 1:
        assert (out == 0).all()
