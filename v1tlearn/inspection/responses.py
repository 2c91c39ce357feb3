"""Predicted against recorded responses, on the same axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from v1tlearn._models import by_text, named_models
from v1tlearn._values import as_responses
from v1tlearn.inspection._drawing import legend_above, only_axes, same_axes
from v1tlearn.inspection._predictions import models_alike, one_mouse
from v1tlearn.inspection._repeats import mean_by_image
from v1tlearn.inspection.colors import figure_colors
from v1tlearn.trials import Responses, Trials
from v1tlearn.trials.folding import fold_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "PredictionDisplay"


class PredictionDisplay:
    """Predicted against recorded responses: recorded to the right, predicted upwards, one scale.

    `from_estimator` makes one of fitted models, `from_predictions` of what they predicted.

    Parameters
    ----------
    recorded : array of shape (n,)
        Recorded responses in their unit; NaN where not recorded.
    predicted : dict of str to array of shape (n,)
        Per model its predictions of them.
    units : str, default="a.u."
        Of both.
    title : str, default=""
        Whose responses they are.
    colors : dict of str to str, optional
        Per model; by default those of `model_color`.

    Attributes
    ----------
    ax_ : Axes
        After `plot`.
    figure_ : Figure

    Raises
    ------
    ValueError
        If there is no model, or as many predictions as responses did not come.

    Examples
    --------
    >>> from v1tlearn.inspection import PredictionDisplay
    >>> display = PredictionDisplay([0.0, 1.0, 4.0], {"CNN": [0.5, 1.5, 3.0]}, units="spikes")
    >>> sorted(display.predicted)
    ['CNN']
    """

    def __init__(
        self,
        recorded: Any,
        predicted: Mapping[str, Any],
        *,
        units: str = "a.u.",
        title: str = "",
        colors: Mapping[str, str] | None = None,
    ) -> None:
        self.recorded = _in_a_row(recorded, "recorded")
        self.predicted = {
            name: _in_a_row(values, f"predicted: {name!r}")
            for name, values in by_text("predicted", predicted).items()
        }
        if not self.predicted:
            raise ValueError("predicted is empty: expected at least one model.")
        for name, values in self.predicted.items():
            if len(values) != len(self.recorded):
                raise ValueError(
                    f"{name!r}: {len(values)} predictions came for {len(self.recorded)} recorded "
                    "responses."
                )
        self.units, self.title = units, title
        self.colors = dict(colors or figure_colors(self.predicted))

    @classmethod
    def from_estimator(
        cls,
        estimators: Any,
        trials: Trials,
        *,
        mouse_id: str | None = None,
        neuron: Any = None,
        average: bool = True,
        ax: Axes | None = None,
        scatter_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Predict trials with fitted models, and draw.

        Parameters
        ----------
        estimators : estimator, sequence of estimators or dict of str to estimator
            Fitted.
        trials : Trials
            With responses.
        mouse_id, neuron, average
            Of `from_predictions`.
        ax, scatter_kw
            Of `plot`.

        Returns
        -------
        PredictionDisplay
        """
        if not isinstance(trials, Trials):
            raise TypeError(
                f"trials is a {type(trials).__name__}: expected Trials; predictions go to "
                "PredictionDisplay.from_predictions."
            )
        mouse = one_mouse(trials, mouse_id)
        trials = trials.sel(mouse_id=mouse)
        predictions = {name: e.predict(trials) for name, e in named_models(estimators).items()}
        return cls.from_predictions(
            trials.responses,
            predictions,
            neuron=neuron,
            average=average,
            ax=ax,
            scatter_kw=scatter_kw,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: Responses,
        predictions: Responses | Mapping[str, Responses],
        *,
        mouse_id: str | None = None,
        neuron: Any = None,
        average: bool = True,
        ax: Axes | None = None,
        scatter_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw predictions against what was recorded, of one mouse.

        Parameters
        ----------
        y_true : Responses
            Recorded.
        predictions : Responses, or dict of str to Responses
            Of the same trials; per model where there are several.
        mouse_id : str, optional
            Whose responses; not needed where there is one mouse.
        neuron : optional
            Unit id of one neuron; without ids its place. By default all neurons are in one figure.
        average : bool, default=True
            A dot per image, or frame of a movie, the mean over its repeats; otherwise a dot per
            trial, or frame of a trial.
        ax, scatter_kw
            Of `plot`.

        Returns
        -------
        PredictionDisplay

        Raises
        ------
        TypeError, ValueError
            If these are no `Responses` of the same trials and neurons in the same order, or mouse
            or neuron are unknown.
        """
        models = models_alike(y_true, predictions, _NAME)
        mouse = one_mouse(y_true, mouse_id)
        if y_true.n_frames is not None:
            y_true = fold_time(y_true)
            models = {name: fold_time(values) for name, values in models.items()}
        recorded = _table(y_true, mouse, neuron)
        # means are over the same repeats
        tables = {
            name: np.where(np.isnan(recorded), np.nan, _table(model, mouse, neuron))
            for name, model in models.items()
        }
        if average:
            recorded = _means(recorded, y_true, mouse)
            tables = {name: _means(values, y_true, mouse) for name, values in tables.items()}
        title = f"Mouse {mouse}" + ("" if neuron is None else f", neuron {neuron}")
        units = str(y_true[mouse].attrs.get("units", "a.u."))
        display = cls(recorded, tables, units=units, title=title)
        return display.plot(ax, scatter_kw=scatter_kw)

    def plot(self, ax: Axes | None = None, *, scatter_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw a dot per response, both axes alike, and the line where they are equal.

        Parameters
        ----------
        ax : Axes, optional
            A new figure by default.
        scatter_kw : dict, optional
            Of the dots, as `matplotlib.axes.Axes.scatter` takes it.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib, the extra `plot`.
        """
        self.ax_, self.figure_ = only_axes(ax, _NAME, (4.0, 4.2))
        crowd = 0.5 if len(self.recorded) <= 500 else 0.15
        style = {"s": 18, "alpha": crowd, "linewidths": 0, **(scatter_kw or {})}
        for name, values in self.predicted.items():
            color = {"color": self.colors[name]}
            self.ax_.scatter(self.recorded, values, label=name, **color | style)
        same_axes(self.ax_, np.concatenate([self.recorded, *self.predicted.values()]))
        self.ax_.set(xlabel=f"recorded ({self.units})", ylabel=f"predicted ({self.units})")
        # the legend keeps the place between
        several = len(self.predicted) > 1
        self.ax_.set_title(self.title, pad=18 if several else None)
        if several:
            legend_above(self.ax_)
        return self


def _in_a_row(values: Any, name: str) -> np.ndarray:
    return as_responses(values, name).astype(float).reshape(-1)


def _table(responses: Responses, mouse: str, neuron: Any) -> np.ndarray:
    """Responses (trials, neurons) of one mouse, of one neuron where it is named."""
    if neuron is None:
        return responses.get(mouse)
    if np.ndim(neuron):
        raise ValueError(f"neuron={neuron!r}: expected the unit id of one neuron.")
    return responses.sel(mouse_id=mouse, neuron=neuron).get(mouse)


def _means(values: np.ndarray, responses: Responses, mouse: str) -> np.ndarray:
    """Means over the repeats of every image, (images * neurons,), of what was recorded."""
    images = responses.image_ids[responses.rows(mouse)[0]]
    _, number = np.unique(images, return_inverse=True)
    return mean_by_image(values, number)[0].ravel()
