"""What the training loop adds to forward, backward and optimizer step.

An epoch of `v1tlearn.training.train`, from the call to its return, is timed against bare steps on
the same batches: a CNN of the size published for Sensorium 2022, and a small V1T. Both take the
same work: weights, optimizer (made ahead), penalties, scale of the loss, number format, and the
parts of a batch that the loop chooses for this machine. What the loop adds is drawing, cutting and
standardising batches, its tables of losses, the check that they are finite, copies of the weights,
and a progress bar, drawn to nowhere. Validation, which bare steps do not
have, is left out. Pairs are short, and which of the two comes first alternates; the ratio is the
median over the pairs, with their quartiles and the interval in which the median lies.

With ``--compile`` it is also measured what `torch.compile` of the core brings, and after how many
steps it has earned the time it took.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from _measure import (
    Row,
    median_interval,
    median_seconds,
    parser,
    report,
    seconds,
    time_in_turn,
)
from _models import CNN, CNN_BEHAVIORS, V1T, image_size, make_model
from tqdm.auto import tqdm

from v1tlearn.nn import EncodingModel, MouseBatch, poisson_loss
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    PoissonObjective,
    Run,
    TrainingSettings,
    autocast,
    initial_rng,
    isolated_rng,
    new_state,
    numerics,
    resolve_device,
    resolve_precision,
    resolve_settings,
    train,
)
from v1tlearn.training.compilation import compiled
from v1tlearn.training.data import epoch_batches, step_batches
from v1tlearn.training.memory import checkpointed

BAR = 1.03
MODELS = {
    "CNN": CNN["published"],
    "V1T": V1T["small"] | {"n_heads": 2, "embed_dim": 64, "mlp_dim": 128},
}
QUICK = {"CNN": CNN["tiny"], "V1T": V1T["tiny"]}
BATCH_SIZE = {"CNN": 128, "V1T": 32}  # trials of each mouse
# On a CPU. A step of the CNN takes seconds, one of the V1T a tenth of one; what a call of `train`
# costs once, not in every epoch, should not weigh more than in an epoch of hundreds of steps.
STEPS = {"CNN": 1, "V1T": 10}
PAIRS = {"CNN": 31, "V1T": 31}
GPU_STEPS = 50
COMPILED_RUNS = 5

Parts = list[tuple[dict[str, MouseBatch], dict[str, torch.Tensor]]]  # of a batch, and responses


def make_data(args: argparse.Namespace, n: int, device: torch.device) -> dict[str, MouseData]:
    shape = image_size("tiny" if args.quick else "published")
    return {
        f"mouse {i}": MouseData(
            torch.randint(0, 256, (n, 1, *shape), dtype=torch.uint8, device=device),
            image_mean=110.0,
            image_std=60.0,
            behaviors=torch.randn(n, CNN_BEHAVIORS, device=device),
            pupil=torch.randn(n, 2, device=device),
            responses=-torch.rand(n, args.neurons, device=device).log(),
            scale_trials=n,
        )
        for i in range(args.mice)
    }


def adam(model: EncodingModel) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def bare_step(
    model: EncodingModel, optimizer: torch.optim.Optimizer, parts: Parts, scale: float, how: str
) -> None:
    """Forward, backward and update; the gradients of the parts of a batch add up."""
    loss = model.core_penalty() + sum(model.readout_penalty(m) for m in parts[0][0])
    device = loss.device
    for inputs, targets in parts:
        with autocast(how, device):
            predictions = model(inputs)
        for mouse, target in targets.items():
            loss = loss + scale * poisson_loss(predictions[mouse].float(), target)
        loss.backward()
        loss = 0.0
    optimizer.step()
    optimizer.zero_grad()


class Runs:
    """Bare steps and an epoch of the training loop, over the same data.

    Parameters
    ----------
    args : argparse.Namespace
    kind : {"CNN", "V1T"}
    device : torch.device
    make_optimizer : callable, optional
        From a model to the optimiser of its parameters.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        kind: str,
        device: torch.device,
        make_optimizer: Callable[[EncodingModel], torch.optim.Optimizer] = adam,
    ) -> None:
        self.make_optimizer = make_optimizer
        size = 4 if args.quick else BATCH_SIZE[kind]
        self.steps = args.steps or (STEPS[kind] if device.type == "cpu" else GPU_STEPS)
        self.device, self.scale = device, self.steps**0.5
        shape = image_size("tiny" if args.quick else "published")
        options = (QUICK if args.quick else MODELS)[kind]
        self.model = make_model(
            kind, options, args.mice, args.neurons, shape, device, CNN_BEHAVIORS
        )
        self.data = make_data(args, self.steps * size, device)
        wanted = TrainingSettings(
            size,
            max_epochs=1,
            precision=resolve_precision("auto", device, training=True),
            compile=False,
        )
        with numerics(wanted.precision, device):
            self.settings = resolve_settings(self.model, PoissonObjective(), self.data, wanted)
        with isolated_rng(initial_rng(0), device):
            lengths = {mouse: len(trials) for mouse, trials in self.data.items()}
            rows = epoch_batches(lengths, size, device)
            self.batches = list(step_batches(self.data, rows))

    def _parts(self, inputs: dict[str, MouseBatch], targets: dict) -> Parts:
        """A batch in the parts that the loop would cut it into."""
        at_once, size = self.settings.micro_batch_size, self.settings.batch_size
        return [
            (
                {
                    m: MouseBatch(*(None if x is None else x[i : i + at_once] for x in batch))
                    for m, batch in inputs.items()
                },
                {m: responses[i : i + at_once] for m, (responses, _) in targets.items()},
            )
            for i in range(0, size, at_once)
        ]

    def bare(self, model: EncodingModel, steps: int | None = None) -> Callable[[], None]:
        """Prepare as many steps as an epoch has, and nothing else; or fewer."""
        optimizer, how = self.make_optimizer(model), self.settings.precision
        batches = [self._parts(*batch) for batch in self.batches[:steps]]

        def run() -> None:
            model.train()
            with (
                numerics(how, self.device),
                checkpointed(model.core, self.settings.checkpoint_activations),
            ):
                for parts in batches:
                    bare_step(model, optimizer, parts, self.scale, how)

        return run

    def loop(self, model: EncodingModel) -> Callable[[], None]:
        """Prepare an epoch of the training loop, told to a progress bar."""
        optimizer = self.make_optimizer(model)

        def epoch() -> None:
            state, schedule = new_state(initial_rng(0)), ConstantSchedule()
            objective = PoissonObjective()
            with (
                open(os.devnull, "w", encoding="utf-8") as nowhere,
                contextlib.redirect_stderr(nowhere),
                tqdm(total=1, desc="benchmark", unit="epoch") as bar,
            ):

                def report(record: dict[str, float]) -> None:
                    bar.set_postfix(record, refresh=False)
                    bar.update()

                run = Run(model, objective, optimizer, schedule, self.data, self.settings, state)
                train(run, report)

        return epoch


