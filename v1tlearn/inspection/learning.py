"""Learning curves: scores of models against how many trials, or neurons, they were fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import GroupKFold
from sklearn.utils.parallel import Parallel, delayed

from v1tlearn._models import check_predicts, named
from v1tlearn._options import as_word
from v1tlearn._values import as_whole, plain
from v1tlearn.inspection._drawing import legend_above, only_axes
from v1tlearn.inspection._metrics import LABELS, mean_known, metric_of
from v1tlearn.inspection.colors import MODEL_COLORS, figure_colors
from v1tlearn.training import draw_seed
from v1tlearn.trials import Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "LearningCurveDisplay"
_OVER = {"trials": "n_trials", "neurons": "n_neurons"}
_AXES = {"n_trials": "training trials per mouse", "n_neurons": "neurons per mouse"}


class LearningCurveDisplay:
    """Scores of one or several models against the size of what they were fitted to.

    `from_estimator` fits models to growing parts of trials; a table of scores that is there already
    goes to the class itself.

    Parameters
    ----------
    table : DataFrame
        A row per fit, with the columns ``model``, the size, and the score; rows of one model and
        size are repetitions, such as folds. Other columns are kept.
    x : str, default="n_trials"
        The column of the size.
    score : str, default="score"
        The column of the score, or its name for the axis.
    ceiling : float, optional
        The best score that a model could reach.
    colors : dict of str to str, optional
        Per model; by default those of `model_color`, in shades where models bear one name.

    Attributes
    ----------
    table : DataFrame
    means_ : DataFrame
        A row per model, a column per size: the mean over repetitions.
    ax_ : Axes
        After `plot`.
    figure_ : Figure

    Raises
    ------
    ValueError
        If columns are missing, or the table is empty.

    See Also
    --------
    ScoreDisplay : Scores of models that were fitted to all.

    Examples
    --------
    >>> import pandas as pd
    >>> from v1tlearn.inspection import LearningCurveDisplay
    >>> table = pd.DataFrame({"model": ["LN", "LN", "CNN", "CNN"], "n_trials": [50, 500, 50, 500],
    ...                       "score": [0.1, 0.2, 0.1, 0.3]})
    >>> LearningCurveDisplay(table).means_.loc["CNN"].tolist()
    [0.1, 0.3]
    """

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        x: str = "n_trials",
        score: str = "score",
        ceiling: float | None = None,
        colors: Mapping[str, str] | None = None,
    ) -> None:
        self.x, self.score, self.ceiling = x, score, ceiling
        self._column = score if score in table else "score"
        missing = [name for name in ("model", x, self._column) if name not in table]
        if missing or table.empty:
            raise ValueError(
                f"table has the columns {list(table)} and {len(table)} rows: expected rows with "
                f"'model', {x!r} and {score!r}, one for each fit."
            )
        self.table = table.assign(model=table["model"].astype(str))
        self.means_ = self.table.pivot_table(self._column, "model", x, sort=False).sort_index(
            axis=1
        )
        self.colors = dict(colors or figure_colors(self.table["model"].unique()))

    @classmethod
    def from_estimator(
        cls,
        estimators: Any,
        trials: Trials,
        *,
        over: str = "trials",
        sizes: Sequence[float] = (0.1, 0.3, 1.0),
        test: Trials | None = None,
        metric: str | Callable[..., Any] = "single_trial_correlation",
        cv: int = 3,
        ceiling: Any = "auto",
        n_jobs: int | None = None,
        random_state: Any = 0,
        ax: Axes | None = None,
    ) -> Self:
        """Fit models to growing parts of trials, score them, and draw.

        Parameters
        ----------
        estimators : estimator, sequence of estimators or dict of str to estimator
            They are cloned, and may be fitted or not.
        trials : Trials
            To fit to. Smaller parts are in larger ones.
        over : {"trials", "neurons"}, default="trials"
            What grows: the images, with all their trials in all mice, or the neurons of every
            mouse. More neurons teach the shared core; scores are those of the neurons of the
            smallest part, which all fits have.
        sizes : sequence of float, default=(0.1, 0.3, 1.0)
            Shares of the images or neurons, above 0 and up to 1.
        test : Trials, optional
            To score on; without them the trials of each fold are scored by fits to the others.
        metric : str or callable, default="single_trial_correlation"
            As of `ScoreDisplay`.
        cv : int, default=3
            Folds of images; with `test`, or over neurons, random orders in which parts grow.
        ceiling : "auto", None or float
            "auto" takes the score of the true rates of simulated recordings.
        n_jobs : int, optional
            Fits at once, as of joblib.
        random_state : int, RandomState, Generator or None, default=0
            Of the parts; models have their own.
        ax : Axes, optional

        Returns
        -------
        LearningCurveDisplay
            Whose table has the columns ``model``, ``fold``, ``size``, ``n_trials`` and
            ``n_neurons`` (means over mice), and ``score``.

        Raises
        ------
        TypeError
            If `trials` or `test` are no `Trials`, or an estimator predicts nothing.
        ValueError
            If an option is out of its range, or neurons grow and there is no `test`.
        """
        parts = list(
            _parts(trials, test, over, plain(tuple(sizes)), as_whole(cv, "cv", 1), random_state)
        )
        function, models = metric_of(metric), named(estimators)
        for name, estimator in models.items():
            check_predicts(name, estimator)
        jobs = [
            delayed(_fit_and_score)(estimator, train, held, chosen, function)
            for estimator in models.values()
            for _, _, train, held, chosen in parts
        ]
        scores = iter(Parallel(n_jobs=n_jobs)(jobs))
        rows = [
            {
                "model": name,
                "fold": fold,
                "size": size,
                "n_trials": len(train) / len(train.mice),
                "n_neurons": float(np.mean(list(train.n_neurons.values()))),
                "score": next(scores),
            }
            for name in models
            for fold, size, train, _, _ in parts
        ]
        if isinstance(ceiling, str):
            if ceiling != "auto":
                raise ValueError(f"ceiling={ceiling!r}: expected 'auto', None or a score.")
            ceiling = _ceiling(parts, function)
        table = pd.DataFrame(rows)
        table[_OVER[over]] = table.groupby("size")[_OVER[over]].transform("mean").round(1)
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", "score")
        label = LABELS.get(name, name.replace("_", " "))
        return cls(table, x=_OVER[over], score=label, ceiling=ceiling).plot(ax)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        line_kw: Mapping[str, Any] | None = None,
        fold_kw: Mapping[str, Any] | None = None,
        ceiling_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the curves: a line for every model, a dot for every fit.

        Parameters
        ----------
        ax : Axes, optional
            A new figure by default.
        line_kw, fold_kw, ceiling_kw : dict, optional
            Of the means, the fits and the ceiling, as `matplotlib.axes.Axes.plot` and `scatter`
            take them.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib, the extra `plot`.
        """
        self.ax_, self.figure_ = only_axes(ax, _NAME, (4.6, 3.4))
        ax, sizes = self.ax_, self.means_.columns.to_numpy()
        lines = []
        for name, means in self.means_.iterrows():
            color = self.colors[str(name)]
            own = self.table[self.table["model"] == name]
            dots = {"s": 12, "alpha": 0.45, "linewidths": 0, "color": color, **(fold_kw or {})}
            ax.scatter(own[self.x], own[self._column], label=f"_{name}, fits", **dots)
            line = {
                "color": color,
                "lw": 2,
                "marker": "o",
                "ms": 5,
                "label": name,
                **(line_kw or {}),
            }
            lines += ax.plot(sizes, means, **line)
        if self.ceiling is not None:
            style = {
                "color": MODEL_COLORS["oracle"],
                "lw": 2,
                "label": "oracle",
                **(ceiling_kw or {}),
            }
            lines.append(ax.axhline(self.ceiling, **style))
        ax.set_xscale("log")
        ax.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        ax.minorticks_off()
        ax.set(xlabel=_AXES.get(self.x, self.x.replace("_", " ")), ylabel=self.score)
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0] * (self.table[self._column].min() < 0)))
        ax.spines[["top", "right"]].set_visible(False)
        legend_above(ax, lines)
        return self


