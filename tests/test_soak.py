"""Models that are used in one process for long: what it holds does not grow."""

import pytest

from tests.soak import is_flat, slope, soak


def test_the_slope_is_that_of_most_rounds():
    rounds = list(range(0, 100, 10))
    assert slope(rounds, [3 * number + 7 for number in rounds]) == 3
    assert slope(rounds, [5] * 4 + [900] + [5] * 5) == 0


@pytest.mark.slow
def test_memory_threads_and_open_files_stay_as_they_are():
    found = soak(120)
    assert is_flat(found), found