def overhead(args: argparse.Namespace, kind: str, device: torch.device) -> Row:
    """Time of an epoch of the loop over that of its steps alone."""
    runs = Runs(args, kind, device)
    bare, loop = runs.bare(copy.deepcopy(runs.model)), runs.loop(copy.deepcopy(runs.model))
    pairs = time_in_turn(bare, loop, args.repeats or PAIRS[kind], device)
    ratios = sorted(second / first for first, second in pairs)
    bare_s, loop_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    quarter, last = len(ratios) // 4, len(ratios) - 1
    low, high = median_interval(ratios)
    note = (
        f"{len(pairs)} pairs, quartiles {ratios[quarter]:.3f} to {ratios[last - quarter]:.3f}, "
        f"median within {low:.3f} to {high:.3f}; {runs.steps} step(s) of {args.mice} mice x "
        f"{runs.settings.batch_size} trials x {args.neurons} neurons, "
        f"{runs.settings.micro_batch_size} trials at once"
    )
    ratio = statistics.median(ratios)
    return Row(
        f"{kind}, epoch over bare epoch", bare_s, loop_s, "s", ratio, BAR, note, at_most=True
    )


def compilation(args: argparse.Namespace, kind: str, device: torch.device) -> Row:
    """Time of a plain step over that of a compiled one, and what compiling took."""
    runs = Runs(args, kind, device)
    step = runs.bare(runs.model, 1)
    plain = median_seconds(step, args.repeats or COMPILED_RUNS, device)
    start = time.perf_counter()
    with warnings.catch_warnings(), compiled(runs.model.core, True):
        warnings.simplefilter("ignore")
        seconds(step, device)
        warm_up = time.perf_counter() - start
        fast = median_seconds(step, args.repeats or COMPILED_RUNS, device)
    earned = f"{warm_up / (plain - fast):,.0f} steps" if fast < plain else "never"
    note = f"compiled in {warm_up:.0f} s, earned after: {earned}"
    return Row(f"{kind}, plain step over compiled", plain, fast, "s", plain / fast, note=note)


def main() -> None:
    made = parser(__doc__)
    made.set_defaults(repeats=None)  # see PAIRS
    made.add_argument("--mice", type=int, default=2)
    made.add_argument("--neurons", type=int, default=500)
    made.add_argument("--steps", type=int, default=None, help="steps of an epoch")
    made.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    args = made.parse_args()
    device = resolve_device(args.device)
    rows = [overhead(args, kind, device) for kind in MODELS]
    if args.compile:
        rows += [compilation(args, kind, device) for kind in MODELS]
    report("loop", rows, args)


if __name__ == "__main__":
    main()
