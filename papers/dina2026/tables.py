"""The table of measurements beside the reported numbers, and the figure of their curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from papers.dina2026.measures import PROBE, RIDGE, Record
from papers.dina2026.published import CNN, DINA, MEASURES
from papers.v1t2023.tables import write_beside

Found = Mapping[str, Record]  # by measure, of one seed
_RANGES = {"train": "the training trials", "recording": "all trials, the test included"}
COLORS = {DINA: "#d55e00", CNN: "#0072b2", RIDGE: "#999999"}


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and standard deviation of several values; "-" of none."""
    if not values:
        return "-"
    more = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{more}"


def _decoded(found: Sequence[Found], model: str, metric: str) -> str:
    rows = [
        row
        for one in found
        for row in one["decoding"]["rows"]
        if (row["model"], row["metric"]) == (model, metric)
    ]
    text = spread([row["value"] for row in rows])
    if len(rows) == 1:
        text += f" ({rows[0]['low']:.3f} to {rows[0]['high']:.3f})"
    return text


def _median(found: Sequence[Found], measure: str, model: str, digits: int, most: str) -> str:
    """Median number needed, what is never enough counted as infinite; of seeds the mean of medians.

    Over divisions of the images, and over dimensions. `most` is said where half is never enough.
    """
    medians = []
    for one in found:
        values = one[measure][model]["needed"]
        flat = [v for row in values for v in (row if isinstance(row, list) else [row])]
        medians.append(median(math.inf if v is None else v for v in flat))
    return spread(medians, digits) if all(map(math.isfinite, medians)) else most


def _cutoff(found: Sequence[Found], model: str) -> str:
    cutoffs = [one["blur"][model]["cutoff"] for one in found]
    known = [cutoff for cutoff in cutoffs if cutoff[0] is not None]
    text = spread([cutoff[0] for cutoff in known], 1)
    if len(cutoffs) == len(known) == 1:
        text += f" ({known[0][1]:.1f} to {known[0][2]:.1f})"
    return text


def lines(found: Sequence[Found]) -> dict[str, dict[str, str]]:
    """Return what was measured as text, by measure and model; "-" of what was not."""
    out: dict[str, dict[str, str]] = {}
    if all("decoding" in one for one in found):
        for metric, of_dina in (("top_1", DINA), ("pixel_correlation", PROBE)):
            models = {DINA: of_dina, CNN: CNN, RIDGE: RIDGE}
            out[metric] = {name: _decoded(found, m, metric) for name, m in models.items()}
    more = "more than {}".format
    texts: dict[str, tuple[str, Callable[[str], str]]] = {
        "neurons": ("needed_share", lambda m: _median(found, "neurons", m, 3, "not reached")),
        "blur": ("cutoff", lambda m: _cutoff(found, m)),
        "dimensions": (
            "needed",
            lambda m: _median(found, "dimensions", m, 1, more(_most(found, m))),
        ),
    }
    for measure, (key, text) in texts.items():
        if all(measure in one for one in found):
            out[key] = {model: text(model) for model in (DINA, CNN)}
    return out


def _most(found: Sequence[Found], model: str) -> int:
    """Neurons that a dimension may take."""
    return max(len(one["dimensions"][model]["explained"][0]) for one in found)


def table(found: Sequence[Found]) -> str:
    """Measurements of both models, and of ridge regression, beside those reported."""
    header = ["measure", DINA, CNN, RIDGE, f"{DINA}, reported", f"{CNN}, reported"]
    rows = [header, ["---"] * len(header)]
    measured = lines(found)
    for key, of in measured.items():
        reported = MEASURES[key]
        ours = [of.get(model, "-") for model in (DINA, CNN, RIDGE)]
        rows.append([reported.name, *ours, reported.dina, reported.cnn])
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    differs = "\n".join(f"* {MEASURES[key].name}: {MEASURES[key].differs}" for key in measured)
    return f"{text}\n\nReported numbers are of other data and another protocol.\n\n{differs}"


