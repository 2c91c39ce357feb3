"""Reading a store from the disk, trial by trial in random order, against reading the file in a row.

A store is written, and what the system keeps of it in memory is dropped ahead of every reading, so
that the disk is read. Plain is reading the file from its first byte to the last. Ours are all
batches of an epoch as `low_memory=True` reads them, images and responses, checksums compared, once
with trials drawn one by one (``shuffle_block=1``) and once with blocks; and these rows as they are
read, before a CPU makes float32 of them and standardises them, which a GPU does itself. No model is
trained: what this costs on top, a GPU or other cores do meanwhile. Ratios are shares of the disk's
own speed; on cores that others use, too, both wait for these more than for the disk.
Where the system keeps the file in memory, processor time tells how fast a disk may be before the
reading is what takes the time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _measure import Row, parser, report, summary
from bench_streaming import bring, make_estimator

import v1tlearn as v1
from v1tlearn.estimators._runs import drawing
from v1tlearn.estimators.placement import RECORDINGS
from v1tlearn.training.data import _arriving, step_batches

BAR = 0.5  # of the disk's speed in a row


def write(path: Path, args: argparse.Namespace) -> v1.Trials:
    """A store of noise, images and responses of the sizes asked for, in one file."""
    rng = np.random.default_rng(0)
    shape = (args.trials, 1, args.height, args.width)
    stimuli = rng.integers(0, 256, shape, dtype=np.uint8)
    responses = rng.random((args.trials, args.neurons), dtype=np.float32)
    trials = v1.Trials.from_arrays(stimuli, None, responses, image_ids=np.arange(args.trials))
    compression = "zlib" if args.compressed else None
    v1.save_recordings(trials.recordings, path, compression=compression)
    return v1.Trials.open(path)


def forget(path: Path) -> None:
    """Let the system drop what it keeps of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_a_row(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(2**20)  # which stays in the cache of the processor
        while file.readinto(buffer):
            pass


def epoch(
    args: argparse.Namespace, trials: v1.Trials, block: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """All batches of an epoch, read in the background as a fit reads them; and their rows alone."""
    estimator = make_estimator(args)
    estimator.set_params(max_epochs=1, shuffle_block=block, validation_fraction=0)
    estimator.fit(trials[: 2 * args.batch_size])
    draw, data = drawing(estimator._plain_params(), bring(estimator, trials, RECORDINGS))

    def run(bring_them: Callable) -> None:
        lengths = {mouse: len(own) for mouse, own in data.items()}
        for _ in bring_them(data, draw(lengths, args.batch_size, torch.device("cpu"))):
            pass

    return partial(run, step_batches), partial(run, _arriving)


def measure(args: argparse.Namespace, path: Path) -> list[Row]:
    trials = write(path, args)
    megabytes = path.stat().st_size / 1e6
    note = f"{megabytes:.0f} MB, {args.trials} trials, {args.neurons} neurons"
    rows = []
    for block, alone in itertools.product((1, args.block), (False, True)):
        ours = epoch(args, trials, block)[alone]
        for clock in (time.perf_counter, time.process_time):
            on_disk = clock is time.perf_counter
            pairs = []
            for turn in range(args.repeats):
                both = {"plain": partial(in_a_row, path), "ours": ours}
                times = {}
                for name in sorted(both, reverse=bool(turn % 2)):
                    if on_disk:
                        forget(path)
                    start = clock()
                    both[name]()
                    times[name] = clock() - start
                pairs.append((times["plain"], times["ours"]))
            plain, own, ratio = summary(pairs)
            what = f"an epoch's {'rows' if alone else 'batches'}, shuffle_block={block}, "
            what += "from the disk" if on_disk else "per processor time, kept by the system"
            bar = BAR if block > 1 and on_disk else None
            rows.append(Row(what, megabytes / plain, megabytes / own, "MB/s", ratio, bar, note))
    return rows


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--trials", type=int, default=16_000)
    made.add_argument("--neurons", type=int, default=2000)
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--block", type=int, default=32)
    made.add_argument("--channels", type=int, default=4)
    made.add_argument("--height", type=int, default=144)
    made.add_argument("--width", type=int, default=256)
    made.add_argument("--compressed", action="store_true", help="zlib, a chunk per trial")
    made.add_argument("--folder", help="where the store is written, on the disk to be measured")
    args = made.parse_args()
    if args.quick:
        args.trials, args.neurons, args.batch_size, args.block = 40, 8, 4, 2
        args.height, args.width = 20, 32
    args.device = torch.device("cpu")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = measure(args, Path(folder) / "recordings.nc")
    report("larger_than_memory", rows, args)


if __name__ == "__main__":
    main()
