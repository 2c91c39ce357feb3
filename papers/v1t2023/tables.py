"""
The tables of the V1T paper: their rows, the published numbers, and how results are laid out.

Results are kept as one JSON file per finished job; the tidy ``results.csv`` and the rendered
``tables.md`` and ``tables.html`` are made from those anew whenever one is added.
"""

import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from papers.v1t2023.data import MICE
from v1tlearn.metrics import average_correlation, single_trial_correlation

METRICS = {
    "single_trial_correlation": single_trial_correlation,
    "average_correlation": average_correlation,
}
MEAN = "mean"  # over mice
COLUMNS = ["dataset", "table", "model", "mouse", "metric", "value", "published", "seed"]
COLUMNS += ["epochs", "seconds"]

SINGLE_MODELS = ("LN", "CNN without behaviour", "CNN", "ViT without behaviour", "ViT", "V1T")
CROPPED = "V1T, crop 0.8"
ENSEMBLES = ("CNN ensemble", "ViT ensemble", "V1T ensemble")
TOKENIZERS = ("unfold", "conv", "spt", "cct")
ATTENTIONS = ("standard", "lsa")
B_MLP = {
    "V1T": "in every block",
    "V1T, B-MLP in first block": "in the first block",
    "V1T, B-MLP shared": "shared by the blocks",
    "V1T, B-MLP per animal": "in every block, per animal",
}


def token_model(tokenizer: str, attention: str) -> str:
    """Name of a model of Table A.4; the one with the defaults is V1T itself."""
    default = (tokenizer, attention) == ("unfold", "standard")
    return "V1T" if default else f"V1T, {tokenizer}, {attention}"


@dataclass(frozen=True)
class Table:
    """One table: its title, its metric, and its rows as {model: label}."""

    title: str
    metric: str
    rows: Mapping[str, str]


def _rows(models: Iterable[str]) -> dict[str, str]:
    return {model: model for model in models}


def paper_tables(dataset: str) -> dict[str, Table]:
    """Return the tables that can be made from data set "S" or "F", by the names they are asked by.

    Those of data set F beyond "1" and "A.7" are not in the paper.
    """
    single, average = METRICS
    crop = (CROPPED,) if dataset == "S" else ()  # images of data set F are small already
    models = (*SINGLE_MODELS, *crop, *ENSEMBLES)
    short = {"spt": "SPT", "cct": "CCT", "lsa": "LSA"}
    tokens = {
        token_model(t, a): f"{short.get(t, t)}, {short.get(a, a)}"
        for t in TOKENIZERS
        for a in ATTENTIONS
    }
    transfer = [f"{model}, {way}" for model in ("CNN", "V1T") for way in ("direct", "transfer")]
    number = {"S": "A.5", "F": "A.6"}[dataset]
    tables = {
        "1": Table(f"Tables 1 and {number}: single-trial correlation", single, _rows(models)),
        "A.7": Table("Table A.7: correlation to average", average, _rows(models)),
        "A.4": Table("Table A.4: V1T with other tokenizers and attention", single, tokens),
        "B-MLP": Table("Text of A.2: where V1T has its behaviour MLP", single, B_MLP),
        "A.8": Table("Table A.8: core of the other animals, frozen", single, _rows(transfer)),
    }
    if dataset == "S":
        of_f = {f"{model}, core of F": model for model in ("CNN", "V1T")}
        title = "Table A.9: core of gray-scale data set F, frozen"
        tables["A.9"] = Table(title, single, of_f)
    return tables


def _per_mouse(values: str) -> dict[str, float]:
    return dict(zip("ABCDE", map(float, values.split()), strict=True))


