"""A training step of Vi-ST: time and peak memory, against the network as torch's modules make it.

One step is a forward and a backward pass over one window in training mode, dropout included. The
plain network has the same weights: convolutions of movies by torch, with zeros put around, and
normalisation, activation, dropout and means one after the other. Outputs and gradients without
dropout are compared, at a small size, before anything is timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from _measure import Row, compare, parser, peak_memory, report
from torch import Tensor

from v1tlearn.nn import DilatedLayer, MultiscaleBlock, ViST

BAR, MEMORY_BAR = 3.0, 2.0
SMALL = {"frames": 20, "features": 6, "neurons": 5, "grid": 10, "channels": 7, "layers": 3}


def plain_layer(layer: DilatedLayer, x: Tensor) -> Tensor:
    convolution = layer.convolution
    (before, after), dilation = convolution.context_frames, convolution.dilation
    padded = F.pad(x, (1, 1, 1, 1, before, after))
    y = F.conv3d(padded, convolution.weight, convolution.bias, 1, 0, dilation, x.shape[1])
    norm = layer.norm
    y = F.batch_norm(
        y, norm.running_mean, norm.running_var, norm.weight, norm.bias, layer.training,
        norm.momentum, norm.eps,
    )  # fmt: skip
    y = F.conv3d(F.relu(y), layer.mix.weight, layer.mix.bias)
    return x + F.dropout(y, layer.dropout.p, layer.training)


def plain_block(block: MultiscaleBlock, x: Tensor) -> Tensor:
    total = 0
    for branch in block.branches:
        before, after = branch.context_frames
        padded = F.pad(x, (0, 0, 0, 0, before, after))
        y = F.conv3d(padded, branch.weight, branch.bias, groups=branch.groups)
        total = total + F.dropout3d(F.leaky_relu(y, 0.1), block.dropout, block.training)
    skip = F.avg_pool3d(F.conv3d(x, block.skip.weight, block.skip.bias), (1, 3, 3), 1)
    return F.conv3d(total, block.mix.weight, block.mix.bias) + skip


def plain_network(model: ViST, features: Tensor, fields: Tensor) -> Tensor:
    grid, modulation = (model.grid, model.grid), model.modulation
    x = features.permute(0, 3, 1, 2).unflatten(3, grid)  # (B, D, T, g, g)
    x = F.conv3d(x, model.read_in.weight, model.read_in.bias)
    for layer in model.layers:
        x = plain_layer(layer, x)
    x = F.conv3d(x, model.read_out.weight, model.read_out.bias)
    condition = F.silu(fields.sum(0).expand(x.shape))
    moved = F.conv3d(condition, modulation.condition.weight, modulation.condition.bias)
    shift, scale, gate = moved.chunk(3, 1)
    mixed = F.silu(x * (1 + scale) + shift)
    x = x + gate * F.conv3d(mixed, modulation.mix.weight, modulation.mix.bias)
    for block in model.blocks:
        x = plain_block(block, x)
    return model.to_responses(x.transpose(1, 2).flatten(2))


def prepare(kind: str, sizes: dict[str, int], dropout: float = 0.25) -> Callable[[], list[Tensor]]:
    """Make model and window; what is returned gives outputs and gradients of one step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grid = sizes["grid"]
    model = ViST(
        sizes["features"], sizes["neurons"], grid=grid, n_layers=sizes["layers"],
        channels=sizes["channels"], dropout=dropout,
    )  # fmt: skip
    torch.nn.init.normal_(model.modulation.condition.weight, 0, 0.1)
    features = torch.randn(1, sizes["frames"], grid**2, sizes["features"])
    fields = torch.rand(sizes["neurons"], grid, grid)

    network = partial(plain_network, model) if kind == "plain" else model

    def step() -> list[Tensor]:
        out = network(features, fields)
        return [out.detach(), *torch.autograd.grad(out.square().mean(), list(model.parameters()))]

    return step


def check() -> None:
    """Compare both networks at a small size."""
    expected, found = (prepare(kind, SMALL, 0.0)() for kind in ("plain", "ours"))
    largest = max(float(e.abs().max()) for e in expected[1:])
    for e, f in zip(expected, found, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-3, atol=1e-4 * largest)


def measure(args: argparse.Namespace) -> list[Row]:
    check()
    names = ("frames", "features", "neurons", "grid", "channels", "layers")
    sizes = {name: getattr(args, name) for name in names}
    note = f"one window of {args.frames} frames, {args.neurons} neurons, one core"
    plain, ours = (
        peak_memory("prepare", __file__, kind, sizes, in_fresh_process=not args.quick)
        for kind in ("plain", "ours")
    )
    bars = (None, None) if args.quick else (BAR, MEMORY_BAR)
    steps = (prepare(kind, sizes) for kind in ("plain", "ours"))
    times = compare(*steps, args.repeats, clock=time.process_time)  # of one thread
    used = plain / 2**20, ours / 2**20, "MiB", plain / max(ours, 1)
    return [
        Row("Vi-ST, training step", *times[:2], "s", times[2], bars[0], note),
        Row("Vi-ST, peak memory", *used, bars[1], note),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--frames", type=int, default=128)
    arguments.add_argument("--features", type=int, default=1024)
    arguments.add_argument("--neurons", type=int, default=90)
    arguments.add_argument("--grid", type=int, default=16)
    arguments.add_argument("--channels", type=int, default=256)
    arguments.add_argument("--layers", type=int, default=6)
    arguments.set_defaults(repeats=3)
    args = arguments.parse_args()
    args.device = "cpu"  # elsewhere both are the same
    if args.quick:
        vars(args).update(SMALL, repeats=1)
    report("vist", measure(args), args)


if __name__ == "__main__":
    main()
