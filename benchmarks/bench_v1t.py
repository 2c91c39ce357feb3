"""Training and prediction of V1T and ViT, against materialised attention, one mouse after another.

The training step is the whole of it: forward, loss, penalties, backward, optimiser, with all the
dropout of the published settings, and ours as the training loop takes it: the images of a batch in
the parts that it chooses. The share of the matrix rate counts 103 GFLOP per image at the
published size; what the backward pass computes again is not counted.

``--as avx2`` holds both sides to the instructions of processors without AVX-512.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import _limits
import torch
from _measure import Row, compare, machine, matrix_rate, parser, peak_memory, report
from _models import V1T, Targets, image_size, make_batch
from _models import make_model as build
from _plain import (
    check_same,
    our_optimizer,
    our_step,
    plain_model,
    plain_optimizer,
    plain_step,
    training_flop,
)

from v1tlearn.nn import EncodingModel, MouseBatch, poisson_loss
from v1tlearn.training.devices import autocast

MICE = 2
# Neurons, and images per step, of each mouse.
SIZES = {"published": (5000, 4), "small": (500, 16), "tiny": (20, 2)}
NAMES = ("V1T published", "ViT published", "V1T small", "ViT small")
# Speed of training, its share of the matrix rate, memory, speed of prediction, that the published
# size should reach, with vectors of 512 bits and with shorter ones.
WIDE = {"float32": (3.5, 0.8, 6, 2.5), "bfloat16": (6, None, None, 3)}
NARROW = {"float32": (2.5, 0.7, 6, 2)}  # products of bfloat16 are emulated, and take minutes


def make_model(name: str, device: str) -> EncodingModel:
    """Model in training mode, called by kind and size, such as "ViT small"."""
    kind, size = name.split()
    return build(kind, V1T[size], MICE, SIZES[size][0], image_size(size), device)


def make(name: str, device: str) -> tuple[EncodingModel, dict[str, MouseBatch], Targets]:
    """Model, batches and targets."""
    model = make_model(name, device)
    return model, *make_batch(model, SIZES[name.split()[1]][1])


def plain_training(name: str, precision: str, device: str) -> Callable[[], object]:
    """Prepare a plain training step."""
    model, batches, targets = make(name, device)
    plain = plain_model(model)
    optimizer = plain_optimizer(plain)
    return lambda: plain_step(plain, batches, targets, optimizer, precision)


def our_training(name: str, precision: str, device: str) -> Callable[[], object]:
    """Prepare a training step of the package."""
    model, batches, targets = make(name, device)
    return our_step(model, batches, targets, our_optimizer(model), precision)


def prediction(name: str, precision: str, device: str, plain: bool) -> Callable[[], object]:
    """Prepare the prediction of a batch."""
    model, batches, _ = make(name, device)
    module = (plain_model(model) if plain else model).eval()

    @torch.inference_mode()
    def predict() -> object:
        """Predict the responses of all mice."""
        with autocast(precision, torch.device(device)):
            return module(batches)

    return predict


def check(name: str, device: str) -> None:
    """Raise unless both kinds give the same predictions and, without dropout, gradients."""
    model, batches, targets = make(name, device)
    plain = plain_model(model)
    check_same(model, plain, batches)
    gradients = []
    for module in (model.eval(), plain.eval()):
        module.zero_grad()
        rates = module(batches)
        sum(poisson_loss(rates[m], targets[m][0]) for m in batches).backward()
        core = module.core if module is model else module.core.core
        gradients.append([p.grad.clone() for p in core.parameters()])
    for (parameter, _), ours, theirs in zip(model.core.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item(), msg=parameter
        )


def bars_here(device: str) -> dict[str, tuple[float | None, ...]]:
    """Bars for the vectors of this machine, by the number formats that it multiplies."""
    return WIDE if device != "cpu" or machine()["vector_bits"] >= 512 else NARROW


def measure(name: str, precision: str, device: str, args: argparse.Namespace) -> list[Row]:
    """Speed, share of the matrix rate and memory of a model called by kind and size."""
    n_images = MICE * SIZES[name.split()[1]][1]
    note = f"{name.split()[1]} size, {precision} against plain float32"
    bars = bars_here(device)[precision] if name == "V1T published" else (None,) * 4
    clock = time.process_time if args.processor_time else time.perf_counter
    what = f"{name.split()[0]} training {precision}"
    plain, ours, ratio = compare(
        plain_training(name, "float32", device),
        our_training(name, precision, device),
        args.repeats,
        torch.device(device),
        clock,
    )
    rows = [Row(what, plain / n_images, ours / n_images, "s/image", ratio, bars[0], note)]
    flop = training_flop(make_model(name, device).core)
    share = flop * n_images / ours / matrix_rate(getattr(torch, precision), device, clock=clock)
    work = f"{name.split()[1]} size, {flop / 1e9:.1f} GFLOP per image"
    rows.append(Row(f"{what}, share of the matrix rate", None, share, "", None, bars[1], work))
    plain, ours = (
        peak_memory(
            function,
            __file__,
            name,
            kind,
            device,
            device=device,
            in_fresh_process=not args.quick,
        )
        / 2**20
        for function, kind in (("plain_training", "float32"), ("our_training", precision))
    )
    rows.append(
        Row(f"{what}, peak memory", plain, ours, "MiB", plain / max(ours, 1e-9), bars[2], note)
    )
    plain, ours, ratio = compare(
        prediction(name, "float32", device, True),
        prediction(name, precision, device, False),
        args.repeats,
        torch.device(device),
        clock,
    )
    what = f"{name.split()[0]} prediction {precision}"
    rows.append(Row(what, plain / n_images, ours / n_images, "s/image", ratio, bars[3], note))
    return rows


def main() -> None:
    made = parser(__doc__)
    _limits.add_argument(made)
    made.add_argument("--processor-time", action="store_true", help="not that of the wall")
    made.add_argument("--sizes", nargs="+", choices=("published", "small"), help="not both")
    args = made.parse_args()
    _limits.hold(args.held_to)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    names = ("V1T tiny", "ViT tiny") if args.quick else NAMES
    if args.sizes:
        names = tuple(name for name in names if name.split()[1] in args.sizes)
    rows = []
    with _limits.in_force():
        for name in names:
            check(name, device)
            # V1T and ViT differ by networks of behaviour, which cost nothing beside the rest.
            precisions = tuple(bars_here(device)) if name.startswith("V1T") else ("float32",)
            for precision in precisions:
                rows += measure(name, precision, device, args)
    report(f"v1t_as_{args.held_to}" if args.held_to else "v1t", rows, args)


if __name__ == "__main__":
    main()
