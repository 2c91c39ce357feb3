"""Speed of training and prediction on a GPU, at published sizes.

Run it where a CUDA device is present: ``python benchmarks/gpu.py``. It prints a table and writes
``gpu.json`` and the profiler's trace ``gpu_trace.json.gz``, for chrome://tracing or Perfetto.
The bars are meant for an NVIDIA H200. `--device cpu --quick` goes through all of it at tiny sizes.

`--check` measures nothing: it tries small fits of all models and what is around them, prints what
passed and what failed, and ends with an error if anything did. With `--device cpu` it goes as far
as that gets.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from _gpu_checks import checks, run_checks
from _measure import Row, compare, matrix_rate, median_seconds, parser, peak_memory, report, seconds
from _models import CNN, IMAGE, TINY_IMAGE, V1T, Targets, make_batch, make_model, make_trials
from _plain import (
    check_same,
    our_optimizer,
    our_step,
    plain_model,
    plain_optimizer,
    plain_step,
    training_flop,
)
from _trace import read_activity

import v1tlearn as v1
from v1tlearn.inspection import receptive_fields
from v1tlearn.nn import EncodingModel, MouseBatch
from v1tlearn.training.compilation import compiled
from v1tlearn.training.devices import numerics

IMAGES_PER_SECOND, TIMES_PLAIN, EPOCH_SECONDS, IDLE = 2000.0, 8.0, 15.0, 0.02


@dataclass(frozen=True)
class Sizes:
    """Sizes of everything that is measured; published ones by default."""

    mice: int = 5
    neurons: int = 8000
    trials: int = 4500
    screen: tuple[int, int] = (144, 256)  # of the recordings, in pixels
    image: tuple[int, int] = IMAGE  # of the models
    batch: int = 16
    cnn_batch: int = 128
    cnn_mice: int = 1
    noise_images: int = 50_000
    profiled_steps: int = 20
    matrix: int | None = None
    model: str = "published"


QUICK = Sizes(
    mice=2,
    neurons=5,
    trials=24,
    screen=TINY_IMAGE,
    image=TINY_IMAGE,
    batch=4,
    cnn_batch=4,
    noise_images=64,
    profiled_steps=3,
    matrix=64,
    model="tiny",
)


def make(
    kind: str, sizes: Sizes, device: torch.device
) -> tuple[EncodingModel, dict[str, MouseBatch], Targets]:
    """V1T or CNN in training mode, a batch of all its mice, and targets."""
    options, mice = (CNN, sizes.cnn_mice) if kind == "CNN" else (V1T, sizes.mice)
    model = make_model(kind, options[sizes.model], mice, sizes.neurons, sizes.image, device)
    return model, *make_batch(model, sizes.cnn_batch if kind == "CNN" else sizes.batch)


def ours(
    kind: str, precision: str, sizes: Sizes, device: torch.device
) -> tuple[EncodingModel, Callable[[], object]]:
    """The package's model and its training step."""
    model, inputs, targets = make(kind, sizes, device)
    optimizer = our_optimizer(model)
    return model, our_step(model, inputs, targets, optimizer, precision)


def plain(
    kind: str, precision: str, sizes: Sizes, device: torch.device, recompute: bool = False
) -> Callable[[], object]:
    """Training step of the plain model with the same weights and batch."""
    model, inputs, targets = make(kind, sizes, device)
    other = plain_model(model, checkpoint_activations=recompute)
    few = {m: MouseBatch(*(x[:2] for x in b[:3])) for m, b in inputs.items()}
    with numerics("float32", device):
        check_same(model, other, few, tolerance=1e-3)
    optimizer = plain_optimizer(other)
    return lambda: plain_step(other, inputs, targets, optimizer, precision)


def prepare_memory(
    who: str, kind: str, precision: str, quick: bool, device: str
) -> Callable[[], object]:
    """Training step whose peak memory is measured in a process of its own."""
    sizes, where = QUICK if quick else Sizes(), torch.device(device)
    if who == "ours":
        return ours(kind, precision, sizes, where)[1]
    return plain(kind, precision, sizes, where, recompute=who == "plain, recomputing")


