"""The convolutional model: training step, inference and peak memory, against a plain form of it.

Published size (Sensorium 2022: 36 x 64 pixels, three behaviour planes, 64 channels, batches of 128
trials per mouse) and a small one. The plain model convolves NCHW maps with the planes
concatenated, reads them by `grid_sample`, and walks the mice one after another. Both predict the
same, which is checked first. ``--as avx2`` holds torch and its libraries to vectors of 256 bits;
``--processor-time`` is for machines that others use, with one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import _limits
import torch
from _measure import Row, compare, parser, peak_memory, report, vector_bits
from _models import CNN, CNN_BEHAVIORS, Targets, image_size, make_batch, make_model
from _plain import (
    check_same,
    our_optimizer,
    our_step,
    plain_model,
    plain_optimizer,
    plain_step,
)

from v1tlearn.nn import EncodingModel, MouseBatch
from v1tlearn.training.devices import autocast, numerics, resolve_device

# Mice, neurons and trials per step of each.
SIZES = {"published": (1, 5000, 128), "small": (2, 500, 64), "tiny": (2, 5, 6)}
# precision: bar of the training step of published size, by bits of the vectors
BARS = {"float32": {512: 3.5, 256: 2.5}, "bfloat16": {512: 3.0}}
MEMORY_BAR = 2.0


def make(size: str, device: str) -> tuple[EncodingModel, dict[str, MouseBatch], Targets]:
    """Model in training mode, batches and targets."""
    n_mice, n_neurons, n_trials = SIZES[size]
    image = image_size(size)
    model = make_model("CNN", CNN[size], n_mice, n_neurons, image, device, CNN_BEHAVIORS)
    return model, *make_batch(model, n_trials, CNN_BEHAVIORS)


def prepare_step(which: str, size: str, precision: str, device: str) -> Callable[[], object]:
    """Training step of either model, for `peak_memory` and `compare`."""
    model, batches, targets = make(size, device)
    if which == "plain":
        model = plain_model(model)
        optimizer = plain_optimizer(model, kind="adam")
        return lambda: plain_step(model, batches, targets, optimizer, precision)
    optimizer = our_optimizer(model, kind="adam")
    return our_step(model, batches, targets, optimizer, precision)


def prepare_inference(which: str, size: str, precision: str, device: str) -> Callable[[], object]:
    """Prediction of a batch by either model."""
    model, batches, _ = make(size, device)
    model = (plain_model(model) if which == "plain" else model).eval()

    def predict() -> object:
        """One batch of each mouse."""
        with torch.inference_mode(), autocast(precision, torch.device(device)):
            return model(batches)

    return predict


def rows_of(size: str, args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Time and memory of one size; the plain model is in float32 throughout."""
    n_mice, n_neurons, n_trials = SIZES[size]
    height, width = image_size(size)
    note = f"{height} x {width}, {n_mice} x {n_neurons} neurons, {n_trials} trials each"
    clock = time.process_time if args.processor_time else time.perf_counter
    bits = vector_bits(torch.backends.cpu.get_cpu_capability())
    model, batches, _ = make(size, str(device))
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 5e-2)):
        check_same(model, plain_model(model), batches, precision, tolerance)
    rows = []
    for task, prepare in (("training step", prepare_step), ("inference", prepare_inference)):
        plain = prepare("plain", size, "float32", str(device))
        for precision in ("float32", "bfloat16"):
            with numerics(precision, device):
                ours = prepare("ours", size, precision, str(device))
                seconds = compare(plain, ours, args.repeats, device, clock)
            barred = task == "training step" and size == "published"
            bar = BARS[precision].get(bits) if barred else None
            what = f"{task}, {size}, {precision}"
            rows.append(Row(what, *(1e3 * s for s in seconds[:2]), "ms", seconds[2], bar, note))
    for task, prepare in (("training step", prepare_step), ("inference", prepare_inference)):
        used = {
            (which, precision): peak_memory(
                prepare.__name__,
                __file__,
                which,
                size,
                precision,
                str(device),
                device=str(device),
                in_fresh_process=not args.quick,
            )
            / 2**20
            for which, precision in (
                ("plain", "float32"),
                ("ours", "float32"),
                ("ours", "bfloat16"),
            )
        }
        for precision in ("float32", "bfloat16"):
            plain_use, our_use = used["plain", "float32"], used["ours", precision]
            ratio = plain_use / our_use if our_use > 0 else None
            barred = task == "training step" and size == "published"
            bar = MEMORY_BAR if barred else None
            what = f"memory of {task}, {size}, {precision}"
            rows.append(Row(what, plain_use, our_use, "MiB", ratio, bar, note))
    return rows


def main() -> None:
    """Run at both sizes, or tiny."""
    made = parser(__doc__)
    _limits.add_argument(made)
    made.add_argument("--processor-time", action="store_true", help="not that of the wall")
    args = made.parse_args()
    _limits.hold(args.held_to)
    device = resolve_device(args.device)
    sizes = ("tiny",) if args.quick else ("published", "small")
    with _limits.in_force():
        rows = [row for size in sizes for row in rows_of(size, args, device)]
    report("cnn", rows, args)


if __name__ == "__main__":
    main()
