"""Retrieval in a large gallery: time and memory, against the matrix of all similarities.

The plain form computes the cosines of all queries with all images, sorts them, and keeps the
first; ours lets the gallery pass in parts, and adds products in twice the precision. Both are given
the same maps, and must find equal cosines, which is checked first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from _measure import Row, compare, parser, peak_memory, report
from torch import Tensor

from v1tlearn.nn import closest, cosine_similarity
from v1tlearn.training.devices import resolve_device

K = 5
# Queries, images, and features of their maps.
SIZES = {"full": (1_000, 100_000, 256), "quick": (20, 300, 8)}
MEMORY_BAR, TIME_BAR = 10.0, 0.8


def make(n_queries: int, n_images: int, n_features: int, device: str) -> tuple[Tensor, Tensor]:
    """Maps of queries and of a gallery."""
    generator = torch.Generator().manual_seed(0)
    maps = (torch.randn(n, n_features, generator=generator) for n in (n_queries, n_images))
    queries, gallery = (m.to(device) for m in maps)
    return queries, gallery


def prepare(which: str, device: str, *sizes: int) -> Callable[[], Tensor]:
    """A search of either form, which gives the largest cosines."""
    queries, gallery = make(*sizes, device)

    def plain() -> Tensor:
        cosines = cosine_similarity(queries, gallery)
        return cosines.sort(dim=1, descending=True, stable=True)[0][:, :K]

    def ours() -> Tensor:
        return closest(queries, gallery.split(2048), K)[1]

    return plain if which == "plain" else ours


def rows(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Time and memory of both forms."""
    kind, on = ("quick" if args.quick else "full"), str(device)
    sizes = SIZES[kind]
    plain, ours = (prepare(which, on, *sizes) for which in ("plain", "ours"))
    torch.testing.assert_close(plain(), ours(), rtol=0, atol=1e-5)
    note = "{} queries, {} images, maps of {} values".format(*sizes)
    taken = compare(plain, ours, args.repeats, device)
    bars = (None, None) if args.quick else (TIME_BAR, MEMORY_BAR)
    first = Row("retrieval", 1e3 * taken[0], 1e3 * taken[1], "ms", taken[2], bars[0], note)
    del plain, ours
    used = [
        peak_memory(
            "prepare", __file__, which, on, *sizes, device=on, in_fresh_process=not args.quick
        )
        / 2**20
        for which in ("plain", "ours")
    ]
    ratio = used[0] / used[1] if used[1] > 0 else None
    return [first, Row("memory of a retrieval", *used, "MiB", ratio, bars[1], note)]


def main() -> None:
    """Run at the size of a large collection, or tiny."""
    args = parser(__doc__).parse_args()
    device = resolve_device(args.device)
    report("retrieval", rows(args, device), args)


if __name__ == "__main__":
    main()
