"""Attention rollout: the weights of one block at a time, or of all blocks.

The plain way predicts the maps image by image from the weights of all blocks, heads and tokens, and
multiplies whole matrices, as the published code does. The peak of memory beyond the model and the
trials is measured with few images and with as many as `--images` says. What the further ones take
tells what 1,000 would; `--images 1000`, which takes a quarter of an hour of one core, measures it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from _measure import Row, compare, parser, peak_memory, report
from _models import V1T, make_estimator
from bench_inference import make_trials

import v1tlearn as v1
from v1tlearn.inspection import attention_rollout
from v1tlearn.nn import attention_weights
from v1tlearn.training import resolve_device

NEURONS = 10  # which rollout does not look at
MANY = 1000  # images, whose maps may take so many bytes at published size
LIMIT = 2 * 2**30
FEW = 8
AGREE = 1e-3


def make(size: str, n_images: int, device: str) -> tuple[v1.V1TRegressor, v1.Trials]:
    """Model with its initial weights, and trials of one mouse."""
    trials = make_trials(np.arange(n_images), 1, NEURONS, "image")
    return make_estimator(v1.V1TRegressor, dict(V1T[size]), trials, device), trials


@torch.no_grad()
def rollout_plainly(estimator: v1.V1TRegressor, trials: v1.Trials) -> np.ndarray:
    """Maps (images, height, width) from all weights of one image after the other."""
    core = estimator.module_.core.eval()
    (mouse,) = trials.mice
    statistics = estimator.statistics_[mouse]
    device = estimator.device_
    images = trials.get("stimuli", mouse).astype(np.float32)
    images = (images - statistics["image_mean"]) / statistics["image_std"]
    raw = trials.get("behaviors", mouse).astype(np.float64)
    behaviors = (raw - statistics["behavior_shift"]) / statistics["behavior_scale"]
    maps = []
    for image, behavior in zip(images, behaviors, strict=True):
        image = torch.as_tensor(image[None], dtype=torch.float32, device=device)
        behavior = torch.as_tensor(behavior[None], dtype=torch.float32, device=device)
        weights = attention_weights(core, image, behavior)[0]  # (blocks, heads, N, N)
        product = torch.eye(weights.shape[-1], device=device)
        for of_block in weights.mean(1):
            step = of_block + torch.eye(len(of_block), device=device)
            product = step / step.sum(-1, keepdim=True) @ product
        row = product[0, 1:].unflatten(0, core.grid)
        scaled = (row - row.min()) / (row.max() - row.min())
        size = core.input_shape[1:]
        resized = torch.nn.functional.interpolate(
            scaled[None, None], size=size, mode="bilinear", align_corners=False
        )
        maps.append(resized[0, 0].cpu().numpy())
    return np.stack(maps)


def prepare(ours: bool, size: str, n_images: int, device: str) -> Callable:
    """Rollout, for the peak of its memory."""
    estimator, trials = make(size, n_images, device)
    if ours:
        return lambda: attention_rollout(estimator, trials)
    return lambda: rollout_plainly(estimator, trials)


def measure(size: str, n_images: int, device: str) -> list[Row]:
    """Peaks of memory with few and more images, and what follows for many."""
    held, few, peak = (
        peak_memory(
            "prepare",
            __file__,
            ours,
            size,
            n,
            device,
            device=device,
            in_fresh_process=size == "published",
        )
        for ours, n in ((False, FEW), (True, FEW), (True, n_images))
    )
    each = max(peak - few, 0) / (n_images - FEW)
    many = peak + each * max(MANY - n_images, 0)
    if size == "published" and n_images <= MANY and many > LIMIT:
        raise AssertionError(f"{MANY} images take {many / 2**20:.0f} MiB beyond the model")
    what = f"V1T, {size} size, peak memory"
    mib, beyond = 2**20, "beyond model and trials"
    known = "measured" if n_images >= MANY else f"from {FEW} and {n_images}"
    return [
        Row(f"{what}, {FEW} images", held / mib, few / mib, "MiB", held / max(few, 1), note=beyond),
        Row(f"{what}, {n_images} images", None, peak / mib, "MiB", note=beyond),
        Row(f"{what}, a further image", None, each / 2**10, "KiB"),
        Row(f"{what}, {max(MANY, n_images)} images", None, many / mib, "MiB", note=known),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--images", type=int, default=72, help=f"whose memory is measured, more than {FEW}"
    )
    args = arguments.parse_args()
    if args.images <= FEW:
        arguments.error(f"--images {args.images}: expected more than {FEW}")
    args.device = str(resolve_device(args.device))
    size, n_images = ("tiny", 16) if args.quick else ("published", args.images)
    estimator, trials = make(size, FEW, args.device)
    ours, plain = attention_rollout(estimator, trials), rollout_plainly(estimator, trials)
    worst = max(float(np.abs(maps.values - plain).max()) for maps in ours.values())
    if not worst <= AGREE:
        raise AssertionError(f"plain and our maps differ by {worst:.2g}")
    theirs, own, ratio = compare(
        lambda: rollout_plainly(estimator, trials),
        lambda: attention_rollout(estimator, trials),
        args.repeats,
        estimator.device_,
    )
    what = f"V1T, {size} size"
    note = f"differ by {worst:.1g}"
    rows = [Row(what, FEW / theirs, FEW / own, "images/s", ratio, note=note)]
    report("rollout", rows + measure(size, n_images, args.device), args)


if __name__ == "__main__":
    main()
