"""
The tables of Vi-ST beside the published numbers.

Results are kept as one JSON file per finished job; ``results.csv`` and ``tables.md`` are made from
those anew whenever one is added.
"""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from papers.v1t2023.tables import read_jobs, write_beside
from papers.vist2024.published import (
    ABLATION,
    BASELINES,
    CELLS,
    COMPLEMENTARY,
    CROSS,
    DIRECTIONS,
    LOGGED,
    PROTOCOLS,
)

TABLES = {
    "cross": "Trained on one movie, tested on the other",
    "ablation": "What each part contributes, movie 1 to movie 2",
    "complementary": "Cells that are encoded together, within a movie",
}
SUMMARIES = {"signed": "signed r", "absolute": "absolute r", "positive": "positive r"}
MEASURES = {**SUMMARIES, "sd_kl": "SD-KL", "sd_kl published": "SD-KL, published form"}
COLUMNS = ["table", "label", "train", "test", "protocol", "n_cells", "draw", "seed", *MEASURES]
COLUMNS += ["best epoch", "epochs", "seconds"]
VIST = "Vi-ST"


def results(folder: Path) -> pd.DataFrame:
    """Lay finished jobs out as a tidy frame, a row per fit."""
    rows = [job for job in read_jobs(folder) if "failed" not in job]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    order = ["table", "protocol", "train", "test", "label", "n_cells", "draw", "seed"]
    return frame.sort_values(order, ignore_index=True)


def spread(values: pd.Series, digits: int = 3) -> str:
    """Mean, and standard deviation of several values; "-" of none."""
    known = values.dropna()
    if known.empty:
        return "-"
    more = f" ± {known.std():.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{more}"


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def of_direction(frame: pd.DataFrame, direction: str) -> pd.DataFrame:
    """Rows of models that were trained on one movie and tested on the other."""
    train, test = DIRECTIONS[direction]
    return frame[(frame["train"] == train) & (frame["test"] == test)]


def cross(frame: pd.DataFrame, known: bool) -> str:
    """A row per direction, model and protocol, a column per measure."""
    rows = []
    frame = frame[frame["table"] == "cross"]
    for direction in DIRECTIONS:
        own = of_direction(frame, direction)
        for label in dict.fromkeys([VIST, *own["label"]]):
            for protocol in PROTOCOLS:
                found = own[(own["label"] == label) & (own["protocol"] == protocol)]
                if found.empty:
                    continue
                published = CROSS.get(direction) if label == VIST else None
                said = f"{published:.3f}" if known and published is not None else "-"
                cells = [spread(found[name]) for name in MEASURES]
                rows.append([f"{direction}, {label}", protocol, *cells, said])
    return _lines(
        ["trained, tested", "protocol", *MEASURES.values(), "absolute r, in the paper"], rows
    )


def ablation(frame: pd.DataFrame, known: bool) -> str:
    """A row per variant, two columns per protocol, beside the published mean of |r|."""
    of_table = frame[(frame["table"] == "ablation")]
    whole = frame[(frame["table"] == "cross") & (frame["label"] == VIST)]
    of_table = pd.concat([of_direction(whole, "1 to 2"), of_table])
    protocols = [p for p in PROTOCOLS if p in set(of_table["protocol"])]
    rows = []
    for label in dict.fromkeys([*ABLATION, *of_table["label"]]):
        own = of_table[of_table["label"] == label]
        if own.empty:
            continue
        cells = [
            spread(own[own["protocol"] == protocol][summary])
            for protocol in protocols
            for summary in ("absolute", "signed")
        ]
        said = f"{ABLATION[label]:.3f}" if known and label in ABLATION else "-"
        rows.append([label, *cells, said])
    header = [f"{SUMMARIES[s]}, {p}" for p in protocols for s in ("absolute", "signed")]
    return _lines(["variant", *header, "absolute r, in the paper"], rows)


