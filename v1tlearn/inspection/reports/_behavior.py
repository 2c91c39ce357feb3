"""What behaviour does: the section about what it explains, and when predictions are good."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from v1tlearn.inspection._drawing import axes_for, legend_above
from v1tlearn.inspection.behavior import (
    BehaviorPerformanceDisplay,
    behavior_ablation,
    performance_by_behavior,
)
from v1tlearn.inspection.colors import shades
from v1tlearn.inspection.reports._asking import asked
from v1tlearn.inspection.reports._parts import Absent, Section, Table, number
from v1tlearn.inspection.reports._pictures import picture
from v1tlearn.trials import Trials

_COLUMN = "pupil_dilation"  # as published
_COLOR = "#0072b2"


def behavior_section(
    estimator: Any, trials: Trials, mice: list[str], n_repeats: int, seed: int
) -> Section:
    """Tell what each column of behaviour explains, and compare small with large pupils.

    Parameters
    ----------
    estimator : estimator
    trials : Trials
    mice : list of str
        Those that are drawn; tables are of all.
    n_repeats : int
        Permutations of each column, and divisions into thirds at random.
    seed : int

    Returns
    -------
    Section
    """
    section = Section("behavior", "Behaviour")
    lost = asked(
        "share of behaviour in the predictions",
        behavior_ablation,
        estimator,
        trials,
        n_repeats=n_repeats,
        random_state=seed,
    )
    if isinstance(lost, Absent):
        section.parts.append(lost)
    else:
        explained = {mouse: own["explained"].mean("neuron") for mouse, own in lost.items()}
        variables = list(next(iter(explained.values()))["variable"].values)
        heads = ["mouse", *(_words(name) for name in variables)]
        rows = [[mouse, *(number(float(v)) for v in own)] for mouse, own in explained.items()]
        caption = "Single-trial correlation lost where a column of behaviour comes from other "
        caption += "trials, mean over neurons: what the model knows from it and from nothing else."
        section.parts.append(Table(heads, rows, caption))
        drawn = {mouse: explained[mouse] for mouse in mice}
        alt = f"Bars of the correlation lost without each of {', '.join(variables)}."
        section.parts.append(picture(_bars(drawn, variables), alt))
    names = [trials.behavior_names(mouse) or [] for mouse in trials.mice]
    column = _COLUMN if all(_COLUMN in own for own in names) or not names[0] else names[0][0]
    found = asked(
        f"comparison of trials by {_words(column)}",
        performance_by_behavior,
        estimator,
        trials,
        column,
        n_shuffles=n_repeats,
        random_state=seed,
    )
    if isinstance(found, Absent):
        section.parts.append(found)
        return section
    rows = [
        [
            mouse,
            *(number(float(v)) for v in own["score"].mean("neuron")),
            f"{float(own['improvement']):+.1%}",
            f"{float(own['p_value']):.2g}",
            number(float(np.mean(own["difference_shuffled"]))),
        ]
        for mouse, own in found.items()
    ]
    heads = ["mouse", "smallest third", "middle third", "largest third"]
    heads += ["largest over smallest", "p value", "difference of random thirds"]
    caption = f"Single-trial correlation in thirds of the trials by {_words(column)}."
    section.parts.append(Table(heads, rows, caption))
    shown = BehaviorPerformanceDisplay({mouse: found[mouse] for mouse in mice}).plot()
    alt = f"A dot per neuron: its score with the largest against the smallest {_words(column)}."
    section.parts.append(picture(shown.figure_, alt, alt))
    return section


def _bars(explained: dict[str, xr.DataArray], variables: list[str]) -> Any:
    """A group of bars for each variable, a bar for each mouse."""
    size = (6.0, 0.9 + (0.12 + 0.16 * len(explained)) * len(variables))
    (axis,), figure = axes_for(None, 1, "report", (1, 1), size)
    places, share = np.arange(len(variables)), 0.8 / len(explained)
    tones = shades(_COLOR, len(explained))
    for number_of, (mouse, own) in enumerate(explained.items()):
        at = places + (number_of - (len(explained) - 1) / 2) * share
        label = f"mouse {mouse}"
        axis.barh(at, own.values, height=0.9 * share, color=tones[number_of], label=label)
    axis.set_yticks(places, [_words(name) for name in variables])
    axis.invert_yaxis()
    axis.axvline(0, color="0.4", lw=0.8)
    axis.set_xlabel("single-trial correlation lost without it")
    axis.spines[["top", "right"]].set_visible(False)
    if len(explained) > 1:
        legend_above(axis)
    return figure


def _words(name: str) -> str:
    return name.replace("_", " ")
