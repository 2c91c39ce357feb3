"""Prediction by fitted models, and images that repeat.

A fitted estimator predicts trials in memory. The plain implementation takes batches of the size
of the training, one mouse after another, in float32, with materialised attention, NCHW maps and
`grid_sample`. Where the core sees no behaviour, the trials show few images ten times each to two
mice; the same trials with a label of their own each tell what encoding them once is worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from _measure import Row, compare, parser, peak_memory, report
from _models import CNN, IMAGE, V1T, make_estimator
from _plain import PlainModel, plain_model

import v1tlearn as v1
from v1tlearn.nn import MouseBatch
from v1tlearn.training import resolve_device

SMALL_V1T = V1T["small"] | {"n_heads": 2}
BEHAVIORS = ["pupil_dilation", "running_speed", "pupil_x", "pupil_y"]
# Name, class, parameters, trials, bars in float32 and bfloat16.
MODELS = {
    "V1T, published size": (v1.V1TRegressor, V1T["published"], 8, 2.0, 3.0),
    "V1T, small": (v1.V1TRegressor, SMALL_V1T, 256, None, None),
    "CNN, published size": (v1.CNNRegressor, CNN["published"], 256, None, None),
}
QUICK = {
    "V1T, tiny": (v1.V1TRegressor, V1T["tiny"], 12, None, None),
    "CNN, tiny": (v1.CNNRegressor, CNN["tiny"], 12, None, None),
}
AGREE = {"float32": 1e-4, "bfloat16": 0.1}  # largest difference, as a share of the largest rate


def make_trials(shown: np.ndarray, mice: int, neurons: int, image_ids: str) -> v1.Trials:
    """Trials of several mice that see the same images, with labels per image or per trial."""
    rng = np.random.default_rng(0)
    names = [f"mouse {i}" for i in range(mice)]
    images = rng.integers(0, 256, (shown.max() + 1, 1, *IMAGE), dtype=np.uint8)
    labels = {
        "image": dict.fromkeys(names, shown),
        "trial": {m: np.arange(len(shown)) + i * len(shown) for i, m in enumerate(names)},
    }
    return v1.Trials.from_arrays(
        dict.fromkeys(names, images[shown]),
        {m: rng.normal(size=(len(shown), len(BEHAVIORS))).astype(np.float32) for m in names},
        {m: rng.exponential(size=(len(shown), neurons)).astype(np.float32) for m in names},
        image_ids=labels[image_ids],
        positions={m: rng.uniform(size=(neurons, 2)) for m in names},
        behavior_names=BEHAVIORS,
    )


def predict_plainly(
    estimator: v1.CNNRegressor, plain: PlainModel, trials: v1.Trials
) -> dict[str, np.ndarray]:
    """Predictions in batches of the training, one mouse after another."""
    plain.eval()
    device, size, out = estimator.device_, estimator.batch_size, {}
    for mouse in trials.mice:
        statistics = estimator.statistics_[mouse]
        stimuli, values = trials.get("stimuli", mouse), trials.get("behaviors", mouse)
        values = (values - statistics["behavior_shift"]) / statistics["behavior_scale"]
        values = torch.from_numpy(values.astype(np.float32))
        columns = [BEHAVIORS.index(c) for c in estimator.core_columns_]
        parts = []
        for start in range(0, len(stimuli), size):
            rows = slice(start, start + size)
            images = torch.from_numpy(stimuli[rows]).to(device).float()
            images = (images - statistics["image_mean"]) / statistics["image_std"]
            given = values[rows].to(device)
            batch = MouseBatch(images, given[:, columns] if columns else None, given[:, 2:])
            with torch.no_grad():
                parts.append(plain.predict_mouse(mouse, batch).cpu().numpy())
        out[mouse] = np.concatenate(parts) * statistics["response_scale"]
    return out


def check(expected: dict[str, np.ndarray], found: v1.Responses, precision: str) -> float:
    """Largest difference as a share of the largest rate."""
    worst = 0.0
    for mouse, values in expected.items():
        difference = np.abs(found.get(mouse) - values).max() / np.abs(values).max()
        worst = max(worst, float(difference))
    if not worst <= AGREE[precision]:
        raise AssertionError(f"plain and our predictions differ by {worst:.2g} of the largest")
    return worst


def distinct_images(args: argparse.Namespace) -> list[Row]:
    """Every trial shows another image."""
    rows = []
    for name, (kind, params, n_trials, *bars) in (QUICK if args.quick else MODELS).items():
        trials = make_trials(np.arange(n_trials), 1, args.neurons, "image")
        estimator = make_estimator(kind, params, trials, args.device)
        plain = plain_model(estimator.module_)
        expected = predict_plainly(estimator, plain, trials)
        for precision, bar in zip(AGREE, bars, strict=True):
            estimator.set_params(precision=precision)
            worst = check(expected, estimator.predict(trials), precision)
            theirs, ours, ratio = compare(
                lambda e=estimator, p=plain, t=trials: predict_plainly(e, p, t),
                lambda e=estimator, t=trials: e.predict(t),
                args.repeats,
                estimator.device_,
            )
            note = f"{n_trials} trials, {args.neurons} neurons; differ by {worst:.1g}"
            per_image = 1e3 / n_trials
            row = (f"{name}, {precision}", per_image * theirs, per_image * ours, "ms/image")
            rows.append(Row(*row, ratio, bar if estimator.device_.type == "cpu" else None, note))
    return rows


def repeated_images(args: argparse.Namespace) -> list[Row]:
    """Few images, ten times each, to two mice; the core sees no behaviour."""
    rows, mice, repeats = [], 2, 10
    for name, (kind, params, n_trials, *_) in (QUICK if args.quick else MODELS).items():
        if kind is v1.V1TRegressor and not params:
            continue  # minutes, and in proportion to the small one
        shown = np.tile(np.arange(max(2, n_trials // 16)), repeats)
        trials, apart = (make_trials(shown, mice, args.neurons, x) for x in ("image", "trial"))
        estimator = make_estimator(kind, {**params, "behavior_mode": "none"}, trials, args.device)
        plain = plain_model(estimator.module_)
        expected = predict_plainly(estimator, plain, trials)
        references: dict[str, Callable[[], object]] = {
            "against plain": lambda e=estimator, p=plain, t=trials: predict_plainly(e, p, t),
            "once against each time": lambda e=estimator, t=apart: e.predict(t),
        }
        worst = check(expected, estimator.predict(trials), "float32")
        worst = max(worst, check(expected, estimator.predict(apart), "float32"))
        note = f"{shown.max() + 1} images x {repeats} x {mice} mice; differ by {worst:.1g}"
        for what, reference in references.items():
            theirs, ours, ratio = compare(
                reference,
                lambda e=estimator, t=trials: e.predict(t),
                args.repeats,
                estimator.device_,
            )
            per_trial = 1e3 / len(trials)
            row = (f"{name}, repeats, {what}", per_trial * theirs, per_trial * ours, "ms/trial")
            rows.append(Row(*row, ratio, note=note))
    return rows


def prepare(ours: bool, name: str, neurons: int, device: str) -> Callable[[], object]:
    """A prediction, for the peak of its memory."""
    kind, params, n_trials, *_ = (MODELS | QUICK)[name]
    trials = make_trials(np.arange(n_trials), 1, neurons, "image")
    estimator = make_estimator(kind, params, trials, device)
    if ours:
        return lambda: estimator.predict(trials)
    plain = plain_model(estimator.module_)
    return lambda: predict_plainly(estimator, plain, trials)


def memory(args: argparse.Namespace) -> list[Row]:
    """Peak memory of either way."""
    rows = []
    for name in list(QUICK)[:1] if args.quick else MODELS:
        sizes = [
            peak_memory(
                "prepare",
                __file__,
                ours,
                name,
                args.neurons,
                args.device,
                device=args.device,
                in_fresh_process=not args.quick,
            )
            for ours in (False, True)
        ]
        plain, ours = (size / 2**20 for size in sizes)
        rows.append(Row(f"{name}, peak memory", plain, ours, "MiB", plain / max(ours, 1e-9)))
    return rows


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--neurons", type=int, default=1000, help="per mouse")
    args = arguments.parse_args()
    args.device = str(resolve_device(args.device))
    if args.quick:
        args.neurons = min(args.neurons, 10)
    report("inference", [*distinct_images(args), *repeated_images(args), *memory(args)], args)


if __name__ == "__main__":
    main()
