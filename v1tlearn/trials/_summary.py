"""The tables that views show of themselves, as text and as HTML; nothing here reads data."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from v1tlearn._opening import printable
from v1tlearn.datasets.schema import TIERS

Column = tuple[str, list[str]]  # its head and one cell per mouse

_SHOWN = 20  # mice
_NO_TIER = "no tier"


def counts(mouse_ids: np.ndarray, tiers: np.ndarray, mice: Sequence[str]) -> list[Column]:
    """Columns with the trials of each mouse, in all and by tier."""
    of_mouse = {mouse: mouse_ids == mouse for mouse in mice}
    present = set(tiers.tolist())
    named = [t for t in TIERS if t in present] + sorted(present - {*TIERS, ""})
    shown = {tier: tiers == tier for tier in named}
    if named and "" in present:
        shown[_NO_TIER] = tiers == ""
    columns = [("mouse", list(mice)), ("trials", [str(m.sum()) for m in of_mouse.values()])]
    for tier, mask in shown.items():
        columns.append((tier, [str((mask & own).sum()) for own in of_mouse.values()]))
    return columns


def frames(counts: Sequence[np.ndarray], rates: Sequence[float | None]) -> list[Column]:
    """Columns with the frames of the shortest and the longest movie, their rate, and seconds."""
    spans = [(int(of.min()), int(of.max())) for of in counts]
    cells = ["–".join(map(str, dict.fromkeys(span))) for span in spans]
    columns = [("frames", cells)]
    if any(rate is not None for rate in rates):
        hertz = ["–" if rate is None else f"{rate:.4g} Hz" for rate in rates]
        totals = [
            "–" if rate is None else f"{of.sum() / rate:.4g} s"
            for of, rate in zip(counts, rates, strict=True)
        ]
        columns += [("frame rate", hertz), ("in all", totals)]
    return columns


def title(what: str, n_trials: int, n_mice: int) -> str:
    """Say how many trials of how many mice there are."""
    trials = "1 trial" if n_trials == 1 else f"{n_trials} trials"
    return f"{what}: {trials} of {'1 mouse' if n_mice == 1 else f'{n_mice} mice'}"


def as_text(head: str, columns: Sequence[Column]) -> str:
    """A table in aligned columns: text to the left, numbers to the right."""
    n_mice = len(columns[0][1])
    if not n_mice:
        return f"<{head}>"
    shown = [(name, cells[:_SHOWN]) for name, cells in columns]
    padded = []
    for name, cells in shown:
        width = max(len(cell) for cell in (name, *cells))
        numbers = all(cell.isdecimal() or cell == "–" for cell in cells)
        padded.append([c.rjust(width) if numbers else c.ljust(width) for c in (name, *cells)])
    lines = ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]
    if n_mice > _SHOWN:
        lines.append(f"... and {n_mice - _SHOWN} mice more")
    return printable("\n".join([f"<{head}>", *lines]))


def as_html(head: str, columns: Sequence[Column]) -> str:
    """The same table for a notebook."""
    heads = "".join(f"<th>{html.escape(name)}</th>" for name, _ in columns)
    rows = []
    for row in zip(*(cells[:_SHOWN] for _, cells in columns), strict=True):
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        rows.append(f"<tr>{cells}</tr>")
    more = len(columns[0][1]) - _SHOWN
    if more > 0:
        rows.append(f'<tr><td colspan="{len(columns)}">… and {more} mice more</td></tr>')
    kind, _, rest = head.partition(":")
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return (
        f'<div style="overflow-x: auto"><strong>{html.escape(kind)}</strong>:{html.escape(rest)}'
        f"{table if columns[0][1] else ''}</div>"
    )
