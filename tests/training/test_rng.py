import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from v1tlearn import nn
from v1tlearn.training import initial_rng, isolated_rng, private_rng

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


# --------------------------------------------------------------------------- a generator of its own


def cores():
    convolutional = {"n_layers": 2, "hidden_channels": 3, "input_kernel": 3, "hidden_kernel": 3}
    shape = {"patch_size": 4, "n_blocks": 1, "n_heads": 2, "embed_dim": 8, "mlp_dim": 5}
    behavior = {"n_behaviors": 2, "mice": ("A", "B")}
    yield "cnn", lambda: nn.Stacked2dCore((2, 8, 10), **convolutional)
    yield "plain cnn", lambda: nn.Stacked2dCore((1, 8, 10), **convolutional, depth_separable=False)
    for tokenizer in ("unfold", "conv", "spt", "cct", "dual_norm"):
        yield tokenizer, lambda t=tokenizer: nn.ViTCore((1, 8, 10), tokenizer=t, **shape)
    for mode in ("b_mlp", "b_mlp_first_block", "b_mlp_shared", "b_mlp_per_mouse"):
        yield (
            mode,
            lambda m=mode: nn.ViTCore((1, 8, 10), behavior_mode=m, **shape, **behavior),
        )
    yield "lsa", lambda: nn.ViTCore((1, 8, 10), attention="lsa", **shape)


def parts():
    positions = np.random.default_rng(0).normal(size=(5, 3))
    yield "shifter", nn.Shifter
    yield "stimulus shifter", lambda: nn.StimulusShifter(3, max_shift=0.2)
    for gaussian in ("full", "uncorrelated", "isotropic"):
        yield gaussian, lambda g=gaussian: nn.GaussianReadout((3, 4, 5), 5, gaussian=g)
    yield "positions", lambda: nn.GaussianReadout((3, 4, 5), 5, positions=positions)
    yield "head", nn.SoftplusHead


DRAWS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(3, 4),
    "randint": lambda: torch.randint(2, 50, (7,)),
    "randperm": lambda: torch.randperm(20),
    "normal_": lambda: torch.empty(17).normal_(2.0, 3.0),
    "normal": lambda: torch.normal(torch.zeros(5), 1.0),
    "bernoulli": lambda: torch.bernoulli(torch.full((20,), 0.5)),
    "random_": lambda: torch.empty(4).random_(),
    "exponential_": lambda: torch.empty(4).exponential_(),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 5),
    "rand_like": lambda: torch.rand_like(torch.zeros(5)),
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(50)),
    "trunc_normal_": lambda: torch.nn.init.trunc_normal_(torch.empty(5, 5)),
    "orthogonal_": lambda: torch.nn.init.orthogonal_(torch.empty(4, 4)),
}


def drawn(context, make, rng):
    with context(rng):
        made = [make(), torch.rand(2), make()]  # normal numbers are drawn in pairs
    return [
        tensor
        for x in made
        for tensor in (x.state_dict().values() if isinstance(x, torch.nn.Module) else [x])
    ]


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name) for name, make in (*cores(), *parts(), *DRAWS.items())],
)
def test_private_numbers_are_those_of_the_seeded_default_generator(make):
    rngs = initial_rng(3), initial_rng(3)
    before = torch.get_rng_state()
    for _ in range(2):  # and go on where they were
        first = drawn(lambda rng: isolated_rng(rng, CPU), make, rngs[0])
        second = drawn(private_rng, make, rngs[1])
        assert all(map(torch.equal, first, second))
        assert torch.equal(rngs[0]["cpu"], rngs[1]["cpu"])
    assert torch.equal(torch.get_rng_state(), before)


def test_private_numbers_of_a_generator_that_is_given_are_its_own():
    with private_rng(initial_rng(3)):
        first = torch.rand(3, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(
        first, torch.rand(3, generator=torch.Generator().manual_seed(9)), rtol=0, atol=0
    )


def test_the_state_is_kept_after_an_error():
    rng, expected = initial_rng(3), initial_rng(3)
    with private_rng(expected):
        torch.rand(5)
    with pytest.raises(TypeError), private_rng(rng):
        torch.cat([torch.rand(5), "no tensor"])
    assert torch.equal(rng["cpu"], expected["cpu"])


def test_private_numbers_wait_for_nobody():
    """A model is built in one thread while another has the default generator for itself."""

    def build():
        with private_rng(initial_rng(0)):
            return nn.Shifter()

    with ThreadPoolExecutor(1) as thread, isolated_rng(initial_rng(0), CPU):
        before = torch.get_rng_state()
        assert thread.submit(build).result(timeout=60) is not None  # for ever if it waited
        assert torch.equal(torch.get_rng_state(), before)
