import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from v1tlearn.training import initial_rng, isolated_rng

CPU = torch.device("cpu")


def test_global_generators_are_left_as_found():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with isolated_rng(initial_rng(0), CPU):
        torch.rand(10)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_left_as_found_after_an_error_too():
    before, rng = torch.get_rng_state(), initial_rng(0)
    with pytest.raises(RuntimeError), isolated_rng(rng, CPU):
        torch.rand(3, dtype=torch.uint8)
    assert torch.equal(torch.get_rng_state(), before)
    assert rng["cpu"] is not None


def test_the_run_draws_the_same_whatever_happens_between():
    with isolated_rng(initial_rng(3), CPU):
        whole = torch.rand(8)
    rng, parts = initial_rng(3), []
    for seed in range(4):
        torch.manual_seed(seed)
        with isolated_rng(rng, CPU):
            parts.append(torch.rand(2))
        torch.rand(seed)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_seeds(seed):
    with isolated_rng(initial_rng(seed), CPU):
        first = torch.rand(3)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        torch.testing.assert_close(first, torch.rand(3), rtol=0, atol=0)


def test_threads_take_turns():
    def draw(seed):
        rng = initial_rng(seed)
        numbers = []
        for _ in range(20):
            with isolated_rng(rng, CPU):
                numbers.append(torch.rand(50).sum().item())
                time.sleep(0.0005)
                numbers.append(torch.rand(()).item())
        return numbers

    before = torch.get_rng_state()
    alone = [draw(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(draw, range(4)))
    assert together == alone
    assert torch.equal(torch.get_rng_state(), before)