# {data set: {table: {model: {mouse: value}}}}; what is not here is not known to this script.
PUBLISHED: dict[str, dict[str, dict[str, dict[str, float]]]] = {
    "S": {
        "1": {
            "LN": {MEAN: 0.275},
            "CNN without behaviour": {MEAN: 0.300},
            "CNN": {MEAN: 0.378} | _per_mouse(".350 .424 .385 .371 .360"),
            "ViT without behaviour": {MEAN: 0.319},
            "ViT": {MEAN: 0.414},
            "V1T": {MEAN: 0.426} | _per_mouse(".401 .464 .430 .436 .401"),
            CROPPED: {MEAN: 0.430},
            "CNN ensemble": {MEAN: 0.404},
            "ViT ensemble": {MEAN: 0.424},
            "V1T ensemble": {MEAN: 0.439},
        },
        "A.7": {
            "LN": {MEAN: 0.387},
            "CNN without behaviour": {MEAN: 0.551},
            "CNN": {MEAN: 0.578},
            "ViT without behaviour": {MEAN: 0.568},
            "ViT": {MEAN: 0.621},
            "V1T": {MEAN: 0.629} | _per_mouse(".597 .666 .638 .637 .609"),
        },
        "A.8": {
            "CNN, direct": {MEAN: 0.376},
            "CNN, transfer": {MEAN: 0.384},
            "V1T, direct": {MEAN: 0.388},
            "V1T, transfer": {MEAN: 0.410},
        },
        "A.9": {"CNN, core of F": {MEAN: 0.329}, "V1T, core of F": {MEAN: 0.345}},
    },
    "F": {
        "1": {
            "LN": {MEAN: 0.223},
            "CNN": {MEAN: 0.309},
            "ViT": {MEAN: 0.344},
            "V1T": {MEAN: 0.368},
            "CNN ensemble": {MEAN: 0.340},
            "ViT ensemble": {MEAN: 0.365},
            "V1T ensemble": {MEAN: 0.378},
        },
        "A.7": {
            "LN": {MEAN: 0.312},
            "CNN": {MEAN: 0.516},
            "ViT": {MEAN: 0.542},
            "V1T": {MEAN: 0.551},
        },
    },
}


# -- results ------------------------------------------------------------------------------------


def slug(name: str, seed: int) -> str:
    """Name of the files of a job."""
    return f"{re.sub(r'[^a-z0-9.]+', '-', name.lower())}-seed{seed}"


def write_beside(path: Path, text: str) -> None:
    """Write a text file such that it is there whole, or as it was before."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """Read the jobs: {"job", "seed", "scores": [...]}, and "failed" with the reason if one did.

    A score is {"model", "mouse", "metric", "value", "epochs", "seconds"}, the latter two summed
    over all fits behind a model's row.
    """
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def results_frame(dataset: str, jobs: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Lay finished jobs out as a tidy frame, a row per table, model, mouse (and mean) and seed."""
    scores = [{**score, "seed": job["seed"]} for job in jobs for score in job["scores"]]
    rows = []
    for key, table in paper_tables(dataset).items():
        for model in table.rows:
            published = PUBLISHED[dataset].get(key, {}).get(model, {})
            own = [s for s in scores if (s["model"], s["metric"]) == (model, table.metric)]
            for seed in sorted({score["seed"] for score in own}):
                of_seed = [score for score in own if score["seed"] == seed]
                mean = sum(score["value"] for score in of_seed) / len(of_seed)
                rows += [
                    {**s, "dataset": dataset, "table": key, "published": published.get(s["mouse"])}
                    for s in (*of_seed, {**of_seed[0], "mouse": MEAN, "value": mean})
                ]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame = frame.astype({"value": float, "published": float, "seconds": float})
    return frame.round({"seconds": 1})


# -- rendering ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A number of a table with what was published for it; either may be missing."""

    value: float | None
    published: float | None = None
    spread: float | None = None  # standard deviation over seeds


def lay_out(
    frame: pd.DataFrame, dataset: str, key: str, mice: Sequence[str]
) -> dict[str, list[Cell]]:
    """Return {label: cells of the mice and the mean} of one table; models to come are empty."""
    of_table = frame[frame["table"] == key]
    rows = {}
    for model, label in paper_tables(dataset)[key].rows.items():
        of_model = of_table[of_table["model"] == model]
        published = PUBLISHED[dataset].get(key, {}).get(model, {})
        cells = []
        for mouse in (*mice, MEAN):
            values = of_model.loc[of_model["mouse"] == mouse, "value"]
            spread = values.std(ddof=1) if len(values) > 1 else None
            value = values.mean() if len(values) else None
            cells.append(Cell(value, published.get(mouse), spread))
        rows[label] = cells
    return rows


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "-"
    value = round(value, 3) + 0.0  # no "-0.000"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def _comparable(dataset: str, key: str, mice: Sequence[str], mice_of_f: Sequence[str]) -> bool:
    """Whether the published means of a table are over the same mice, and on a core of the same."""
    return tuple(mice) == MICE[dataset] and (key != "A.9" or tuple(mice_of_f) == MICE["F"])


def _difference(cell: Cell, comparable: bool) -> float | None:
    if cell.value is None or cell.published is None or not comparable:
        return None
    return cell.value - cell.published