def complementary(frame: pd.DataFrame, known: bool) -> str:
    """A row per number of cells, columns per movie and protocol."""
    of_table = frame[frame["table"] == "complementary"]
    protocols = [p for p in PROTOCOLS if p in set(of_table["protocol"])]
    header, columns = ["cells"], []
    for movie, published in COMPLEMENTARY.items():
        for protocol in protocols:
            own = of_table[(of_table["train"] == movie) & (of_table["protocol"] == protocol)]
            columns.append({n: spread(group["absolute"]) for n, group in own.groupby("n_cells")})
            header.append(f"{movie}, {protocol}")
        columns.append({n: f"{value:.2f}" for n, value in published.items()} if known else {})
        header.append(f"{movie}, in the paper")
    counts = sorted(of_table["n_cells"].unique())
    rows = [[f"{n:g}", *(column.get(n, "-") for column in columns)] for n in counts]
    return _lines(header, rows)


def cells(jobs: Sequence[Mapping[str, Any]]) -> str:
    """The cells whose traces the supplement shows, beside ours of the same number."""
    rows = []
    for direction, published in CELLS.items():
        train, test = DIRECTIONS[direction]
        wanted = ("cross", VIST, train, test)
        of = [
            job
            for job in jobs
            if "failed" not in job
            and (job["table"], job["label"], job["train"], job["test"]) == wanted
        ]
        for cell, value in published.items():
            found = []
            for protocol in PROTOCOLS:
                r = [
                    dict(zip(job["cells"], job["r"], strict=True)).get(cell)
                    for job in of
                    if job["protocol"] == protocol
                ]
                found.append(spread(pd.Series([v for v in r if v is not None], dtype=float)))
            rows.append([f"{direction}, cell {cell}", *found, f"{value:.3f}"])
    return _lines(["direction and cell", *PROTOCOLS, "in the paper"], rows)


def notes(settings: Mapping[str, Any]) -> str:
    """Return what the tables should be read with."""
    quick = "A simulated retina (--quick) and small models: values say nothing of real cells. "
    (recording, *_) = (v for name, v in settings.items() if name.startswith("recording of"))
    frames = ", ".join(f"{recording[movie]:,} frames of {movie}" for movie in DIRECTIONS["1 to 2"])
    protocols = "\n".join(f"* {name}: {text}" for name, text in PROTOCOLS.items())
    logged = "; ".join(
        f"{direction} {best:.3f} at best, {last:.3f} at the end"
        for direction, (best, last) in LOGGED.items()
    )
    return (
        f"{quick * settings['quick']}{recording['cells']} cells; {frames}. Prior: "
        f"{settings['prior']}. Responses are means over repeats, in spikes per frame where they "
        "are counts. Correlations r are over the frames of the test movie; then there is a mean "
        "over cells, of the values (signed), of absolute ones, or of those above 0 (positive). "
        "SD-KL compares how long peaks last: 0 is best, and 1000 where it cannot be computed.\n\n"
        f"{protocols}\n\nIn the logs of the released runs, absolute r: {logged}. Baselines of the "
        f"paper: {BASELINES}."
    )


def write(options: Namespace) -> str:
    """Write results.csv and tables.md of the finished jobs; return the tables."""
    out = options.out
    settings = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    frame = results(out / "jobs")
    parts = ["# Vi-ST: a retina and two movies", notes(settings)]
    known = not settings["quick"]
    for key, make in (("cross", cross), ("ablation", ablation), ("complementary", complementary)):
        if (frame["table"] == key).any():
            parts += [f"## {TABLES[key]}", make(frame, known)]
    if known and (frame["table"] == "cross").any():
        text = "Whether the paper counts cells from 0, no source says; ours are counted from 1."
        parts += ["## Cells that the supplement shows", text, cells(read_jobs(out / "jobs"))]
    text = "\n\n".join(parts) + "\n"
    write_beside(out / "results.csv", frame.to_csv(index=False))
    write_beside(out / "tables.md", text)
    return text
