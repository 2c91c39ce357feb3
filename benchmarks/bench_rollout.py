"""Attention rollout: the weights of one block at a time, or of all blocks.

The plain way predicts the maps image by image from the weights of all blocks, heads and tokens, and
multiplies whole matrices, as the published code does. The peak of memory is measured beyond the
model and the trials, for as many images as `--images` says; time on some of them, in turn.
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
LIMIT = 2 * 2**30  # bytes that maps of 1,000 images at published size may take
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


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=1000, help="whose memory is measured")
    args = arguments.parse_args()
    args.device = str(resolve_device(args.device))
    size, n_timed = ("tiny", 8) if args.quick else ("published", 8)
    n_images = 16 if args.quick else args.images
    estimator, trials = make(size, n_timed, args.device)
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
    rows = [Row(what, n_timed / theirs, n_timed / own, "images/s", ratio, note=note)]
    few = min(n_images, 8)  # the plain way keeps the maps only, too
    held = peak_memory("prepare", __file__, False, size, few, args.device, device=args.device)
    peak = peak_memory("prepare", __file__, True, size, n_images, args.device, device=args.device)
    if size == "published" and n_images <= 1000 and peak > LIMIT:
        raise AssertionError(f"{n_images} images took {peak / 2**20:.0f} MiB beyond the model")
    name = f"{what}, peak memory, {n_images} images"
    ratio = held / max(peak, 1)
    plainly = f"beyond model and trials; plainly of {few} images"
    rows.append(Row(name, held / 2**20, peak / 2**20, "MiB", ratio, note=plainly))
    report("rollout", rows, args)


if __name__ == "__main__":
    main()
