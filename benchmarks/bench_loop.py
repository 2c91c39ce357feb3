"""What the training loop adds to forward, backward and optimizer step.

An epoch of `v1tlearn.training.train` is timed against a bare loop over the same number of batches,
cut and standardised beforehand: a CNN of the size published for Sensorium 2022, and a small V1T.
Whole batches go through the model in both; the loop also reports its epoch to the progress bar and
log of ``verbose=1``, the bar drawn to nowhere. Validation, which is not in the bare loop, is left
out of both. With ``--compile`` it is also measured what `torch.compile` of the core brings, and
after how many steps it has earned the time it took.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import time
import warnings
from collections.abc import Callable

import torch
from _measure import Row, compare, median_seconds, parser, report, seconds

from v1tlearn.estimators._progress import progress
from v1tlearn.nn import (
    EncodingModel,
    GaussianReadout,
    ImageCropper,
    Shifter,
    Stacked2dCore,
    ViTCore,
    poisson_loss,
)
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    TrainingSettings,
    autocast,
    initial_rng,
    isolated_rng,
    new_state,
    numerics,
    resolve_device,
    resolve_precision,
    train,
)
from v1tlearn.training.compilation import compiled
from v1tlearn.training.data import epoch_batches, step_batches

BAR = 1.03
BEHAVIORS = 3
SHAPE, QUICK_SHAPE = (36, 64), (16, 24)
BATCH_SIZE = {"CNN": 128, "V1T": 32}


def make_data(args: argparse.Namespace, n: int, device: torch.device) -> dict[str, MouseData]:
    shape = QUICK_SHAPE if args.quick else SHAPE
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


def make_model(args: argparse.Namespace, kind: str, device: torch.device) -> EncodingModel:
    shape = QUICK_SHAPE if args.quick else SHAPE
    if kind == "CNN":
        core = Stacked2dCore((1 + BEHAVIORS, *shape), hidden_channels=4 if args.quick else 64)
    else:
        core = ViTCore(
            (1, *shape),
            patch_stride=4,
            n_blocks=1 if args.quick else 2,
            n_heads=2,
            embed_dim=8 if args.quick else 64,
            mlp_dim=8 if args.quick else 128,
            behavior_mode="b_mlp",
            n_behaviors=BEHAVIORS,
        )
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
        behavior_channels=kind == "CNN",
    ).to(device)


def make_optimizer(model: EncodingModel) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def bare_epoch(
    model: EncodingModel, optimizer: torch.optim.Optimizer, batches: list, scale: float, how: str
) -> None:
    model.train()
    for inputs, targets in batches:
        with autocast(how, targets[next(iter(targets))][0].device):
            predictions = model(inputs)
        loss = model.core_penalty() + sum(model.readout_penalty(m) for m in inputs)
        for mouse, (target, _) in targets.items():
            loss = loss + scale * poisson_loss(predictions[mouse], target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


class Runs:
    """A bare epoch and one of the training loop, over the same data.

    Parameters
    ----------
    args : argparse.Namespace
    kind : {"CNN", "V1T"}
    device : torch.device
    """

    def __init__(self, args: argparse.Namespace, kind: str, device: torch.device) -> None:
        torch.manual_seed(0)
        self.batch_size = 4 if args.quick else BATCH_SIZE[kind]
        self.steps = args.steps or (2 if device.type == "cpu" else 50)
        self.device, self.precision = device, resolve_precision("auto", device, training=True)
        self.data = make_data(args, self.steps * self.batch_size, device)
        self.model = make_model(args, kind, device)
        with isolated_rng(initial_rng(0), device):
            lengths = {mouse: len(trials) for mouse, trials in self.data.items()}
            rows = epoch_batches(lengths, self.batch_size, device)
            self.batches = list(step_batches(self.data, rows))

    def bare(self) -> Callable[[], None]:
        """Prepare an epoch of nothing but forward, backward and optimizer step."""
        model = copy.deepcopy(self.model)
        optimizer, scale = make_optimizer(model), self.steps**0.5

        def run() -> None:
            with numerics(self.precision, self.device):
                bare_epoch(model, optimizer, self.batches, scale, self.precision)

        return run

    def loop(self) -> Callable[[], None]:
        """Prepare an epoch of the training loop, with whole batches, told to a progress bar."""
        model = copy.deepcopy(self.model)
        settings = TrainingSettings(
            self.batch_size,
            max_epochs=1,
            precision=self.precision,
            compile=False,
            micro_batch_size=self.batch_size,
            checkpoint_activations=False,
            prediction_batch_size=self.batch_size,
        )

        def run() -> None:
            state = new_state(initial_rng(0))
            optimizer, schedule = make_optimizer(model), ConstantSchedule()
            with (
                open(os.devnull, "w", encoding="utf-8") as nowhere,
                contextlib.redirect_stderr(nowhere),
                progress("benchmark", 1, verbose=1) as report,
            ):
                train(model, self.data, settings, optimizer, schedule, state, on_epoch=report)

        return run

    def step(self) -> Callable[[], None]:
        """Prepare a single step."""
        model = self.model
        optimizer = make_optimizer(model)

        def run() -> None:
            with numerics(self.precision, self.device):
                bare_epoch(model, optimizer, self.batches[:1], 1.0, self.precision)

        return run


def overhead(args: argparse.Namespace, kind: str, device: torch.device) -> Row:
    """Time of an epoch of the loop over that of a bare one."""
    runs = Runs(args, kind, device)
    bare, ours, ratio = compare(runs.bare(), runs.loop(), args.repeats, device)
    note = f"{args.mice} mice x {args.neurons} neurons, {runs.steps} steps of {runs.batch_size}"
    what = f"{kind}, epoch over bare epoch"
    return Row(what, bare, ours, "s", 1 / ratio, BAR, note, at_most=True)


def compilation(args: argparse.Namespace, kind: str, device: torch.device) -> Row:
    """Time of a plain step over that of a compiled one, and what compiling took."""
    runs = Runs(args, kind, device)
    step = runs.step()
    plain = median_seconds(step, args.repeats, device)
    start = time.perf_counter()
    with warnings.catch_warnings(), compiled(runs.model.core, True):
        warnings.simplefilter("ignore")
        seconds(step, device)
        warm_up = time.perf_counter() - start
        fast = median_seconds(step, args.repeats, device)
    earned = f"{warm_up / (plain - fast):,.0f} steps" if fast < plain else "never"
    note = f"compiled in {warm_up:.0f} s, earned after: {earned}"
    return Row(f"{kind}, plain step over compiled", plain, fast, "s", plain / fast, note=note)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--mice", type=int, default=2)
    made.add_argument("--neurons", type=int, default=500)
    made.add_argument("--steps", type=int, default=None, help="steps of an epoch")
    made.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    args = made.parse_args()
    device = resolve_device(args.device)
    rows = [overhead(args, kind, device) for kind in BATCH_SIZE]
    if args.compile:
        rows += [compilation(args, kind, device) for kind in BATCH_SIZE]
    report("loop", rows, args)


if __name__ == "__main__":
    main()
