"""An epoch on recordings that are streamed, against one on recordings in the device's memory.

The same model is trained on the same trials, which lie in the device's memory, in host memory and
in a netCDF store; batches are the same bit for bit, which is checked first. What a batch costs
alone, without model, tells how far streaming is from holding up a faster one. The start of a fit,
statistics and copies, is compared with reading the store once.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _measure import Row, compare, median_seconds, parser, report

import v1tlearn as v1
from v1tlearn.estimators import _tensors
from v1tlearn.estimators._assemble import assemble
from v1tlearn.estimators._placement import DEVICE, MEMORY, RECORDINGS
from v1tlearn.training import (
    ConstantSchedule,
    MouseData,
    PoissonObjective,
    Run,
    TrainingSettings,
    initial_rng,
    new_state,
    resolve_device,
    resolve_precision,
    train,
)
from v1tlearn.training.data import epoch_batches, step_batches

BAR = 0.95  # of the resident epoch's speed
NAMES = {MEMORY: "host memory", RECORDINGS: "netCDF store"}


def make_trials(args: argparse.Namespace) -> v1.Trials:
    """Noise of the sizes of a recording; the first neuron of the first mouse has gaps."""
    rng = np.random.default_rng(0)
    stimuli, behaviors, responses = {}, {}, {}
    for mouse in "ABCDE"[: args.mice]:
        n, shape = args.trials, (1, args.height, args.width)
        stimuli[mouse] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        behaviors[mouse] = rng.normal(size=(n, 5)).astype(np.float32)
        responses[mouse] = rng.exponential(size=(n, args.neurons)).astype(np.float32)
    responses["A"][::7, 0] = np.nan
    ids = {mouse: np.arange(args.trials) for mouse in stimuli}
    return v1.Trials.from_arrays(stimuli, behaviors, responses, image_ids=ids)


def make_estimator(args: argparse.Namespace) -> v1.CNNRegressor:
    return v1.CNNRegressor(
        hidden_channels=args.channels, batch_size=args.batch_size, random_state=0,
        device=str(args.device),
    )  # fmt: skip


def prepare(args: argparse.Namespace, trials: v1.Trials) -> v1.CNNRegressor:
    """Everything ahead of the first epoch but the data."""
    estimator = make_estimator(args)
    target = _tensors.read_responses(estimator, trials, trials.responses)
    assemble(estimator, _tensors.describe(estimator, trials, target))
    estimator._to_device()
    return estimator


def bring(estimator: v1.CNNRegressor, trials: v1.Trials, where: str) -> dict[str, MouseData]:
    return {
        mouse: _tensors.mouse_data(estimator, trials, mouse, trials.responses, where)
        for mouse in trials.mice
    }


def check_equal(resident: dict[str, MouseData], streamed: dict[str, MouseData], size: int) -> None:
    device = resident["A"].device
    steps = epoch_batches({m: len(d) for m, d in resident.items()}, size, device)[:3]
    pairs = zip(step_batches(resident, steps), step_batches(streamed, steps), strict=True)
    for (inputs, targets), (others, other_targets) in pairs:
        for mouse in inputs:
            assert torch.equal(inputs[mouse].images, others[mouse].images)
            assert torch.equal(targets[mouse][0], other_targets[mouse][0])


def epoch(estimator: v1.CNNRegressor, data: dict[str, MouseData]) -> Callable[[], object]:
    """A training epoch of the model, always from the same weights."""
    precision = resolve_precision("auto", estimator.device_, training=True)
    settings = TrainingSettings(estimator.batch_size, max_epochs=1, precision=precision)

    def run() -> None:
        model = copy.deepcopy(estimator.module_)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        state, schedule = new_state(initial_rng(0)), ConstantSchedule()
        train(Run(model, PoissonObjective(), optimizer, schedule, data, settings, state))

    return run


def batches(data: dict[str, MouseData], size: int) -> Callable[[], object]:
    """All batches of an epoch, without a model."""

    def run() -> None:
        lengths = {mouse: len(trials) for mouse, trials in data.items()}
        for _ in step_batches(data, epoch_batches(lengths, size, data["A"].device)):
            pass

    return run


def measure(args: argparse.Namespace, trials: v1.Trials, stored: v1.Trials) -> list[Row]:
    device, estimator = args.device, prepare(args, trials)
    resident = bring(estimator, trials, DEVICE)
    sizes = f"{args.mice} mice x {args.trials} trials x {args.neurons} neurons"
    rows = []
    for where, source in ((MEMORY, trials), (RECORDINGS, stored)):
        streamed = bring(estimator, source, where)
        check_equal(resident, streamed, args.batch_size)
        for what, run, bar in (
            ("epoch", lambda data: epoch(estimator, data), BAR),
            ("batches alone", lambda data: batches(data, args.batch_size), None),
        ):
            plain, ours, ratio = compare(run(resident), run(streamed), args.repeats, device)
            name = f"{what}, streamed from {NAMES[where]}"
            rows.append(Row(name, plain, ours, "s", ratio, bar, sizes))

    def read() -> None:
        for mouse in stored.mice:
            stored.get("stimuli", mouse), stored.responses.get(mouse)

    def start() -> None:
        made = prepare(args, stored)
        bring(made, stored, DEVICE)

    reading = median_seconds(read, args.repeats, device)
    for what, source in (("arrays", trials), ("store", stored)):
        ours = median_seconds(
            (lambda: bring(prepare(args, trials), trials, DEVICE)) if source is trials else start,
            args.repeats,
            device,
        )
        rows.append(Row(f"start from {what}", reading, ours, "s", None, None, "plain: read once"))
    return rows


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--mice", type=int, default=2)
    made.add_argument("--trials", type=int, default=512, help="per mouse")
    made.add_argument("--neurons", type=int, default=5000)
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--channels", type=int, default=64)
    made.add_argument("--height", type=int, default=36)
    made.add_argument("--width", type=int, default=64)
    args = made.parse_args()
    if args.quick:
        args.trials, args.neurons, args.batch_size, args.channels = 40, 8, 16, 4
        args.height, args.width = 20, 32
    args.device = resolve_device(args.device)
    trials = make_trials(args)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recordings.nc"
        trials.to_netcdf(path)
        rows = measure(args, trials, v1.Trials.open(path))
    report("streaming", rows, args)


if __name__ == "__main__":
    main()
