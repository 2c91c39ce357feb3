"""Scores of neurons with small against large values of some behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import xarray as xr

from v1tlearn._models import by_text
from v1tlearn.inspection._drawing import axes_for, same_axes
from v1tlearn.inspection._metrics import LABELS
from v1tlearn.inspection.behavior.performance import performance_by_behavior
from v1tlearn.inspection.colors import MODEL_COLORS
from v1tlearn.trials import Trials

_NAME = "BehaviorPerformanceDisplay"
_GROUPS = {2: "half", 3: "third", 4: "quarter", 5: "fifth"}


class BehaviorPerformanceDisplay:
    """A dot per neuron: its score in the group of the smallest values against the largest.

    `from_estimator` makes one of a fitted model.

    Parameters
    ----------
    performance : dict of str to Dataset
        From `performance_by_behavior`.

    Attributes
    ----------
    axes_ : ndarray of shape (n_mice,)
        After `plot`.
    ax_ : Axes
        The first of them.
    figure_ : Figure

    Raises
    ------
    ValueError
        If there are none.

    References
    ----------
    Li et al., 2023, Fig. A.4.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import BehaviorPerformanceDisplay, performance_by_behavior
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=5, n_trials=40, n_test_images=10, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> model = v1.LNRegressor(hidden_channels=4, batch_size=16, max_epochs=2, random_state=0)
    >>> model = model.fit(trials.sel(tier="train"))
    >>> found = performance_by_behavior(model, trials.sel(tier="test"))
    >>> list(BehaviorPerformanceDisplay(found).performance)
    ['A']
    """

    def __init__(self, performance: Mapping[str, xr.Dataset]) -> None:
        self.performance = by_text("performance", performance)
        if not self.performance:
            raise ValueError("performance is empty: expected that of at least one mouse.")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        trials: Trials,
        column: str = "pupil_dilation",
        *,
        ax: Any = None,
        scatter_kw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Score neurons, and draw.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        trials : Trials
            With responses and behaviour.
        column : str, default="pupil_dilation"
        ax, scatter_kw
            Of `plot`.
        **options
            Of `performance_by_behavior`.

        Returns
        -------
        BehaviorPerformanceDisplay

        Raises
        ------
        TypeError, ValueError
            As `performance_by_behavior`.
        NotFittedError
            Before `fit`.
        """
        found = performance_by_behavior(estimator, trials, column, **options)
        return cls(found).plot(ax, scatter_kw=scatter_kw)

    def plot(self, ax: Any = None, *, scatter_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw a dot per neuron, both axes alike, the means and the line where scores are equal.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One per mouse. A new figure by default.
        scatter_kw : dict, optional
            Of the dots, as `matplotlib.axes.Axes.scatter` takes it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If axes are not as many as mice.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n = len(self.performance)
        columns = min(n, 4)
        rows = -(-n // columns)
        size = (3.0 * columns + 0.3, 3.3 * rows)
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (rows, columns), size)
        self.ax_ = self.axes_[0]
        for place, (axis, (mouse, own)) in enumerate(
            zip(self.axes_, self.performance.items(), strict=True)
        ):
            first, last = own["score"].values[[0, -1]]
            crowd = 0.5 if len(first) <= 500 else 0.15
            style = {"s": 14, "alpha": crowd, "linewidths": 0, "color": MODEL_COLORS["CNN"]}
            axis.scatter(first, last, **style | dict(scatter_kw or {}))
            same_axes(axis, np.concatenate([first, last]))
            axis.plot(np.nanmean(first), np.nanmean(last), "o", color="black", ms=7, label="mean")
            group = _GROUPS.get(own.sizes["group"], "group")
            name = own.attrs.get("column", "behaviour").replace("_", " ")
            metric = own.attrs.get("metric", "score")
            what = LABELS.get(metric, metric.replace("_", " "))
            axis.set_xlabel(f"smallest {group} of {name}")
            if place % columns == 0:
                axis.set_ylabel(f"{what},\nlargest {group}")
            gain = float(own["improvement"])
            axis.set_title(f"mouse {mouse}: {gain:+.0%} on average", fontsize="medium")
        return self
