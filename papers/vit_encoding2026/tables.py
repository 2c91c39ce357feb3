"""Tables and the figure, beside the published numbers where these are of the same thing."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from papers.vit_encoding2026 import published
from papers.vit_encoding2026.fits import PAGE, RESOLUTIONS, TWICE, Row

_NAMES = {"vits16": "ViT-S", "vitb16": "ViT-B"}


def name_of(backbone: str) -> str:
    """Return what a backbone is called in tables."""
    return _NAMES.get(published.size_of(backbone), Path(backbone).name)


def kind_of(stages: int) -> str:
    """Return what was trained beside the readout."""
    return f"last {stages}" if stages else "frozen"


def stages_of(rows: list[Row]) -> list[int]:
    """Numbers of stages that were fine-tuned, 0 for none."""
    return sorted({int(stages) for row in rows for stages in row["scores"]})


def spread(values: list[float]) -> str:
    """Mean, and standard deviation of several values; "-" of none."""
    if not values:
        return "-"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def chosen(rows: list[Row], stages: int, by: str, resolution: str = PAGE) -> list[Row]:
    """Return the row of the block that does best by "validation" or "test", for each seed."""
    own = [r for r in rows if r["resolution"] == resolution and str(stages) in r["scores"]]
    seeds = sorted({row["seed"] for row in own})
    key = str(stages)
    return [
        max((r for r in own if r["seed"] == seed), key=lambda row: row["scores"][key][by])
        for seed in seeds
    ]


def _tested(rows: list[Row], stages: int) -> list[float]:
    return [row["scores"][str(stages)]["test"] for row in rows if str(stages) in row["scores"]]


def _table(header: list[str], lines: list[list[str]]) -> str:
    every = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def block_table(rows: list[Row], comparable: bool) -> str:
    """FEVE of one backbone over blocks, and what choosing the block on the test images adds.

    The curves of the page stand beside ours where it has one of this backbone and of as many
    stages, and `comparable` says that the mouse is the page's.
    """
    (backbone,) = {row["backbone"] for row in rows}
    swept = [row for row in rows if row["resolution"] == PAGE]
    header, columns = ["block"], []
    for stages in stages_of(swept):
        curve = published.curve(backbone, stages) if comparable else {}
        columns.append((stages, curve))
        header += [kind_of(stages)] + [f"page, {kind_of(stages)}"] * bool(curve)
    lines = []
    for block in sorted({row["block"] for row in swept}):
        line = [str(block)]
        for stages, curve in columns:
            line.append(spread(_tested([r for r in swept if r["block"] == block], stages)))
            if curve:
                line.append(f"{curve[block]:.3f}" if block in curve else "-")
        lines.append(line)
    parts = [f"## {name_of(backbone)}: FEVE over blocks, from 1", _table(header, lines)]
    for stages, _ in columns:
        picked = {by: _tested(chosen(rows, stages, by), stages) for by in ("validation", "test")}
        gain = [t - v for t, v in zip(picked["test"], picked["validation"], strict=True)]
        parts.append(
            f"{kind_of(stages)}: FEVE {spread(picked['validation'])} with the block chosen on "
            f"validation images, {spread(picked['test'])} with the block chosen on test images, "
            f"as the page did: {spread(gain)} more."
        )
    return "\n\n".join(parts)


def resolution_table(rows: list[Row]) -> str:
    """FEVE of one backbone over resolutions, of the block that does best frozen on validation."""
    best = {row["seed"]: row["block"] for row in chosen(rows, 0, "validation")}
    rows = [row for row in rows if row["block"] == best[row["seed"]]]
    lines = []
    for name in RESOLUTIONS:
        own = [row for row in rows if row["resolution"] == name]
        if own:
            lines.append([name] + [spread(_tested(own, stages)) for stages in stages_of(rows)])
    header = ["resolution"] + [kind_of(stages) for stages in stages_of(rows)]
    title = f"## {name_of(rows[0]['backbone'])}: FEVE over resolutions, block by seed {best}"
    return f"{title}\n\n{_table(header, lines)}"


def page_table(rows: list[Row], full: list[Row], comparable: bool) -> str:
    """Best blocks beside those of the page; of what was not fitted the page's number alone."""
    of_page = [f"{published.CNN:.3f}"] * comparable
    found = [row["scores"]["test"] for row in full]
    name = "full model" + " 16-320, the page's CNN" * comparable
    lines = [[name, "-", spread(found), "-", *of_page]]
    by_name = {name_of(row["backbone"]): [] for row in rows}
    for row in rows:
        by_name[name_of(row["backbone"])].append(row)
    cases = [(name, stages, PAGE) for name, own in by_name.items() for stages in stages_of(own)]
    cases += [
        (row[0], row[1], TWICE)
        for row in list(cases)
        if any(r["resolution"] == TWICE for r in by_name[row[0]])
    ]
    best = {(_NAMES[size], stages, PAGE): v for (size, stages), v in published.BEST.items()}
    (size, stages), value = published.UPSAMPLED
    best[_NAMES[size], stages, TWICE] = value
    if comparable:
        cases = sorted({*cases, *best}, key=lambda case: (case[0] != "ViT-S", case[0], *case[1:]))
    for case in cases:
        name, stages, resolution = case
        picked = [
            chosen(by_name.get(name, []), stages, by, resolution) for by in ("validation", "test")
        ]
        label = f"{name}, {kind_of(stages)}" + (f", {TWICE}" * (resolution == TWICE))
        blocks = ", ".join(str(row["block"]) for row in picked[0]) or "-"
        line = [label, blocks, *(spread(_tested(own, stages)) for own in picked)]
        lines.append(line + ([f"{best[case]:.3f}" if case in best else "-"] * comparable))
    header = ["model", "blocks", "FEVE", "block chosen on test"] + ["page"] * comparable
    parts = ["## Best blocks, chosen on validation images, by seed", _table(header, lines)]
    return "\n\n".join(parts + [published.CAUTION] * comparable)


