"""Windows of frames never straddle a cut, and every one of them is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v1tlearn.training.windows import epoch_windows, window_starts

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


def test_each_window_is_drawn_once_before_any_comes_again():
    starts = {"A": window_starts(np.array([10, 7]), 4), "B": window_starts(np.array([6]), 4)}
    steps = epoch_windows(starts, 4, 3, 3, CPU)
    assert [step["A"].shape for step in steps] == [(3, 4)] * 3
    firsts = torch.cat([step["A"][:, 0] for step in steps]).tolist()
    assert len(set(firsts)) == 9
    assert set(firsts) <= set(starts["A"].tolist())
    for step in steps:
        assert (step["A"].diff(dim=1) == 1).all()
        assert sorted(step["B"][:, 0].tolist()) == [0, 1, 2]


def test_draws_follow_the_generator_of_torch():
    starts = {"A": window_starts(np.array([30]), 5)}
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(torch.stack([s["A"] for s in epoch_windows(starts, 5, 4, 5, CPU)]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
