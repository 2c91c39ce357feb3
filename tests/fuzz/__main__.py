"""Fuzz the readers for long: ``python -m tests.fuzz --hours 1 --parser npy``.

Prints how many inputs were tried, read right and refused, per error; keeps inputs that led to
anything else, with the steps that made them, in the folder given by ``--keep``.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import Counts, Wrong, attempt_steps
from tests.fuzz.mutations import change_all, draw_steps
from tests.fuzz.parsers import PARSERS


def fuzz(name, seconds, seed, keep):
    """Fuzz one reader; return how many inputs it failed on."""
    drawn = random.Random(f"{name} {seed}")
    counts, failures, slowest = Counts(), set(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        parser = PARSERS[name](Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time(), time.monotonic()
        while time.monotonic() - start[1] < seconds:
            which, steps = drawn.randrange(100), draw_steps(drawn)
            began = time.monotonic()
            try:
                counts[attempt_steps(parser, which, steps)] += 1
            except Wrong as error:
                counts["WRONG"] += 1
                text = str(error).replace(folder, "")[:300]
                if text.split(":")[0] not in failures:
                    print(f"  {name}: {text}\n    file {which}, steps {steps}", flush=True)
                    failures.add(text.split(":")[0])
                    _keep(parser, which, steps, keep, f"{name}-{len(failures)}")
            slowest = max(slowest, time.monotonic() - began)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
        used = time.process_time() - start[0]
    print(f"{name}: {counts.said()}; {used:.0f} s of processor, slowest {slowest:.1f} s, "
          f"{grown:.0f} MiB more memory", flush=True)  # fmt: skip
    return counts["WRONG"]


def _keep(parser, which, steps, keep, name):
    if keep is None:
        return
    target = parser.targets[which % len(parser.targets)]
    donor = parser.targets[(which + 1) % len(parser.targets)].read_bytes()
    keep.mkdir(parents=True, exist_ok=True)
    (keep / f"{name}{target.suffix}").write_bytes(change_all(target.read_bytes(), steps, donor))


def main():
    """Read the command line, and fuzz."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--hours", type=float, default=1.0, help="in all, shared by the parsers")
    options.add_argument("--parser", choices=[*PARSERS], action="append", help="default all")
    options.add_argument("--seed", type=int, default=None, help="drawn, and printed, by default")
    options.add_argument("--keep", type=Path, default=None, help="a folder for what went wrong")
    given = options.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    names = given.parser or [*PARSERS]
    failed = sum(fuzz(n, given.hours * 3600 / len(names), seed, given.keep) for n in names)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
