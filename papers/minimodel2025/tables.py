"""
The tables and the figure of the minimodel paper, and the published numbers that are known.

Results are kept as one JSON file per finished job; ``results.csv``, ``tables.md`` and
``figure.png`` are made from those anew whenever one is added.
"""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from papers.v1t2023.tables import read_jobs, write_beside

TABLES = {
    "models": "A full model against minimodels on the same neurons",
    "hoyer": "Channels that a minimodel uses, by the strength of the penalty",
    "depth": "Layers of the full model",
    "widths": "Channels of the full model's layers",
    "n_train": "Training trials",
    "n_neurons": "Neurons that the full model is fitted to",
}
COLUMNS = ["table", "mouse", "model", "x", "seed", "feve", "correlation", "channels used"]
COLUMNS += ["neurons", "trials", "epochs", "seconds"]
# FEVE of the released full models on all neurons above the threshold; others are not known to us.
PUBLISHED = {("FX20", "full model"): 0.7267, ("FX10", "full model"): 0.6654}
_AXES = {
    "hoyer": "strength of the Hoyer penalty",
    "depth": "layers",
    "widths": "channels",
    "n_train": "training trials",
    "n_neurons": "neurons",
}


def results(folder: Path) -> pd.DataFrame:
    """Lay finished jobs out as a tidy frame, a row per fit."""
    rows = [job for job in read_jobs(folder) if "failed" not in job]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(
        ["table", "model", "x", "mouse", "seed"], ignore_index=True
    )


def markdown(frame: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Render the tables as Markdown: a row per model or value, a column per mouse."""
    mice = settings["mice"]
    published = {} if settings["quick"] else PUBLISHED
    parts = ["# Minimodel paper", notes(settings)]
    for key, title in TABLES.items():
        of_table = frame[frame["table"] == key]
        if len(of_table) == 0:
            continue
        parts.append(f"## {title}")
        header = ["model", *mice, "mean"]
        if key == "models":
            header.insert(-1, "published")
        with_channels = bool(of_table["channels used"].notna().any())
        header += ["channels used"] * with_channels
        lines = [" | ".join(header), " | ".join(["---"] + ["---:"] * (len(header) - 1))]
        for (model, x), group in of_table.groupby(["model", "x"], sort=False, dropna=False):
            label = model if pd.isna(x) else f"{model}, {x:g}"
            means = group.groupby("mouse")["feve"].mean()
            texts = [f"{means[mouse]:.3f}" if mouse in means else "-" for mouse in mice]
            if key == "models":
                known = [f"{m} {published[m, model]:.3f}" for m in mice if (m, model) in published]
                texts.append(", ".join(known) or "-")
            texts.append(f"{means.mean():.3f}")
            if with_channels:
                channels = group["channels used"].mean()
                texts.append("-" if pd.isna(channels) else f"{channels:.1f}")
            lines.append(" | ".join([label, *texts]))
        parts.append("\n".join(f"| {line} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def notes(settings: Mapping[str, Any]) -> str:
    """Return what the tables should be read with."""
    quick = "Simulated recordings (--quick) and small models: values mean nothing. "
    mice = "; ".join(
        f"{mouse} {m['neurons']:,}, {m['train']:,} + {m['validation']:,} + {m['test']:,}"
        for mouse, m in settings["mice"].items()
    )
    return (
        f"{quick * settings['quick']}FEVE: mean over the neurons of a mouse whose FEV is above "
        f"0.15 on the test images. Mirrored test images in training: {settings['flips']}. Mice "
        f"(neurons, trials for training + validation + test): {mice}. Images are scaled by mean "
        "and standard deviation of training trials. Published, as far as known: the released full "
        "models, which differ in three things. They were fitted to all neurons, and scored on all "
        "above the threshold; mirrored test images were in their training; their images were "
        "scaled by statistics of all images, test images and textures among them."
    )


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Draw FEVE over what is varied, one panel per table and one line per mouse."""
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    import matplotlib.pyplot as plt

    from v1tlearn.inspection.colors import figure_colors

    colors = figure_colors(frame["model"].unique().tolist())
    keys = [key for key in TABLES if key in set(frame["table"])]
    fig, axes = plt.subplots(
        1, len(keys), figsize=(2.9 * len(keys), 3.0), squeeze=False, layout="constrained"
    )
    for ax, key in zip(axes[0], keys, strict=True):
        of_table = frame[frame["table"] == key]
        models = of_table["model"].unique().tolist()
        for model in models:
            color, of_model = colors[model], of_table[of_table["model"] == model]
            if key == "models":
                value = of_model.groupby("mouse")["feve"].mean()
                place = [models.index(model)] * len(value)
                ax.plot(place, value, "o", color=color)
                continue
            lines = of_model.groupby(["x", "mouse"])["feve"].mean().unstack("mouse")
            ax.plot(lines.index, lines, color=color, lw=0.7, alpha=0.5)
            ax.plot(lines.index, lines.mean(axis=1), "o-", color=color, label=model)
        if key == "models":
            ax.set_xticks(range(len(models)), [m.replace(" ", "\n", 1) for m in models])
            ax.set_xlim(-0.5, len(models) - 0.5)
        else:
            ax.set_xlabel(_AXES[key])
        values = of_table["x"].dropna().unique()
        if key in ("widths", "n_train", "n_neurons"):
            ax.set_xscale("log")
            ax.minorticks_off()
            some = sorted(values)[:: max(1, len(values) // 4)]
            ax.set_xticks(some, [f"{value:g}" for value in some])
        if key == "depth":
            ax.set_xticks(sorted(values))
        if key == "widths":
            ax.legend(frameon=False)
        if key == "hoyer":
            _draw_channels(ax, of_table)
        ax.spines["top"].set_visible(False)
        ax.spines["right"].set_visible(key == "hoyer")
    axes[0, 0].set_ylabel("FEVE")
    beside = path.with_name(f".part-{path.name}")
    fig.savefig(beside, dpi=200)
    plt.close(fig)
    beside.replace(path)


def _draw_channels(ax: Any, of_table: pd.DataFrame) -> None:
    """Add the number of channels used on an axis of its own."""
    other = ax.twinx()
    used = of_table.groupby("x")["channels used"].mean()
    other.plot(used.index, used, "s--", color="#4d4d4d", ms=4)
    other.set_ylabel("channels used", color="#4d4d4d")
    other.spines["top"].set_visible(False)
    ax.set_xscale("symlog", linthresh=0.01)


def write(out: Path, options: Namespace) -> pd.DataFrame:
    """Write results.csv, tables.md and figure.png of the finished jobs; return the results."""
    settings = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    frame = results(out / "jobs")
    write_beside(out / "results.csv", frame.to_csv(index=False))
    write_beside(out / "tables.md", markdown(frame, settings))
    if options.figure and len(frame):
        draw(frame, out / "figure.png")
    return frame
