"""What all tests share: hypothesis profiles and fixtures used by more than one file."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", settings.get_profile("ci"), derandomize=False, max_examples=500
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Let Ctrl-C arrive, here and in processes begun here, also where a shell began the tests.

    Shells let what they run in the background ignore it, and so do all processes of that.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def threads():
    """Let torch have the threads that it had, and tell which test left it with others."""
    before = torch.get_num_threads()
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before, f"torch had {before} threads before and has {after}"


@pytest.fixture(scope="session")
def real_recordings():
    """Folder of the real recordings, which not every machine has."""
    path = os.environ.get("V1TLEARN_TEST_DATA")
    if not path:  # an empty one names no folder either
        pytest.skip("V1TLEARN_TEST_DATA does not name the folder with the real recordings")
    return Path(path)
