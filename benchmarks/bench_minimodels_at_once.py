"""Minimodels trained at once, against a loop over single ones.

A training step on one batch: the published size (66 x 130 pixels, 16 filters of 25 x 25, 64
channels with filters of 9 x 9, 100 images), half of its resolution as in the authors' tutorial, and
a small one. The loop takes a step of one plain model after the other: modules of torch in the order
of the paper, the first convolution frozen, its penalty, AdamW and the constraint. Both take the
same steps, which is checked first. A single one is timed and counted as often as there are neurons;
of more neurons at once than `--most`, or than some seconds allow, so many are timed, and the maps,
which all share, count once.

What a neuron has for itself, three passes of the convolutions of its second layer, is the same work
either way. What it would take at the rate that this machine has for large matrices stands in a row
of its own: no step can be faster, whatever it shares.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
import torch.nn.functional as F
from _measure import Row, matrix_rate, median_seconds, parser, report, summary, time_in_turn
from torch import Tensor, nn

from v1tlearn.nn import (
    FirstConvolution,
    MinimodelReadout,
    PooledMaps,
    elu_plus_one,
    hoyer_square,
    poisson_loss,
    pool_maps,
)
from v1tlearn.training import NeuronObjective, NeuronOptions
from v1tlearn.training.devices import numerics, resolve_device
from v1tlearn.training.memory import keep_freed_memory
from v1tlearn.training.neuron_steps import Block, Moments

HOYER, DECAY, SPACE_DECAY, CHANNEL_DECAY, LR = 0.03, 0.1, 1.0, 0.2, 1e-3
NEURONS = (1, 10, 100, 1000)
BAR = 20.0  # of a thousand at once, of the published size


class Size(NamedTuple):
    """Sizes of images, layers and batch."""

    height: int
    width: int
    n_filters: int
    kernel: int
    hidden_channels: int
    hidden_kernel: int
    batch_size: int


SIZES = {
    "published": Size(66, 130, 16, 25, 64, 9, 100),
    "tutorial": Size(33, 65, 16, 13, 64, 5, 100),
    "small": Size(20, 34, 16, 13, 16, 5, 32),
    "tiny": Size(12, 16, 3, 5, 4, 3, 8),
}


class Single(nn.Module):
    """One minimodel as it is written down."""

    def __init__(self, filters: Tensor, size: Size) -> None:
        super().__init__()
        hidden, padding = size.hidden_channels, size.hidden_kernel // 2
        self.filters = filters
        self.first_norm = nn.BatchNorm2d(size.n_filters, momentum=0.9)
        self.mixing = nn.Conv2d(size.n_filters, hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(
            hidden, hidden, size.hidden_kernel, padding=padding, groups=hidden, bias=False
        )
        self.second_norm = nn.BatchNorm2d(hidden, momentum=0.9)
        self.rows = nn.Parameter(0.01 * torch.randn(size.height // 2))
        self.columns = nn.Parameter(0.01 * torch.randn(size.width // 2))
        self.channels = nn.Parameter(0.2 * torch.randn(hidden))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        """Rates (B,) of images (B, 1, h, w)."""
        x = F.conv2d(images, self.filters, padding=self.filters.shape[-1] // 2)
        x = F.max_pool2d(F.relu(self.first_norm(x)), 2)
        x = F.relu(self.second_norm(self.depthwise(self.mixing(x))))
        x = torch.einsum("bcyx,x->bcy", x, self.columns)
        x = torch.einsum("bcy,y->bc", x, self.rows)
        return elu_plus_one(x @ self.channels + self.bias)

    def groups(self) -> list[dict[str, object]]:
        """Parameters with their weight decays."""
        named = dict(self.named_parameters())
        space, channels, bias = ([named.pop(n) for n in names] for names in _PARTS)
        return [
            {"params": list(named.values()), "weight_decay": DECAY},
            {"params": space, "weight_decay": SPACE_DECAY},
            {"params": channels, "weight_decay": CHANNEL_DECAY},
            {"params": bias, "weight_decay": 0.0},
        ]


_PARTS = (("rows", "columns"), ("channels",), ("bias",))
_OURS = {
    "first_gain": "first_norm.weight",
    "first_offset": "first_norm.bias",
    "mixing": "mixing.weight",
    "filters": "depthwise.weight",
    "second_gain": "second_norm.weight",
    "second_offset": "second_norm.bias",
    "reading.rows": "rows",
    "reading.columns": "columns",
    "reading.channels": "channels",
    "reading.bias": "bias",
}


class Example:
    """One batch, the first convolution, and both ways to take a step on it."""

    def __init__(self, size: Size, device: torch.device) -> None:
        torch.manual_seed(0)
        shape = (1, size.height, size.width)
        self.size, self.device = size, device
        self.images = torch.randn(size.batch_size, *shape, device=device)
        self.core = FirstConvolution(shape, size.n_filters, size.kernel).to(device)
        self.core.freeze()
        self.objective = NeuronObjective(
            lambda *a, **k: poisson_loss(*a, eps=1e-12, **k), {"score": lambda *a: a[0]}
        )

    @torch.no_grad()
    def maps(self) -> PooledMaps:
        """Compute what all neurons share."""
        return pool_maps(self.core(self.images), 2)

    def responses(self, n_neurons: int) -> Tensor:
        """Random responses (B, n)."""
        generator = torch.Generator().manual_seed(1)
        return torch.rand(len(self.images), n_neurons, generator=generator).to(self.device)

    def single(self) -> tuple[Single, object]:
        """A plain model, and its step."""
        model = Single(self.core.filters.detach(), self.size).to(self.device)
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(model.groups(), lr=LR, fused=fused)
        target = self.responses(1)[:, 0]

        def step() -> None:
            """One step, the constraint included."""
            optimizer.zero_grad()
            rates = model(self.images)
            loss = (rates - target * (rates + 1e-12).log()).sum()
            (loss + HOYER * hoyer_square(model.channels)).backward()
            optimizer.step()
            with torch.no_grad():
                model.rows.clamp_(min=0)
                model.columns.clamp_(min=0)

        return model, step

    def at_once(self, n_neurons: int, together: int) -> tuple[list[Block], object]:
        """Blocks of neurons, and their step, the maps included."""
        options = NeuronOptions(LR, weight_decay=DECAY)
        readout = MinimodelReadout(
            self.core.output_shape,
            n_neurons,
            hidden_channels=self.size.hidden_channels,
            hidden_kernel=self.size.hidden_kernel,
            batch_norm_momentum=0.9,
            factorized={
                "channel_init": 0.2,
                "channel_hoyer": HOYER,
                "space_weight_decay": SPACE_DECAY,
                "channel_weight_decay": CHANNEL_DECAY,
            },
        ).to(self.device)
        moments = Moments.of(readout, LR)
        neurons = torch.arange(n_neurons).split(together)
        blocks = [Block(readout, moments, some, options) for some in neurons]
        target = self.responses(n_neurons)

        def step() -> None:
            """One step of all."""
            pooled = self.maps()
            for block in blocks:
                block.step(pooled, target, None, elu_plus_one, self.objective)

        return blocks, step


def check_same(example: Example) -> None:
    """Check that both take the same steps from the same weights."""
    model, step = example.single()
    (block,), steps = example.at_once(1, 1)
    with torch.no_grad():
        for ours, theirs in _OURS.items():
            weight = block.readout.get_parameter(ours)
            weight.copy_(model.get_parameter(theirs).reshape(weight.shape))
    for _ in range(3):
        step()
        steps()
    for ours, theirs in _OURS.items():
        one, other = block.readout.get_parameter(ours), model.get_parameter(theirs)
        error = (one - other.reshape(one.shape)).abs().max() / other.abs().max()
        if error > 1e-3:
            raise AssertionError(f"{ours} differs after three steps by {float(error):.2g}.")


def rows_of(name: str, args: argparse.Namespace, device: torch.device) -> tuple[list[Row], dict]:
    """The curve of one size: seconds of a step of so many neurons."""
    size = SIZES[name]
    example = Example(size, device)
    check_same(example)
    values = size.hidden_channels * (size.height // 2) * (size.width // 2) * size.batch_size
    together = max(1, (2**29 if device.type == "cuda" else 2**23) // values)
    most = min(args.most, 10 if args.quick else max(10, 2 * 10**8 // values))
    _, single = example.single()
    rows, curve = [], []
    note = (
        f"{size.height} x {size.width}, {size.n_filters}-{size.hidden_channels}, batch "
        f"{size.batch_size}"
    )
    for n in NEURONS:
        timed = min(n, most)
        _, step = example.at_once(timed, together)
        pairs = time_in_turn(single, step, args.repeats, device)
        if timed < n:  # the maps once, the rest so many times
            maps = median_seconds(example.maps, args.repeats, device)
            pairs = [(one, maps + (ours - maps) * n / timed) for one, ours in pairs]
        plain, ours, ratio = summary([(n * one, ours) for one, ours in pairs])
        curve.append((n, plain, ours, ratio))
        bar = BAR if n == NEURONS[-1] and name == "published" else None
        counted = f", {timed} timed" if timed < n else ""
        what = f"step of {n} minimodels, {name}"
        rows.append(Row(what, plain, ours, "s", ratio, bar, note + counted))
    products = 3 * values * (size.n_filters + size.hidden_kernel**2)
    least = (
        NEURONS[-1] * 2 * products / matrix_rate(torch.float32, device, 256 if args.quick else None)
    )
    what = f"products of {NEURONS[-1]} minimodels at the rate of large matrices, {name}"
    rows.append(Row(what, plain, least, "s", plain / least, None, "what a ratio can be at most"))
    return rows, {"size": name, "neurons, plain, ours, ratio": curve}


def main() -> None:
    """Print the curve over the number of neurons, of every size."""
    own = parser(__doc__)
    own.add_argument("--most", type=int, default=1000, help="neurons that are timed at once")
    own.add_argument("--sizes", nargs="+", choices=[*SIZES], default=None)
    args = own.parse_args()
    device = resolve_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    sizes = args.sizes or (["tiny"] if args.quick else [n for n in SIZES if n != "tiny"])
    with numerics("float32", device):
        found = [rows_of(name, args, device) for name in sizes]
    rows = [row for some, _ in found for row in some]
    report("minimodels_at_once", rows, args, numbers=[curve for _, curve in found])


if __name__ == "__main__":
    main()
