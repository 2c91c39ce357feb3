"""How the cost of training and prediction grows with trials, neurons, mice and tokens.

Small models are fitted to random recordings whose size grows in steps of two along one axis. To
seconds per epoch and seconds of prediction a power law is fitted, ``factor * size ** exponent``, by
a line through their logarithms. Fixed costs bend it down, and least between the two largest sizes:
the larger of its slope and the slope between those two is what counts. Peak memory is measured at
those two alone.

On a CPU seconds are those of the processor, and all sizes are timed in turn, each for as long as
the others: small ones take several epochs. The fastest of some short epochs beside the fastest of
as many long ones makes a curve of any machine that others use, too, since short ones fit into its
quiet moments.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from _measure import Row, parser, peak_memory, report
from _models import make_trials

import v1tlearn as v1

BASE = {"trials": 256, "neurons": 256, "mice": 2, "height": 18, "width": 32}
# The smallest sizes are those at which what grows is no longer lost in the fixed overhead.
SIZES = {
    "trials": [128, 256, 512, 1024],
    "neurons": [2000, 4000, 8000, 16000],
    "mice": [1, 2, 4, 8],
    "tokens": [256, 512, 1024, 2048],
}
QUICK_SIZES = {"trials": [16, 32], "neurons": [4, 8], "mice": [1, 2], "tokens": [8, 16]}
# Exponents that the work itself has; tokens lie between linear (perceptrons) and quadratic, but
# their weights for each other are never kept.
EXPECTED = {"trials": 1.0, "neurons": 1.0, "mice": 1.0, "tokens": 2.0}
EXPECTED_MEMORY = 1.0
TOLERANCE = 0.05
MODELS = ("V1T", "ViT", "CNN", "LN", "full model")
MEMORY_POINTS = 2  # the largest of each axis: every one takes a process of its own
PATCH, ROWS = 6, 8  # pixels of a patch; rows of tokens while their columns grow


def power_law(sizes: list[float], values: list[float]) -> tuple[float, float]:
    """Fit ``factor * size ** exponent`` to positive values, on logarithmic axes.

    Parameters
    ----------
    sizes, values : list of float
        At least two points.

    Returns
    -------
    tuple of float
        Exponent and factor.
    """
    x, y = np.asarray(sizes, float), np.asarray(values, float)
    if len(x) != len(y) or len(set(sizes)) < 2 or not ((x > 0).all() and (y > 0).all()):
        raise ValueError(
            f"a power law needs positive values at two sizes or more, got {sizes}, {values}."
        )
    exponent, offset = np.polyfit(np.log(x), np.log(y), 1)
    return float(exponent), float(np.exp(offset))


def upper_slope(sizes: list[float], values: list[float]) -> float:
    """Slope between the two largest sizes, on logarithmic axes."""
    return float(np.log(values[-1] / values[-2]) / np.log(sizes[-1] / sizes[-2]))


def sizes_of(axis: str, size: int, quick: bool) -> dict[str, int]:
    """Sizes of the recordings at one point of a curve."""
    out = {**BASE, **({"trials": 16, "neurons": 4} if quick else {})}
    if axis != "tokens":
        return {**out, axis: size}
    # patches at every pixel, in a fixed number of rows: tokens = rows * columns
    rows = 2 if quick else ROWS
    shape = {"height": PATCH + rows - 1, "width": PATCH + size // rows - 1}
    return {**out, **shape, "mice": 1, "trials": 16 if quick else 32}


def recordings(sizes: dict[str, int]) -> v1.Trials:
    """Trials of random images, behaviour and responses."""
    image = (sizes["height"], sizes["width"])
    return make_trials(sizes["mice"], sizes["trials"], sizes["neurons"], image, positions=False)


def estimator(model: str, axis: str, epochs: int, device: str) -> v1.EncodingRegressor:
    """A small model; on the axis of tokens with a patch at every pixel."""
    common = {"batch_size": 32, "max_epochs": epochs, "validation_fraction": 0.0}
    common |= {"random_state": 0, "device": device, "precision": "float32"}
    if model == "full model":
        return v1.FullModelRegressor(channels=(8, 16), kernels=(9, 5), **common)
    if model in ("CNN", "LN"):
        kind = v1.CNNRegressor if model == "CNN" else v1.LNRegressor
        return kind(hidden_channels=16, n_layers=2, input_kernel=5, hidden_kernel=3, **common)
    stride = 1 if axis == "tokens" else 4
    common |= {"patch_size": PATCH, "patch_stride": stride, "embed_dim": 32, "mlp_dim": 64}
    kind = v1.V1TRegressor if model == "V1T" else v1.ViTRegressor
    return kind(n_blocks=1, n_heads=2, **common)


def prepare_epoch(model: str, axis: str, sizes: str, device: str) -> Callable[[], object]:
    """Memory of fitting for one epoch, data on the device included."""
    point = json.loads(sizes)
    trials = recordings(point)
    least = recordings({**point, "trials": 2, "neurons": 1, "mice": 1})
    estimator(model, axis, 1, device).fit(least)  # what the first fit of a process loads
    return lambda: estimator(model, axis, 1, device).fit(trials)


def clock_of(device: str) -> Callable[[], float]:
    """Clock whose seconds count: of the processor where it computes, of the wall elsewhere."""
    return time.process_time if device == "cpu" else time.perf_counter


def tasks(
    model: str, axis: str, sizes: dict[str, int], device: str
) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """Functions that take some epochs, or predict all trials some times, and tell seconds of one.

    What is ahead of the second epoch, the first one included, is not timed.
    """
    trials, clock = recordings(sizes), clock_of(device)
    fitted = estimator(model, axis, 1, device).fit(trials)

    def epoch(n: int) -> float:
        """Seconds of one of so many epochs."""
        ends: list[float] = []
        estimator(model, axis, n + 1, device).fit(trials, on_epoch=lambda _: ends.append(clock()))
        return (ends[-1] - ends[0]) / n

    def prediction(n: int) -> float:
        """Seconds of one of so many predictions."""
        start = clock()
        for _ in range(n):
            fitted.predict(trials)
        return (clock() - start) / n

    return epoch, prediction


def in_turn(timed: Sequence[Callable[[int], float]], rounds: int) -> list[float]:
    """Seconds of one call of each of these, timed in turn for about as long each.

    Parameters
    ----------
    timed : sequence of callable
        Each calls something so many times and tells the seconds of one call.
    rounds : int
        In each they are timed one after the other, and once more in the reverse order.

    Returns
    -------
    list of float
        A round in which the machine is slow moves all of them, and not one beside the others.
    """
    once = [call(1) for call in timed]
    often = [max(1, round(max(once) / seconds)) for seconds in once]
    found = []
    for _ in range(rounds):
        there = [call(n) for call, n in zip(timed, often, strict=True)]
        back = [call(n) for call, n in zip(reversed(timed), reversed(often), strict=True)]
        found.append([math.sqrt(a * b) for a, b in zip(there, reversed(back), strict=True)])
    logs = np.log(found)  # (rounds, timed)
    levels = logs.mean(1, keepdims=True)
    return np.exp(np.median(logs - levels, 0) + np.median(levels)).tolist()


def times(
    model: str, axis: str, sizes: list[int], args: argparse.Namespace, device: str
) -> tuple[list[float], list[float]]:
    """Seconds of an epoch and of a prediction at all points of an axis, printed one by one."""
    points = [tasks(model, axis, sizes_of(axis, size, args.quick), device) for size in sizes]
    epochs, predictions = (in_turn(timed, args.repeats) for timed in zip(*points, strict=True))
    for size, epoch, prediction in zip(sizes, epochs, predictions, strict=True):
        print(
            f"{model}, {size} {axis}: epoch {epoch:.3g} s, prediction {prediction:.3g} s",
            flush=True,
        )
    return epochs, predictions


def peaks(
    model: str, axis: str, sizes: list[int], args: argparse.Namespace, device: str
) -> list[float]:
    """Peak memory in MiB of a fit at these points of an axis, printed one by one."""
    out = []
    for size in sizes:
        point = json.dumps(sizes_of(axis, size, args.quick))
        call = ("prepare_epoch", __file__, model, axis, point, device)
        used = peak_memory(*call, device=device, in_fresh_process=not args.quick)
        out.append(used / 2**20)
        print(f"{model}, {size} {axis}: peak memory {out[-1]:.3g} MiB", flush=True)
    return out


def curve(model: str, axis: str, cost: str, unit: str, sizes: list, values: list) -> dict:
    """One curve as it is written."""
    exponent, factor = power_law(sizes, values)
    return {
        "model": model,
        "axis": axis,
        "cost": cost,
        "unit": unit,
        "sizes": sizes,
        "values": values,
        "exponent": exponent,
        "factor": factor,
        "upper_slope": upper_slope(sizes, values),
    }


def measure(args: argparse.Namespace) -> list[dict]:
    """All curves."""
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    curves = []
    for axis in args.axes:
        sizes = (QUICK_SIZES if args.quick else SIZES)[axis]
        for model in args.models if axis != "tokens" else {"V1T"} & set(args.models):
            timed = times(model, axis, sizes, args, device)
            for cost, values in zip(("epoch", "prediction"), timed, strict=True):
                curves.append(curve(model, axis, cost, "s", sizes, values))
            if model == "V1T" and (axis == "trials" or not args.quick):
                largest = sizes[-MEMORY_POINTS:]
                found = peaks(model, axis, largest, args, device)
                curves.append(curve(model, axis, "memory", "MiB", largest, found))
    return curves


def rows(curves: list[dict]) -> list[Row]:
    """One line per curve: the exponent, with what it should stay below."""
    return [
        Row(
            f"{c['model']}: {c['cost']} against {c['axis']}",
            None,
            max(c["exponent"], c["upper_slope"]),
            "exponent",
            bar=(EXPECTED_MEMORY if c["cost"] == "memory" else EXPECTED[c["axis"]]) + TOLERANCE,
            note=(
                f"{c['axis']} {c['sizes'][0]} to {c['sizes'][-1]}, {c['values'][0]:.3g} to "
                f"{c['values'][-1]:.3g} {c['unit']}; line {c['exponent']:.2f}, "
                f"between the largest two {c['upper_slope']:.2f}"
            ),
            at_most=True,
        )
        for c in curves
    ]


def main() -> None:
    made = parser(__doc__)
    made.set_defaults(repeats=3)
    made.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    made.add_argument("--axes", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    args = made.parse_args()
    curves = measure(args)
    report("scaling", rows(curves), args, curves=curves)


if __name__ == "__main__":
    main()
