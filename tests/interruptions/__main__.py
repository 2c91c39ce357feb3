"""End fits and writers at random moments: ``python -m tests.interruptions --kills 50``.

Every kind of training is killed `--kills` times; every writer of the package meets every event,
`--writes` times each. Prints what came of them, or what was lost. ``--kills 0`` and ``--writes 0``
leave one of the two out.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from random import Random, SystemRandom

import torch

from tests.interruptions.events import EVENTS, Amount
from tests.interruptions.fits import killed, make_fits
from tests.interruptions.writers import make_writers


def write(names, event_names, seed, most, folder):
    """Let every event happen to every writer; how many lost something."""
    lost = 0
    writers = make_writers(folder / "scratch")
    for name in names or writers:
        for event in event_names or EVENTS:
            place = folder / f"{name} {event}"
            place.mkdir()
            start, drawn = time.monotonic(), Random(f"{seed} {name} {event}")
            try:
                counts = EVENTS[event](writers[name], place, Amount(*most, drawn))
                said = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            except AssertionError as error:
                lost += 1
                said = f"LOST: {error}"[:600]
            print(f"{name}, {event}: {said} ({time.monotonic() - start:.1f} s)", flush=True)
    return lost


def fit(names, kills, epochs, seed, folder):
    """Kill every kind of training; how many lost something."""
    lost = 0
    fits = make_fits(epochs)
    for name in names or fits:
        place = folder / name
        place.mkdir()
        start = time.monotonic()
        fresh = [sys.executable, "-m", "tests.interruptions.fits", name, str(epochs)]
        try:
            said = killed(fits[name], place, kills, Random(f"{seed} {name}"), fresh)
        except AssertionError as error:
            lost += 1
            said = f"LOST: {error}"[:600]
        print(f"{name}: {said} ({time.monotonic() - start:.1f} s)", flush=True)
    return lost


def main():
    """Read the command line, and end."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=50, help="per kind of training")
    options.add_argument("--epochs", type=int, default=24, help="of a training")
    options.add_argument("--fit", action="append", help="a kind of training, default all")
    options.add_argument("--writes", type=int, default=10, help="per writer and event")
    options.add_argument("--points", type=int, default=12, help="at which a disk is full")
    options.add_argument("--writer", action="append", help="default all")
    options.add_argument("--event", action="append", help="default all")
    options.add_argument("--seed", type=int, default=None, help="drawn, and printed, by default")
    given = options.parse_args()
    seed = SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a forked process would wait for threads that it has not
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "scratch").mkdir()
        lost = 0
        if given.kills:
            lost += fit(given.fit, given.kills, given.epochs, seed, Path(folder))
        if given.writes:
            most = given.writes, given.points
            lost += write(given.writer, given.event, seed, most, Path(folder))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
