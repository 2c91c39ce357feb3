"""
The table of the baselines, and the published numbers that are known.

Results are kept as one JSON file per finished job; ``results.csv``, ``tables.md`` and
``figure.png`` are made from those anew whenever one is added.
"""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from papers.sensorium2023.data import SPLITS
from papers.v1t2023.tables import read_jobs, write_beside

METRICS = {"single-trial": "single-trial correlation", "average": "correlation to average"}
COLUMNS = ["model", "seed", "split", "mouse", *METRICS, "neurons", "trials", "epochs", "seconds"]
# The winner of the competition, an ensemble with distillation: single-trial correlation.
WINNER = "DwiseNeuro, the winner of the competition (lRomul)"
PUBLISHED = {"final main": 0.2913, "final OOD": 0.2215}
_SELECTION = {
    "train": "a tenth of the training movies chooses the epoch, and no movie that is scored",
    "validation": "the validation tier, the split oracle in the files, chooses the epoch, as "
    "published: its own scores are too good",
}


def results(folder: Path) -> pd.DataFrame:
    """Lay finished jobs out as a tidy frame, a row per fit, split and mouse."""
    rows = [
        {**score, **{name: job[name] for name in ("model", "seed", "epochs", "seconds")}}
        for job in read_jobs(folder)
        if "failed" not in job
        for score in job["scores"]
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def markdown(frame: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Render a table per metric, a row per model, a column per split and one per mouse of it."""
    parts = ["# Baselines of Sensorium 2023", notes(settings)]
    found = [split for split in dict.fromkeys(SPLITS.values()) if split in set(frame["split"])]
    for metric, title in METRICS.items():
        columns = [(s, m) for s in found for m in ["mean", *_mice(frame, s, metric)]]
        if not columns:
            continue
        header = ["model", *(f"{s}, {m}" if m != "mean" else s for s, m in columns)]
        lines = [header, ["---"] + ["---:"] * len(columns)]
        for model in dict.fromkeys([m for m in settings["models"] if m in set(frame["model"])]):
            own = frame[frame["model"] == model]
            lines.append([model, *(_cell(own, metric, *column) for column in columns)])
        if metric == "single-trial" and not settings["quick"] and set(PUBLISHED) & set(found):
            published = (
                f"{PUBLISHED[s]:.4f}" if m == "mean" and s in PUBLISHED else "-" for s, m in columns
            )
            lines.append([WINNER, *published])
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"## {title[0].upper()}{title[1:]}", text]
    return "\n\n".join(parts) + "\n"


def _mice(frame: pd.DataFrame, split: str, metric: str) -> list[str]:
    own = frame[(frame["split"] == split) & frame[metric].notna()]
    return list(dict.fromkeys(own["mouse"]))


def _cell(own: pd.DataFrame, metric: str, split: str, mouse: str) -> str:
    """Mean over mice, or of one; and the standard deviation over seeds, of several."""
    own = own[own["split"] == split]
    if mouse != "mean":
        own = own[own["mouse"] == mouse]
    values = own.groupby("seed")[metric].mean().dropna()
    if values.empty:
        return "-"
    more = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{more}"


def notes(settings: Mapping[str, Any]) -> str:
    """Return what the table should be read with."""
    quick = "Simulated mice (--quick) and small models: values say nothing of real neurons. "
    mice = next(value for name, value in settings.items() if name.startswith("mice of"))
    counts = "; ".join(
        f"{mouse} {count['neurons']:,}, {count['train']:,}" for mouse, count in mice.items()
    )
    return (
        f"{quick * settings['quick']}Correlations over the frames of all trials of a split, the "
        f"first {settings['skip']} of each left out; means over neurons, then mice. The "
        "competition took the mean over the neurons of all mice. Choice of the epoch: "
        f"{_SELECTION[settings['select_on']]}. Splits whose responses are withheld are left out. "
        f"Mice (neurons, training trials): {counts}. Scores of the competition's own baselines are "
        "in no source that we have."
    )


def draw(frame: pd.DataFrame, path: Path, models: Sequence[str]) -> None:
    """Draw single-trial correlations, a panel per split, a point per mouse and seed, and means."""
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    from matplotlib.figure import Figure

    from v1tlearn.inspection.colors import figure_colors

    found = [split for split in dict.fromkeys(SPLITS.values()) if split in set(frame["split"])]
    models = [model for model in models if model in set(frame["model"])]
    colors = figure_colors(models)
    size = (2.4 + 2.2 * len(found), 1.2 + 0.32 * len(models))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, sharex=True, sharey=True)[0]
    for axes, split in zip(panels, found, strict=True):
        for place, model in enumerate(models):
            own = frame[(frame["split"] == split) & (frame["model"] == model)]
            values = own["single-trial"]
            axes.plot(values.mean(), place, "|", color=colors[model], ms=16, mew=3)
            axes.plot(values, [place] * len(own), "o", color="0.25", mfc="none", ms=4)
        axes.axvline(0, color="0.7", lw=0.8, zorder=0)
        axes.set(title=split, xlabel="single-trial\ncorrelation")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
    panels[0].plot([], [], "|", color="0.25", ms=12, mew=3, label="mean")
    panels[0].plot([], [], "o", color="0.25", mfc="none", ms=4, label="a mouse")
    figure.legend(frameon=False, fontsize="small", ncols=2, loc="outside upper right")
    panels[0].set_yticks(range(len(models)), models)
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    beside = path.with_name(f".part-{path.name}")
    figure.savefig(beside, dpi=150)
    beside.replace(path)


def write(options: Namespace) -> str:
    """Write results.csv, tables.md and figure.png of the finished jobs; return the tables."""
    out = options.out
    settings = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    frame = results(out / "jobs")
    text = markdown(frame, settings | {"models": options.models})
    write_beside(out / "results.csv", frame.to_csv(index=False))
    write_beside(out / "tables.md", text)
    if options.figure and len(frame):
        draw(frame, out / "figure.png", options.models)
    return text