def controls(found: Sequence[Found]) -> str:
    """Return what the decoding is to be compared with: chance, shuffled pairs, the ceiling."""
    rows = [["model", "measure", "shuffled pairs", "p", "chance", "repeats of each other"]]
    rows.append(["---"] * len(rows[0]))
    names = list(dict.fromkeys((r["model"], r["metric"]) for r in found[0]["decoding"]["rows"]))
    for model, metric in names:
        own = [
            row
            for one in found
            for row in one["decoding"]["rows"]
            if (row["model"], row["metric"]) == (model, metric)
        ]
        known = {k: [r[k] for r in own if r[k] is not None] for k in ("null", "chance", "ceiling")}
        p = f"{max(row['p_value'] for row in own):.3f}"
        cells = [spread(known["null"]), p, spread(known["chance"]), spread(known["ceiling"])]
        rows.append([model, MEASURES[metric].name, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def notes(settings: Mapping[str, Any]) -> str:
    """Return what the table should be read with."""
    recordings = [value for name, value in settings.items() if name.startswith("recording of")]
    counts = recordings[0]
    quick = "A simulated mouse (--quick) and small models: values say nothing of real neurons. "
    habits = {
        "select_on": f"the {settings['select_on']} tier chooses the epoch",
        "keep": f"the {settings['keep']} one is kept",
        "range": f"responses are scaled by their range over {_RANGES[settings['range']]}",
    }
    asked = {"single": "Single trials ask", "mean": "The mean response to an image asks"}
    return (
        f"{quick * settings['quick']}{counts['neurons']:,} neurons; {counts['train']:,} trials for "
        f"training, {counts['validation']:,} for validation, {counts['test']:,} for testing. "
        f"{asked[settings['repeats']]}. Sizes of the {settings['recipe']}; "
        f"{'; '.join(habits.values())}. In brackets 95 % intervals over images; with several seeds "
        "means ± standard deviations."
    )


def write(out: Path, settings: Mapping[str, Any], found: Sequence[Found]) -> str:
    """Write tables.md and curves.png; return the tables."""
    parts = ["# Images and responses in one space", notes(settings), table(found)]
    if all("decoding" in one for one in found):
        parts += ["## Controls", controls(found)]
    text = "\n\n".join(parts) + "\n"
    write_beside(out / "tables.md", text)
    draw(found, out / "curves.png")
    return text


def draw(found: Sequence[Found], path: Path) -> None:
    """Draw, of the first seed, top-1 over neurons and over blur, and what dimensions take."""
    from matplotlib.figure import Figure

    first = found[0]
    panels = {"neurons": _draw_neurons, "blur": _draw_blur, "dimensions": _draw_dimensions}
    drawn = [name for name in panels if name in first]
    if not drawn:
        return
    figure = Figure(figsize=(4.2 * len(drawn), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        panels[name](axes, first[name])
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1)
        )
    figure.savefig(path, dpi=150)


def _draw_neurons(axes: Any, record: Record) -> None:
    for model in (DINA, CNN):
        of = record[model]
        for ranking, style in (("importance", "-"), ("random", ":")):
            label = model if ranking == "importance" else f"{model}, random"
            axes.plot(of["counts"], of["curves"][ranking], style, color=COLORS[model], label=label)
    axes.axhline(record[DINA]["chance"], color="0.5", lw=0.8)
    axes.set(xscale="log", xlabel="neurons", ylabel="images found (top-1)", ylim=(0, None))
    axes.xaxis.set_major_formatter("{x:g}")


def _draw_blur(axes: Any, record: Record) -> None:
    for model in (DINA, CNN):
        of = record[model]
        for name, style in (("low_pass", "o-"), ("high_pass", "x--")):
            label = f"{model}, {name.replace('_', '-')}"
            values = of[name]["values"], of[name]["top1"]
            axes.plot(*values, style, color=COLORS[model], ms=4, label=label)
    axes.set(xlabel="cut-off (cycles per image height)", ylabel="images found (top-1)")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, None)


def _draw_dimensions(axes: Any, record: Record) -> None:
    for model in (DINA, CNN):
        curves = record[model]["explained"]
        shuffled = record[model]["explained_shuffled"]
        counts = range(1, len(curves[0]) + 1)
        for values, style, label in ((curves, "-", model), (shuffled, ":", f"{model}, shuffled")):
            means = [max(mean(at), 0) for at in zip(*values, strict=True)]
            axes.plot(counts, means, style, color=COLORS[model], label=label)
    axes.set(xlabel="neurons", ylabel="variance of dimensions\nthat is explained", ylim=(0, 1))
