"""Receptive fields from noise: accumulated on the device, or from images that are kept.

The plain way draws all images and keeps them, predicts them in batches of the size of the
training, one mouse after another, with materialised attention, NCHW maps and `grid_sample`, and
multiplies all responses with all images in numpy at the end. Both ways see the same images; the
rates are extrapolated to the 500,000 images of Li et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from _measure import Row, compare, parser, peak_memory, report
from _models import CNN, IMAGE, V1T, make_estimator
from _plain import PlainModel, plain_model
from bench_inference import SMALL_V1T, make_trials

import v1tlearn as v1
from v1tlearn.inspection import receptive_fields
from v1tlearn.nn import MouseBatch
from v1tlearn.training import resolve_device

PUBLISHED_IMAGES = 500_000
MICE = 2
PUBLISHED_MICE, PUBLISHED_NEURONS = 5, 8000
MOST = 2 * 2**30  # bytes beyond the model, of the published size
DRAWN_AT_ONCE = 512
# Name, class, parameters, images that are timed.
MODELS = {
    "V1T, published size": (v1.V1TRegressor, V1T["published"], 8),
    "V1T, small": (v1.V1TRegressor, SMALL_V1T, 512),
    "CNN, published size": (v1.CNNRegressor, CNN["published"], 512),
}
QUICK = {
    "V1T, tiny": (v1.V1TRegressor, V1T["tiny"], 20),
    "CNN, tiny": (v1.CNNRegressor, CNN["tiny"], 20),
}
AGREE = {"float32": 1e-3, "bfloat16": 0.2}  # largest difference, as a share of the largest value


def make(name: str, neurons: int, device: str, mice: int = MICE) -> v1.CNNRegressor:
    """Model of some mice without shifters, with its initial weights but for those of readouts.

    Initial readouts are means over channels, which hardly respond to noise: rounding would be what
    is compared.
    """
    kind, params, _ = (MODELS | QUICK)[name]
    trials = make_trials(np.arange(4), mice, neurons, "image")
    estimator = make_estimator(kind, {**params, "shift": "none"}, trials, device)
    torch.manual_seed(0)
    for readout in estimator.module_.readouts:
        torch.nn.init.normal_(readout.features)
    return estimator


def fields_plainly(
    estimator: v1.CNNRegressor, plain: PlainModel, n_images: int
) -> dict[str, np.ndarray]:
    """Covariances of responses and pixels, (neurons, pixels), from images that are kept."""
    plain.eval()
    device, size, out = estimator.device_, estimator.batch_size, {}
    generator = torch.Generator(device).manual_seed(0)
    counts = [min(DRAWN_AT_ONCE, n_images - i) for i in range(0, n_images, DRAWN_AT_ONCE)]
    drawn = [torch.rand((n, 1, *IMAGE), generator=generator, device=device) for n in counts]
    images = ((torch.cat(drawn) - 0.5) * 12**0.5).cpu().numpy()
    for mouse in estimator.mice_:
        parts = []
        for start in range(0, n_images, size):
            batch = torch.from_numpy(images[start : start + size]).to(device)
            behaviors = batch.new_zeros(len(batch), len(estimator.core_columns_))
            with torch.no_grad():
                rates = plain.predict_mouse(mouse, MouseBatch(batch, behaviors))
            parts.append(rates.cpu().numpy())
        responses = np.concatenate(parts) * estimator.statistics_[mouse]["response_scale"]
        pixels = images.reshape(n_images, -1)
        products = (responses - responses.mean(0)).T @ (pixels - pixels.mean(0))
        out[mouse] = products / n_images
    return out


def check(estimator: v1.CNNRegressor, plain: PlainModel, n_images: int, precision: str) -> float:
    """Largest difference as a share of the largest value."""
    worst = 0.0
    found = receptive_fields(estimator, n_images)
    for mouse, expected in fields_plainly(estimator, plain, n_images).items():
        values = found[mouse].values.reshape(expected.shape)
        worst = max(worst, float(np.abs(values - expected).max() / np.abs(expected).max()))
    if not worst <= AGREE[precision]:
        raise AssertionError(f"plain and our receptive fields differ by {worst:.2g}")
    return worst


def prepare(ours: bool, name: str, n_images: int, neurons: int, device: str) -> Callable:
    """Receptive fields, for the peak of their memory."""
    estimator = make(name, neurons, device)
    plain = plain_model(estimator.module_)
    if ours:
        return lambda: receptive_fields(estimator, n_images)
    return lambda: fields_plainly(estimator, plain, n_images)


def prepare_published(name: str, n_images: int, neurons: int, mice: int, device: str) -> Callable:
    """Receptive fields of the published number of neurons, for the peak of their memory."""
    estimator = make(name, neurons, device, mice)
    return lambda: receptive_fields(estimator, n_images)


def published_memory(models: dict, quick: bool, device: str) -> list[Row]:
    """Peak memory of the published size, which the number of images does not change.

    512 images are worked on at a time: twice as many are a first and a further such part.
    """
    rows = []
    mice, neurons = (2, 10) if quick else (PUBLISHED_MICE, PUBLISHED_NEURONS)
    for name, n_images in ((next(iter(models)), 512), (next(reversed(models)), 1024)):
        call = (name, 20 if quick else n_images, neurons, mice, device)
        peak = peak_memory(
            "prepare_published", __file__, *call, device=device, in_fresh_process=not quick
        )
        if not peak < MOST:
            raise AssertionError(f"{name}: {peak / 2**20:.0f} MiB beyond the model")
        what = f"{name}, {mice} mice x {neurons} neurons, peak memory beyond the model"
        rows.append(
            Row(what, MOST / 2**20, peak / 2**20, "MiB", MOST / max(peak, 1), note="bar: 2 GiB")
        )
    return rows


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--neurons", type=int, default=1000, help="per mouse")
    args = arguments.parse_args()
    args.device = str(resolve_device(args.device))
    if args.quick:
        args.neurons = min(args.neurons, 10)
    rows = []
    models = QUICK if args.quick else MODELS
    for name, (_, _, n_images) in models.items():
        estimator = make(name, args.neurons, args.device)
        plain = plain_model(estimator.module_)
        for precision in AGREE:
            estimator.set_params(precision=precision)
            worst = check(estimator, plain, n_images, precision)
            theirs, ours, ratio = compare(
                lambda e=estimator, p=plain, n=n_images: fields_plainly(e, p, n),
                lambda e=estimator, n=n_images: receptive_fields(e, n),
                args.repeats,
                estimator.device_,
            )
            hours = PUBLISHED_IMAGES / n_images * ours / 3600
            note = f"{MICE} mice; 500,000 images in {hours:.3g} h; differ by {worst:.1g}"
            what = f"{name}, {precision}"
            rows.append(Row(what, n_images / theirs, n_images / ours, "images/s", ratio, note=note))
    name = list(models)[-1]
    for n_images in (20,) if args.quick else (1000, 2000):
        plain, ours = (
            peak_memory(
                "prepare",
                __file__,
                x,
                name,
                n_images,
                args.neurons,
                args.device,
                device=args.device,
                in_fresh_process=not args.quick,
            )
            / 2**20
            for x in (False, True)
        )
        what = f"{name}, peak memory, {n_images} images"
        rows.append(Row(what, plain, ours, "MiB", plain / max(ours, 1e-9)))
    rows += published_memory(models, args.quick, args.device)
    report("receptive_fields", rows, args)


if __name__ == "__main__":
    main()