def markdown(
    frame: pd.DataFrame,
    dataset: str,
    keys: Iterable[str],
    mice: Sequence[str],
    notes: str,
    mice_of_f: Sequence[str] = (),
) -> str:
    """Render tables as Markdown; published numbers of single mice stand in brackets."""
    parts = [f"# V1T paper, data set {dataset}", notes]
    for key in keys:
        parts.append(f"## {paper_tables(dataset)[key].title}")
        comparable = _comparable(dataset, key, mice, mice_of_f)
        header = ["model", *mice, MEAN, "published", "difference"]
        lines = [" | ".join(header), " | ".join(["---"] + ["---:"] * (len(header) - 1))]
        for label, cells in lay_out(frame, dataset, key, mice).items():
            *of_mice, mean = cells
            texts = [
                _number(cell.value) + (f" ({cell.published:.3f})" if cell.published else "")
                for cell in of_mice
            ]
            spread = f" ± {mean.spread:.3f}" if mean.spread is not None else ""
            texts += [_number(mean.value) + spread, _number(mean.published)]
            texts.append(_number(_difference(mean, comparable), sign=True))
            lines.append(" | ".join([label, *texts]))
        parts.append("\n".join(f"| {line} |" for line in lines))
    return "\n\n".join(parts) + "\n"


_STYLE = """\
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1f2328;
       margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; font-weight: 600; margin-bottom: .3rem; }
h2 { font-size: 1.08rem; font-weight: 600; margin: 2.2rem 0 .5rem; }
p, .published { color: #6b7280; }
table { border-collapse: collapse; width: 100%; table-layout: fixed;
        font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: #6b7280; border-bottom: 1.5px solid #1f2328; }
th, td { padding: .32rem .6rem; text-align: right; white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; width: 13rem; }
td { border-bottom: 1px solid #e5e7eb; }
tr:last-child td { border-bottom: 1.5px solid #1f2328; }
th:nth-last-child(-n+2) { width: 5rem; }
td.mean { font-weight: 600; }
td small { display: block; color: #9ca3af; font-size: .8em; font-weight: 400; line-height: 1.2; }
"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
{style}</style>
</head>
<body style="max-width: {width}rem">
{body}
</body>
</html>
"""


def as_html(
    frame: pd.DataFrame,
    dataset: str,
    keys: Iterable[str],
    mice: Sequence[str],
    notes: str,
    mice_of_f: Sequence[str] = (),
) -> str:
    """Render tables as one page; published numbers of single mice stand in grey below."""
    title = f"V1T paper, data set {dataset}"
    parts = [f"<h1>{title}</h1>", f"<p>{html.escape(notes)}</p>"]
    for key in keys:
        parts.append(f"<h2>{html.escape(paper_tables(dataset)[key].title)}</h2>")
        comparable = _comparable(dataset, key, mice, mice_of_f)
        header = ["model", *mice, MEAN, "published", "difference"]
        lines = ["".join(f"<th>{name}</th>" for name in header)]
        for label, cells in lay_out(frame, dataset, key, mice).items():
            *of_mice, mean = cells
            below = [f"<small>{c.published:.3f}</small>" if c.published else "" for c in of_mice]
            texts = [f"<td>{html.escape(label)}</td>"]
            texts += [
                f"<td>{_number(cell.value)}{small}</td>"
                for cell, small in zip(of_mice, below, strict=True)
            ]
            spread = f"<small>± {mean.spread:.3f}</small>" if mean.spread is not None else ""
            texts.append(f'<td class="mean">{_number(mean.value)}{spread}</td>')
            texts.append(f'<td class="published">{_number(mean.published)}</td>')
            texts.append(f"<td>{_number(_difference(mean, comparable), sign=True)}</td>")
            lines.append("".join(texts))
        rows = "\n".join(f"<tr>{line}</tr>" for line in lines)
        parts.append(f"<table>\n{rows}\n</table>")
    body, width = "\n".join(parts), max(46, 29 + 4 * len(mice))
    return _PAGE.format(title=title, style=_STYLE, width=width, body=body)


def write_tables(
    out: Path,
    dataset: str,
    keys: Sequence[str],
    mice: Sequence[str],
    notes: str,
    mice_of_f: Sequence[str] = (),
) -> pd.DataFrame:
    """Write results.csv, tables.md and tables.html of the finished jobs; return the results."""
    frame = results_frame(dataset, read_jobs(out / "jobs"))
    write_beside(out / "results.csv", frame.to_csv(index=False))
    for name, render in (("tables.md", markdown), ("tables.html", as_html)):
        write_beside(out / name, render(frame, dataset, keys, mice, notes, mice_of_f))
    return frame
