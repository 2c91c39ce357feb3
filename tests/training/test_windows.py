"""Windows of frames never straddle a cut, and every one of them is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.training import RandomWindows
from v1tlearn.training.windows import window_starts

CPU = torch.device("cpu")


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 6), st.integers(0, 1000)
)
def test_starts_are_those_of_brute_force(lengths, length, seed):
    total = sum(lengths)
    valid = np.random.default_rng(seed).random(total) < 0.8
    trial_of = np.repeat(np.arange(len(lengths)), lengths)
    wanted = [
        first
        for first in range(total - length + 1)
        if len(set(trial_of[first : first + length])) == 1 and valid[first : first + length].all()
    ]
    if not wanted:
        with pytest.raises(ValueError, match=f"no window of {length} frames fits"):
            window_starts(np.array(lengths), length, valid)
        return
    np.testing.assert_array_equal(window_starts(np.array(lengths), length, valid), wanted)


def test_windows_longer_than_any_movie_are_refused():
    with pytest.raises(ValueError, match=r"no window of 9 frames fits: the longest of 2 .* has 8"):
        window_starts(np.array([5, 8]), 9)


def test_no_window_is_drawn_twice_in_a_pass():
    steps = RandomWindows(5)({"A": 11, "B": 2}, 3, CPU)
    assert [step["A"].shape for step in steps] == [(3,)] * 5  # 9 windows of the first pass
    first, second = (torch.cat([step["A"] for step in part]) for part in (steps[:3], steps[3:]))
    for drawn in (first, second):
        assert len(set(drawn.tolist())) == len(drawn)
        assert set(drawn.tolist()) <= set(range(11))
    for step in steps:
        assert sorted(step["B"].tolist()) == [0, 1]


def test_draws_follow_the_generator_of_torch():
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(torch.stack([step["A"] for step in RandomWindows(5)({"A": 26}, 4, CPU)]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
