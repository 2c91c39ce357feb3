"""How good the model is: the section with scores and ceilings of every mouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from v1tlearn._models import last_step
from v1tlearn.inspection.reports._asking import asked
from v1tlearn.inspection.reports._parts import Absent, Section, Table, number
from v1tlearn.inspection.reports._pictures import picture
from v1tlearn.inspection.scores import ScoreDisplay
from v1tlearn.metrics import noise_ceiling, score_table
from v1tlearn.trials import Responses, Trials

_CEILINGS = ("single_trial_ceiling", "average_ceiling", "explainable_variance", "oracle")
_INTERVALS = "95 % intervals of the bootstrap over images in brackets"


def scores_section(
    name: str, estimator: Any, trials: Trials, predicted: Responses, n_bootstrap: int, seed: int
) -> Section:
    """Give scores of every mouse by all metrics, and what was possible.

    Parameters
    ----------
    name : str
        Of the model in figures.
    estimator : estimator
    trials : Trials
        With responses.
    predicted : Responses
        Of these trials.
    n_bootstrap, seed : int

    Returns
    -------
    Section
    """
    section = Section("scores", "Scores")
    last = last_step(estimator)
    if hasattr(last, "_warn_of_seen_images"):
        last._warn_of_seen_images(trials)
    options = {"ceilings": True, "random_state": seed}
    table = asked(
        "intervals of scores",
        score_table,
        {name: estimator},
        trials,
        n_bootstrap=n_bootstrap,
        **options,
    )
    if isinstance(table, Absent):
        without, n_bootstrap = table, 0
        table = asked("scores", score_table, {name: estimator}, trials, **options)
        if isinstance(table, Absent):
            section.parts.append(table)
            return section
        section.parts.append(without)
    section.parts.append(_by_mouse(table, trials.mice, n_bootstrap))
    rows, reasons = [], []
    for mouse in trials.mice:
        own = trials.sel(mouse_id=mouse).responses
        found = asked(
            f"noise ceilings of mouse {mouse}",
            noise_ceiling,
            own,
            n_bootstrap=n_bootstrap,
            random_state=seed,
            multioutput="mice",
        )
        if isinstance(found, Absent):
            reasons.append(found)
        else:
            rows.append([mouse, *(_estimate(found[key].values[:, 0]) for key in _CEILINGS)])
    if rows:
        heads = ["mouse", *(key.replace("_", " ") for key in _CEILINGS)]
        caption = "What the repeats of images leave possible (noise_ceiling), means over neurons"
        caption += f"; {_INTERVALS}. " if n_bootstrap else ". "
        caption += "What behaviour does from trial to trial counts as noise here: predictions that "
        caption += "know of it may lie above."
        section.parts.append(Table(heads, rows, caption))
    section.parts += reasons
    shown = asked(
        "figure of scores",
        ScoreDisplay.from_predictions,
        trials.responses,
        {name: predicted},
        ceiling="auto" if reasons else "estimated",
        n_bootstrap=n_bootstrap,
    )
    if isinstance(shown, Absent):
        section.parts.append(shown)
        return section
    means = shown.means_.loc[name]
    told = ", ".join(f"{mouse} {number(value)}" for mouse, value in means.items())
    section.parts.append(
        picture(
            shown.figure_,
            f"Bars of the single-trial correlation of each mouse: {told}.",
            "Single-trial correlation, mean over neurons, and the ceiling as a line where known.",
        )
    )
    return section


def _by_mouse(table: pd.DataFrame, mice: Sequence[str], n_bootstrap: int) -> Table:
    """A row per mouse and model (the true rates of simulated mice, too), a column per metric."""
    metrics = list(pd.unique(table["metric"]))
    models = list(pd.unique(table["model"]))
    rows = []
    for model in models:
        own = table[table["model"] == model].set_index(["mouse", "metric"])
        for mouse in mice:
            cells = [_cell(own.loc[(mouse, metric)]) for metric in metrics]
            rows.append([_row_name(mouse, model, models), *cells])
        if len(mice) > 1:
            means = own["value"].groupby(level="metric").mean()
            cells = [number(means[metric]) for metric in metrics]
            rows.append([_row_name("mean over mice", model, models), *cells])
    caption = "Means over neurons; after the stroke what the repeats of images leave possible"
    caption += f"; {_INTERVALS}." if n_bootstrap else "."
    return Table(["mouse", *(metric.replace("_", " ") for metric in metrics)], rows, caption)


def _row_name(mouse: str, model: str, models: Sequence[str]) -> str:
    what = "true rates" if model == "oracle" else model
    return mouse if len(models) == 1 else f"{mouse}, {what}"


def _cell(row: pd.Series) -> str:
    ends = [row.get("low", np.nan), row.get("high", np.nan)]
    told = _estimate([row["value"], *ends])
    return told if np.isnan(row["ceiling"]) else f"{told} / {number(row['ceiling'])}"


def _estimate(values: Any) -> str:
    """Write a value with its interval where there is one."""
    value, low, high = (number(float(one)) for one in values)
    return value if "–" in (low, high) else f"{value} ({low} to {high})"


def headline(name: str, trials: Trials, values: dict[str, np.ndarray] | Absent | None) -> str:
    """Tell the most important of a page in one line.

    Parameters
    ----------
    name : str
        Of the model.
    trials : Trials
        That were predicted.
    values : dict of str to array, Absent or None
        Per mouse the scores of its neurons, where there are such.

    Returns
    -------
    str
    """
    n = sum(trials.n_neurons[mouse] or 0 for mouse in trials.mice)
    mice = f"{len(trials.mice)} mice" if len(trials.mice) > 1 else f"mouse {trials.mice[0]}"
    told = f"{name} of {mice} with {n} neurons"
    if not isinstance(values, dict):
        return told + "."
    means = [float(np.nanmean(v)) for v in values.values() if np.isfinite(v).any()]
    mean = float(np.mean(means)) if means else np.nan
    return f"{told}: single-trial correlation {number(mean)} in {len(trials)} trials."
