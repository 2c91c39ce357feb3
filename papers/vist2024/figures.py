"""The figures: directions and ablations and numbers of cells in one, traces of cells in another."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import v1tlearn as v1
from papers.v1t2023.tables import slug
from papers.vist2024.published import ABLATION, COMPLEMENTARY, CROSS, DIRECTIONS, PROTOCOLS
from papers.vist2024.tables import VIST, of_direction, results
from v1tlearn.inspection import MoviePredictionDisplay

COLORS = {"published": "#d55e00", "clean": "#0072b2", "paper": "#4d4d4d"}
_TRACES = "1 to 2"


def draw(options: Namespace, frames: v1.Trials) -> None:
    """Draw figure.png of all results, and traces.png of the models of the first seed."""
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    draw_results(results(options.out / "jobs"), options.out / "figure.png", not options.quick)
    draw_traces(options, frames)


def draw_results(frame: pd.DataFrame, path: Path, known: bool) -> None:
    """Draw the mean of |r| of every table that there is."""
    from matplotlib.figure import Figure

    panels = {"cross": _draw_cross, "ablation": _draw_ablation, "complementary": _draw_counts}
    drawn = [key for key in panels if (frame["table"] == key).any()]
    if not drawn:
        return
    widths = {"cross": 3.0, "ablation": 5.4, "complementary": 3.6}
    ratios = [widths[key] for key in drawn]
    figure = Figure(figsize=(sum(ratios), 3.8), layout="constrained")
    grid = figure.subplots(1, len(drawn), squeeze=False, width_ratios=ratios)[0]
    for axes, key in zip(grid, drawn, strict=True):
        panels[key](axes, frame, known)
        axes.spines[["top", "right"]].set_visible(False)
    beside = path.with_name(f".part-{path.name}")
    figure.savefig(beside, dpi=150)
    beside.replace(path)


def _protocols(frame: pd.DataFrame) -> list[str]:
    return [protocol for protocol in PROTOCOLS if protocol in set(frame["protocol"])]


def _draw_cross(axes: Any, frame: pd.DataFrame, known: bool) -> None:
    frame = frame[frame["table"] == "cross"]
    labels = list(dict.fromkeys([VIST, *frame["label"]]))
    markers = dict(zip(DIRECTIONS, "o^", strict=True))
    for place, label in enumerate(labels):
        for protocol in _protocols(frame):
            for direction, marker in markers.items():
                own = of_direction(frame, direction)
                own = own[(own["label"] == label) & (own["protocol"] == protocol)]
                shift = -0.12 if protocol == "published" else 0.12
                style = {"color": COLORS[protocol], "ms": 6, "ls": "none"}
                axes.plot([place + shift] * len(own), own["absolute"], marker, **style)
    if known:
        for direction, value in CROSS.items():
            axes.plot(0, value, markers[direction], color=COLORS["paper"], mfc="none", ms=8)
    for direction, marker in markers.items():
        label = "movie " + direction.replace("to ", "to movie ")
        axes.plot([], [], marker, color="0.3", mfc="none", ls="none", label=label)
    axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))
    axes.set_xticks(range(len(labels)), [one.replace(" ", "\n") for one in labels])
    axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(0, None), ylabel="mean of |r| over cells")


def _draw_ablation(axes: Any, frame: pd.DataFrame, known: bool) -> None:
    whole = frame[(frame["table"] == "cross") & (frame["label"] == VIST)]
    frame = pd.concat([of_direction(whole, "1 to 2"), frame[frame["table"] == "ablation"]])
    labels = [label for label in ABLATION if label in set(frame["label"])]
    labels += [label for label in dict.fromkeys(frame["label"]) if label not in labels]
    for protocol in _protocols(frame):
        own = frame[frame["protocol"] == protocol].groupby("label")["absolute"].mean()
        values = [own.get(label, np.nan) for label in labels]
        axes.plot(values, range(len(labels)), "o", color=COLORS[protocol], label=f"{protocol}")
    if known:
        values = [ABLATION.get(label, np.nan) for label in labels]
        style = {"color": COLORS["paper"], "mfc": "none", "ms": 8}
        axes.plot(values, range(len(labels)), "s", label="in the paper", **style)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlim=(0, None), ylim=(len(labels) - 0.5, -0.5))
    axes.set_xlabel("mean of |r| over cells, movie 1 to movie 2")
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(
        frameon=False, fontsize="small", ncols=3, loc="lower left", bbox_to_anchor=(0, 1),
        title="who chooses the epoch", title_fontsize="small", alignment="left",
    )  # fmt: skip


def _draw_counts(axes: Any, frame: pd.DataFrame, known: bool) -> None:
    frame = frame[frame["table"] == "complementary"]
    for movie, style in zip(COMPLEMENTARY, ("o-", "^--"), strict=True):
        for protocol in _protocols(frame):
            own = frame[(frame["train"] == movie) & (frame["protocol"] == protocol)]
            by = own.groupby("n_cells")["absolute"]
            mean, low, high = by.mean(), by.min(), by.max()
            color = COLORS[protocol]
            axes.plot(mean.index, mean, style, color=color, label=f"{movie}, {protocol}")
            axes.fill_between(mean.index, low, high, color=color, alpha=0.15, lw=0)
        if known:
            published = COMPLEMENTARY[movie]
            label = f"{movie}, in the paper"
            drawn = {"color": COLORS["paper"], "mfc": "none", "label": label}
            axes.plot(list(published), list(published.values()), style, **drawn)
    axes.set_xscale("log")
    counts = sorted(frame["n_cells"].unique())
    axes.set_xticks(counts, [f"{n:g}" for n in counts])
    axes.minorticks_off()
    axes.set(xlabel="cells that are encoded together", ylabel="mean of |r| over cells")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))


def draw_traces(options: Namespace, frames: v1.Trials) -> None:
    """Draw what the three best cells did, and what models predict, on movie 2."""
    (name,) = frames.mice
    train, test = DIRECTIONS[_TRACES]
    for protocol in reversed(options.protocols):  # the clean one, if it is there
        found = {
            label: options.out / "predictions" / f"{slug(job, options.seeds[0])}.npz"
            for label in (VIST, "LN")
            for job in [f"cross {label} {train} to {test} {protocol}"]
        }
        found = {label: path for label, path in found.items() if path.is_file()}
        if VIST in found:
            break
    else:
        return
    kept = {label: dict(np.load(path, allow_pickle=False)) for label, path in found.items()}
    recorded = kept[VIST]["recorded"]
    r = v1.metrics.correlation_over_time(
        recorded, kept[VIST]["predicted"], multioutput="raw_values"
    )
    best = np.sort(np.argsort(-np.nan_to_num(r, nan=-1.0), kind="stable")[:3])
    shown = frames.sel(image_id=test)
    place = slice(0, int(shown.n_frames[0]))
    colors = {VIST: "#d55e00", "LN": "#0072b2"}
    display = MoviePredictionDisplay(
        recorded[:, best],
        {label: of["predicted"][:, best] for label, of in kept.items()},
        shown.get("stimuli", name)[0, place],
        frame_rate=shown.frame_rate(name),
        neurons=[f"cell {kept[VIST]['neuron'][i]}, r = {r[i]:.2f}" for i in best],
        units=str(frames.responses[name].attrs.get("units", "a.u.")),
        title=f"Trained on {train}, tested on {test}; the {protocol} protocol",
        colors=colors,
    ).plot()
    display.figure_.savefig(options.out / "traces.png", dpi=150)
    import matplotlib.pyplot as plt

    plt.close(display.figure_)
