"""Scores of models side by side, per mouse and per neuron, with the noise ceiling among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from v1tlearn import metrics
from v1tlearn._models import by_text, named_models
from v1tlearn._options import as_word
from v1tlearn.inspection._drawing import legend_above, only_axes, same_axes
from v1tlearn.inspection._metrics import (
    LABELS,
    estimated_ceiling,
    intervals_of,
    jackknife,
    mean_known,
    metric_of,
)
from v1tlearn.inspection._units import align, by_mouse
from v1tlearn.inspection.colors import MODEL_COLORS, figure_colors
from v1tlearn.metrics._arrays import arrays_by_mouse
from v1tlearn.metrics._draws import Draws
from v1tlearn.trials import Responses, Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "ScoreDisplay"
_KINDS = ("bars", "neurons", "scatter")
_CEILING = "oracle"
_JACKKNIFE = "oracle (jackknife)"


class ScoreDisplay:
    """Scores of one or several models, with the noise ceiling, the best one marked.

    `from_estimator` makes one of fitted models, `from_predictions` of what they predicted.

    Parameters
    ----------
    scores : dict of str to dict of str to array of shape (n_neurons,)
        Per model and mouse one score per neuron; NaN where there is none. A model's scores may be
        what a metric gives with ``multioutput="raw_values"``. Where DataArrays know their neurons,
        those of all models are put in the order of the first.
    metric : str, default="score"
        What was measured, for the axis.
    ceiling : dict of str to array of shape (n_neurons,), optional
        Per mouse the best score that a model could reach; in any form of a model's scores.
    ceiling_name : str, default="oracle"
        What the ceiling is called.
    colors : dict of str to str, optional
        Per model; by default those of `model_color`, in shades where models bear one name.
    intervals : dict of str to array of shape (2, n_columns), optional
        Per model the ends of the intervals of its means, column by column of `means_`.

    Attributes
    ----------
    means_ : DataFrame
        A row per model, and one of the ceiling, "oracle", where there is one; a column per mouse,
        the mean over its neurons, and "mean", over mice.
    intervals_ : dict of str to DataFrame
        Per model the rows "low" and "high", columns as of `means_`; empty without `n_bootstrap`.
    best_ : str
        The model with the highest mean.
    ax_ : Axes
        After `plot`.
    figure_ : Figure

    Raises
    ------
    ValueError
        If there is no model, two have one name, or models were scored on other mice or neurons
        than each other.

    See Also
    --------
    PredictionDisplay : Predicted against recorded responses.

    Examples
    --------
    >>> from v1tlearn.inspection import ScoreDisplay
    >>> display = ScoreDisplay({"LN": {"A": [0.1, 0.2]}, "CNN": {"A": [0.2, 0.4]}},
    ...                        ceiling={"A": [0.4, 0.5]})
    >>> display.best_, round(float(display.means_.loc["oracle", "mean"]), 2)
    ('CNN', 0.45)
    """

    def __init__(
        self,
        scores: Mapping[str, Mapping[str, Any]],
        *,
        metric: str = "score",
        ceiling: Mapping[str, Any] | None = None,
        ceiling_name: str = _CEILING,
        colors: Mapping[str, str] | None = None,
        intervals: Mapping[str, Any] | None = None,
    ) -> None:
        names = by_text("scores", scores)
        if not names:
            raise ValueError("scores is empty: expected at least one model.")
        self.metric, self.ceiling_name = metric, str(ceiling_name)
        if ceiling is not None:
            if self.ceiling_name in names:
                raise ValueError(
                    f"a model is called {self.ceiling_name!r}, as the ceiling is: give the model "
                    "or, with ceiling_name, the ceiling another name."
                )
            names[self.ceiling_name] = ceiling
        others = align({name: by_mouse(values, name) for name, values in names.items()})
        self.ceiling = None if ceiling is None else others[self.ceiling_name]
        self.scores = {str(name): others[str(name)] for name in scores}
        first, mice = next((name, list(values)) for name, values in others.items())
        self.colors = dict(colors or figure_colors(self.scores))
        rows = {
            name: {mouse: mean_known(v) for mouse, v in values.items()}
            for name, values in others.items()
        }
        self.means_ = pd.DataFrame.from_dict(rows, orient="index", columns=mice)
        self.means_["mean"] = [mean_known(row) for row in self.means_.to_numpy()]
        self.intervals_ = {
            name: pd.DataFrame(np.asarray(ends), ["low", "high"], self.means_.columns)
            for name, ends in by_text("intervals", intervals or {}).items()
        }
        of_models = self.means_.loc[list(self.scores), "mean"]
        self.best_ = first if of_models.isna().all() else str(of_models.idxmax())

    @classmethod
    def from_estimator(
        cls,
        estimators: Any,
        trials: Trials,
        *,
        metric: str | Callable[..., Any] = "single_trial_correlation",
        ceiling: Any = "auto",
        n_bootstrap: int = 0,
        kind: str = "bars",
        ax: Axes | None = None,
    ) -> Self:
        """Score fitted models on trials, and draw.

        Parameters
        ----------
        estimators : estimator, sequence of estimators or dict of str to estimator
            Fitted; Pipelines, searches and ensembles too.
        trials : Trials
            With responses, of the mice of all models.
        metric, ceiling
            Of `from_predictions`. Trials of simulated recordings bring the true rates, and with
            them the ceiling of every metric.
        n_bootstrap
            Of `from_predictions`.
        kind, ax
            Of `plot`.

        Returns
        -------
        ScoreDisplay

        Raises
        ------
        TypeError
            If these are no estimators or no trials.
        NotFittedError
            If one is not fitted.
        """
        if not isinstance(trials, Trials):
            raise TypeError(
                f"trials is a {type(trials).__name__}: expected Trials; arrays go through "
                "Trials.from_arrays, predictions to ScoreDisplay.from_predictions."
            )
        if isinstance(ceiling, str) and ceiling == "auto":
            known = all(trials.has("expected_responses", mouse) for mouse in trials.mice)
            ceiling = trials.expected_responses if known else ceiling
        predictions = {name: e.predict(trials) for name, e in named_models(estimators).items()}
        return cls.from_predictions(
            trials.responses,
            predictions,
            metric=metric,
            ceiling=ceiling,
            n_bootstrap=n_bootstrap,
            kind=kind,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        predictions: Any,
        *,
        metric: str | Callable[..., Any] = "single_trial_correlation",
        ceiling: Any = "auto",
        image_ids: Any = None,
        mouse_ids: Any = None,
        n_bootstrap: int = 0,
        kind: str = "bars",
        ax: Axes | None = None,
    ) -> Self:
        """Score predictions, and draw.

        Parameters
        ----------
        y_true : Responses, array (n, neurons) or any other form that metrics take
            Recorded responses; NaN where not recorded.
        predictions : dict of str to predictions, or predictions of one model
            Of each model in a form of `y_true`.
        metric : str or callable, default="single_trial_correlation"
            "single_trial_correlation", "average_correlation", "feve" or "normalized_correlation"
            of `v1tlearn.metrics`; or a function like these, called as ``f(y_true, y_pred,
            image_ids=..., multioutput="raw_values")`` with the arrays of one mouse.
        ceiling : "auto", "estimated", None, or true rates in a form of `y_true`
            True rates score what a model that knows them would. "auto" takes 1 for metrics that
            correct for noise, and for the single-trial correlation, where images were repeated,
            the "oracle (jackknife)", the correlation of each trial with the mean of the other
            repeats; else there is none. The jackknife underestimates the ceiling, since a mean
            of few repeats is noisy itself: a good model may lie above it. "estimated" takes that
            of `v1tlearn.metrics.noise_ceiling`, which has no such error, for both correlations.
        image_ids, mouse_ids
            As for the metrics, where responses do not bring them.
        n_bootstrap : int, default=0
            Draws of images for 95 % intervals of the means; 0 for none. For metrics by name.
        kind, ax
            Of `plot`.

        Returns
        -------
        ScoreDisplay

        Raises
        ------
        ValueError
            If the metric is unknown, or predictions do not fit the responses.
        """
        score = metric_of(metric)
        one = isinstance(predictions, Responses) or not isinstance(predictions, Mapping)
        models = {"model": predictions} if one else by_text("predictions", predictions)
        labels = {"image_ids": image_ids, "mouse_ids": mouse_ids}
        needs_images = score is not metrics.single_trial_correlation

        def _scored(y_pred: Any) -> dict[str, np.ndarray]:
            out = {}
            for one in arrays_by_mouse(y_true, y_pred, **labels, needs_images=needs_images):
                # a metric of one mouse wants no padding and no other mice
                try:
                    values = score(
                        one.true, one.pred, image_ids=one.image_ids, multioutput="raw_values"
                    )
                except ValueError as error:
                    raise ValueError(f"mouse {one.mouse!r}: {error}") from error
                out[one.mouse] = np.asarray(values, dtype=float)
            return out

        scores = {name: _scored(y_pred) for name, y_pred in models.items()}
        ceiling_name = _CEILING
        if not isinstance(ceiling, str):
            ceiling = None if ceiling is None else _scored(ceiling)
        elif ceiling == "estimated":
            ceiling, ceiling_name = estimated_ceiling(str(metric), y_true, labels), "noise ceiling"
        elif ceiling != "auto":
            raise ValueError(f"ceiling={ceiling!r}: expected 'auto', 'estimated', None or rates.")
        elif score in (metrics.feve, metrics.normalized_correlation):
            ceiling = {m: np.ones(len(v)) for m, v in next(iter(scores.values())).items()}
        else:
            ceiling = jackknife(y_true, labels) if not needs_images else None
            ceiling_name = _JACKKNIFE
        draws = Draws.checked(n_bootstrap, 0.95, 0)
        intervals = {
            name: intervals_of(metric, y_true, y_pred, labels, draws)
            for name, y_pred in models.items()
            if draws.n
        }
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", "score")
        display = cls(
            scores,
            metric=LABELS.get(name, name.replace("_", " ")),
            ceiling=ceiling,
            ceiling_name=ceiling_name,
            intervals=intervals,
        )
        return display.plot(ax, kind=kind)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        kind: str = "bars",
        x: str | None = None,
        bar_kw: Mapping[str, Any] | None = None,
        scatter_kw: Mapping[str, Any] | None = None,
        ceiling_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the scores.

        Parameters
        ----------
        ax : Axes, optional
            A new figure by default.
        kind : {"bars", "neurons", "scatter"}, default="bars"
            "bars", means over the neurons of every mouse, and over mice where there are several,
            the best one's value in its bar; "neurons", a dot for every neuron and the mean over
            mice, a column per model; "scatter", a dot for every neuron, models against the ceiling
            or against another model, both axes alike.
        x : str, optional
            For "scatter": the model on the horizontal axis; the ceiling, or without one the first
            model, by default.
        bar_kw, scatter_kw, ceiling_kw : dict, optional
            Of bars, dots and the ceiling, as `matplotlib` takes them in `bar`, `scatter`, `plot`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `kind` or `x` is unknown, or there is nothing to draw models against.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        as_word(kind, _KINDS, "kind")
        across, models = self._against(x) if kind == "scatter" else ("", [])
        if kind != "scatter" and x is not None:
            raise ValueError(f"x={x!r} is for kind='scatter', not for {kind!r}.")
        n_groups = len(self.means_.columns) - (len(self.means_.columns) == 2)
        width = min(6.4, max(4.4, 1.2 + 0.32 * n_groups * len(self.scores)))
        size = {"bars": (width, 3.4), "neurons": (min(5.0, 1.6 + 0.8 * len(self.means_)), 3.4)}
        self.ax_, self.figure_ = only_axes(ax, _NAME, size.get(kind, (4.2, 4.4)))
        dots = {"s": 14, "alpha": 0.45, "linewidths": 0, **(scatter_kw or {})}
        line = {"color": MODEL_COLORS[_CEILING], "lw": 2, **(ceiling_kw or {})}
        if kind == "bars":
            self._bars(bar_kw or {}, line)
        elif kind == "neurons":
            self._neurons(dots, line)
        else:
            self._scatter(across, models, dots)
        if kind != "scatter":
            self.ax_.spines[["top", "right"]].set_visible(False)
            self.ax_.set_ylabel(self.metric)
        return self

    def _bars(self, bar_kw: Mapping[str, Any], line: dict[str, Any]) -> None:
        ax, names = self.ax_, list(self.scores)
        groups = list(self.means_.columns)
        groups = groups[:1] if len(groups) == 2 else groups  # of one mouse it is the mean
        places, share = np.arange(len(groups)), 0.8 / len(names)
        values = self.means_[groups]
        top = max(np.nanmax(values.to_numpy(), initial=0.0), 0.0) or 1.0
        for i, name in enumerate(names):
            style = {"color": self.colors[name], "width": 0.92 * share, **bar_kw}
            at = places + (i - (len(names) - 1) / 2) * share
            ax.bar(at, values.loc[name], label=name, **style)
            if name in self.intervals_:
                ends = self.intervals_[name][groups].to_numpy()
                ax.vlines(at, *ends, color="black", lw=1.2, label=f"_{name}, interval")
        for place, group in enumerate(groups):
            of_models = values.loc[names, group]
            if of_models.notna().any():
                best = int(np.nanargmax(of_models))
                height = max(float(of_models.iloc[best]), 0.0)
                inside = height > 0.2 * top
                foot = 0.0 if self.intervals_ else height  # on its foot, where no interval is
                ax.annotate(
                    f"{of_models.iloc[best]:.2f}",
                    (place + (best - (len(names) - 1) / 2) * share, foot if inside else height),
                    (0, -3 if foot and inside else 3),
                    textcoords="offset points",
                    ha="center",
                    va="top" if foot and inside else "bottom",
                    rotation=90 if len(groups) * len(names) > 6 else 0,
                    color="white" if inside else "black",
                    fontsize="small",
                    fontweight="bold",
                )
            if self.ceiling is not None:
                label = self.ceiling_name if place == 0 else f"_{self.ceiling_name}, {group}"
                height = float(values.loc[self.ceiling_name, group])
                style = {"label": label, "solid_capstyle": "butt", **line}
                ax.plot([place - 0.44, place + 0.44], [height, height], **style)
        ticks = [f"mouse {g}" if g != "mean" else g for g in groups]
        if len(groups) > 4:
            ticks = [str(g) for g in groups]
            ax.set_xlabel("mouse")
        ax.set_xticks(places, ticks)
        ax.set_xlim(-0.6, len(groups) - 0.4)
        if np.nanmin(values.to_numpy(), initial=0.0) < 0:
            ax.axhline(0, color="0.5", lw=0.8)
        ceiling = [h for h in ax.get_lines() if h.get_label() == self.ceiling_name]
        legend_above(ax, [*ax.containers, *ceiling])

    def _neurons(self, dots: dict[str, Any], line: dict[str, Any]) -> None:
        ax, columns = self.ax_, dict(self.scores)
        if self.ceiling is not None:
            columns[self.ceiling_name] = self.ceiling
        for place, (name, values) in enumerate(columns.items()):
            own = np.concatenate(list(values.values()))
            color = self.colors.get(name, MODEL_COLORS[_CEILING])
            # beside each other in an order that has nothing to do with the score
            beside = (np.arange(len(own)) * 0.618034) % 1 - 0.5
            ax.scatter(place + 0.6 * beside, own, label=name, **{"color": color, **dots})
            mean = self.means_.loc[name, "mean"]
            style = {**line, "color": line["color"] if name == self.ceiling_name else "black"}
            ax.plot([place - 0.36, place + 0.36], [mean, mean], label=f"_{name}, mean", **style)
            ax.annotate(
                f"{mean:.2f}",
                (place, 1),
                (0, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize="small",
                fontweight="bold" if name == self.best_ else None,
            )
        ax.set_xticks(range(len(columns)), [name.replace(" (", "\n(") for name in columns])
        if len(columns) > 4:
            ax.tick_params("x", rotation=30)
        ax.set_xlim(-0.6, len(columns) - 0.4)

    def _against(self, x: str | None) -> tuple[str, list[str]]:
        """Who is on the horizontal axis, and who are held against it."""
        known = [*self.scores] + [self.ceiling_name] * (self.ceiling is not None)
        if x is None:
            x = known[-1] if self.ceiling is not None else known[0]
        as_word(x, known, "x")
        models = [name for name in self.scores if name != x]
        if not models:
            raise ValueError(
                f"there is nothing to draw {x!r} against: give a second model or a ceiling."
            )
        return x, models

    def _scatter(self, x: str, models: list[str], dots: dict[str, Any]) -> None:
        ax, known = self.ax_, dict(self.scores)
        if self.ceiling is not None:
            known[self.ceiling_name] = self.ceiling
        across = np.concatenate(list(known[x].values()))
        every = [across]
        for name in models:
            every.append(np.concatenate(list(self.scores[name].values())))
            ax.scatter(across, every[-1], label=name, **{"color": self.colors[name], **dots})
        same_axes(ax, np.concatenate(every))
        if len(models) > 1:
            legend_above(ax)
        whose = "model" if len(models) > 1 else models[0]
        ax.set(xlabel=f"{x}: {self.metric}", ylabel=f"{whose}: {self.metric}")
