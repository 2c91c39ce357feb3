"""Every reader and call, a few inputs at a time; ``python -m tests.fuzz`` tries a great many."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.harness import Counts, Structures, attempt_steps
from tests.fuzz.mutations import KINDS, draw_steps
from tests.fuzz.parsers import CALLS, PARSERS, SAYING
from tests.peak_memory import PeakMemory

SLOW = ("netcdf", "trials", "studies", "mat73", "nwb", "spikes_v73", "backbone")
SLOW += ("checkpoint_folder", "predictions", "cache", "nwb_units", "nwb_movies", "sealed")
HERE = [name for name in PARSERS if name not in SLOW]
EXAMPLES = {"yaml": 6, "pickles": 8}
MANY = {name: 12 if name in SLOW else 36 for name in PARSERS}  # the slow suite's share of time
N_CALLS = {"arguments": 200, "functions": 200, "inspections": 240, "parameters": 60}
MANY_CALLS = {"arguments": 500, "functions": 500, "inspections": 600, "parameters": 80}
FORGIVING = ("checkpoint_folder", "cache", "card")  # begin anew, make it again, or never read it

steps = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1, allow_nan=False), st.integers(0, 2**16 - 1)),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def parsers(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            made[name] = PARSERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.mark.parametrize("name", HERE)
def test_a_changed_file_gives_an_error_of_ours_or_what_is_right(name, parsers):
    parser = parsers(name)

    @settings(max_examples=EXAMPLES.get(name, 15), suppress_health_check=[HealthCheck.too_slow])
    @given(which=st.integers(0, 99), steps=steps)
    def check(which, steps):
        attempt_steps(parser, which, steps)

    check()


@pytest.mark.parametrize("name", HERE)
def test_an_intact_file_is_right(name, parsers):
    for which in range(len(parsers(name).targets)):
        assert attempt_steps(parsers(name), which, []) == "right"


@pytest.mark.parametrize("name", [*CALLS])
def test_a_changed_call_is_refused_by_name_or_right(name, tmp_path):
    subject, counts = CALLS[name](tmp_path), Counts()
    for number in range(N_CALLS[name] // 4):
        counts[subject.attempt(random.Random(f"quick {name} {number}"))] += 1
    assert 0 < counts["right"] < N_CALLS[name] // 4


def say_something_else(parser, name, n_files):
    subject, counts = Structures(parser), Counts()
    for number in range(n_files):
        counts[subject.attempt(random.Random(f"{name} {number}"))] += 1
    assert counts["right"] < n_files or name in FORGIVING


@pytest.mark.parametrize("name", [name for name in SAYING if name not in SLOW])
def test_a_file_that_says_something_else_gives_an_error_of_ours_or_is_read(name, parsers):
    say_something_else(parsers(name), name, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYING)
def test_many_files_that_say_something_else(name, parsers):
    say_something_else(parsers(name), name, MANY[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CALLS])
def test_many_changed_calls(name, tmp_path):
    subject, counts = CALLS[name](tmp_path), Counts()
    for number in range(MANY_CALLS[name]):
        counts[subject.attempt(random.Random(f"slow {name} {number}"))] += 1
    assert 0 < counts["right"] < MANY_CALLS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_intact_files_of_slow_readers_are_right(name, parsers):
    for which in range(len(parsers(name).targets)):
        assert attempt_steps(parsers(name), which, []) == "right"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PARSERS])
def test_many_changed_files_of_each_reader(name, parsers):
    drawn, counts = random.Random(f"slow {name}"), Counts()
    parser = parsers(name)
    with PeakMemory() as memory:
        for _ in range(MANY[name]):
            counts[attempt_steps(parser, drawn.randrange(100), draw_steps(drawn))] += 1
    assert counts["right"] < MANY[name] or name in FORGIVING
    assert memory.most < 2**30
