"""Curves over manipulated images, with what shuffled pairs give and the images as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from v1tlearn._models import by_text
from v1tlearn._options import as_word
from v1tlearn.inspection._drawing import axes_for, legend_above
from v1tlearn.inspection.alignment._ranks import MEAN, MEASURES
from v1tlearn.inspection.alignment.manipulations import manipulation_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from v1tlearn.trials import Trials

_NAME = "ManipulationDisplay"
_LABELS = {
    "top1": "images found (top-1)",
    "reciprocal_rank": "mean reciprocal rank",
    "two_way": "told from one other",
    "similarity": "cosine of pairs",
}
_COLOR = "#0072b2"


class ManipulationDisplay:
    """How well manipulated images are found, an axes per manipulation.

    `from_estimator` makes one of a fitted alignment.

    Parameters
    ----------
    curves : dict of str to Dataset
        From `manipulation_curve`, by what they are called.
    measure : {"top1", "reciprocal_rank", "two_way", "similarity"}, default="top1"
    mouse : str, default="mean"
        Whose curves; by default the mean over mice.

    Attributes
    ----------
    axes_ : ndarray of shape (n_curves,)
        After `plot`.
    ax_ : Axes
        The first of them.
    figure_ : Figure

    Raises
    ------
    ValueError
        If there is no curve, or the measure or mouse is unknown.

    See Also
    --------
    cutoff_of : Where a curve comes near to what the whole images reach.

    Examples
    --------
    >>> import v1tlearn as v1
    >>> from v1tlearn.inspection import ManipulationDisplay, manipulation_curve
    >>> trials = v1.Trials(v1.make_v1_recordings(
    ...     n_mice=1, n_neurons=20, n_trials=60, n_test_images=5, n_repeats=3,
    ...     image_shape=(16, 24), random_state=0))
    >>> est = v1.DINAAligner(max_epochs=2, map_size=(4, 6), map_channels=2, random_state=0)
    >>> est = est.fit(trials.sel(tier="train"))
    >>> curve = manipulation_curve(est, trials.sel(tier="test"), "low_pass", [1, 2, 4])
    >>> ManipulationDisplay({"low-pass": curve}, measure="two_way").mouse
    'mean'
    """

    def __init__(
        self, curves: Mapping[str, xr.Dataset], *, measure: str = "top1", mouse: str = MEAN
    ) -> None:
        self.curves = by_text("curves", curves)
        if not self.curves:
            raise ValueError("curves is empty: expected at least one.")
        self.measure, self.mouse = as_word(measure, MEASURES, "measure"), str(mouse)
        for name, curve in self.curves.items():
            known = curve["mouse"].values.tolist()
            if self.mouse not in known:
                raise ValueError(f"{name!r} has no mouse {self.mouse!r}: expected one of {known}.")

    @classmethod
    def from_estimator(
        cls,
        aligner: Any,
        trials: Trials,
        *,
        manipulations: Sequence[str] = ("low_pass", "high_pass"),
        measure: str = "top1",
        mouse: str = MEAN,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Compute curves, and draw.

        Parameters
        ----------
        aligner : DINAAligner
            Fitted.
        trials : Trials
            Of images that were not trained on.
        manipulations : sequence of str, default=("low_pass", "high_pass")
            As `manipulation_curve` takes them, with their default values.
        measure, mouse
            Of the display.
        ax
            Of `plot`.
        **options
            Of `manipulation_curve`.

        Returns
        -------
        ManipulationDisplay

        Raises
        ------
        TypeError, ValueError
            As `manipulation_curve`.
        NotFittedError
            Before `fit`.
        """
        names = [manipulations] if isinstance(manipulations, str) else list(manipulations)
        curves = {name: manipulation_curve(aligner, trials, name, **options) for name in names}
        return cls(curves, measure=measure, mouse=mouse).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the curves with their intervals.

        The dashed line is reached by the images as they are; the grey area is what shuffled pairs
        give, up to the level of the curve's intervals.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One per curve. A new figure by default.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If axes are not as many as curves.
        ImportError
            Without matplotlib, the extra `plot`.
        """
        n = len(self.curves)
        size = (3.4 * n + 0.4, 2.8)
        self.axes_, self.figure_ = axes_for(ax, n, _NAME, (1, n), size, sharey=True)
        self.ax_ = self.axes_[0]
        for axis, curve in zip(self.axes_, self.curves.values(), strict=True):
            self._draw(axis, curve.sel(measure=self.measure, mouse=self.mouse))
        self.ax_.set_ylabel(_LABELS[self.measure])
        if len(self.curves) > 1:
            for axis, name in zip(self.axes_, self.curves, strict=True):
                axis.set_title(name.replace("_", " "), fontsize="medium", loc="right")
        legend_above(self.ax_, lines_up=0)
        return self

    def _draw(self, axis: Axes, curve: xr.Dataset) -> None:
        at = curve["value"].values.astype(float)
        lowest = min(0.0, float(curve["control"].min()))
        whole = float(curve["unchanged"])
        axis.axhline(whole, color="0.3", lw=1, ls="--", label="as they are")
        axis.plot(at, curve["estimate"], "o-", color=_COLOR, lw=1.5, ms=4, label="manipulated")
        axis.fill_between(at, curve["low"], curve["high"], color=_COLOR, alpha=0.25, lw=0)
        control = np.maximum(curve["control_high"].values, lowest)
        axis.fill_between(at, lowest, control, color="0.8", lw=0, label="shuffled")
        attrs = curve["value"].attrs
        share = attrs["units"] == "1"
        if not share and (at > 0).all():
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
        unit = "" if share else f"\n({attrs['units']})"
        axis.set_xlabel(f"{attrs['long_name']}{unit}")
        axis.spines[["top", "right"]].set_visible(False)
