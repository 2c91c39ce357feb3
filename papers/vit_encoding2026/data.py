"""
The recording of one mouse, as the page takes it: whole images, of which a core keeps columns.

Also the simulated files of ``--quick``, in the layout of the published ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import v1tlearn as v1
from papers.minimodel2025.data import PUBLISHED_DROP, find_mice
from papers.minimodel2025.data import simulate as simulate_files
from papers.vit_encoding2026 import published
from v1tlearn.datasets.fetch import NAT60K_IMAGES
from v1tlearn.datasets.nat60k import WINDOWS

SCREEN = 264  # columns


def open_mouse(
    folder: Path, mouse: str, flips: str, window: str | tuple[int, int] | None = None
) -> v1.Trials:
    """Open the recording of a mouse, images left in their file and whole by default.

    `flips` is that of `read_nat60k`, or "published".
    """
    found = find_mice(folder)
    if mouse not in found:
        raise ValueError(f"{folder} has no file of mouse {mouse}, only of {', '.join(found)}")
    if flips == "published":
        flips = "drop_published" if mouse == PUBLISHED_DROP else "keep"
    images = folder / NAT60K_IMAGES
    return v1.Trials(
        v1.read_nat60k(found[mouse], images, names=[mouse], window=window, flips=flips)
    )


def columns(mouse: str) -> str | Mapping[str, Any]:
    """Columns that a mouse's neurons look at: the left half, as on the page, for its mouse alone.

    The left half would miss half of what mouse FX20 looks at.
    """
    return "left_half" if mouse == published.MOUSE else {mouse: WINDOWS[mouse]}


def simulate(folder: Path, mouse: str, n_neurons: int, n_trials: int, seed: int) -> Path:
    """Write a simulated mouse, whose neurons lie where those of the real one do."""
    first, last = WINDOWS[mouse]
    return simulate_files(
        folder,
        n_neurons,
        n_trials,
        mice=[mouse],
        image_shape=(66, last - first),
        margins=(first, SCREEN - last),
        seed=seed,
    )
