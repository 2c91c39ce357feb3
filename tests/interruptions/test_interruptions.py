"""Short forms of ``python -m tests.interruptions``, in a process that may be forked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_writers import WRITERS

ROOT = Path(__file__).parents[2]
WRITTEN = {name for names in WRITERS.values() for name in names.split(", ")}
FITS = ["V1TRegressor", "CNNRegressor", "MovieCNNRegressor", "EnsembleRegressor", "HyperbandSearch"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of this system do not fork"),
]


def run(*options):
    command = [sys.executable, "-m", "tests.interruptions", "--seed", "0", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("fit", FITS)
def test_a_killed_training_comes_to_the_same_weights(fit):
    told = run("--kills", "3", "--writes", "0", "--epochs", "8", "--fit", fit)
    assert "killed 3 times" in told


def writers(told, event):
    return {line.split(", ")[0] for line in told.splitlines() if f", {event}: " in line}


@pytest.mark.parametrize(
    "event", ["killed", "Ctrl-C", "files limited", "out of memory", "read-only", "two at once"]
)
def test_nothing_half_written_is_taken_for_whole(event):
    told = run("--kills", "0", "--writes", "1", "--points", "2", "--event", event)
    assert writers(told, event) == WRITTEN


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0 or not shutil.which("mount"),
    reason="only root mounts a small disk; the limit of file sizes is tested instead",
)
def test_a_small_disk_that_is_full_at_any_place(tmp_path):
    try_mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if try_mounting.returncode:
        pytest.skip("this container mounts nothing; the limit of file sizes is tested instead")
    subprocess.run(["umount", str(tmp_path)], check=True)
    told = run("--kills", "0", "--points", "3", "--event", "disk full")
    assert writers(told, "disk full") == WRITTEN
