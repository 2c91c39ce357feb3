"""Models that are used in one process for long: what it holds does not grow."""

import pytest

from tests.soak import is_flat, slope, soak


def test_the_slope_is_that_of_most_rounds():
    rounds = list(range(0, 100, 10))
    assert slope(rounds, [3 * number + 7 for number in rounds]) == 3
    assert slope(rounds, [5] * 5 + [3900] * 5) == 0  # a table that was made anew


@pytest.mark.parametrize(
    "grown", [{"memory": 2.1}, {"later": 17_000}, {"threads": 1}, {"files": 1}]
)
def test_whatever_grows_is_told(grown):
    still = {"memory": 0.3, "later": 7509, "threads": 0, "files": 0}
    assert is_flat(still)
    assert not is_flat(still | grown)


@pytest.mark.slow
def test_memory_threads_and_open_files_stay_as_they_are():
    found = soak(120)
    assert is_flat(found), found
