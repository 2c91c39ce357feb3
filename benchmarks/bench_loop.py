"""What the training loop adds to forward, backward and optimizer step.

An epoch of `v1tlearn.training.train` is timed against a bare loop over the same batches, cut and
standardised beforehand, with the same model at the size published for Sensorium 2022. Epochs of
either kind alternate, each from the same weights. Validation, which is not in the bare loop, is
left out of both.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from v1tlearn.nn import (
    EncodingModel,
    GaussianReadout,
    ImageCropper,
    Shifter,
    Stacked2dCore,
    poisson_loss,
)
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    TrainingSettings,
    initial_rng,
    isolated_rng,
    new_state,
    resolve_device,
    resolve_precision,
    train,
)
from v1tlearn.training.data import epoch_batches
from v1tlearn.training.devices import autocast, numerics

TARGET = 1.05
BEHAVIORS = 3


def make_data(args: argparse.Namespace, device: torch.device) -> dict[str, MouseData]:
    n, shape = args.steps * args.batch_size, (args.height, args.width)
    return {
        f"mouse {i}": MouseData(
            torch.randint(0, 256, (n, 1, *shape), dtype=torch.uint8, device=device),
            image_mean=110.0,
            image_std=60.0,
            behaviors=torch.randn(n, BEHAVIORS, device=device),
            pupil=torch.randn(n, 2, device=device),
            responses=-torch.rand(n, args.neurons, device=device).log(),
            scale_trials=n,
        )
        for i in range(args.mice)
    }


def make_model(args: argparse.Namespace, device: torch.device) -> EncodingModel:
    shape = (args.height, args.width)
    core = Stacked2dCore((1 + BEHAVIORS, *shape), hidden_channels=args.channels)
    mice = [f"mouse {i}" for i in range(args.mice)]
    return EncodingModel(
        core,
        {
            m: GaussianReadout(
                core.output_shape, args.neurons, positions=torch.rand(args.neurons, 2)
            )
            for m in mice
        },
        cropper=ImageCropper(shape),
        shifters={m: Shifter() for m in mice},
        behavior_channels=True,
    ).to(device)


def make_optimizer(model: EncodingModel) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def bare_epoch(
    model: EncodingModel,
    optimizer: torch.optim.Optimizer,
    batches: list,
    scale: float,
    precision: str,
    device: torch.device,
) -> None:
    model.train()
    for inputs, targets in batches:
        with autocast(precision, device):
            predictions = model(inputs)
        loss = model.core_penalty() + sum(model.readout_penalty(m) for m in inputs)
        for mouse, target in targets.items():
            loss = loss + scale * poisson_loss(predictions[mouse], target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def seconds(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(args: argparse.Namespace) -> list[tuple[float, float]]:
    device = resolve_device(args.device)
    precision = resolve_precision(args.precision, device, training=True)
    torch.manual_seed(0)
    data, initial = make_data(args, device), make_model(args, device)
    settings = TrainingSettings(args.batch_size, max_epochs=1, precision=precision)
    lengths = {mouse: len(trials) for mouse, trials in data.items()}
    times = []
    for repeat in range(args.repeats + 1):
        rng = initial_rng(repeat)
        with isolated_rng(dict(rng), device):
            rows = epoch_batches(lengths, args.batch_size, device)
        batches = [
            (
                {m: trials.batch(step[m]) for m, trials in data.items()},
                {m: trials.targets(step[m])[0] for m, trials in data.items()},
            )
            for step in rows
        ]
        bare, ours = copy.deepcopy(initial), copy.deepcopy(initial)
        bare_optimizer, our_optimizer = make_optimizer(bare), make_optimizer(ours)
        scale = settings.scale(data[next(iter(data))], args.batch_size)
        with numerics(precision, device):
            runs = {
                "bare": lambda b=bare, o=bare_optimizer, s=scale, x=batches: bare_epoch(
                    b, o, x, s, precision, device
                ),
                "ours": lambda m=ours, o=our_optimizer, r=rng: train(
                    m, data, settings, o, ConstantSchedule(), new_state(r)
                ),
            }
            order = ("bare", "ours") if repeat % 2 else ("ours", "bare")
            took = {name: seconds(runs[name], device) for name in order}
        if repeat:  # the first warms up
            times.append((took["bare"], took["ours"]))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mice", type=int, default=2)
    parser.add_argument("--neurons", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2, help="steps per epoch")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--height", type=int, default=36)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()

    times = measure(args)
    bare, ours = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = sorted(one / other for other, one in times)
    ratio = statistics.median(ratios)
    print(
        f"CNN of {args.channels} channels, {args.mice} mice x {args.neurons} neurons, "
        f"{args.steps} steps of {args.batch_size} trials, {torch.get_num_threads()} threads, "
        f"device {resolve_device(args.device)}"
    )
    print(f"{'epoch':28}{'median':>12}")
    print(f"{'forward, backward, step':28}{1e3 * bare:>9.1f} ms")
    print(f"{'training loop':28}{1e3 * ours:>9.1f} ms")
    spread = f"quartiles of {len(ratios)} pairs {ratios[len(ratios) // 4]:.3f}"
    print(
        f"{'ratio':28}{ratio:>9.3f}     ({spread}, {ratios[-1 - len(ratios) // 4]:.3f}; "
        f"aim below {TARGET})"
    )
    if args.json:
        args.json.write_text(
            json.dumps({**vars(args), "json": None, "times": times, "ratio": ratio}, indent=2)
        )


if __name__ == "__main__":
    main()
