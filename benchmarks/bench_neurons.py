"""Attention over neurons: a training step and its memory, against one layer per neuron.

The plain tower is the published form: a linear layer for each neuron to embed it, attention weights
of neurons x neurons in memory, a linear layer for each neuron to read it; both towers have the same
weights and give the same maps, which is checked first. Above a thousand neurons the plain form
takes minutes and memory that few machines have, so ours is measured alone, at the batch of the
paper; beside its memory stands what the tokens of all neurons would take, which any other form
holds at least once. The slope of its memory over neurons should be that of a line.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from _measure import Row, compare, parser, peak_memory, report, seconds
from torch import Tensor, nn

from v1tlearn.nn import AttentionTower
from v1tlearn.training.devices import resolve_device

MAP, GRID = (1, 16, 64), (8, 32)
# Neurons, trials and length of a token; the first is compared with the plain form.
COMPARED = {"full": (1000, 32, 512), "quick": (12, 2, 4)}
ALONE = {"full": [(2000, 128, 512), (10_000, 128, 512)], "quick": [(16, 2, 4), (64, 2, 4)]}
STEP_BAR, MEMORY_BAR, TOKENS_BAR = 20.0, 5.0, 2.0


class PlainTower(nn.Module):
    """The published form, with the weights of a tower of ours."""

    def __init__(self, ours: AttentionTower) -> None:
        super().__init__()
        n_neurons, length = ours.slope.shape
        self.embedding = nn.ModuleList(nn.Linear(1, length) for _ in range(n_neurons))
        self.reading = nn.ModuleList(nn.Linear(length, 1) for _ in range(n_neurons))
        with torch.no_grad():
            for i, (embed, read) in enumerate(zip(self.embedding, self.reading, strict=True)):
                embed.weight.copy_(ours.slope[i, :, None])
                embed.bias.copy_(ours.offset[i])
                read.weight.copy_(ours.reader[i][None])
                read.bias.copy_(ours.reader_bias[i])
        self.ours, self.scale = ours, length**-0.5

    def forward(self, responses: Tensor) -> Tensor:
        """Maps (B, 1, H, W) of responses (B, N)."""
        tokens = torch.stack([f(responses[:, i, None]) for i, f in enumerate(self.embedding)], 1)
        q, k, v = (to(tokens) for to in (self.ours.to_query, self.ours.to_key, self.ours.to_value))
        weights = (self.scale * q @ k.transpose(1, 2)).softmax(-1)
        mixed = self.ours.projection(weights @ v)
        read = torch.cat([f(mixed[:, i]) for i, f in enumerate(self.reading)], 1)
        coarse = self.ours.to_map(read).unflatten(1, (1, *GRID))
        return nn.functional.interpolate(coarse, MAP[1:], mode="bilinear", align_corners=False)


def make(which: str, n_neurons: int, n_trials: int, length: int, device: str) -> tuple:
    """A tower of either form, and responses."""
    torch.manual_seed(0)
    tower = AttentionTower(n_neurons, MAP, grid=GRID, embed_dim=length, hidden_units=(2048, 512))
    responses = torch.rand(n_trials, n_neurons)
    tower = tower if which == "ours" else PlainTower(tower)
    return tower.to(device), responses.to(device)


def prepare(which: str, *sizes: int, device: str = "cpu") -> Callable[[], object]:
    """Forward and backward pass of either form."""
    tower, responses = make(which, *sizes, device)

    def step() -> None:
        """Once there and back."""
        tower(responses).square().mean().backward()
        tower.zero_grad()

    return step


def check_same(*sizes: int) -> None:
    """Check that both forms compute the same."""
    (ours, responses), (plain, _) = (make(which, *sizes, "cpu") for which in ("ours", "plain"))
    with torch.no_grad():
        maps, expected = ours(responses), plain(responses)
    error = (maps - expected).abs().max() / expected.abs().max()
    if not error < 1e-4:
        raise RuntimeError(f"the two forms differ by {error:.2g} of the largest value")


def memory(which: str, sizes: tuple[int, ...], device: str, *, quick: bool) -> float:
    """Peak of a step, in MiB."""
    call = ("prepare_on", __file__, which, device, *sizes)
    return peak_memory(*call, device=device, in_fresh_process=not quick) / 2**20


def prepare_on(which: str, device: str, *sizes: int) -> Callable[[], object]:
    """As `prepare`, for `peak_memory`."""
    return prepare(which, *sizes, device=device)


def rows(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Time and memory beside the plain form, and alone at thousands of neurons."""
    kind, on = ("quick" if args.quick else "full"), str(device)
    n_neurons, n_trials, length = sizes = COMPARED[kind]
    check_same(min(n_neurons, 100), 2, length)
    note = f"{n_neurons} neurons, {n_trials} trials, tokens of {length}"
    steps = (prepare(which, *sizes, device=on) for which in ("plain", "ours"))
    plain, ours, ratio = compare(*steps, args.repeats, device)
    bars = (None, None) if args.quick else (STEP_BAR, MEMORY_BAR)
    out = [Row("training step", 1e3 * plain, 1e3 * ours, "ms", ratio, bars[0], note)]
    used = [memory(which, sizes, on, quick=args.quick) for which in ("plain", "ours")]
    ratio = used[0] / used[1] if used[1] > 0 else None
    out.append(Row("memory of a step", *used, "MiB", ratio, bars[1], note))
    alone = []
    for sizes in ALONE[kind]:
        n_neurons, n_trials, length = sizes
        note = f"{n_neurons} neurons, {n_trials} trials, tokens of {length}"
        taken = seconds(prepare("ours", *sizes, device=on), device)
        out.append(Row("training step, alone", None, 1e3 * taken, "ms", note=note))
        alone.append(memory("ours", sizes, on, quick=args.quick))
        tokens = 4 * math.prod(sizes) / 2**20
        ratio = tokens / alone[-1] if alone[-1] > 0 else None
        bar = None if args.quick else TOKENS_BAR
        out.append(
            Row("memory of a step beside tokens", tokens, alone[-1], "MiB", ratio, bar, note)
        )
    more = math.log(ALONE[kind][1][0] / ALONE[kind][0][0])
    slope = math.log(max(alone[1], 1e-3) / max(alone[0], 1e-3)) / more
    bar = None if args.quick else 1.2
    out.append(
        Row(
            "power of memory over neurons", None, slope, "", bar=bar, at_most=True, note="1: a line"
        )
    )
    return out


def main() -> None:
    """Run at the sizes of the paper, or tiny."""
    args = parser(__doc__).parse_args()
    device = resolve_device(args.device)
    report("neurons", rows(args, device), args)


if __name__ == "__main__":
    main()
