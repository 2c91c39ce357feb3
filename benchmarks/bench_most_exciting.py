"""Most exciting images of the published CNN: many neurons at a time, or one after the other.

Both ways take the same steps from the same starts. At a time, each neuron has an image of its own,
of which only this neuron is read; one after the other, its starts alone go through the core. The
weights are those of Sensorium 2022 where V1TLEARN_TEST_DATA names a folder with them, else random
ones of the same sizes, which cost the same. What a part of the neurons takes is extrapolated to
1,000.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from _measure import Row, parser, report
from _models import CNN, make_estimator
from bench_inference import make_trials

import v1tlearn as v1
from v1tlearn.inspection import most_exciting_images
from v1tlearn.training import resolve_device

NEURONS = 1000
AT_A_TIME, ALONE = 64, 4


def make(neurons: int, device: str, size: str) -> tuple[v1.CNNRegressor, str]:
    """Published weights, or a model of the published sizes with random ones."""
    folder = os.environ.get("V1TLEARN_TEST_DATA")
    path = Path(folder or "") / "sensorium_models" / "sensorium_sota_model.pth"
    if folder and path.exists() and size == "published":
        estimator = v1.load_sensorium(path)
        return estimator.set_params(device=device), "published weights"
    trials = make_trials(np.arange(4), 1, neurons, "image")
    estimator = make_estimator(v1.CNNRegressor, {**CNN[size], "shift": "none"}, trials, device)
    torch.manual_seed(0)
    for readout in estimator.module_.readouts:
        torch.nn.init.normal_(readout.features)
    return estimator, "random weights"


def seconds(estimator: v1.CNNRegressor, places: np.ndarray, **options: int) -> tuple[float, float]:
    """Seconds on the clock, and of processors, that the images of some neurons take."""
    mouse = estimator.mice_[0]
    mask = np.zeros(estimator.n_neurons_[mouse], bool)
    mask[places] = True
    clock, work = time.perf_counter(), time.process_time()
    most_exciting_images(estimator, {mouse: mask}, **options)
    return time.perf_counter() - clock, time.process_time() - work


def main() -> None:
    args = parser(__doc__).parse_args()
    args.device = str(resolve_device(args.device))
    size, steps = ("tiny", 2) if args.quick else ("published", 40)
    together, alone = (4, 2) if args.quick else (AT_A_TIME, ALONE)
    estimator, weights = make(100, args.device, size)
    n = estimator.n_neurons_[estimator.mice_[0]]
    places = np.linspace(0, n - 1, together).astype(int)
    seconds(estimator, places[:2], n_steps=1)  # what is made once
    ours = seconds(estimator, places, n_steps=steps)
    each = [seconds(estimator, places[[i]], n_steps=steps, batch_size=1) for i in range(alone)]
    rows = []
    for kind, mine, theirs in zip(("clock", "processor"), ours, np.sum(each, axis=0), strict=True):
        per, single = mine / together, theirs / alone
        minutes = NEURONS * per / 60
        note = f"{weights}; 3 starts, {steps} steps; {NEURONS} neurons: {minutes:.1f} min"
        name = f"CNN, {size} size, {kind} time"
        rows.append(Row(name, 1 / single, 1 / per, "neurons/s", single / per, note=note))
    report("most_exciting", rows, args)


if __name__ == "__main__":
    main()