def training(sizes: Sizes, args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """V1T and CNN training steps against plain ones, and the share of the matrix rate."""
    images = sizes.mice * sizes.batch
    with numerics("bfloat16", device):
        model, step = ours("V1T", "bfloat16", sizes, device)
        plain_step_ = plain("V1T", "bfloat16", sizes, device, recompute=True)
        plain_s, ours_s, ratio = compare(plain_step_, step, args.repeats, device)
        size = f"{images} images of {sizes.mice} mice x {sizes.neurons} neurons, with dropout"
        yield Row(
            "V1T training step, bfloat16, against plain with checkpointing",
            images / plain_s,
            images / ours_s,
            "images/s",
            ratio,
            TIMES_PLAIN,
            size,
        )
        del plain_step_
        yield Row(
            "V1T training, bfloat16",
            None,
            images / ours_s,
            "images/s",
            bar=IMAGES_PER_SECOND,
            note=size,
        )
        rate = matrix_rate(torch.bfloat16, device, sizes.matrix)
        work = training_flop(model.core)
        yield Row(
            "share of the bfloat16 matrix rate, V1T training step",
            None,
            work * images / ours_s / rate,
            "",
            note=f"{work / 1e9:.3g} GFLOP per image, recomputation not counted; rate {rate:.3g}/s",
        )
        del model, step
    n = sizes.cnn_mice * sizes.cnn_batch
    for precision in ("float32", "bfloat16"):
        with numerics(precision, device):
            plain_s, ours_s, ratio = compare(
                plain("CNN", "float32", sizes, device),
                ours("CNN", precision, sizes, device)[1],
                args.repeats,
                device,
            )
        yield Row(
            f"CNN training step, {precision}, against plain float32",
            n / plain_s,
            n / ours_s,
            "images/s",
            ratio,
            note=f"{n} images, {sizes.neurons} neurons",
        )


def compilation(sizes: Sizes, args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """What compiling the core brings: a step against one that is not compiled, and epochs."""
    images = sizes.mice * sizes.batch
    step = ours("V1T", "bfloat16", sizes, device)[1]
    model, fast = ours("V1T", "bfloat16", sizes, device)
    with numerics("bfloat16", device), compiled(model.core, wanted=True):
        first = seconds(fast, device)
        as_is, faster, ratio = compare(step, fast, args.repeats, device)
    yield Row(
        "V1T training step, core compiled, against not compiled",
        images / as_is,
        images / faster,
        "images/s",
        ratio,
        note=f"the first step took {first:.3g} s",
    )
    est = estimator(sizes, device).set_params(max_epochs=2, compile=True)
    est.fit(recordings(sizes, sizes.trials))
    first, last = (record["seconds"] for record in est.history_)
    yield Row(
        "V1T epoch through fit, core compiled",
        None,
        last,
        "s",
        note=f"the first epoch, compilation included, took {first:.3g} s",
    )


def memory(sizes: Sizes, args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Peak memory of a training step, each in its own process."""
    for kind in ("V1T", "CNN"):
        values = {
            who: peak_memory(
                "prepare_memory",
                __file__,
                who,
                kind,
                "bfloat16",
                args.quick,
                str(device),
                device=str(device),
                in_fresh_process=not args.quick,
            )
            / 2**20
            for who in ("ours", *(("plain, recomputing",) if kind == "V1T" else ("plain",)))
        }
        our, other = values.values()
        yield Row(
            f"{kind} training step, bfloat16, peak memory",
            other,
            our,
            "MiB",
            other / our if our else None,
            note="plain with checkpointing" if kind == "V1T" else "",
        )


def recordings(sizes: Sizes, trials: int) -> v1.Trials:
    """Random recordings in the layout of the competition's."""
    return make_trials(sizes.mice, trials, sizes.neurons, sizes.screen)


def estimator(sizes: Sizes, device: torch.device) -> v1.V1TRegressor:
    """V1T as published, in bfloat16; training on everything."""
    return v1.V1TRegressor(
        **V1T[sizes.model],
        image_size=sizes.image,
        batch_size=sizes.batch,
        precision="bfloat16",
        validation_fraction=0.0,
        device=str(device),
        random_state=0,
    )


def epochs(sizes: Sizes, args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Epochs end to end through `fit`, prediction and receptive fields."""
    trials = recordings(sizes, sizes.trials)
    size = f"{sizes.mice} mice x {sizes.trials} trials x {sizes.neurons} neurons"
    est = estimator(sizes, device).set_params(max_epochs=2, compile=False)
    start = time.perf_counter()
    est.fit(trials)
    whole = time.perf_counter() - start
    yield Row(
        "V1T epoch through fit",
        None,
        est.history_[-1]["seconds"],
        "s",
        bar=EPOCH_SECONDS,
        note=f"{size}; fit of two epochs, transfer and warm-up included, {whole:.3g} s",
        at_most=True,
    )
    n = len(trials)
    for precision in ("float32", "tf32", "bfloat16"):
        est.set_params(precision=precision)
        took = median_seconds(lambda: est.predict(trials), min(args.repeats, 3), device)
        yield Row(
            f"V1T predict, {precision}",
            None,
            n / took,
            "images/s",
            note=f"{size}, images of {sizes.screen[0]} x {sizes.screen[1]} pixels from host memory",
        )

    est.set_params(precision="bfloat16")
    took = seconds(lambda: receptive_fields(est, sizes.noise_images), device)
    yield Row(
        "V1T receptive fields, bfloat16",
        None,
        sizes.noise_images / took,
        "images/s",
        note=f"{sizes.noise_images} noise images, all neurons of {sizes.mice} mice",
    )


def profile(sizes: Sizes, args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Record the second epoch of a fit, and look for time in which the device had nothing to do."""
    # Of a GPU its kernels alone: to note every operator would slow the host down.
    kind = torch.profiler.ProfilerActivity
    kinds = [kind.CUDA if device.type == "cuda" else kind.CPU]
    profiler = torch.profiler.profile(activities=kinds)

    def on_epoch(record: dict[str, float]) -> None:
        """Record from the end of the first epoch to the end of the second."""
        profiler.start() if record["epoch"] == 1 else profiler.stop()

    trials = recordings(sizes, sizes.profiled_steps * sizes.batch)
    estimator(sizes, device).set_params(max_epochs=2).fit(trials, on_epoch=on_epoch)
    path: Path = args.out / "gpu_trace.json.gz"
    args.out.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    found = read_activity(path, device.type)
    note = f"{sizes.profiled_steps} steps in {found.span:.3g} s, {found.n_kernels} kernels; {path}"
    yield Row(
        "share of an epoch in which no kernel runs",
        None,
        found.idle,
        "",
        bar=IDLE if device.type == "cuda" else None,
        note=note,
        at_most=True,
    )
    yield Row("longest time without a kernel", None, 1e3 * found.longest_gap, "ms")


SECTIONS = {
    "training": training,
    "compilation": compilation,
    "memory": memory,
    "epochs": epochs,
    "profile": profile,
}


def find_device(args: argparse.Namespace) -> torch.device | None:
    """The device to measure; None where none is present and the caller allows that."""
    if args.device not in ("auto", "cuda") and not args.device.startswith("cuda:"):
        if not (args.quick or args.check):
            sys.exit(f"the published sizes take hours on {args.device}; add --quick.")
        return torch.device(args.device)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    message = "no CUDA device is present here; nothing was measured."
    if not args.if_present:
        sys.exit(f"{message} Run this script where there is one.")
    print(message)
    return None


def main(arguments: list[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--if-present", action="store_true", help="no error where there is no GPU")
    made.add_argument("--check", action="store_true", help="try everything, measure nothing")
    made.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    args = made.parse_args(arguments)
    device = find_device(args)
    if device is None:
        return
    if args.check:
        sys.exit(min(1, run_checks(device, checks())))
    sizes = QUICK if args.quick else Sizes()
    rows = []
    for section in args.only:
        for row in SECTIONS[section](sizes, args, device):
            rows.append(row)
            print(f"{row.what}: {row.ours:.4g} {row.unit}", flush=True)  # hours may be lost else
        if device.type == "cuda":
            torch.cuda.empty_cache()
    report("gpu", rows, args, sizes=asdict(sizes))


if __name__ == "__main__":
    main()