_Part = tuple[int, float, Trials, Trials, dict[str, np.ndarray]]


def _parts(
    trials: Any, test: Any, over: str, sizes: tuple, cv: int, random_state: Any
) -> Iterator[_Part]:
    """Yield fold, size, what to fit to and score on, and the neurons that are scored."""
    for name, one in (("trials", trials), ("test", test)):
        if not isinstance(one, Trials) and (one is not None or name == "trials"):
            raise TypeError(f"{name} is a {type(one).__name__}: expected Trials.")
    as_word(over, list(_OVER), "over")
    wrong = [
        s for s in sizes if not isinstance(s, Real) or isinstance(s, bool) or not 0 < float(s) <= 1
    ]
    if wrong or not sizes:
        raise ValueError(f"sizes={sizes!r}: expected shares above 0 and up to 1.")
    if test is None and (over == "neurons" or cv < 2):
        raise ValueError(
            f"test is missing: with over={over!r} and cv={cv} there are no folds to score on: give "
            'trials of other images, such as trials.sel(tier="test").'
        )
    rng = np.random.default_rng(draw_seed(plain(random_state)))
    folds = [(trials, test)] * cv
    if test is None:
        split = GroupKFold(cv).split(trials, groups=trials.image_ids)
        folds = [(trials[train], trials[held]) for train, held in split]
    for fold, (train, held) in enumerate(folds):
        if over == "trials":
            everybody = {m: np.ones(n, bool) for m, n in train.n_neurons.items()}
            images = rng.permutation(np.unique(train.image_ids))
            for size in sizes:
                part = np.isin(train.image_ids, images[: max(2, round(size * len(images)))])
                yield fold, size, train[np.flatnonzero(part)], held, everybody
            continue
        orders = {m: rng.permutation(n) for m, n in train.n_neurons.items()}
        fewest = _first(orders, min(sizes))
        for size in sizes:
            own = _first(orders, size)
            scored = {mouse: fewest[mouse][mask] for mouse, mask in own.items()}
            yield fold, size, train.sel(neuron=own), held.sel(neuron=own), scored


