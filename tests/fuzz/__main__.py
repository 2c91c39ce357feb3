"""Fuzz every reader and every call: ``python -m tests.fuzz --count 100000 --seed 1``.

Prints how many inputs were tried, read right and refused, per error, and the time they took; keeps
files that led to anything else in the folder given by ``--keep``. An input is found again by
``--parser NAME --seed SEED --input NUMBER``.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import Counts, Files, Wrong
from tests.fuzz.parsers import CALLS, PARSERS, SHARES, STRUCTURES
from tests.peak_memory import PeakMemory

SUBJECTS = {name: lambda folder, make=make: Files(make(folder)) for name, make in PARSERS.items()}
SUBJECTS |= CALLS | STRUCTURES


def fuzz(name, numbers, seed, keep, seconds=float("inf")):
    """Fuzz one reader or kind of call; return how many inputs there were, and went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        subject, start = SUBJECTS[name](Path(folder)), time.process_time()
        with PeakMemory() as memory:
            counts, slowest = _attempts(subject, name, numbers, seed, keep, seconds, folder)
        used = time.process_time() - start
    print(f"{name}: {counts.said()}; {used:.0f} s of processor, slowest {slowest:.1f} s, "
          f"{memory.most / 2**20:.0f} MiB more memory", flush=True)  # fmt: skip
    return sum(counts.values()), counts["WRONG"]


def _attempts(subject, name, numbers, seed, keep, seconds, folder):
    counts, failures, slowest, began = Counts(), set(), 0.0, time.monotonic()
    for number in numbers:
        if time.monotonic() - began > seconds:
            break
        drawn, used = random.Random(f"{name} {seed} {number}"), time.process_time()
        try:
            counts[subject.attempt(drawn)] += 1
        except Wrong as error:
            counts["WRONG"] += 1
            text = str(error).replace(folder, "")[:400]
            if text.split(":")[0] not in failures:
                print(f"  {name}, input {number}: {text}", flush=True)
                failures.add(text.split(":")[0])
                if keep is not None and hasattr(subject, "keep"):
                    again = random.Random(f"{name} {seed} {number}")
                    subject.keep(again, keep, f"{name}-{number}")
        slowest = max(slowest, time.process_time() - used)
    return counts, slowest


def main():
    """Read the command line, and fuzz."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=100_000, help="of inputs, in all")
    options.add_argument("--hours", type=float, default=None, help="the most, in all")
    options.add_argument("--parser", choices=[*SUBJECTS], action="append", help="default all")
    options.add_argument("--seed", type=int, default=None, help="drawn, and printed, by default")
    options.add_argument("--input", type=int, default=None, help="one alone, by its number")
    options.add_argument("--keep", type=Path, default=None, help="a folder for what went wrong")
    given = options.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    names = given.parser or [*SUBJECTS]
    shares = {name: SHARES.get(name, 1) for name in names}
    seconds = float("inf") if given.hours is None else given.hours * 3600 / len(names)
    tried = failed = 0
    began = time.process_time()
    for name in names:
        numbers = range(-(-given.count * shares[name] // sum(shares.values())))
        if given.input is not None:
            numbers = [given.input]
        n, wrong = fuzz(name, numbers, seed, given.keep, seconds)
        tried, failed = tried + n, failed + wrong
    used = time.process_time() - began
    print(f"{tried} inputs in all, {failed} wrong; {used:.0f} s of processor")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
