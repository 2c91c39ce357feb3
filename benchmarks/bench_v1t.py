"""Training and prediction of V1T, against materialised attention with one mouse after another.

The training step is the whole of it: forward, loss, penalties, backward, optimiser, with all the
dropout of the published settings, and ours as the training loop takes it: the images of a batch in
the parts that it chooses. The share of the matrix rate counts 103 GFLOP per image at the
published size; what the backward pass computes again is not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import torch
from _measure import Row, compare, matrix_rate, parser, peak_memory, report
from _plain import (
    Targets,
    check_same,
    our_optimizer,
    plain_model,
    plain_optimizer,
    plain_step,
    training_flop,
)

from v1tlearn.nn import (
    EncodingModel,
    GaussianReadout,
    ImageCropper,
    MouseBatch,
    Shifter,
    ViTCore,
    poisson_loss,
)
from v1tlearn.training import MouseData, TrainingSettings
from v1tlearn.training.devices import autocast
from v1tlearn.training.loop import backward
from v1tlearn.training.memory import plan

BEHAVIORS = 5
MICE = ("mouse 1", "mouse 2")
# Height, width, patch size and stride, blocks, heads, length of tokens, hidden units, neurons,
# images per mouse and step.
SIZES = {
    "published": (36, 64, 8, 1, 4, 4, 155, 488, 5000, 4),
    "small": (36, 64, 8, 4, 2, 4, 32, 64, 500, 16),
    "tiny": (16, 24, 8, 4, 1, 2, 8, 16, 20, 2),
}
# Speed of training, memory, speed of prediction, that the published size should reach.
BARS = {"float32": (2.5, 4, 2), "bfloat16": (6, None, 3)}


def make_model(size: str) -> EncodingModel:
    height, width, patch, stride, blocks, heads, length, hidden, neurons, _ = SIZES[size]
    torch.manual_seed(0)
    core = ViTCore(
        (1, height, width),
        patch_size=patch,
        patch_stride=stride,
        n_blocks=blocks,
        n_heads=heads,
        embed_dim=length,
        mlp_dim=hidden,
        behavior_mode="b_mlp",
        n_behaviors=BEHAVIORS,
    )
    return EncodingModel(
        core,
        {
            mouse: GaussianReadout(core.output_shape, neurons, positions=torch.rand(neurons, 2))
            for mouse in MICE
        },
        cropper=ImageCropper((height, width)),
        shifters={mouse: Shifter() for mouse in MICE},
    )


def make_batches(size: str) -> tuple[dict[str, MouseBatch], Targets]:
    height, width, *_, neurons, n = SIZES[size]
    torch.manual_seed(1)
    batches = {
        mouse: MouseBatch(
            torch.randn(n, 1, height, width), torch.randn(n, BEHAVIORS), torch.randn(n, 2)
        )
        for mouse in MICE
    }
    return batches, {mouse: (-torch.rand(n, neurons).log(), None) for mouse in MICE}


def to_device(batches: Mapping[str, MouseBatch], device: torch.device) -> dict[str, MouseBatch]:
    return {
        mouse: MouseBatch(*(None if x is None else x.to(device) for x in batch))
        for mouse, batch in batches.items()
    }


def plain_training(size: str, precision: str, device: str) -> Callable[[], object]:
    """Prepare a plain training step."""
    model = plain_model(make_model(size)).to(device).train()
    batches, targets = make_batches(size)
    batches = to_device(batches, torch.device(device))
    targets = {mouse: (values.to(device), None) for mouse, (values, _) in targets.items()}
    optimizer = plain_optimizer(model)
    return lambda: plain_step(model, batches, targets, optimizer, precision)


def our_training(size: str, precision: str, device: str) -> Callable[[], object]:
    """Prepare a training step of the package."""
    model = make_model(size).to(device).train()
    batches, targets = make_batches(size)
    batches = to_device(batches, torch.device(device))
    data = {
        mouse: MouseData(
            batch.images,
            behaviors=batch.behaviors,
            pupil=batch.pupil,
            responses=targets[mouse][0].to(device),
            scale_trials=len(batch.images),
        )
        for mouse, batch in batches.items()
    }
    n = SIZES[size][-1]
    settings = plan(model, data, TrainingSettings(n, 1, precision=precision))
    responses = {mouse: trials.targets(slice(None)) for mouse, trials in data.items()}
    optimizer = our_optimizer(model)

    def step() -> None:
        """Take one step as the loop does."""
        backward(batches, responses, data, model, settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def prediction(size: str, precision: str, device: str, plain: bool) -> Callable[[], object]:
    """Prepare the prediction of a batch."""
    model = make_model(size).to(device).eval()
    batches = to_device(make_batches(size)[0], torch.device(device))
    module = plain_model(model).eval() if plain else model

    @torch.inference_mode()
    def predict() -> object:
        """Predict the responses of all mice."""
        with autocast(precision, torch.device(device)):
            return module(batches)

    return predict


def check(size: str, device: str) -> None:
    """Raise unless both kinds give the same predictions and, without dropout, gradients."""
    model = make_model(size).to(device)
    batches, targets = make_batches(size)
    batches = to_device(batches, torch.device(device))
    plain = plain_model(model)
    check_same(model, plain, batches)
    gradients = []
    for module in (model.eval(), plain.eval()):
        module.zero_grad()
        rates = module(batches)
        sum(poisson_loss(rates[m], targets[m][0].to(device)) for m in MICE).backward()
        core = module.core if module is model else module.core.core
        gradients.append([p.grad.clone() for p in core.parameters()])
    for (name, _), ours, theirs in zip(model.core.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item(), msg=name
        )


def measure(size: str, device: str, args: argparse.Namespace) -> list[Row]:
    check(size, device)
    n_images = len(MICE) * SIZES[size][-1]
    flop = training_flop(make_model(size).core)
    rows = []
    for precision, bars in BARS.items():
        training_bar, memory_bar, prediction_bar = bars if size == "published" else (None,) * 3
        note = f"{size} size, {precision} against plain float32"
        plain, ours, ratio = compare(
            plain_training(size, "float32", device),
            our_training(size, precision, device),
            args.repeats,
            torch.device(device),
        )
        rows.append(
            Row(
                f"V1T training {precision}",
                plain / n_images,
                ours / n_images,
                "s/image",
                ratio,
                training_bar,
                note,
            )
        )
        share = flop * n_images / ours / matrix_rate(getattr(torch, precision), device)
        rows.append(
            Row(
                f"V1T training {precision}, share of the matrix rate",
                None,
                share,
                "",
                note=f"{size} size, {flop / 1e9:.1f} GFLOP per image",
            )
        )
        memory = [
            peak_memory(name, __file__, size, kind, device, device=device)
            for name, kind in (("plain_training", "float32"), ("our_training", precision))
        ]
        rows.append(
            Row(
                f"V1T training {precision}, peak memory",
                memory[0] / 2**20,
                memory[1] / 2**20,
                "MB",
                memory[0] / memory[1],
                memory_bar,
                note,
            )
        )
        plain, ours, ratio = compare(
            prediction(size, "float32", device, True),
            prediction(size, precision, device, False),
            args.repeats,
            torch.device(device),
        )
        rows.append(
            Row(
                f"V1T prediction {precision}",
                plain / n_images,
                ours / n_images,
                "s/image",
                ratio,
                prediction_bar,
                note,
            )
        )
    return rows


def main() -> None:
    args = parser(__doc__).parse_args()
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = ("tiny",) if args.quick else ("published", "small")
    report("v1t", [row for size in sizes for row in measure(size, device, args)], args)


if __name__ == "__main__":
    main()