def _first(orders: Mapping[str, np.ndarray], size: float) -> dict[str, np.ndarray]:
    """Masks of the first neurons of each mouse."""
    out = {}
    for mouse, order in orders.items():
        out[mouse] = np.zeros(len(order), bool)
        out[mouse][order[: max(1, round(size * len(order)))]] = True
    return out


def _fit_and_score(
    estimator: Any, train: Trials, test: Trials, scored: Mapping[str, np.ndarray], metric: Any
) -> float:
    return _score(clone(estimator).fit(train).predict(test), test, scored, metric)


def _score(predicted: Any, test: Trials, scored: Mapping[str, np.ndarray], metric: Any) -> float:
    values: xr.DataArray = metric(test.responses, predicted, multioutput="raw_values")
    mice = values["mouse"].values
    of_mice = [mean_known(values.values[mice == m][mask]) for m, mask in scored.items()]
    return mean_known(of_mice)


def _ceiling(parts: Sequence[_Part], metric: Any) -> float | None:
    """Score of the true rates, mean over folds, where they are known."""
    scores = []
    for _, _, _, held, scored in parts:
        if not all(held.has("expected_responses", mouse) for mouse in held.mice):
            return None
        scores.append(_score(held.expected_responses, held, scored, metric))
    return mean_known(scores)
