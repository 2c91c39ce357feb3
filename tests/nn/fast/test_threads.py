"""The threads of blocked attention: how many there are, what they do, and what becomes of them."""

import threading

import pytest
import torch

from tests.nn.fast.attending import definition, make_qkv, torch_threads
from v1tlearn.nn import fast
from v1tlearn.nn.fast.blocked_attention import blocked_attention


@pytest.fixture(autouse=True)
def small_parts():
    """Let small inputs be shared out among threads, in blocks of 8 kB."""
    with fast.using("blocked", parts=1 / 350):
        yield


class Watched(torch.Tensor):
    """Tells of each operation that blocked attention does with it."""

    def tell(self):
        """Do nothing."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if threading.current_thread().name.startswith("v1tlearn-attention"):
            cls.tell(torch.get_num_threads())
        return super().__torch_function__(function, types, args, kwargs or {})


def test_threads_give_what_one_thread_gives_without_dropout():
    qkv, results = make_qkv(3, 50, 4, 6).detach(), []
    for n_threads in (1, 4):
        with torch_threads(n_threads), torch.inference_mode():
            results.append(blocked_attention(qkv))
            assert torch.get_num_threads() == n_threads
    assert results[1].is_inference()
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


def test_number_of_threads_may_change_before_the_backward_pass():
    """The same weights are dropped in both directions."""
    qkv, gradients = make_qkv(5, 12, 3, 4), []
    for n_later in (3, 1):
        with torch_threads(3):
            torch.manual_seed(0)
            mixed = blocked_attention(qkv, dropout=0.3)
            torch.set_num_threads(n_later)
            gradients.append(torch.autograd.grad(mixed.square().sum(), qkv)[0])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_threads_that_begin_meanwhile_keep_their_number():
    """Those that come once the threads of attention are there, however often it is called."""
    seen, stop = [], threading.Event()
    qkv = make_qkv(2, 40, 3, 4).detach()

    def attend():
        with fast.using("blocked", parts=1 / 350):
            while not stop.is_set():
                blocked_attention(qkv)

    def look():
        torch.zeros(1) + 1
        seen.append(torch.get_num_threads())

    with torch_threads(3):
        blocked_attention(qkv)
        attending = threading.Thread(target=attend)
        attending.start()
        for _ in range(50):
            looking = threading.Thread(target=look)
            looking.start()
            looking.join()
        stop.set()
        attending.join()
    assert set(seen) == {3}


def test_each_thread_does_its_operations_alone():
    """Otherwise threads would start threads, and there would be more of them than cores."""
    seen = []

    class Seen(Watched):
        tell = seen.append

    with torch_threads(3):
        blocked_attention(make_qkv(4, 40, 3, 4).detach().as_subclass(Seen))
        assert torch.get_num_threads() == 3
    assert set(seen) == {1}


def test_errors_of_threads_reach_the_caller():
    class Failing(Watched):
        @staticmethod
        def tell(_):
            raise ZeroDivisionError

    with torch_threads(2):
        with pytest.raises(ZeroDivisionError):
            blocked_attention(make_qkv(2, 8, 2, 3).detach().as_subclass(Failing))
        assert torch.get_num_threads() == 2


def test_no_thread_waits_for_one_that_cannot_begin(monkeypatch):
    start, started = threading.Thread.start, []
    n_threads = 7  # as many as nothing else has begun

    def no_third(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    qkv = make_qkv(4, 9, 3, 4).detach()
    with torch_threads(n_threads):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_third)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                blocked_attention(qkv)
        assert len(started) == 2
        assert not any(thread.is_alive() for thread in started)
        assert torch.get_num_threads() == n_threads
        mixed = blocked_attention(qkv)  # once there is room
    torch.testing.assert_close(mixed, definition(qkv))
