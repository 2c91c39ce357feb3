"""What workers of dask and joblib run in tests, in a module that they can import."""

import gc
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from v1tlearn.training.workers import worker_number


def take(folder, times):
    """Whether this is one of the first calls of all processes."""
    for number in range(times):
        try:
            (folder / f"kill-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


@dataclass(frozen=True)
class KillingScorer:
    """Kills the process it runs in, the first times that any process calls it."""

    folder: Path
    times: int

    def __call__(self, estimator, trials, y=None):
        if take(self.folder, self.times):
            os.kill(os.getpid(), signal.SIGKILL)
        return estimator.score(trials)


@dataclass(frozen=True)
class KillingCallback:
    """Notes epochs, and kills the first process that has trained one candidate for two."""

    folder: Path
    times: int

    def __call__(self, record):
        told = {name: record[name] for name in ("candidate", "epoch")} | {"process": os.getpid()}
        with open(self.folder / "epochs.jsonl", "a") as file:
            file.write(json.dumps(told) + "\n")
        if record["epoch"] == 2 and take(self.folder, self.times):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class KillingTrial:
    """Kills the first process that has trained a trial of a search for some epochs."""

    folder: Path
    epochs: int

    def __call__(self, record):
        if record["epoch"] == self.epochs and take(self.folder, 1):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class OpenFilesScorer:
    """Notes how often a worker has a file open where a model is scored."""

    path: Path
    notes: Path

    def __call__(self, estimator, trials, y=None):
        score = estimator.score(trials)
        with open(self.notes, "a") as file:
            file.write(f"{os.getpid()} {times_open(self.path)}\n")
        return score


def fail_or_wait(folder, number):
    """The first fails; the others wait until somebody has seen that, and note their number."""
    if number == 0:
        raise ValueError("the first one")
    while not (folder / "seen").exists():
        time.sleep(0.05)
    (folder / f"{number}").touch()


def process_and_number():
    return os.getpid(), worker_number()


def times_open(path):
    """How often this process has a file open."""
    gc.collect()
    return sum(_target(entry) == str(path) for entry in os.listdir("/proc/self/fd"))


def _target(entry):
    try:
        return os.readlink(f"/proc/self/fd/{entry}")
    except OSError:  # that of the folder itself, which is closed
        return None
