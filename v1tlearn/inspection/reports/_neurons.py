"""Neurons that are predicted best and worst: which they are, and the section that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from v1tlearn.inspection._drawing import axes_for
from v1tlearn.inspection.movies import MoviePredictionDisplay
from v1tlearn.inspection.reports._asking import asked
from v1tlearn.inspection.reports._parts import Absent, Section, Table, number
from v1tlearn.inspection.reports._pictures import picture
from v1tlearn.inspection.responses import PredictionDisplay
from v1tlearn.metrics import noise_ceiling, single_trial_correlation
from v1tlearn.trials import Responses, Trials

_COLUMNS = 3


def neuron_scores(trials: Trials, predicted: Responses) -> dict[str, np.ndarray] | Absent:
    """Score every neuron by its single-trial correlation.

    Parameters
    ----------
    trials : Trials
    predicted : Responses

    Returns
    -------
    dict of str to ndarray of shape (n_neurons,), or Absent
        Per mouse; NaN of neurons that have none.
    """
    found = asked(
        "scores of neurons",
        single_trial_correlation,
        trials.responses,
        predicted,
        multioutput="raw_values",
    )
    if isinstance(found, Absent):
        return found
    mice = np.asarray(found["mouse"].values).astype(str)
    return {mouse: found.values[mice == mouse] for mouse in trials.mice}


def ranked(scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the best and the worst, none of them both; neurons without a score are neither.

    Parameters
    ----------
    scores : array of shape (n_neurons,)
    n : int
        Of both, half of them the best; one more where they are odd.

    Returns
    -------
    best, worst : ndarray of int
        Their places, the best first.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    n = min(n, len(order))
    return order[: n - n // 2], order[len(order) - n // 2 :]


def neurons_section(
    name: str,
    trials: Trials,
    predicted: Responses,
    scores: Mapping[str, np.ndarray] | Absent,
    mice: Sequence[str],
    n_neurons: int,
) -> Section:
    """Show predicted against recorded responses of the best and the worst neurons.

    Parameters
    ----------
    name : str
        Of the model in figures.
    trials : Trials
    predicted : Responses
    scores : dict of str to array, or Absent
    mice : sequence of str
        Those that are shown.
    n_neurons : int
        Half of them the best.

    Returns
    -------
    Section
    """
    section = Section("neurons", "Best and worst neurons")
    if isinstance(scores, Absent):
        section.parts.append(Absent("best and worst neurons", scores.reason))
        return section
    for mouse in mice:
        best, worst = ranked(scores[mouse], n_neurons)
        if not len(best):
            reason = f"no neuron of mouse {mouse} has a score."
            section.parts.append(Absent(f"neurons of mouse {mouse}", reason))
            continue
        ids = trials.neuron_ids(mouse)
        section.parts.append(_table(mouse, trials, scores[mouse], ids, best, worst))
        if trials.n_frames is None:
            figure = _scatters(name, trials, predicted, mouse, ids, best, worst)
            told = "A dot for each image, means over its repeats: recorded and predicted."
        else:
            figure = _traces(name, trials, predicted, mouse, ids, best, worst)
            told = "Recorded and predicted responses over time, means over repeats."
        alt = f"Mouse {mouse}: predicted against recorded responses of its best neurons, then of "
        section.parts.append(picture(figure, f"{alt}its worst neurons.", told))
    return section


def _table(
    mouse: str,
    trials: Trials,
    scores: np.ndarray,
    ids: np.ndarray,
    best: np.ndarray,
    worst: np.ndarray,
) -> Table:
    found = asked("ceilings", noise_ceiling, trials.sel(mouse_id=mouse).responses, n_bootstrap=0)
    ceiling = None
    if not isinstance(found, Absent):
        ceiling = found["single_trial_ceiling"].sel(estimate="value").values
    rows = []
    for whose, places in (("best", best), ("worst", worst)):
        for rank, place in enumerate(places, 1):
            row = [f"{ids[place]}", f"{whose} {rank}", number(scores[place])]
            rows.append(row + ([] if ceiling is None else [number(ceiling[place])]))
    heads = ["neuron", "rank", "single-trial correlation"]
    heads += [] if ceiling is None else ["ceiling"]
    counted = int(np.isfinite(scores).sum())
    caption = f"Mouse {mouse}: the best and the worst of {counted} neurons that have a score."
    return Table(heads, rows, caption)


def _scatters(
    name: str,
    trials: Trials,
    predicted: Responses,
    mouse: str,
    ids: np.ndarray,
    best: np.ndarray,
    worst: np.ndarray,
) -> Any:
    shown = [("best", rank, place) for rank, place in enumerate(best, 1)]
    shown += [("worst", rank, place) for rank, place in enumerate(worst, 1)]
    rows = -(-len(shown) // _COLUMNS)
    size = (2.7 * _COLUMNS, 2.9 * rows)
    axes, figure = axes_for(None, len(shown), "report", (rows, _COLUMNS), size)
    target = trials.responses
    for axis, (whose, rank, place) in zip(axes, shown, strict=True):
        PredictionDisplay.from_predictions(
            target, {name: predicted}, mouse_id=mouse, neuron=ids[place], ax=axis
        )
        axis.set_title(f"neuron {ids[place]}, {whose} {rank}", fontsize="medium")
    return figure


def _traces(
    name: str,
    trials: Trials,
    predicted: Responses,
    mouse: str,
    ids: np.ndarray,
    best: np.ndarray,
    worst: np.ndarray,
) -> Any:
    movies = trials.image_ids[trials.rows(mouse)[0]]
    counts = pd.Series(movies).value_counts(sort=False)
    return MoviePredictionDisplay.from_predictions(
        trials,
        {name: predicted},
        mouse_id=mouse,
        image_id=counts.index[int(np.argmax(counts.to_numpy()))],  # the first of most repeats
        neurons=[ids[place] for place in (*best, *worst)],
    ).figure_
