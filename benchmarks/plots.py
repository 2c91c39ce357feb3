"""Figures and one table from everything that the benchmarks wrote.

``python benchmarks/plots.py`` draws ``ratios.png``, ``scaling.png`` and ``matrix_rate.png`` beside
the JSON files; with ``--table`` it prints their rows instead, the tables of the documentation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from _measure import Row, number
from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#2a6f97", "#c8553d", "0.55"
MARKERS = {"V1T": "o", "ViT": "v", "CNN": "s", "LN": "D", "full model": "^"}
COLORS = {"V1T": BLUE, "ViT": "#79b4d4", "CNN": ORANGE, "LN": "#e5a58f", "full model": GREY}
MODELS = ("V1T", "ViT", "CNN", "LN")
UNITS = {"s": "seconds", "MiB": "MiB"}


def read(directory: Path) -> list[dict]:
    """What the scripts wrote, in the order of their names.

    Raises
    ------
    ValueError
        If there is nothing.
    """
    files = sorted(directory.glob("*.json"))
    if not files:
        raise ValueError(f"{directory} holds no results; run `make bench` first.")
    return [json.loads(file.read_text()) for file in files]


def rows_of(result: dict) -> list[Row]:
    """Rows of one script; what stands there twice gets the start of its note."""
    rows = [
        Row(**{k: v for k, v in row.items() if k in Row.__dataclass_fields__})
        for row in result["rows"]
    ]
    counts = Counter(row.what for row in rows)
    for row in rows:
        if counts[row.what] > 1 and row.note:
            row.what += f" ({row.note.split(',')[0]})"
    return rows


def table(results: list[dict]) -> str:
    """All rows as tables in reStructuredText, one per script with what it ran on.

    Raises
    ------
    ValueError
        If a result is of a quick run, whose figures mean nothing.
    """
    if quick := [r["name"] for r in results if r["arguments"].get("quick")]:
        raise ValueError(f"{quick} come from --quick runs; run these scripts at their full size.")
    out = []
    for result in results:
        out += [
            f".. list-table:: ``{result['name']}``: {_place(result['machine'])}",
            "   :class: figures",
            "   :header-rows: 1",
            "",
            *_line(["", "plain", "ours", "unit", "ratio", "bar"]),
            *(line for row in rows_of(result) for line in _line(_cells(row))),
            "",
        ]
    return "\n".join(out)


def _place(machine: dict) -> str:
    parts = [machine["processor"]]
    if machine["device"] == "cpu":
        extra = f" with {', '.join(machine['bfloat16'])}" if machine["bfloat16"] else ""
        held = f", held to {machine['held_to']}" if machine.get("held_to") else ""
        parts.append(f"vectors of {machine['vector_bits']} bits{extra}{held}")
    else:
        parts.append(machine["device"])
    n = machine["threads"]
    return ", ".join([*parts, f"{n} thread{'s' * (n != 1)}", f"torch {machine['torch']}"])


def _cells(row: Row) -> list[str]:
    bar = "" if row.bar is None else f"{'≤' if row.at_most else '≥'} {number(row.bar)}"
    if row.passed() is False:
        bar = f"**{bar}, missed**"
    return [row.what, number(row.plain), number(row.ours), row.unit, number(row.ratio), bar]


def _line(cells: list[str]) -> list[str]:
    marks = ["   * -", *["     -"] * (len(cells) - 1)]
    return [f"{mark} {cell}".rstrip() for mark, cell in zip(marks, cells, strict=True)]


def _label(name: str, what: str) -> str:
    """A row's name outside its table: with its script's topic, but no model beside another."""
    topic = {"cnn": "CNN", "v1t": "V1T", "gpu": "GPU"}.get(name, name.replace("_", " "))
    of_model = topic in MODELS and any(model in what for model in MODELS)
    return what if of_model or topic.lower() in what.lower() else f"{topic}: {what}"


def _is_share(row: Row) -> bool:
    return "share" in row.what and "matrix" in row.what


def _clean(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def draw_ratios(results: list[dict], path: Path) -> bool:
    """Draw how many times better than the plain implementation; False if there is nothing.

    Ratios that should stay below their bar, such as an overhead, are left to the table.
    """
    rows = [(_label(r["name"], row.what), row) for r in results for row in rows_of(r)]
    found = [(label, row) for label, row in rows if row.ratio is not None and not row.at_most]
    if not found:
        return False
    height = 0.9 + 0.32 * len(found)
    fig, axis = plt.subplots(figsize=(9, height), layout="constrained")
    y = np.arange(len(found))[::-1]
    values = np.array([row.ratio for _, row in found])
    axis.barh(y, values - 1, left=1, height=0.62, color=BLUE)
    largest = max(values.max(), *(row.bar or 1 for _, row in found))
    for at, (_, row) in zip(y, found, strict=True):
        if row.bar is not None:
            axis.plot([row.bar] * 2, [at - 0.42, at + 0.42], color=ORANGE, lw=2.5)
        end = max(row.ratio, 1)
        if row.bar is not None and 1 < row.bar / end < 1.35:
            end = row.bar  # the number stands right of the tick
        axis.annotate(
            number(row.ratio), (end, at), (5, 0), textcoords="offset points", va="center", size=9
        )
    axis.axvline(1, color="k", lw=0.8)
    axis.set_xscale("log", base=2)
    axis.set_xlim(min(values.min() * 0.85, 0.85), largest * 1.5)
    ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if t <= largest * 1.5]
    ticks = [t for t in ticks if t >= axis.get_xlim()[0]]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.set_yticks(y, [label for label, _ in found], size=9)
    axis.set_ylim(-0.7, len(found) - 0.3)
    axis.tick_params(axis="y", length=0)
    if any(row.bar is not None for _, row in found):
        axis.plot([], [], color=ORANGE, lw=2.5, label="bar to reach")
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
        axis.legend(frameon=False, handlelength=0.8, **above)
    axis.set_xlabel("times better than the plain implementation (log scale)")
    _clean(axis)
    fig.savefig(path, dpi=150)
    plt.close(fig)
    return True


def draw_scaling(curves: list[dict], path: Path) -> bool:
    """Draw cost against size, one panel per axis and cost; False if there is nothing."""
    if not curves:
        return False
    axes = list(dict.fromkeys(c["axis"] for c in curves))
    costs = list(dict.fromkeys(c["cost"] for c in curves))
    fig, panels = plt.subplots(
        len(costs),
        len(axes),
        figsize=(2.9 * len(axes), 2.9 * len(costs)),
        layout="constrained",
        squeeze=False,
    )
    for row, cost in zip(panels, costs, strict=True):
        for panel, axis in zip(row, axes, strict=True):
            shown = [c for c in curves if (c["axis"], c["cost"]) == (axis, cost)]
            panel.set_visible(bool(shown))
            for c in shown:
                color = COLORS.get(c["model"], GREY)
                sizes = np.geomspace(c["sizes"][0], c["sizes"][-1], 50)
                panel.plot(sizes, c["factor"] * sizes ** c["exponent"], color=color, lw=1)
                panel.plot(
                    c["sizes"],
                    c["values"],
                    MARKERS.get(c["model"], "o"),
                    color=color,
                    ms=5,
                    label=f"{c['model']}: {c['exponent']:.2f}, at the end {c['upper_slope']:.2f}",
                )
            if not shown:
                continue
            panel.set(xscale="log", yscale="log", xlabel=axis)
            panel.set_xticks(shown[0]["sizes"], [f"{s:,}" for s in shown[0]["sizes"]], size=8)
            panel.minorticks_off()
            low = min(min(c["values"]) for c in shown)
            high = max(max(c["values"]) for c in shown)
            top = high * 3 * len(shown)  # room for the legend
            panel.set_ylim(low / 1.6, top)
            ticks = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
            ticks = [t for t in ticks if low / 1.6 <= t <= top]
            ticks = ticks[:: max(1, len(ticks) // 5)]
            panel.set_yticks(ticks, [f"{t:g}" for t in ticks], size=8)
            panel.legend(frameon=False, fontsize=8, loc="upper left", borderaxespad=0.1)
            if panel is row[0]:
                panel.set_ylabel(f"{cost} ({UNITS.get(shown[0]['unit'], shown[0]['unit'])})")
            _clean(panel)
    fig.savefig(path, dpi=150)
    plt.close(fig)
    return True


def draw_shares(results: list[dict], path: Path) -> bool:
    """Draw the FLOP/s of training as shares of the matrix rate; False if there is nothing."""
    rows = [(_label(r["name"], row.what), row) for r in results for row in rows_of(r)]
    found = [(label, row) for label, row in rows if _is_share(row)]
    if not found:
        return False
    fig, axis = plt.subplots(figsize=(8, 0.9 + 0.4 * len(found)), layout="constrained")
    y = np.arange(len(found))[::-1]
    shares = [100 * row.ours for _, row in found]
    axis.barh(y, shares, height=0.6, color=BLUE)
    for at, share in zip(y, shares, strict=True):
        axis.annotate(
            f"{number(share)} %", (share, at), (5, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks(y, [label for label, _ in found], size=9)
    axis.set_ylim(-0.6, len(found) - 0.4)
    axis.set_xlim(0, max(100, *(1.1 * share for share in shares)))
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("% of the rate measured for large matrix products")
    _clean(axis)
    fig.savefig(path, dpi=150)
    plt.close(fig)
    return True


def main(arguments: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    made.add_argument("--out", type=Path, default=Path("bench_output"), help="where the JSON is")
    made.add_argument("--table", action="store_true", help="print a table, draw nothing")
    args = made.parse_args(arguments)
    try:
        results = read(args.out)
        if args.table:
            print(table(results))
            return
    except ValueError as error:
        sys.exit(str(error))
    curves = [c for r in results for c in r.get("curves", [])]
    drawn = {
        "ratios.png": draw_ratios(results, args.out / "ratios.png"),
        "scaling.png": draw_scaling(curves, args.out / "scaling.png"),
        "matrix_rate.png": draw_shares(results, args.out / "matrix_rate.png"),
    }
    for name, done in drawn.items():
        print(f"{args.out / name}" if done else f"{name}: nothing to draw in {args.out}")


if __name__ == "__main__":
    main()
