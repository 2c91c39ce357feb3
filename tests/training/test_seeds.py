import numpy as np
import pytest

from v1tlearn.training.seeds import draw_seed


def test_an_int_is_the_seed():
    assert draw_seed(0) == 0
    assert draw_seed(np.int64(7)) == 7
    assert draw_seed(2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_a_generator_gives_a_reproducible_sequence(make):
    generator = make(3)
    seeds = [draw_seed(generator) for _ in range(4)]
    generator = make(3)
    assert seeds == [draw_seed(generator) for _ in range(4)]
    assert len(set(seeds)) == 4
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)


def test_none_is_fresh_and_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    seeds = {draw_seed(None) for _ in range(8)}
    assert len(seeds) == 8
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("wrong", [-1, 2**63, 1.5, "seed"])
def test_anything_else_is_refused(wrong):
    with pytest.raises(ValueError, match="random_state is"):
        draw_seed(wrong)