def notes(settings: Mapping[str, Any], comparable: bool) -> str:
    """Return what the tables should be read with."""
    quick = "A simulated mouse (--quick) and a small backbone: nothing stands beside the page's. "
    text = (
        f"{quick * settings['quick']}Mouse {settings['mouse']}. FEVE: mean over the neurons whose "
        "FEV is above 0.15 on the test images. Mirrored test images in training: "
        f"{settings['flips']}. With several seeds means ± standard deviations."
    )
    page = " The page: one seed, mirrored test images in training, blocks chosen on test images."
    return text + page * comparable


def write(out: Path, settings: Mapping[str, Any], rows: list[Row], full: list[Row]) -> str:
    """Write tables.md and blocks.png; return the tables."""
    comparable = settings["mouse"] == published.MOUSE and not settings["quick"]
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    own = {backbone: [r for r in rows if r["backbone"] == backbone] for backbone in backbones}
    parts = ["# Vision transformers as cores", notes(settings, comparable)]
    parts.append(page_table(rows, full, comparable))
    for of_backbone in own.values():
        parts += [block_table(of_backbone, comparable), resolution_table(of_backbone)]
    text = "\n\n".join(parts) + "\n"
    (out / "tables.md").write_text(text, encoding="utf-8")
    draw(list(own.values()), out / "blocks.png", comparable)
    return text


def draw(by_backbone: list[list[Row]], path: Path, comparable: bool) -> None:
    """Draw FEVE over blocks, one panel for each backbone; dashed what the page has."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(by_backbone), 3.5), layout="constrained")
    panels = figure.subplots(1, len(by_backbone), squeeze=False, sharey=True)[0]
    for axes, rows in zip(panels, by_backbone, strict=True):
        swept = [row for row in rows if row["resolution"] == PAGE]
        for number, stages in enumerate(stages_of(swept)):
            blocks = sorted({r["block"] for r in swept if str(stages) in r["scores"]})
            means = [mean(_tested([r for r in swept if r["block"] == b], stages)) for b in blocks]
            color = f"C{number}"
            axes.plot(blocks, means, "o-", color=color, label=kind_of(stages))
            curve = published.curve(rows[0]["backbone"], stages) if comparable else {}
            if curve:
                label = f"page, {kind_of(stages)}"
                axes.plot(list(curve), list(curve.values()), "x--", color=color, label=label)
        axes.set(xlabel="block, from 1", title=name_of(rows[0]["backbone"]))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    panels[0].set_ylabel("FEVE, test images")
    figure.savefig(path)
