"""A whole epoch of training: of an estimator's `fit`, and of a plain loop.

Two mice are simulated as noise. The plain epoch draws single trials, float32 and in memory, from a
loader per mouse, standardises each, walks the mice one after another through the plain model, and
updates one parameter after the other. Ours is what `fit` takes for the same trials, number format,
batches and steps. The fit tells of each of its epochs as it ends, and a plain one follows there, so
that the two alternate. At the published size epochs are short, and V1T's batches small, since plain
steps take seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from _measure import Row, parser, report, seconds, summary
from _models import CNN, IMAGE, V1T, make_estimator, make_trials
from _plain import check_same, plain_model, plain_optimizer
from _plain_epoch import PerTrialArrays, plain_epoch

import v1tlearn as v1
from v1tlearn.nn import MouseBatch
from v1tlearn.training import resolve_device

MICE = 2


@dataclass(frozen=True)
class Case:
    """A model, and the trials of each mouse that it is trained on."""

    kind: type
    options: dict[str, int]
    trials: int
    batch_size: int
    neurons: int


CASES = {
    "V1T, published size": Case(v1.V1TRegressor, V1T["published"], 4, 2, 5000),
    "V1T, small": Case(v1.V1TRegressor, V1T["small"], 128, 16, 500),
    "CNN, published size": Case(v1.CNNRegressor, CNN["published"], 192, 128, 5000),
    "CNN, small": Case(v1.CNNRegressor, CNN["small"], 256, 64, 500),
}
QUICK = {
    "V1T, tiny": Case(v1.V1TRegressor, V1T["tiny"], 6, 4, 5),
    "CNN, tiny": Case(v1.CNNRegressor, CNN["tiny"], 6, 4, 5),
}


def prepare(estimator: v1.CNNRegressor, trials: v1.Trials) -> Callable[[], torch.Tensor]:
    """Prepare plain epochs that start from the weights of an estimator, and are of its model."""
    plain = plain_model(estimator.module_.train())
    recordings = {mouse: PerTrialArrays(estimator, trials, mouse) for mouse in trials.mice}
    few = {}
    for mouse, dataset in recordings.items():
        image, behavior, pupil, _ = (
            torch.as_tensor(value, device=estimator.device_)[None] for value in dataset[0]
        )
        few[mouse] = MouseBatch(image, behavior, pupil)
    check_same(estimator.module_, plain, few)
    optimizer = plain_optimizer(
        plain,
        estimator.lr,
        estimator.optimizer,
        betas=estimator.betas,
        weight_decay=estimator.weight_decay,
    )
    return lambda: plain_epoch(plain, recordings, estimator.batch_size, optimizer)


def epochs_in_turn(
    estimator: v1.CNNRegressor,
    trials: v1.Trials,
    plain: Callable[[], object],
    repeats: int,
) -> list[tuple[float, float]]:
    """Seconds of a plain epoch and of one of `fit`, pair by pair, after a pair to warm up."""
    pairs = []

    def on_epoch(record: dict[str, float]) -> None:
        """Take a plain epoch between two of the fit."""
        pairs.append((seconds(plain, estimator.device_), record["seconds"]))

    estimator.set_params(max_epochs=repeats + 1).fit(trials, on_epoch=on_epoch)
    return pairs[1:]


def measure(name: str, case: Case, args: argparse.Namespace) -> Row:
    """Epochs of one model."""
    trials = make_trials(MICE, case.trials, case.neurons, IMAGE)
    params = {**case.options, "batch_size": case.batch_size, "precision": "float32"}
    estimator = make_estimator(case.kind, params, trials, args.device)
    plain = prepare(estimator, trials)
    plain_s, ours_s, ratio = summary(epochs_in_turn(estimator, trials, plain, args.repeats))
    note = (
        f"{MICE} mice x {case.trials} trials x {case.neurons} neurons, in batches of "
        f"{case.batch_size}"
    )
    return Row(f"{name}, epoch", plain_s, ours_s, "s", ratio, note=note)


def main() -> None:
    made = parser(__doc__)
    made.set_defaults(repeats=3)
    args = made.parse_args()
    args.device = str(resolve_device(args.device))
    cases = QUICK if args.quick else CASES
    report("epoch", [measure(name, case, args) for name, case in cases.items()], args)


if __name__ == "__main__":
    main()
